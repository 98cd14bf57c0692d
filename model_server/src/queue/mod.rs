//! The FIFO of results between the model server's two halves.
//!
//! An [`Entry`] is one settled batch of messages that are ready to be published. It is pushed
//! durably before its input is settled, and removed once its messages are published, so a
//! crash between two steps repeats a step and never skips one. One publisher at a time takes
//! entries, in the order they were pushed; others stand by.
//!
//! In the embedded store the queue is a topic of one partition. Where that store is the broker
//! too, push and settlement are one transaction, and so are publication and removal. With
//! `[model] exactly_once = true` there is no queue: see [`skip`].

mod config;
mod direct;
mod embedded;
mod entry;
#[cfg(feature = "redis")]
mod redis;

use std::time::Duration;

use async_trait::async_trait;
use broker::{AckToken, Broker, Consumer, Outcome, Result, Topic};

pub use config::{Config, Kind};
pub use entry::{Entry, messages_max_bytes};

/// The end where entries go in.
#[async_trait]
pub trait Inlet: Send {
    /// The most bytes that one encoded entry may have.
    fn entry_bytes_max(&self) -> usize;

    /// Pushes entries, and settles the deliveries that they came from on `consumer`.
    ///
    /// When it returns both are durable as the backends promise. After a failure the
    /// deliveries come again; entries may have been pushed, except where queue and broker
    /// are one store.
    async fn push(
        &mut self,
        entries: &[Entry],
        consumer: &mut dyn Consumer,
        outcomes: Vec<(AckToken, Outcome)>,
    ) -> Result<()>;
}

/// The end where entries come out.
#[async_trait]
pub trait Outlet: Send {
    /// Publishes the oldest entries to `topic` and removes them; returns how many messages
    /// that were. Waits up to `wait` for the first entry, or for its turn as publisher.
    ///
    /// Dropping the future loses nothing; it may publish again what was not yet removed.
    async fn forward(
        &mut self,
        broker: &dyn Broker,
        topic: &Topic,
        wait: Duration,
    ) -> Result<usize>;
}

/// The end where results go in that skip the queue: published to `topic` in the transaction
/// which settles their input. `Unsupported` where the broker has no transactions.
pub fn skip(broker: &dyn Broker, topic: &Topic) -> Result<Box<dyn Inlet>> {
    Ok(Box::new(direct::Direct::open(broker, topic)?))
}

/// Settles what was pushed elsewhere before; the first failure is returned.
async fn settle(consumer: &mut dyn Consumer, outcomes: Vec<(AckToken, Outcome)>) -> Result<()> {
    match consumer.settle(outcomes).await.into_iter().next() {
        Some(unsettled) => Err(unsettled.error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
