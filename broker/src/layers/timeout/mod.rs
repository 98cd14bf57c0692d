//! Bounds how long each operation of the layers below may take.
//!
//! **Place:** above `chaos`, whose delays it cuts, and below `retry`, so that each try has a
//! limit of its own. **Cancellation:** an operation that runs out of time is dropped, which the
//! contract allows everywhere; dropping the future of this layer does the same.
//!
//! What was under way when the time ran out has an unknown effect, and is told so:
//! - A batch that is published too slowly is [`Published::Unknown`] for each of its messages.
//! - A settlement that takes too long hands its tokens back; settling them again is safe.
//! - A commit that takes too long may yet be carried out. Its consumer is given up: the next
//!   use subscribes anew, begins where the group's position really is, and so neither loses nor
//!   repeats what the transaction was about.
//!
//! `shutdown` has no limit here: it flushes, and the backend bounds that.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use super::link::Link;
use crate::capabilities::Capabilities;
use crate::config::Section;
use crate::contract::{
    Admin, Broker, Consumer, GroupDescription, PartitionLag, Published, TopicDescription,
    TopicSpec, Transaction,
};
use crate::delivery::{AckToken, Delivery, Outcome, Position, Unsettled};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::subscription::{Event, Limit, Seek, Start, Subscription};

/// How long operations may take: the section `[timeout]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// A batch being published; longer than the backend's own limit, which tells more.
    pub publish: Duration,
    /// Subscribing.
    pub subscribe: Duration,
    /// How much longer than it was told to wait `receive` may take.
    pub receive_margin: Duration,
    /// Settling, extending and seeking.
    pub settle: Duration,
    /// Each step of a transaction, its commit among them.
    pub transaction: Duration,
    /// A question or an order about topics and groups, lag and health.
    pub admin: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let (short, long) = (Duration::from_secs(30), Duration::from_secs(60));
        Self {
            publish: long,
            subscribe: long,
            receive_margin: long,
            settle: short,
            transaction: long,
            admin: short,
        }
    }
}

impl Config {
    /// Reads the section `[timeout]`: `publish` (60s), `subscribe` (60s), `receive_margin`
    /// (60s), `settle` (30s), `transaction` (60s) and `admin` (30s).
    pub fn from_section(mut section: Section) -> Result<Self> {
        let default = Self::default();
        let config = Self {
            publish: limit(&mut section, "publish", default.publish)?,
            subscribe: limit(&mut section, "subscribe", default.subscribe)?,
            receive_margin: limit(&mut section, "receive_margin", default.receive_margin)?,
            settle: limit(&mut section, "settle", default.settle)?,
            transaction: limit(&mut section, "transaction", default.transaction)?,
            admin: limit(&mut section, "admin", default.admin)?,
        };
        section.finish()?;
        Ok(config)
    }
}

/// A limit of nothing would let nothing through.
fn limit(section: &mut Section, key: &'static str, default: Duration) -> Result<Duration> {
    let limit = section.take_or(key, default)?;
    if limit.is_zero() {
        return Err(section.error(key, "the limit must be above zero"));
    }
    Ok(limit)
}

fn late(operation: &'static str, limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, operation, format!("there was no answer within {limit:?}"))
}

async fn within<T>(
    limit: Duration,
    operation: &'static str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(late(operation, limit)))
}

/// The timeout layer around a broker.
#[derive(Debug)]
pub struct Timeout {
    inner: Arc<dyn Broker>,
    config: Config,
}

