//! Makes faults on purpose, so that programs can be tried against them.
//!
//! **Place:** right above the backend, so that every other layer meets the faults as if they
//! were its own. **Cancellation:** as that of the backend; a delay may be dropped like any wait.
//!
//! Faults come from a seed: equal calls in an equal order meet equal faults. A broker has dice
//! of its own for what is published and asked, and each consumer has its own, so that only calls
//! which overlap on one of them may trade their faults.
//!
//! - Publishing: a message is dropped (*not written*), is said to be *unknown* though it is
//!   written or though it is not, or is written twice.
//! - Any call may be late, or fail before anything is done; `shutdown` and `extend` do not.
//! - `receive` of a group's member may lose the connection: it fails with `Unavailable`, the
//!   partitions are revoked, what was in flight comes again, and the next `receive` subscribes
//!   anew. A reader only meets the failure, as it would begin from its start.

mod config;
mod dice;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

pub use config::Config;
use dice::{Dice, Fate};

use super::link::Link;
use crate::capabilities::Capabilities;
use crate::contract::{
    Admin, Broker, Consumer, GroupDescription, PartitionLag, Published, TopicDescription,
    TopicSpec, Transaction,
};
use crate::delivery::{AckToken, Delivery, Outcome, Position, Unsettled};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::subscription::{Event, Limit, Seek, Start, Subscription};

/// The chaos layer around a broker.
#[derive(Debug)]
pub struct Chaos {
    inner: Arc<dyn Broker>,
    config: Config,
    dice: Dice,
    consumers: AtomicU64,
}

impl Chaos {
    /// Puts the layer around a broker, and says so where it does anything.
    pub fn wrap(inner: Arc<dyn Broker>, config: Config) -> Arc<dyn Broker> {
        if config.is_on() {
            tracing::warn!(?config, "CHAOS IS ON: this broker loses and delays things on purpose");
        }
        let (dice, consumers) = (Dice::new(config, 0), AtomicU64::new(1));
        Arc::new(Self { inner, config, dice, consumers })
    }
}

/// What is passed on of a batch.
fn passed(batch: Vec<Message>, fates: &[Fate]) -> Vec<Message> {
    let mut passed = Vec::with_capacity(batch.len());
    for (message, fate) in batch.into_iter().zip(fates) {
        match fate {
            Fate::Dropped | Fate::Vanished => {}
            Fate::Written | Fate::Unheard => passed.push(message),
            Fate::Doubled => passed.extend([message.clone(), message]),
        }
    }
    passed
}

fn lost(message: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, "publish", message)
}

/// What is said of each message, after the answers to those that were passed on.
fn told(fates: &[Fate], answers: Vec<Published>) -> Vec<Published> {
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or_else(|| Published::Unknown(lost("no answer came")));
    let mut tell = |fate: &Fate| match fate {
        Fate::Written => next(),
        Fate::Dropped => Published::NotWritten(lost("the chaos layer dropped the message")),
        Fate::Vanished => Published::Unknown(lost("the chaos layer hides what became of it")),
        Fate::Unheard => {
            next();
            Published::Unknown(lost("the chaos layer hides what became of it"))
        }
        Fate::Doubled => {
            let first = next();
            next();
            first
        }
    };
    fates.iter().map(&mut tell).collect()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Broker for Chaos {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Published>> {
        self.dice.disturb("publish").await?;
        let fates: Vec<Fate> = batch.iter().map(|_| self.dice.fate()).collect();
        let answers = self.inner.publish(topic, passed(batch, &fates)).await?;
        Ok(told(&fates, answers))
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        self.dice.disturb("subscribe").await?;
        let dice = Dice::new(self.config, self.consumers.fetch_add(1, Ordering::Relaxed));
        let link = Link::open(self.inner.clone(), subscription).await?;
        Ok(Box::new(Member { link, dice }))
    }

    async fn lag(&self, topic: &Topic, group: &Group) -> Result<Vec<PartitionLag>> {
        self.dice.disturb("lag").await?;
        self.inner.lag(topic, group).await
    }

    async fn health(&self) -> Result<()> {
        self.dice.disturb("health").await?;
        self.inner.health().await
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    async fn shutdown(&self) -> Result<()> {
        self.inner.shutdown().await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Admin for Chaos {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<()> {
        self.dice.disturb("create topic").await?;
        self.inner.admin().create_topic(spec).await
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.dice.disturb("delete topic").await?;
        self.inner.admin().delete_topic(topic).await
    }

    async fn describe(&self, topic: &Topic) -> Result<TopicDescription> {
        self.dice.disturb("describe topic").await?;
        self.inner.admin().describe(topic).await
    }

    async fn list(&self) -> Result<Vec<Topic>> {
        self.dice.disturb("list topics").await?;
        self.inner.admin().list().await
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.dice.disturb("list groups").await?;
        self.inner.admin().groups().await
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupDescription> {
        self.dice.disturb("describe group").await?;
        self.inner.admin().describe_group(group).await
    }

    async fn resolve(&self, topic: &Topic, start: Start) -> Result<Vec<Position>> {
        self.dice.disturb("resolve").await?;
        self.inner.admin().resolve(topic, start).await
    }

    async fn reset_group(&self, group: &Group, topic: &Topic, to: &[Position]) -> Result<()> {
        self.dice.disturb("reset group").await?;
        self.inner.admin().reset_group(group, topic, to).await
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        self.dice.disturb("delete group").await?;
        self.inner.admin().delete_group(group).await
    }
}

/// A consumer under the layer.
#[derive(Debug)]
struct Member {
    link: Link,
    dice: Dice,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Consumer for Member {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        self.dice.disturb("receive").await?;
        if self.dice.disconnects() {
            if self.link.is_member() {
                self.link.cut();
            }
            let message = "the chaos layer cut the connection";
            return Err(Error::new(ErrorKind::Unavailable, "receive", message));
        }
        self.link.connected().await?.receive(limit).await
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        if let Err(error) = self.dice.disturb("settle").await {
            let unsettled =
                |(token, outcome)| Unsettled { token, outcome, error: error.duplicate() };
            return outcomes.into_iter().map(unsettled).collect();
        }
        match self.link.current() {
            Some(consumer) => consumer.settle(outcomes).await,
            // After a cut every token is stale, which is no failure.
            None => Vec::new(),
        }
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        match self.link.current() {
            Some(consumer) => consumer.extend(tokens, by).await,
            None => Ok(()),
        }
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        self.dice.disturb("seek").await?;
        self.link.connected().await?.seek(seek).await
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        self.dice.disturb("transaction").await?;
        let inner = self.link.connected().await?.transaction().await?;
        Ok(Box::new(Step { inner, dice: &self.dice }))
    }

    fn events(&mut self) -> Vec<Event> {
        self.link.events()
    }
}

/// A transaction under the layer. A fault leaves it as it is, to be tried again or aborted; at
/// the commit it aborts.
struct Step<'a> {
    inner: Box<dyn Transaction + 'a>,
    dice: &'a Dice,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transaction for Step<'_> {
    async fn publish(&mut self, topic: &Topic, batch: Vec<Message>) -> Result<()> {
        self.dice.disturb("publish").await?;
        self.inner.publish(topic, batch).await
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Result<()> {
        self.dice.disturb("settle").await?;
        self.inner.settle(outcomes).await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.dice.disturb("commit").await?;
        self.inner.commit().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}
