//! What a consumer asks for.

use std::time::Duration;

use crate::message::Timestamp;
use crate::name::{Group, Topic};
use crate::policy::Policy;

/// A wish to consume a topic.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The topic.
    pub topic: Topic,
    /// Members of one group share the messages. Without a group the consumer is a reader:
    /// it sees everything, settles nothing, and is told when it has caught up.
    pub group: Option<Group>,
    /// Where to begin when the group has no position yet, or always for a reader.
    pub start: Start,
    /// A name that is kept over restarts, where the backend knows static membership.
    pub instance: Option<String>,
    /// How long a delivery may stay unsettled before it comes again.
    pub ack_deadline: Duration,
    /// The most deliveries that may be unsettled at once, in each partition.
    pub in_flight_max: usize,
    /// The most payload bytes that may be unsettled at once, in each partition.
    pub in_flight_bytes_max: usize,
    /// How failures are treated; the broker's own policy where absent.
    pub policy: Option<Policy>,
}

impl Subscription {
    /// A member of `group`, from the earliest message on.
    pub fn group(topic: &Topic, group: &Group) -> Self {
        Self { group: Some(group.clone()), ..Self::reader(topic) }
    }

    /// A reader without a group, from the earliest message on.
    pub fn reader(topic: &Topic) -> Self {
        Self {
            topic: topic.clone(),
            group: None,
            start: Start::Earliest,
            instance: None,
            ack_deadline: Duration::from_secs(60),
            in_flight_max: 10_000,
            in_flight_bytes_max: 64 << 20,
            policy: None,
        }
    }

    /// Begins elsewhere.
    #[must_use]
    pub fn starting(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets how long a delivery may stay unsettled.
    #[must_use]
    pub fn with_ack_deadline(mut self, deadline: Duration) -> Self {
        self.ack_deadline = deadline;
        self
    }

    /// Sets how failures are treated.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }
}

/// Where consumption begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest message kept.
    Earliest,
    /// Only what is published from now on.
    Latest,
    /// This offset, in every partition.
    Offset(u64),
    /// The first message at or after this time.
    Time(Timestamp),
}

/// Where to move a consumer's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seek {
    /// One partition, or all that are assigned.
    pub partition: Option<u32>,
    /// The place to go on from.
    pub to: Start,
}

/// How much to receive, and how long to wait for it.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The most deliveries to return.
    pub messages: usize,
    /// How long to wait for the first one.
    pub wait: Duration,
}

impl Limit {
    /// At most `messages`, waiting up to `wait` for the first.
    pub const fn new(messages: usize, wait: Duration) -> Self {
        Self { messages, wait }
    }
}

/// What happened to a consumer's share of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// These partitions are now this consumer's.
    Assigned(Vec<u32>),
    /// These partitions went to another member.
    Revoked(Vec<u32>),
    /// A reader has delivered all that was in the topic when it subscribed.
    CaughtUp,
    /// Retention deleted what the position pointed at; consumption goes on at `resumed`.
    OffsetOutOfRange {
        /// The partition.
        partition: u32,
        /// The offset that is gone.
        wanted: u64,
        /// The oldest offset that is left.
        resumed: u64,
    },
}
