//! The queue as a topic of one partition in an embedded store.
//!
//! The group's one owner of that partition is the publisher; its generation fences a stale
//! one. What it holds unsettled is the pending list: it comes first after a crash.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    AckToken, Broker, BrokerExt, Consumer, Delivery, Group, Limit, Message, Outcome, Policy,
    Result, Subscription, Topic, TopicSpec, embedded,
};

use super::{Entry, Inlet, Outlet};
use crate::process;

/// The most entries that are forwarded as one step.
const ENTRIES_MAX: usize = 64;

/// The queue in the store that is the broker: each step is one transaction.
pub(super) struct Shared<T> {
    end: T,
}

/// The queue in a store of its own beside another broker.
pub(super) struct Apart<T> {
    end: T,
}

/// Where entries go in.
pub(super) struct In {
    store: Arc<dyn Broker>,
    topic: Topic,
}

/// Where entries come out.
pub(super) struct Out {
    store: Arc<dyn Broker>,
    subscription: Subscription,
    /// Away while a step is under way. A step that fails or is dropped leaves none, and the
    /// next one subscribes anew: so what it held comes again, and before all later entries.
    consumer: Option<Box<dyn Consumer>>,
}

/// Entries that were taken.
struct Taken {
    consumer: Box<dyn Consumer>,
    messages: Vec<Message>,
    done: Vec<(AckToken, Outcome)>,
}

async fn open(config: &embedded::Config) -> Result<Arc<dyn Broker>> {
    embedded::open(config.clone()).await
}

async fn ensure(store: &Arc<dyn Broker>, topic: &Topic) -> Result<()> {
    store.ensure_topic(&TopicSpec::new(topic, 1)).await
}

impl In {
    async fn open(store: Arc<dyn Broker>, topic: &Topic) -> Result<Self> {
        ensure(&store, topic).await?;
        Ok(Self { store, topic: topic.clone() })
    }

    fn messages(entries: &[Entry]) -> Vec<Message> {
        entries.iter().map(|entry| Message::new(entry.encode())).collect()
    }
}

impl Out {
    async fn open(store: &Arc<dyn Broker>, topic: &Topic) -> Result<Self> {
        ensure(store, topic).await?;
        let group = Group::new(topic.as_str())?;
        // An entry is whole by construction: it is tried until it is published.
        let policy = Policy { attempts_max: u32::MAX, dead_letters: None };
        let subscription = Subscription::group(topic, &group).with_policy(policy);
        Ok(Self { store: store.clone(), subscription, consumer: None })
    }

    /// The oldest entries, or none after `wait`.
    async fn take(&mut self, wait: Duration) -> Result<Option<Taken>> {
        if self.consumer.is_none() {
            self.consumer = Some(self.store.subscribe(self.subscription.clone()).await?);
        }
        let Some(consumer) = &mut self.consumer else { return Ok(None) };
        let deliveries = consumer.receive(Limit::new(ENTRIES_MAX, wait)).await?;
        process::note(consumer.events());
        if deliveries.is_empty() {
            return Ok(None);
        }
        let Some(consumer) = self.consumer.take() else { return Ok(None) };
        let mut messages = Vec::new();
        for delivery in &deliveries {
            messages.extend(Entry::decode(delivery.payload.clone())?.messages);
        }
        let done = deliveries.into_iter().map(Delivery::into_token).map(|t| (t, Outcome::Ack));
        Ok(Some(Taken { consumer, messages, done: done.collect() }))
    }
}

impl Shared<In> {
    pub(super) async fn inlet(store: Arc<dyn Broker>, topic: &Topic) -> Result<Self> {
        Ok(Self { end: In::open(store, topic).await? })
    }
}

impl Shared<Out> {
    pub(super) async fn outlet(store: &Arc<dyn Broker>, topic: &Topic) -> Result<Self> {
        Ok(Self { end: Out::open(store, topic).await? })
    }
}

impl Apart<In> {
    pub(super) async fn inlet(config: &embedded::Config, topic: &Topic) -> Result<Self> {
        Ok(Self { end: In::open(open(config).await?, topic).await? })
    }
}

impl Apart<Out> {
    pub(super) async fn outlet(config: &embedded::Config, topic: &Topic) -> Result<Self> {
        Ok(Self { end: Out::open(&open(config).await?, topic).await? })
    }
}

#[async_trait]
impl Inlet for Shared<In> {
    fn entry_bytes_max(&self) -> usize {
        self.end.store.capabilities().message_bytes_max
    }

    async fn push(
        &mut self,
        entries: &[Entry],
        consumer: &mut dyn Consumer,
        outcomes: Vec<(AckToken, Outcome)>,
    ) -> Result<()> {
        let mut step = consumer.transaction().await?;
        if !entries.is_empty() {
            step.publish(&self.end.topic, In::messages(entries)).await?;
        }
        step.settle(outcomes).await?;
        step.commit().await
    }
}

#[async_trait]
impl Inlet for Apart<In> {
    fn entry_bytes_max(&self) -> usize {
        self.end.store.capabilities().message_bytes_max
    }

    async fn push(
        &mut self,
        entries: &[Entry],
        consumer: &mut dyn Consumer,
        outcomes: Vec<(AckToken, Outcome)>,
    ) -> Result<()> {
        if !entries.is_empty() {
            self.end.store.publish_all(&self.end.topic, In::messages(entries)).await?;
        }
        super::settle(consumer, outcomes).await
    }
}

#[async_trait]
impl Outlet for Shared<Out> {
    async fn forward(&mut self, _: &dyn Broker, topic: &Topic, wait: Duration) -> Result<usize> {
        let Some(mut taken) = self.end.take(wait).await? else { return Ok(0) };
        let count = taken.messages.len();
        let mut step = taken.consumer.transaction().await?;
        step.publish(topic, taken.messages).await?;
        step.settle(taken.done).await?;
        step.commit().await?;
        self.end.consumer = Some(taken.consumer);
        Ok(count)
    }
}

#[async_trait]
impl Outlet for Apart<Out> {
    async fn forward(
        &mut self,
        broker: &dyn Broker,
        topic: &Topic,
        wait: Duration,
    ) -> Result<usize> {
        let Some(mut taken) = self.end.take(wait).await? else { return Ok(0) };
        let count = taken.messages.len();
        broker.publish_all(topic, taken.messages).await?;
        super::settle(taken.consumer.as_mut(), taken.done).await?;
        self.end.consumer = Some(taken.consumer);
        Ok(count)
    }
}
