//! Counts and times what passes, by the facade of the crate `metrics`: a program installs the
//! recorder of its choice, and without one nothing is kept.
//!
//! **Place:** above `delivery`, `retry` and `timeout`, so that it measures what a caller meets,
//! and below `trace`. **Cancellation:** adds nothing that could be lost; an operation whose
//! future is dropped is not timed.
//!
//! Handles are made once for each topic and consumer, so a recorder must be installed before
//! the broker is used. [`names`] lists what is measured.

mod meters;
pub mod names;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::SharedString;

use self::meters::{Batch, Consuming, Place, Publishing, outcome_index};
use crate::capabilities::Capabilities;
use crate::contract::{Admin, Broker, Consumer, PartitionLag, Published, Transaction};
use crate::delivery::{AckToken, Delivery, Outcome, Position, Unsettled};
use crate::error::Result;
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::subscription::{Event, Limit, Seek, Subscription};

/// The most topics that are told apart when published to; those beyond share a label.
const TOPICS_MAX: usize = 1000;
const OTHER_TOPICS: &str = "other";

/// The handles of all topics that are published to.
#[derive(Debug)]
struct Topics {
    backend: &'static str,
    known: RwLock<HashMap<Topic, Arc<Publishing>>>,
}

impl Topics {
    fn place(&self, topic: &Topic, group: Option<&Group>) -> Place {
        let topic = SharedString::from_owned(topic.to_string());
        let group = SharedString::from_owned(group.map(Group::to_string).unwrap_or_default());
        Place { backend: self.backend, topic, group }
    }

    fn publishing(&self, topic: &Topic) -> Arc<Publishing> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(topic).cloned();
        if let Some(known) = known {
            return known;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut place = self.place(topic, None);
        if known.len() >= TOPICS_MAX {
            place.topic = SharedString::const_str(OTHER_TOPICS);
            return Arc::new(Publishing::new(place));
        }
        known.entry(topic.clone()).or_insert_with(|| Arc::new(Publishing::new(place))).clone()
    }
}

/// The metrics layer around a broker.
#[derive(Debug)]
pub struct Metrics {
    inner: Arc<dyn Broker>,
    topics: Arc<Topics>,
}

impl Metrics {
    /// Puts the layer around a broker.
    pub fn wrap(inner: Arc<dyn Broker>) -> Arc<dyn Broker> {
        let backend = inner.capabilities().backend;
        let topics = Arc::new(Topics { backend, known: RwLock::default() });
        Arc::new(Self { inner, topics })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Broker for Metrics {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Published>> {
        let publishing = self.topics.publishing(topic);
        let (_flight, begun) = (publishing.begin(Batch::of(&batch)), Instant::now());
        let answer = self.inner.publish(topic, batch).await;
        publishing.answered(begun.elapsed(), &answer);
        answer
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        let place = self.topics.place(&subscription.topic, subscription.group.as_ref());
        let consumer = self.inner.subscribe(subscription).await;
        let consumer = consumer.inspect_err(|error| place.failed("subscribe", error))?;
        let (consuming, topics) = (Consuming::new(place), self.topics.clone());
        Ok(Box::new(Member { consumer, consuming, topics }))
    }

    async fn lag(&self, topic: &Topic, group: &Group) -> Result<Vec<PartitionLag>> {
        let place = self.topics.place(topic, Some(group));
        let lag = self.inner.lag(topic, group).await;
        lag.inspect(|lag| place.lag(lag)).inspect_err(|error| place.failed("lag", error))
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }

    fn admin(&self) -> &dyn Admin {
        self.inner.admin()
    }

    async fn shutdown(&self) -> Result<()> {
        self.inner.shutdown().await
    }
}

/// A consumer under the layer.
#[derive(Debug)]
struct Member {
    consumer: Box<dyn Consumer>,
    consuming: Consuming,
    topics: Arc<Topics>,
}

/// What settlements are counted by.
fn brief(outcomes: &[(AckToken, Outcome)]) -> Vec<(Position, usize)> {
    let brief = |(token, outcome): &(AckToken, Outcome)| (token.position(), outcome_index(outcome));
    outcomes.iter().map(brief).collect()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Consumer for Member {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        let received = self.consumer.receive(limit).await;
        match &received {
            Ok(deliveries) => self.consuming.received(deliveries),
            Err(error) => self.consuming.place.failed("receive", error),
        }
        received
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        let (mut settled, begun) = (brief(&outcomes), Instant::now());
        let unsettled = self.consumer.settle(outcomes).await;
        self.consuming.settle_seconds.record(begun.elapsed());
        if !unsettled.is_empty() {
            unsettled.iter().for_each(|u| self.consuming.place.failed("settle", &u.error));
            let left: HashSet<Position> = unsettled.iter().map(|u| u.token.position()).collect();
            settled.retain(|(position, _)| !left.contains(position));
        }
        self.consuming.settled(&settled);
        unsettled
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        self.consumer.extend(tokens, by).await
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        self.consumer.seek(seek).await
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        let inner = self.consumer.transaction().await;
        let inner = inner.inspect_err(|error| self.consuming.place.failed("transaction", error))?;
        let (consuming, topics) = (&mut self.consuming, &*self.topics);
        let (published, settled) = (Vec::new(), Vec::new());
        Ok(Box::new(Step { inner, consuming, topics, published, settled }))
    }

    fn events(&mut self) -> Vec<Event> {
        let events = self.consumer.events();
        self.consuming.note(&events);
        events
    }
}

/// A transaction under the layer; it counts once it is committed.
struct Step<'a> {
    inner: Box<dyn Transaction + 'a>,
    consuming: &'a mut Consuming,
    topics: &'a Topics,
    published: Vec<(Topic, Batch)>,
    settled: Vec<(Position, usize)>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transaction for Step<'_> {
    async fn publish(&mut self, topic: &Topic, batch: Vec<Message>) -> Result<()> {
        self.published.push((topic.clone(), Batch::of(&batch)));
        self.inner.publish(topic, batch).await
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Result<()> {
        self.settled.extend(brief(&outcomes));
        self.inner.settle(outcomes).await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        let Self { inner, consuming, topics, published, settled } = *self;
        let begun = Instant::now();
        let committed = inner.commit().await;
        consuming.commit_seconds.record(begun.elapsed());
        match &committed {
            Ok(()) => {
                consuming.settled(&settled);
                for (topic, batch) in published {
                    topics.publishing(&topic).committed(batch);
                }
            }
            Err(error) => consuming.place.failed("commit", error),
        }
        committed
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}