impl Timeout {
    /// Puts the layer around a broker.
    pub fn wrap(inner: Arc<dyn Broker>, config: Config) -> Arc<dyn Broker> {
        Arc::new(Self { inner, config })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Broker for Timeout {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Published>> {
        let (count, limit) = (batch.len(), self.config.publish);
        timeout(limit, self.inner.publish(topic, batch)).await.unwrap_or_else(|_| {
            let unknown = || Published::Unknown(late("publish", limit).with("topic", topic));
            Ok(std::iter::repeat_with(unknown).take(count).collect())
        })
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        let link = Link::open(self.inner.clone(), subscription);
        let link = within(self.config.subscribe, "subscribe", link).await?;
        Ok(Box::new(Member { link, config: self.config, in_doubt: false }))
    }

    async fn lag(&self, topic: &Topic, group: &Group) -> Result<Vec<PartitionLag>> {
        within(self.config.admin, "lag", self.inner.lag(topic, group)).await
    }

    async fn health(&self) -> Result<()> {
        within(self.config.admin, "health", self.inner.health()).await
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
impl Admin for Timeout {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<()> {
        within(self.config.admin, "create topic", self.inner.admin().create_topic(spec)).await
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        within(self.config.admin, "delete topic", self.inner.admin().delete_topic(topic)).await
    }

    async fn describe(&self, topic: &Topic) -> Result<TopicDescription> {
        within(self.config.admin, "describe topic", self.inner.admin().describe(topic)).await
    }

    async fn list(&self) -> Result<Vec<Topic>> {
        within(self.config.admin, "list topics", self.inner.admin().list()).await
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        within(self.config.admin, "list groups", self.inner.admin().groups()).await
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupDescription> {
        within(self.config.admin, "describe group", self.inner.admin().describe_group(group)).await
    }

    async fn resolve(&self, topic: &Topic, start: Start) -> Result<Vec<Position>> {
        within(self.config.admin, "resolve", self.inner.admin().resolve(topic, start)).await
    }

    async fn reset_group(&self, group: &Group, topic: &Topic, to: &[Position]) -> Result<()> {
        let reset = self.inner.admin().reset_group(group, topic, to);
        within(self.config.admin, "reset group", reset).await
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        within(self.config.admin, "delete group", self.inner.admin().delete_group(group)).await
    }
}

/// A consumer under the layer.
#[derive(Debug)]
struct Member {
    link: Link,
    config: Config,
    /// A commit ran out of time: the consumer below does not know what is settled.
    in_doubt: bool,
}

impl Member {
    /// Gives the consumer up where nobody knows what it has settled.
    fn clear_doubt(&mut self) {
        if std::mem::take(&mut self.in_doubt) {
            tracing::warn!("a commit took too long: the consumer subscribes anew");
            self.link.cut();
        }
    }

    async fn connected(&mut self) -> Result<&mut (dyn Consumer + 'static)> {
        self.clear_doubt();
        within(self.config.subscribe, "subscribe", self.link.connected()).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Consumer for Member {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        let time = limit.wait.saturating_add(self.config.receive_margin);
        within(time, "receive", self.connected().await?.receive(limit)).await
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        self.clear_doubt();
        // After a cut every token is stale, which is no failure.
        let Some(consumer) = self.link.current() else { return Vec::new() };
        let kept: Vec<_> = outcomes.iter().map(|(t, o)| (t.duplicate(), o.clone())).collect();
        let limit = self.config.settle;
        timeout(limit, consumer.settle(outcomes)).await.unwrap_or_else(|_| {
            let unsettled =
                |(token, outcome)| Unsettled { token, outcome, error: late("settle", limit) };
            kept.into_iter().map(unsettled).collect()
        })
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        self.clear_doubt();
        let limit = self.config.settle;
        let Some(consumer) = self.link.current() else { return Ok(()) };
        within(limit, "extend", consumer.extend(tokens, by)).await
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        let limit = self.config.settle;
        within(limit, "seek", self.connected().await?.seek(seek)).await
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        self.clear_doubt();
        let (limit, begin) = (self.config.transaction, self.config.subscribe);
        let consumer = within(begin, "subscribe", self.link.connected()).await?;
        let inner = within(limit, "transaction", consumer.transaction()).await?;
        Ok(Box::new(Step { inner, limit, in_doubt: &mut self.in_doubt }))
    }

    fn events(&mut self) -> Vec<Event> {
        self.link.events()
    }
}

/// A transaction under the layer.
struct Step<'a> {
    inner: Box<dyn Transaction + 'a>,
    limit: Duration,
    in_doubt: &'a mut bool,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transaction for Step<'_> {
    async fn publish(&mut self, topic: &Topic, batch: Vec<Message>) -> Result<()> {
        within(self.limit, "publish", self.inner.publish(topic, batch)).await
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Result<()> {
        within(self.limit, "settle", self.inner.settle(outcomes)).await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        let Self { inner, limit, in_doubt } = *self;
        // A future that is dropped on the way leaves the same doubt as one that is too late.
        *in_doubt = true;
        let committed = timeout(limit, inner.commit()).await;
        *in_doubt = committed.is_err();
        committed.unwrap_or_else(|_| Err(late("commit", limit)))
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        within(self.limit, "abort", self.inner.abort()).await
    }
}
