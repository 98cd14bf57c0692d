//! A look at everything that a file names, without changing any of it.

use std::path::{Path, PathBuf};

use broker::{Durability, Policy, embedded, factory};
use model_server::process::{Failure, Reason};
use model_server::queue::{Config as Queue, Kind};
use model_server::settings::Settings;
use model_server::subscriber::Classifier;
use modelling::Checkpoint;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, access};

use super::Finding;
use crate::connection::{self, Place};

/// Connects and asks the broker whether it answers, and for its topics.
pub(super) async fn broker(place: &Place) -> Finding {
    let kind = place.broker.kind();
    let found = match place.missing_store() {
        Some(directory) => can_be_made(directory).map(|()| to_be_made(directory)),
        None => answers(place.broker.clone()).await,
    };
    // Where the kind's section says nothing of an address, it names the section all the same.
    let key = if kind == "embedded" { "directory" } else { "" };
    finding("broker", kind, key, found)
}

async fn answers(config: factory::Config) -> Result<String, Failure> {
    let kind = config.kind();
    let broker = config.connect(Policy::default()).await?;
    broker.health().await?;
    let topics = broker.admin().list().await?.len();
    let survives = match broker.capabilities().durability {
        Durability::Memory => "are in memory alone",
        Durability::Process => "survive the server's process",
        Durability::Disk => "survive a loss of power",
        Durability::Replicas => "survive a server, by its replicas",
    };
    broker.shutdown().await?;
    Ok(format!("{kind} answers and has {topics} topics; its messages {survives}"))
}

/// The queue, where it is not in the broker.
pub(super) async fn queue(system: &Settings) -> Option<Finding> {
    let Queue { kind, .. } = &system.queue;
    match kind {
        Kind::Broker => None,
        Kind::Embedded(config) => {
            let directory = &config.directory;
            let found = match connection::is_missing(config) {
                true => can_be_made(directory).map(|()| to_be_made(directory)),
                false => opens(config).await,
            };
            Some(finding("queue", "embedded", "directory", found))
        }
        _ => {
            let health = system.queue.health().await.map_err(Failure::from);
            Some(finding("queue", "queue", "url", health.map(|()| "redis answers".to_owned())))
        }
    }
}

async fn opens(config: &embedded::Config) -> Result<String, Failure> {
    embedded::open(config.clone()).await?.shutdown().await?;
    Ok(format!("{} is a store", config.directory.display()))
}

/// Loads the model as the model server does.
pub(super) fn model(system: &Settings) -> Finding {
    let model = &system.model;
    let path = model.options.file(&model.path);
    let load = || {
        let checkpoint = Checkpoint::open(&path)?;
        let loaded = modelling::load(&checkpoint, &model.options)?;
        Classifier::new(&checkpoint, loaded.signature(), model.labels, "check")
    };
    let loaded = load().map_err(|error| Failure::start("cannot serve the model", error));
    finding("model", "model", "path", loaded.map(|_| format!("{} serves", path.display())))
}

/// Looks into app2's database, or at the place where it will be.
pub(super) fn database(system: &Settings) -> Finding {
    let path = &system.database;
    let found = match path.exists() {
        true => is_database(path).map(|()| format!("{} is a database", path.display())),
        false => can_be_made(path).map(|()| to_be_made(path)),
    };
    finding("database", "app2", "database", found)
}

fn is_database(path: &Path) -> Result<(), Failure> {
    let opened = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let tables = opened.and_then(|database| {
        database.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
    });
    let unusable = |error| Failure::start(format!("cannot use {}", path.display()), error);
    tables.map(drop).map_err(unusable)
}

/// Whether the nearest directory that is there lets things be made in it.
fn can_be_made(path: &Path) -> Result<(), Failure> {
    // An empty parent is the directory that the programs are started in.
    let there = path.ancestors().skip(1).map(|it| match it.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => it.to_owned(),
    });
    let nearest = there.into_iter().find(|ancestor| ancestor.exists());
    let nearest = nearest.unwrap_or_else(|| PathBuf::from("."));
    let cannot = |problem: String| {
        Failure::new(Reason::Config, format!("cannot make {}", path.display())).because(problem)
    };
    if !nearest.is_dir() {
        return Err(cannot(format!("{} is a file", nearest.display())));
    }
    access(&nearest, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| cannot(format!("{}: {error}", nearest.display())))
}

fn to_be_made(path: &Path) -> String {
    format!("{} is not there yet and can be made", path.display())
}

fn finding(
    check: &'static str,
    section: &str,
    key: &str,
    found: Result<String, Failure>,
) -> Finding {
    match found {
        Ok(message) => Finding::ok(check, message),
        Err(failure) => Finding::problem(check, section, key, &failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_yet_is_told_by_its_nearest_directory() {
        let directory = tempfile::tempdir().unwrap();
        can_be_made(&directory.path().join("a/b/c")).unwrap();
        can_be_made(Path::new("a/b")).unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let problem = can_be_made(&file.join("a/b")).unwrap_err().to_string();
        assert!(problem.contains("file is a file"), "{problem}");
    }

    #[test]
    fn a_database_is_told_from_noise() {
        let directory = tempfile::tempdir().unwrap();
        let sound = directory.path().join("sound.db");
        Connection::open(&sound).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        is_database(&sound).unwrap();
        let noise = directory.path().join("noise.db");
        std::fs::write(&noise, [7; 5000]).unwrap();
        let failure = is_database(&noise).unwrap_err();
        assert_eq!(failure.reason(), Reason::Start);
        assert!(failure.to_string().contains("noise.db"), "{failure}");
    }
}
