//! The contract that every backend keeps. The conformance suite holds them to it.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::capabilities::Capabilities;
use crate::delivery::{AckToken, Delivery, Outcome, Position, Unsettled};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::subscription::{Event, Limit, Seek, Start, Subscription};

/// What became of one published message.
#[derive(Debug)]
pub enum Published {
    /// It is stored with the durability that the configuration asks for.
    Written(Position),
    /// It is not stored; publishing it again cannot duplicate it.
    NotWritten(Error),
    /// It may or may not be stored; publishing it again may duplicate it.
    Unknown(Error),
}

impl Published {
    /// The position, or the error of a message that is not known to be stored.
    pub fn position(self) -> Result<Position> {
        match self {
            Self::Written(position) => Ok(position),
            Self::NotWritten(error) | Self::Unknown(error) => Err(error),
        }
    }
}

/// A connection to a broker, shared by any number of tasks.
///
/// Backends never retry; they say whether an error is worth retrying.
#[async_trait]
pub trait Broker: Debug + Send + Sync {
    /// What this backend can do; constant over its life.
    fn capabilities(&self) -> Capabilities;

    /// Publishes a batch and returns one result for each message, in their order.
    ///
    /// `Written` means durable as configured. Messages of equal keys in one batch, and in
    /// batches whose calls do not overlap, keep their order. The call fails as a whole only
    /// where nothing was tried: `NotFound` for a missing topic, `Closed` after shutdown. It
    /// blocks while the backend pushes back. Dropping the future may leave any part written.
    async fn publish(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Published>>;

    /// Opens a consumer. A missing topic is `NotFound` here or at the first `receive`.
    ///
    /// Dropping the future leaves no consumer behind.
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>>;

    /// How far `group` is behind the end of `topic`, for each partition.
    async fn lag(&self, topic: &Topic, group: &Group) -> Result<Vec<PartitionLag>>;

    /// Asks the broker itself whether it answers; fails with `Unavailable` where it does not.
    async fn health(&self) -> Result<()>;

    /// Topics and groups.
    fn admin(&self) -> &dyn Admin;

    /// Waits until what was published is settled, then refuses further use with `Closed`.
    /// A second call does nothing.
    async fn shutdown(&self) -> Result<()>;
}

/// One member of a group, or one reader. Dropping it gives its partitions back; what was
/// unsettled comes again.
#[async_trait]
pub trait Consumer: Debug + Send {
    /// Returns up to `limit.messages` deliveries as soon as one is there, or none after
    /// `limit.wait`, or none at once after each new [`Event`], so that the caller can act on it.
    ///
    /// Each is on loan until the subscription's ack deadline; then it comes again. Within a
    /// partition, and so within a key, deliveries come in order. Dropping the future loses
    /// nothing. Nothing more comes while the in-flight bound is reached.
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>>;

    /// Settles deliveries of this consumer; returns those that failed, with their tokens.
    ///
    /// An acknowledged prefix of a partition is durable when the call returns on embedded;
    /// on Kafka it is committed within `commit_interval` and at shutdown, and a crash before
    /// brings it again. A token that is too late (its delivery came again, or its partition
    /// went to another member) does nothing and is no failure. A reader's tokens do nothing.
    /// Dropping the future may leave any part settled.
    #[must_use = "settlements that failed are handed back"]
    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled>;

    /// Moves the deadline of deliveries that take longer to `by` from now. Stale ones are
    /// passed over. Blocks for no I/O where the SDK keeps the deadline.
    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()>;

    /// Moves the position; what was in flight of the partition becomes stale.
    /// `NotFound` where the partition is not assigned, `Unsupported` without `offset_seek`.
    async fn seek(&mut self, seek: Seek) -> Result<()>;

    /// Begins a transaction over this consumer's deliveries; `Unsupported` without
    /// `transactions`. One is open at a time, which the borrow makes sure of.
    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>>;

