//! Remembers how far a run got.
//!
//! The file is JSON: the run's id and the index of the next image. It is replaced as a whole,
//! synced before and after, so that a crash leaves the old one or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use broker::Timestamp;
use model_server::process::{Failure, Reason};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    run_id: String,
    next: u64,
}

/// How far a run got, in a file where one is wanted.
#[derive(Debug)]
pub(crate) struct Resume {
    path: Option<PathBuf>,
    progress: Progress,
}

impl Resume {
    /// Goes on with the run of the file at `path`, or begins one, called `run_id` where given.
    pub(crate) fn open(path: Option<&Path>, run_id: Option<&str>) -> Result<Self, Failure> {
        let fresh = || run_id.map_or_else(made_up, str::to_owned);
        let stored = path.map(load).transpose()?.flatten();
        if let (Some(stored), Some(wanted), Some(path)) = (&stored, run_id, path)
            && stored.run_id != wanted
        {
            let message = format!("{path:?} belongs to run {:?}, not {wanted:?}", stored.run_id);
            return Err(Failure::new(Reason::Start, message));
        }
        let is_new = stored.is_none();
        let progress = stored.unwrap_or_else(|| Progress { run_id: fresh(), next: 0 });
        let resume = Self { path: path.map(Path::to_owned), progress };
        if is_new {
            // Before anything is published: its ids must be found again after a crash.
            resume.save()?;
        }
        Ok(resume)
    }

    pub(crate) fn run_id(&self) -> &str {
        &self.progress.run_id
    }

    /// The index of the next image to publish.
    pub(crate) fn next(&self) -> u64 {
        self.progress.next
    }

    /// Remembers, durable when it returns, that all before `next` is published.
    pub(crate) fn remember(&mut self, next: u64) -> Result<(), Failure> {
        self.progress.next = next;
        self.save()
    }

    fn save(&self) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        replace(path, &self.progress).map_err(|error| {
            let full =
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let reason = if full { Reason::StorageFull } else { Reason::Start };
            Failure::new(reason, format!("cannot write the progress to {path:?}")).because(error)
        })
    }
}

fn load(path: &Path) -> Result<Option<Progress>, Failure> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::start(format!("cannot read the progress in {path:?}"), error));
        }
    };
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|error| {
        Failure::start(format!("{path:?} is no progress that app1 remembered"), error)
    })
}

fn replace(path: &Path, progress: &Progress) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let mut file = File::create(&fresh)?;
    file.write_all(&serde_json::to_vec(progress)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// A run's id that no other run has: two on one machine differ in time or process.
fn made_up() -> String {
    format!("{:x}-{:x}", Timestamp::now().as_micros(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_where_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("progress");
        let mut first = Resume::open(Some(&path), None).unwrap();
        let run_id = first.run_id().to_owned();
        // Its id is found again even if it dies before it publishes anything.
        assert_eq!(Resume::open(Some(&path), None).unwrap().run_id(), run_id);
        first.remember(512).unwrap();
        let again = Resume::open(Some(&path), Some(&run_id)).unwrap();
        assert_eq!((again.run_id(), again.next()), (run_id.as_str(), 512));
    }

    #[test]
    fn another_run_or_a_foreign_file_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("progress");
        for text in ["{\"run_id\":\"a\",\"next\":3}", "shopping list", "", "{\"next\":-1}"] {
            fs::write(&path, text).unwrap();
            let failure = Resume::open(Some(&path), Some("b")).unwrap_err();
            assert_eq!(failure.reason(), Reason::Start);
            assert!(failure.to_string().contains("progress"), "{failure}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let failure = Resume::open(Some(&directory.path().join("no/where")), None).unwrap_err();
        assert_eq!(failure.reason(), Reason::Start);
    }

    #[test]
    fn runs_without_a_file_have_ids_of_their_own() {
        let first = Resume::open(None, None).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_ne!(first.run_id(), Resume::open(None, None).unwrap().run_id());
        assert_eq!(Resume::open(None, Some("mine")).unwrap().run_id(), "mine");
    }
}
