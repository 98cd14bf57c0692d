//! What a consumer gets, and what it answers.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::message::Message;
use crate::name::Topic;

/// Where a message stands in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    partition: u32,
    offset: u64,
}

impl Position {
    /// A place in a partitioned log.
    pub const fn new(partition: u32, offset: u64) -> Self {
        Self { partition, offset }
    }

    /// The partition's number, from zero.
    pub const fn partition(self) -> u32 {
        self.partition
    }

    /// The message's place in the partition, from zero.
    pub const fn offset(self) -> u64 {
        self.offset
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// One message of a fetched batch: cloning counts a reference and copies nothing.
#[derive(Clone)]
pub(crate) struct Shared {
    batch: Arc<[Message]>,
    index: usize,
}

impl Shared {
    pub(crate) fn all(batch: Vec<Message>) -> impl Iterator<Item = Self> {
        let batch: Arc<[Message]> = batch.into();
        (0..batch.len()).map(move |index| Self { batch: batch.clone(), index })
    }
}

impl Deref for Shared {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.batch[self.index]
    }
}

/// A message on loan: it comes again unless its token is settled in time.
///
/// Dereferences to its [`Message`].
pub struct Delivery {
    token: AckToken,
}

impl Delivery {
    pub(crate) fn new(token: AckToken) -> Self {
        Self { token }
    }

    /// The topic it came from.
    pub fn topic(&self) -> &Topic {
        &self.token.topic
    }

    /// Where it stands in the topic.
    pub fn position(&self) -> Position {
        self.token.position
    }

    /// Which delivery of this message this is, from 1. Deliveries before a crash are
    /// counted where [`Capabilities::attempts`](crate::Capabilities::attempts) is `Durable`.
    pub fn attempt(&self) -> u32 {
        self.token.attempt
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.token.message
    }

    /// The token, for [`Consumer::extend`](crate::Consumer::extend).
    pub fn token(&self) -> &AckToken {
        &self.token
    }

    /// Gives up the delivery for the token that settles it.
    pub fn into_token(self) -> AckToken {
        self.token
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.token.message
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.token, f)
    }
}

/// The right to settle one delivery, once: it is consumed by value.
///
/// It holds the message (by reference count), so that a rejection carries the original
/// bytes to the dead letters without any bookkeeping.
pub struct AckToken {
    pub(crate) topic: Topic,
    pub(crate) position: Position,
    pub(crate) attempt: u32,
    /// Which assignment of the partition delivered it; settling under another is stale.
    pub(crate) assignment: u64,
    pub(crate) message: Shared,
}

impl AckToken {
    /// The topic of the delivery.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The place of the delivery.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Which delivery of the message it was, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The message that was delivered.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// A second token for a layer that tries to settle in one way and may need another.
    pub(crate) fn duplicate(&self) -> Self {
        let (topic, message) = (self.topic.clone(), self.message.clone());
        let Self { position, attempt, assignment, .. } = *self;
        Self { topic, position, attempt, assignment, message }
    }
}

impl fmt::Debug for AckToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} attempt {}", self.topic, self.position, self.attempt)
    }
}

/// What a consumer says of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done; it does not come again.
    Ack,
    /// Bring it again after this long; later messages of its key wait for it.
    Retry {
        /// How long to wait; it holds while the process lives.
        after: Duration,
    },
    /// It can never be processed: it goes to the dead letters with this cause.
    Reject {
        /// The cause, in words for a person.
        reason: String,
    },
}

/// A settlement that failed, with the token to try again.
#[derive(Debug)]
pub struct Unsettled {
    /// The token, handed back.
    pub token: AckToken,
    /// What was asked.
    pub outcome: Outcome,
    /// Why it failed.
    pub error: Error,
}
