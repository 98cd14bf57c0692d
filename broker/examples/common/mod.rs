//! What all examples run over: the broker of `--config FILE`, else an embedded one in a
//! temporary directory.

#![allow(dead_code, reason = "no example needs all of it")]

use std::path::Path;
use std::sync::Arc;

use broker::config::{File, ProcessEnvironment};
use broker::factory::Config;
use broker::layers::Delivery;
use broker::{Broker, Error, ErrorKind, Policy, Result, Timestamp, Topic, embedded};

/// A broker, with the directory that goes when it does.
pub(crate) struct Stage {
    pub(crate) broker: Arc<dyn Broker>,
    _directory: Option<tempfile::TempDir>,
}

impl Stage {
    /// Waits for what is under way.
    pub(crate) async fn close(self) -> Result<()> {
        self.broker.shutdown().await
    }
}

/// Connects to the broker that the command line asks for.
pub(crate) async fn connect() -> Result<Stage> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => {
            let directory = tempfile::tempdir().map_err(|error| wrong("no directory", error))?;
            let bare = embedded::open(embedded::Config::new(directory.path())).await?;
            let broker = Delivery::wrap(bare, Policy::default());
            Ok(Stage { broker, _directory: Some(directory) })
        }
        (Some("--config"), Some(path)) => {
            let file = File::read(Path::new(&path), &ProcessEnvironment)?;
            let broker = Config::from_file(&file)?.connect(Policy::default()).await?;
            Ok(Stage { broker, _directory: None })
        }
        _ => Err(wrong("unknown arguments", "usage: [--config FILE]")),
    }
}

/// A topic's name that no earlier run has used.
pub(crate) fn topic(name: &str) -> Result<Topic> {
    Topic::new(&format!("{name}-{:x}", Timestamp::now().as_micros()))
}

/// The error of a task that panicked.
pub(crate) fn ended(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Unexpected, "run example", "a task ended early").with_source(error)
}

fn wrong(problem: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::ConfigInvalid, "start example", problem).with_source(cause)
}