    /// Takes what happened to the assignment since the last call.
    fn events(&mut self) -> Vec<Event>;
}

/// Publishing and settling as one step. Nothing of it is visible before `commit`.
/// Dropping it aborts.
#[async_trait]
pub trait Transaction: Send {
    /// Adds messages.
    async fn publish(&mut self, topic: &Topic, batch: Vec<Message>) -> Result<()>;

    /// Adds settlements of the consumer's deliveries; `Fenced` for a token of another
    /// assignment.
    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Result<()>;

    /// Makes everything visible at once, durable when it returns. After a failure nothing
    /// is, and the deliveries come again.
    async fn commit(self: Box<Self>) -> Result<()>;

    /// Drops everything; the deliveries come again.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// Topics and groups.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Makes a topic; `AlreadyExists` where it is there. Durable when it returns.
    async fn create_topic(&self, spec: &TopicSpec) -> Result<()>;

    /// Deletes a topic with its messages and the positions of its groups.
    async fn delete_topic(&self, topic: &Topic) -> Result<()>;

    /// The topic's partitions and their bounds.
    async fn describe(&self, topic: &Topic) -> Result<TopicDescription>;

    /// All topics, by name.
    async fn list(&self) -> Result<Vec<Topic>>;

    /// All groups that hold a position or have members, by name.
    async fn groups(&self) -> Result<Vec<Group>>;

    /// A group's members and the topics that it has positions in; `NotFound` for a group that
    /// has neither.
    async fn describe_group(&self, group: &Group) -> Result<GroupDescription>;

    /// The offset that `start` stands for in each partition now; nothing is changed.
    /// `Unsupported` without `offset_seek`.
    async fn resolve(&self, topic: &Topic, start: Start) -> Result<Vec<Position>>;

    /// Moves a group's positions in `topic`; partitions that are not named keep theirs. Durable
    /// when it returns. `InUse` while the group has members on the topic, `Unsupported` without
    /// `offset_seek`.
    async fn reset_group(&self, group: &Group, topic: &Topic, to: &[Position]) -> Result<()>;

    /// Forgets a group with all its positions; `InUse` while it has members, `NotFound` where
    /// there is none.
    async fn delete_group(&self, group: &Group) -> Result<()>;
}

/// A topic to be made.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    /// Its name.
    pub topic: Topic,
    /// How many partitions; at least one.
    pub partitions: u32,
    /// How long messages are kept; the backend's default where absent.
    pub retention: Option<Duration>,
    /// How many bytes each partition keeps; the backend's default where absent.
    pub retention_bytes: Option<u64>,
    /// Whether only the last message of each key is kept in the long run, and none is deleted
    /// for its age; a [`Message::tombstone`] lets its key go. `Unsupported` without `compaction`.
    pub compacted: bool,
}

impl TopicSpec {
    /// A topic with the backend's default retention.
    pub fn new(topic: &Topic, partitions: u32) -> Self {
        let (retention, retention_bytes) = (None, None);
        Self { topic: topic.clone(), partitions, retention, retention_bytes, compacted: false }
    }

    /// The same topic, keeping only the last message of each key.
    #[must_use]
    pub fn compacted(self) -> Self {
        Self { compacted: true, ..self }
    }
}

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub topic: Topic,
    /// Its partitions in order.
    pub partitions: Vec<PartitionDescription>,
}

/// The bounds of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its number, from zero.
    pub partition: u32,
    /// The oldest offset that is kept.
    pub start: u64,
    /// The offset that the next message gets.
    pub end: u64,
}

/// What is known of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub group: Group,
    /// Its members, by name.
    pub members: Vec<MemberDescription>,
    /// The topics that it has positions in or members on, by name.
    pub topics: Vec<Topic>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// What the backend calls it.
    pub name: String,
    /// The partitions that are its own.
    pub partitions: Vec<(Topic, u32)>,
}

/// How far a group is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition.
    pub partition: u32,
    /// The first offset that the group has not settled; `None` where it never settled any.
    pub committed: Option<u64>,
    /// The offset that the next message gets.
    pub end: u64,
    /// How many messages the group has before it.
    pub behind: u64,
}
