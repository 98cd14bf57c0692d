//! Tries again what failed and may succeed, as long as that breaks no promise.
//!
//! **Place:** above `timeout`, so that each try has a limit of its own, and below `delivery`,
//! whose dead letters are published through it. **Cancellation:** a dropped future ends the
//! tries; what the last one had under way is as unknown as the contract of that call says.
//!
//! - `publish` repeats only what was *not written* for a reason that passes, in its order, and
//!   only where no later message of the same key is, or may be, written already: so each key
//!   keeps its order and nothing is written twice. What may be written is the caller's to
//!   decide on, and so is all that follows it in its key. With `duplicates = allow` it is
//!   published again, together with all later messages of its key.
//! - `settle` repeats what was handed back: settling twice is settling once.
//! - Questions, `subscribe`, `seek` and `reset_group` are repeated, since doing them twice
//!   changes nothing. `create_topic` and the deletions are not: their second try would find
//!   their own effect and call it a failure.
//! - `receive` is never repeated, as its caller comes again anyway; nor is any step of a
//!   transaction, which fails as a whole; nor `health`, which is to tell how things are.
//!
//! A full disk is not waited for: making room takes a person.

mod config;
mod resend;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

pub use config::{Config, Duplicates};

use self::resend::Resend;
use super::count;
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

/// Whether another try may succeed without anyone's help.
fn passes(error: &Error) -> bool {
    error.is_retryable() && error.kind() != ErrorKind::StorageFull
}

/// The tries of one operation.
struct Tries {
    config: Config,
    begun: u32,
    until: Instant,
}

impl Tries {
    /// The first try begins now.
    fn new(config: Config) -> Self {
        Self { config, begun: 1, until: Instant::now() + config.time_max }
    }

    /// Waits before another try; false where none is left.
    async fn next(&mut self, operation: &'static str, error: &Error) -> bool {
        let pause = self.config.backoff.pause(self.begun);
        if self.begun >= self.config.attempts_max || Instant::now() + pause > self.until {
            return false;
        }
        tracing::debug!(operation, ?error, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        count::retry(operation);
        self.begun += 1;
        true
    }
}

/// The retry layer around a broker.
#[derive(Debug)]
pub struct Retry {
    inner: Arc<dyn Broker>,
    config: Config,
}

impl Retry {
    /// Puts the layer around a broker.
    pub fn wrap(inner: Arc<dyn Broker>, config: Config) -> Arc<dyn Broker> {
        Arc::new(Self { inner, config })
    }

    /// Does what may be done twice until it succeeds, fails for good, or tries run out.
    async fn repeat<T, F>(&self, operation: &'static str, work: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut tries = Tries::new(self.config);
        loop {
            match work().await {
                Err(error) if passes(&error) && tries.next(operation, &error).await => {}
                done => return done,
            }
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Broker for Retry {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Published>> {
        let mut tries = Tries::new(self.config);
        let mut resend = Resend::new(batch, self.config.duplicates);
        loop {
            let error = match self.inner.publish(topic, resend.batch()).await {
                Ok(answers) => match resend.take(answers) {
                    Some(error) => error,
                    None => return Ok(resend.into_results()),
                },
                // Nothing was tried of it.
                Err(error) => error,
            };
            if !passes(&error) || !tries.next("publish", &error).await {
                return resend.give_up(error);
            }
        }
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        let subscribe = || self.inner.subscribe(subscription.clone());
        let consumer = self.repeat("subscribe", subscribe).await?;
        Ok(Box::new(Member { consumer, config: self.config }))
    }

    async fn lag(&self, topic: &Topic, group: &Group) -> Result<Vec<PartitionLag>> {
        self.repeat("lag", || self.inner.lag(topic, group)).await
    }

    async fn health(&self) -> Result<()> {
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
impl Admin for Retry {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<()> {
        self.inner.admin().create_topic(spec).await
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.inner.admin().delete_topic(topic).await
    }

    async fn describe(&self, topic: &Topic) -> Result<TopicDescription> {
        self.repeat("describe topic", || self.inner.admin().describe(topic)).await
    }

    async fn list(&self) -> Result<Vec<Topic>> {
        self.repeat("list topics", || self.inner.admin().list()).await
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.repeat("list groups", || self.inner.admin().groups()).await
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupDescription> {
        self.repeat("describe group", || self.inner.admin().describe_group(group)).await
    }

    async fn resolve(&self, topic: &Topic, start: Start) -> Result<Vec<Position>> {
        self.repeat("resolve", || self.inner.admin().resolve(topic, start)).await
    }

    async fn reset_group(&self, group: &Group, topic: &Topic, to: &[Position]) -> Result<()> {
        self.repeat("reset group", || self.inner.admin().reset_group(group, topic, to)).await
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        self.inner.admin().delete_group(group).await
    }
}

/// A consumer under the layer.
#[derive(Debug)]
struct Member {
    consumer: Box<dyn Consumer>,
    config: Config,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Consumer for Member {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        self.consumer.receive(limit).await
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        let mut tries = Tries::new(self.config);
        let (mut failed, mut lost) = (self.consumer.settle(outcomes).await, Vec::new());
        loop {
            let (again, hopeless): (Vec<_>, Vec<_>) =
                failed.into_iter().partition(|unsettled| passes(&unsettled.error));
            lost.extend(hopeless);
            let Some(first) = again.first() else { return lost };
            if !tries.next("settle", &first.error).await {
                lost.extend(again);
                return lost;
            }
            let outcomes = again.into_iter().map(|unsettled| (unsettled.token, unsettled.outcome));
            failed = self.consumer.settle(outcomes.collect()).await;
        }
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: std::time::Duration) -> Result<()> {
        self.consumer.extend(tokens, by).await
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        let mut tries = Tries::new(self.config);
        loop {
            match self.consumer.seek(seek).await {
                Err(error) if passes(&error) && tries.next("seek", &error).await => {}
                done => return done,
            }
        }
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        self.consumer.transaction().await
    }

    fn events(&mut self) -> Vec<Event> {
        self.consumer.events()
    }
}
