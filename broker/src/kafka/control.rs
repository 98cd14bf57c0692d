//! Questions to the cluster, asked with a client that belongs to no group.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::Metadata;

use super::config::Config;
use super::error::{from_code, translate};
use super::log::LogContext;
use super::start::ASK_TIMEOUT;
use crate::error::{Error, ErrorKind, Result};
use crate::name::Topic;

impl ConsumerContext for LogContext {}

pub(super) type Client = BaseConsumer<LogContext>;

/// Runs what waits for the network on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let panicked = |error| {
        Error::new(ErrorKind::Unexpected, operation, "a background task failed").with_source(error)
    };
    tokio::task::spawn_blocking(work).await.map_err(panicked)?
}

/// Throws away the events of a client that nobody polls, so that they don't pile up, and
/// returns the last error among them.
pub(super) fn drain(client: &Client) -> Option<KafkaError> {
    let mut last = None;
    while let Some(event) = client.poll(Duration::ZERO) {
        last = event.err().or(last);
    }
    last
}

/// The client, shared by all questions.
#[derive(Clone)]
pub(super) struct Control {
    client: Arc<Client>,
    servers: Arc<str>,
}

impl Control {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let client = config.control().create_with_context(LogContext);
        let client = client.map_err(|error| translate("connect", error))?;
        Ok(Self { client: Arc::new(client), servers: config.servers.as_str().into() })
    }

    /// Asks a blocking question off the runtime's own threads.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        operation: &'static str,
        question: impl FnOnce(&Client) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T> {
        let client = self.client.clone();
        blocking(operation, move || {
            drain(&client);
            question(&client).map_err(|error| translate(operation, error))
        })
        .await
    }

    /// Fails with `Unavailable`, naming the servers, where none answers in time, and with what
    /// a broker said where one refused.
    pub(super) async fn ping(&self, operation: &'static str, timeout: Duration) -> Result<()> {
        let (client, servers) = (self.client.clone(), self.servers.clone());
        blocking(operation, move || {
            // Any name will do, and asking for this one makes no topic.
            match client.fetch_metadata(Some("__consumer_offsets"), timeout) {
                Ok(_) => Ok(()),
                Err(error) => Err(unanswered(operation, error, drain(&client), &servers)),
            }
        })
        .await
    }

    /// The numbers of a topic's partitions; `NotFound` where there is no such topic.
    pub(super) async fn partitions(
        &self,
        operation: &'static str,
        topic: &Topic,
    ) -> Result<Vec<u32>> {
        let name = topic.clone();
        let metadata = self
            .ask(operation, move |client| client.fetch_metadata(Some(name.as_str()), ASK_TIMEOUT));
        let known = read_partitions(operation, &metadata.await?, topic)?;
        Ok(known.into_iter().map(|(number, _)| number).collect())
    }

    /// Waits until each partition of a topic has a leader.
    pub(super) async fn await_leaders(&self, operation: &'static str, topic: &Topic) -> Result<()> {
        loop {
            let name = topic.clone();
            let metadata = self.ask(operation, move |client| {
                client.fetch_metadata(Some(name.as_str()), ASK_TIMEOUT)
            });
            match read_partitions(operation, &metadata.await?, topic) {
                Ok(known) if known.iter().all(|(_, has_leader)| *has_leader) => return Ok(()),
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Waits until a deleted topic is gone.
    pub(super) async fn await_absence(&self, operation: &'static str, topic: &Topic) -> Result<()> {
        loop {
            match self.partitions(operation, topic).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Why nobody answered: refused for a reason, or not reached.
fn unanswered(
    operation: &'static str,
    error: KafkaError,
    reason: Option<KafkaError>,
    servers: &str,
) -> Error {
    let refused = reason.map(|reason| translate(operation, reason));
    match refused.filter(|refused| refused.kind() == ErrorKind::PermissionDenied) {
        Some(refused) => refused.with("servers", servers),
        None => Error::new(ErrorKind::Unavailable, operation, "no broker answers")
            .with("servers", servers)
            .with_source(error),
    }
}

/// Each partition with whether it has a leader.
fn read_partitions(
    operation: &'static str,
    metadata: &Metadata,
    topic: &Topic,
) -> Result<Vec<(u32, bool)>> {
    let missing = || {
        Error::new(ErrorKind::NotFound, operation, "there is no such topic").with("topic", topic)
    };
    let found = metadata.topics().iter().find(|found| found.name() == topic.as_str());
    let found = found.ok_or_else(missing)?;
    if let Some(error) = found.error() {
        let error = from_code(operation, error.into()).with("topic", topic);
        return Err(if error.kind() == ErrorKind::NotFound { missing() } else { error });
    }
    let partitions = found.partitions().iter();
    let mut known: Vec<(u32, bool)> =
        partitions.map(|p| (u32::try_from(p.id()).unwrap_or(0), p.leader() >= 0)).collect();
    known.sort_unstable();
    Ok(known)
}
