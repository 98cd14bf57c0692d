//! The producer of a consumer's transactions: messages and the group's new positions become
//! visible together.
//!
//! Everything is handed over when the transaction is committed, so that it is open for no
//! longer than it takes to write it, and one that is given up before has left no trace. An
//! error that may pass is tried again within a bound. Where that bound is reached after the
//! commit was asked for, its outcome is unknown, and only the group's position tells.

use std::error::Error as StdError;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{
    BaseProducer, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use rdkafka::{ClientContext, TopicPartitionList};

use super::config::Config;
use super::error::{from_code, translate};
use super::oauth::Tokens;
use super::{log, producer};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

/// How long one call waits before the bound of the whole is looked at.
const CALL_MAX: Duration = Duration::from_secs(5);
/// How long a sender waits for room in a full queue.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Positions that a transaction commits, and the membership that entitles it to.
pub(super) struct Positions {
    pub(super) list: TopicPartitionList,
    pub(super) membership: ConsumerGroupMetadata,
}

/// What a failure means for what was to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing of it is visible, nor ever will be.
    Undone,
    /// The same, but the producer can't be used any more.
    Broken,
    /// It may be visible, now or later.
    Unknown,
}

/// A transaction that was not committed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) verdict: Verdict,
}

/// The first message that was refused.
struct Refusal {
    first: Mutex<Option<Error>>,
    tokens: Tokens,
}

impl Refusal {
    fn take(&self) -> Option<Error> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Refusal {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        self.tokens.read()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log::record(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log::record_error(&error, reason);
    }
}

impl ProducerContext for Refusal {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        use rdkafka::message::Message as _;
        if let Err((error, message)) = result {
            let error = translate("commit", error.clone()).with("topic", message.topic());
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}

pub(super) struct Transactor {
    native: BaseProducer<Refusal>,
    /// How long what may pass is tried again.
    patience: Duration,
    message_bytes_max: usize,
}

impl Transactor {
    /// Connects, fences whoever used the name before and ends what that one left open.
    pub(super) fn new(config: &Config, id: &str) -> Result<Self> {
        let failed = |error| translate("transaction", error).with("transactional.id", id);
        let refusal = Refusal { first: Mutex::new(None), tokens: config.tokens() };
        let native = config.transactor(id).create_with_context(refusal);
        let native: BaseProducer<Refusal> = native.map_err(failed)?;
        // Polling gets it its first token.
        native.poll(Duration::ZERO);
        let patience = config.transaction_timeout + config.outage_max;
        let until = Instant::now() + patience;
        insist(until, || native.init_transactions(CALL_MAX)).map_err(failed)?;
        Ok(Self { native, patience, message_bytes_max: config.message_bytes_max })
    }

    /// Writes everything and makes it visible at once.
    pub(super) fn commit(
        &self,
        messages: &[(Topic, Vec<Message>)],
        positions: Option<&Positions>,
    ) -> Result<(), Failure> {
        let until = Instant::now() + self.patience;
        self.native.poll(Duration::ZERO);
        self.native.context().take();
        if let Err(error) = self.native.begin_transaction() {
            return Err(self.failure(self.cause(error), true));
        }
        match self.fill(messages, positions, until) {
            Ok(()) => self.finish(until),
            Err(error) => {
                // A message that was refused is the cause of what failed after it.
                self.native.poll(Duration::ZERO);
                let error = self.native.context().take().unwrap_or(error);
                let is_undone = self.abort(until);
                Err(self.failure(error, is_undone))
            }
        }
    }

    fn fill(
        &self,
        messages: &[(Topic, Vec<Message>)],
        positions: Option<&Positions>,
        until: Instant,
    ) -> Result<()> {
        for (topic, batch) in messages {
            for message in batch {
                self.send(topic, message, until)?;
            }
        }
        if let Some(Positions { list, membership }) = positions {
            let native = &self.native;
            let sent =
                insist(until, || native.send_offsets_to_transaction(list, membership, CALL_MAX));
            sent.map_err(|error| self.cause(error))?;
        }
        let left = until.saturating_duration_since(Instant::now());
        let flushed = self.native.flush(left);
        match self.native.context().take() {
            Some(refused) => Err(refused),
            None => flushed.map_err(|error| self.cause(error)),
        }
    }

    /// Queues one message; waits while the queue is full.
    fn send(&self, topic: &Topic, message: &Message, until: Instant) -> Result<()> {
        let mut record = producer::record(topic, message, (), self.message_bytes_max)?;
        loop {
            let (error, back) = match self.native.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !is_full || Instant::now() >= until {
                return Err(self.cause(error).with("topic", topic));
            }
            self.native.poll(FULL_PAUSE);
            record = back;
        }
    }

    fn finish(&self, until: Instant) -> Result<(), Failure> {
        let Err(error) = insist(until, || self.native.commit_transaction(CALL_MAX)) else {
            return Ok(());
        };
        let requires_abort = is(&error, |error| error.txn_requires_abort());
        let error = self.cause(error);
        if requires_abort {
            let is_undone = self.abort(until);
            return Err(self.failure(error, is_undone));
        }
        Err(Failure { error, verdict: Verdict::Unknown })
    }

    /// Gives everything up. The brokers do so by themselves where this fails, after a while.
    fn abort(&self, until: Instant) -> bool {
        // The abort would wait for the reports of messages, and has nobody to take them.
        self.native.purge(PurgeConfig::default().queue());
        let flushed = self.native.flush(CALL_MAX);
        let aborted =
            flushed.and_then(|()| insist(until, || self.native.abort_transaction(CALL_MAX)));
        if let Err(error) = &aborted {
            tracing::debug!(%error, "a transaction is left to be given up by the brokers");
        }
        aborted.is_ok()
    }

    fn failure(&self, error: Error, is_undone: bool) -> Failure {
        let is_fatal = self.native.client().fatal_error().is_some();
        let verdict = if is_undone && !is_fatal { Verdict::Undone } else { Verdict::Broken };
        Failure { error, verdict }
    }

    fn cause(&self, error: KafkaError) -> Error {
        // The cause of a fatal error tells more than that there was one.
        if let Some((code, reason)) = self.native.client().fatal_error() {
            return from_code("commit", code).with("reason", reason);
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::IllegalGeneration | RDKafkaErrorCode::StaleMemberEpoch) => {
                let problem = "the group's members changed meanwhile, and nothing was committed";
                Error::new(ErrorKind::Unavailable, "commit", problem).with_source(error)
            }
            _ => translate("commit", error),
        }
    }
}

/// Calls until it succeeds, or fails for good, or time is up.
fn insist(until: Instant, call: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    loop {
        match call() {
            Err(error) if is(&error, |error| error.is_retriable()) && Instant::now() < until => {
                tracing::debug!(%error, "a step of a transaction is tried again");
            }
            other => return other,
        }
    }
}

fn is(error: &KafkaError, what: impl Fn(&rdkafka::error::RDKafkaError) -> bool) -> bool {
    matches!(error, KafkaError::Transaction(error) if what(error))
}
