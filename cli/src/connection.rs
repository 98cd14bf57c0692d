//! How the tools come to a broker: any ini file with a `[broker]` will do.
//!
//! A file of the whole system is checked as a whole, as every program does. One without the
//! system's sections needs no more than its broker.

use std::path::Path;
use std::sync::Arc;

use broker::config::{File, ProcessEnvironment};
use broker::{Broker, Policy, Topic, embedded, factory};
use model_server::process::{Common, Failure, Reason};
use model_server::settings::Settings;

/// The file that makes a directory the store of an embedded broker.
const STORE_FILE: &str = "forebay.db";
/// The sections that only the whole system has.
const SYSTEM: [&str; 4] = ["topics", "queue", "model", "app2"];
/// Where dead letters are, unless `[topics] dead_letters` says otherwise.
const DEAD_LETTERS: &str = "dead-letters";

/// What every tool takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct At {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Report as JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a tool needs to know of an ini file.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) broker: factory::Config,
    /// Where the dead letters are.
    pub(crate) dead_letters: Topic,
    /// The whole system's settings, where the file has them.
    pub(crate) system: Option<Settings>,
}

/// What becomes of an embedded store that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// There is nothing to see: that is told, and none is made.
    MustExist,
    /// It is made, for those who put something into it.
    MayBeMade,
}

impl Place {
    pub(crate) fn read(common: &Common) -> Result<Self, Failure> {
        Ok(Self::from_file(&File::read(&common.config, &ProcessEnvironment)?)?)
    }

    pub(crate) fn from_file(file: &File) -> broker::Result<Self> {
        if SYSTEM.iter().any(|section| file.has_section(section)) {
            let system = Settings::from_file(file)?;
            let (broker, dead_letters) =
                (system.broker.clone(), system.topics.dead_letters.clone());
            return Ok(Self { broker, dead_letters, system: Some(system) });
        }
        let broker = factory::Config::from_file(file)?;
        // Tools have no use for it, and yet a mistake in it is one.
        Policy::from_section(file.section("delivery"))?;
        file.finish()?;
        Ok(Self { broker, dead_letters: Topic::new(DEAD_LETTERS)?, system: None })
    }

    /// Connects. No policy of the file applies: tools put nothing aside.
    pub(crate) async fn connect(&self, store: Store) -> Result<Arc<dyn Broker>, Failure> {
        if store == Store::MustExist {
            self.require_store()?;
        }
        Ok(self.broker.clone().connect(Policy::default()).await?)
    }

    fn require_store(&self) -> Result<(), Failure> {
        let Some(directory) = self.missing_store() else { return Ok(()) };
        let problem = format!(
            "there is no store in {} yet: the first program that publishes makes it",
            directory.display()
        );
        Err(Failure::new(Reason::Config, problem))
    }

    /// The directory of an embedded store that was not made yet.
    pub(crate) fn missing_store(&self) -> Option<&Path> {
        let factory::Backend::Embedded(config) = &self.broker.backend else { return None };
        is_missing(config).then_some(config.directory.as_path())
    }
}

/// Whether an embedded store was not made yet. What is in the way of its directory is told by
/// opening it.
pub(crate) fn is_missing(config: &embedded::Config) -> bool {
    !config.directory.is_file() && !config.directory.join(STORE_FILE).exists()
}

/// How many messages there are from one offset to another; none on Redis, whose offsets are made
/// of times. Elsewhere what compaction and transactions leave as gaps is counted too.
pub(crate) fn count(broker: &Arc<dyn Broker>, from: u64, to: u64) -> Option<u64> {
    (broker.capabilities().backend != "redis").then(|| to.saturating_sub(from))
}

/// Reads the file and connects to what is there.
pub(crate) async fn connect(common: &Common) -> Result<Arc<dyn Broker>, Failure> {
    Place::read(common)?.connect(Store::MustExist).await
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;

    fn read(text: &str) -> broker::Result<Place> {
        let environment: HashMap<&str, &str> = HashMap::new();
        Place::from_file(&File::parse(Path::new("test.ini"), text, &environment)?)
    }

    const BROKER: &str = "[broker]\nkind = embedded\n[embedded]\ndirectory = store\n";

    #[test]
    fn a_file_with_no_more_than_a_broker_will_do() {
        let place = read(BROKER).unwrap();
        assert!(place.system.is_none());
        assert_eq!(place.dead_letters.as_str(), "dead-letters");
        read(&format!("{BROKER}[delivery]\nattempts = 9\n")).unwrap();
        assert!(read(&format!("{BROKER}[delivery]\nattempts = 0\n")).is_err());
    }

    #[test]
    fn a_file_of_the_whole_system_is_checked_as_a_whole() {
        let topics = format!("{BROKER}[topics]\ndead_letters = morgue\n");
        assert!(read(&topics).unwrap_err().to_string().contains("[key: path]"));
        let place = read(&format!("{topics}[model]\npath = cnn.onnx\n")).unwrap();
        assert_eq!(place.dead_letters.as_str(), "morgue");
        let error = read(&format!("{BROKER}[brokr]\nx = 1\n")).unwrap_err().to_string();
        assert!(error.contains("unknown section"), "{error}");
    }

    #[test]
    fn a_store_that_is_not_there_is_told_of_and_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let place = read(&BROKER.replace("= store", &format!("= {}", store.display()))).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let failure = runtime.block_on(place.connect(Store::MustExist)).unwrap_err();
        assert!(failure.to_string().contains("no store"), "{failure}");
        assert!(!store.exists());
        runtime.block_on(place.connect(Store::MayBeMade)).unwrap();
        assert_eq!(place.missing_store(), None);
        runtime.block_on(place.connect(Store::MustExist)).unwrap();
    }
}
