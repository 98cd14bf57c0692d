//! Questions to the cluster, asked with a client that belongs to no group.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{ClientConfig, ClientContext};

use super::config::Config;
use super::error::{from_code, translate};
use super::oauth::Tokens;
use super::start::ASK_TIMEOUT;
use super::{log, native};
use crate::error::{Error, ErrorKind, Result};
use crate::name::Topic;

/// How long to wait for an answer before looking for a refusal.
const LOOK: Duration = Duration::from_millis(200);

/// Notes why brokers were refused, or refused the client: the errors that calls return tell
/// nothing of it.
pub(super) struct Notes {
    refusal: Mutex<Option<(KafkaError, String)>>,
    tokens: Tokens,
}

impl Notes {
    pub(super) fn new(tokens: Tokens) -> Self {
        Self { refusal: Mutex::new(None), tokens }
    }

    fn refusal(&self) -> MutexGuard<'_, Option<(KafkaError, String)>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Notes {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        self.tokens.read()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log::record(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log::record_error(&error, reason);
        // A broker that refuses the client's certificate says so only after the handshake.
        let is_alert = reason.contains("SSL alert number");
        let error = if is_alert { KafkaError::Global(RDKafkaErrorCode::SSL) } else { error };
        if translate("connect", error.clone()).kind() == ErrorKind::PermissionDenied {
            *self.refusal() = Some((error, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Notes {}

pub(super) type Client = BaseConsumer<Notes>;

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

/// Serves the events of a client that nobody polls, so that they don't pile up.
pub(super) fn drain(client: &Client) {
    while client.poll(Duration::ZERO).is_some() {}
}

/// The client, shared by all questions.
#[derive(Clone)]
pub(super) struct Control {
    client: Arc<Client>,
    servers: Arc<str>,
    settings: Arc<ClientConfig>,
}

impl Control {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let settings = config.control();
        let client = settings.create_with_context(Notes::new(config.tokens()));
        let client = Arc::new(client.map_err(|error| translate("connect", error))?);
        let servers = config.servers.as_str().into();
        Ok(Self { client, servers, settings: Arc::new(settings) })
    }

    /// Asks a blocking question off the runtime's own threads.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        operation: &'static str,
        question: impl FnOnce(&Client) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T> {
        self.work(operation, move |client| {
            question(client).map_err(|error| translate(operation, error))
        })
        .await
    }

    /// Asks several questions, off the runtime's own threads.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Client) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let client = self.client.clone();
        blocking(operation, move || {
            drain(&client);
            work(&client)
        })
        .await
    }

    /// Fails with `Unavailable`, naming the servers, where none answers in time, and at once
    /// with the cause where the client or a broker was refused.
    pub(super) async fn ping(&self, operation: &'static str, timeout: Duration) -> Result<()> {
        let control = self.clone();
        blocking(operation, move || control.await_answer(operation, timeout)).await
    }

    fn await_answer(&self, operation: &'static str, timeout: Duration) -> Result<()> {
        let until = Instant::now() + timeout;
        *self.client.context().refusal() = None;
        loop {
            drain(&self.client);
            if let Some((error, reason)) = self.client.context().refusal().take() {
                return Err(self.refused(operation, error, reason));
            }
            let left = until.saturating_duration_since(Instant::now());
            // Any name will do, and asking for this one makes no topic.
            match self.client.fetch_metadata(Some("__consumer_offsets"), left.min(LOOK)) {
                Ok(_) => return Ok(()),
                Err(error) if left.is_zero() => {
                    let problem = "no broker answers";
                    let error =
                        Error::new(ErrorKind::Unavailable, operation, problem).with_source(error);
                    return Err(error.with("servers", &self.servers));
                }
                Err(_) => {}
            }
        }
    }

    fn refused(&self, operation: &'static str, error: KafkaError, reason: String) -> Error {
        let is_tls = error.rdkafka_error_code() == Some(RDKafkaErrorCode::SSL);
        let error = translate(operation, error).with("servers", &self.servers);
        let certificate = if is_tls { native::certificate_fault(&self.settings) } else { None };
        let error = error.with("reason", reason);
        match certificate {
            Some(fault) => error.with("certificate", fault),
            None => error,
        }
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
