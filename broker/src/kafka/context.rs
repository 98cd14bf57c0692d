//! What librdkafka calls back for a consumer. It only takes notes for the consumer's thread.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::log;
use super::oauth::Tokens;

/// A change of the assignment that the group's leader decided.
pub(super) enum Change {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

/// The notes.
#[derive(Default)]
pub(super) struct Context {
    changes: Mutex<VecDeque<Change>>,
    /// Since when no broker is connected.
    down: Mutex<Option<Instant>>,
    /// The thread looks at `changes`.
    attended: AtomicBool,
    tokens: Tokens,
}

pub(super) type Client = BaseConsumer<Context>;

impl Context {
    pub(super) fn new(tokens: Tokens) -> Self {
        Self { tokens, ..Self::default() }
    }

    pub(super) fn next_change(&self) -> Option<Change> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn down_since(&self) -> Option<Instant> {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_down(&self, since: Option<Instant>) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Says whether the thread looks at the notes; otherwise partitions are given back at once.
    pub(super) fn attend(&self, attended: bool) {
        self.attended.store(attended, Ordering::Release);
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        self.tokens.read()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log::record(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log::record_error(&error, reason);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            let since = self.down_since().unwrap_or_else(Instant::now);
            self.set_down(Some(since));
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &Client, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let is_assign = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if !self.attended.load(Ordering::Acquire) {
            // The client is closing: what was settled is committed already.
            return note(give_back(consumer, list, is_assign), "give partitions back");
        }
        let change =
            if is_assign { Change::Assign(list.clone()) } else { Change::Revoke(list.clone()) };
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push_back(change);
    }
}

/// Logs a failure that nobody can act on.
pub(super) fn note(result: KafkaResult<()>, what: &'static str) {
    if let Err(error) = result {
        tracing::warn!(%error, "could not {what}");
    }
}

pub(super) fn is_cooperative(consumer: &Client) -> bool {
    matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative)
}

/// Answers a change so that the consumer has none of its partitions.
pub(super) fn give_back(
    consumer: &Client,
    list: &TopicPartitionList,
    is_assign: bool,
) -> KafkaResult<()> {
    let given = match (is_cooperative(consumer), is_assign) {
        (true, true) => consumer.incremental_assign(&TopicPartitionList::new()),
        (true, false) => consumer.incremental_unassign(list),
        (false, _) => consumer.unassign(),
    };
    await_stop(consumer);
    given
}

/// Waits until librdkafka has stopped the partitions that it was just told to let go. A partition
/// that is assigned and let go again before that makes it abort the process (2.12.1,
/// `rd_kafka_assignment_partition_stopped`).
///
/// Its main thread serves one queue in order: by the answer to a first question the partitions are
/// stopped, by the answer to a second it has taken note of that.
pub(super) fn await_stop(consumer: &Client) {
    for _ in 0..2 {
        // Only the wait counts; a client that is going away answers nothing.
        let _ = consumer.assignment();
    }
}
