//! The queue as a topic of one partition in an embedded store.
//!
//! The group's one owner of that partition is the publisher; its generation fences a stale
//! one. What it holds unsettled is the pending list: it comes first after a crash.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker::{
    AckToken, Broker, BrokerExt, Consumer, Delivery, Group, Limit, Message, Outcome, Policy,
    Result, Subscription, Topic, TopicSpec,
};

use super::{Entry, Inlet, Outlet};
use crate::process;

/// The most entries that are forwarded as one step.
const ENTRIES_MAX: usize = 64;

/// Where the queue's store stands to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    /// It is the broker: each step is one transaction.
    Shared,
    /// It is a store of its own beside another broker.
    Apart,
}

/// Where entries go in.
pub(super) struct In {
    store: Arc<dyn Broker>,
    topic: Topic,
    is: Store,
}

/// Where entries come out.
pub(super) struct Out {
    store: Arc<dyn Broker>,
    subscription: Subscription,
    is: Store,
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

async fn ensure(store: &Arc<dyn Broker>, topic: &Topic) -> Result<()> {
    store.ensure_topic(&TopicSpec::new(topic, 1)).await
}

impl In {
    pub(super) async fn open(store: Arc<dyn Broker>, topic: &Topic, is: Store) -> Result<Self> {
        ensure(&store, topic).await?;
        Ok(Self { store, topic: topic.clone(), is })
    }

    fn messages(entries: &[Entry]) -> Vec<Message> {
        entries.iter().map(|entry| Message::new(entry.encode())).collect()
    }
}

impl Out {
    pub(super) async fn open(store: Arc<dyn Broker>, topic: &Topic, is: Store) -> Result<Self> {
        ensure(&store, topic).await?;
        let group = Group::new(topic.as_str())?;
        // An entry is whole by construction: it is tried until it is published.
        let policy = Policy::default().with_attempts(u32::MAX);
        let subscription = Subscription::group(topic, &group).with_policy(policy);
        Ok(Self { store, subscription, is, consumer: None })
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

#[async_trait]
impl Inlet for In {
    fn entry_bytes_max(&self) -> usize {
        self.store.capabilities().message_bytes_max
    }

    async fn push(
        &mut self,
        entries: &[Entry],
        consumer: &mut dyn Consumer,
        outcomes: Vec<(AckToken, Outcome)>,
    ) -> Result<()> {
        let messages = Self::messages(entries);
        if self.is == Store::Apart {
            self.store.publish_all(&self.topic, messages).await?;
            return super::settle(consumer, outcomes).await;
        }
        let mut step = consumer.transaction().await?;
        step.publish(&self.topic, messages).await?;
        step.settle(outcomes).await?;
        step.commit().await
    }
}

#[async_trait]
impl Outlet for Out {
    async fn forward(
        &mut self,
        broker: &dyn Broker,
        topic: &Topic,
        wait: Duration,
    ) -> Result<usize> {
        let Some(Taken { mut consumer, messages, done }) = self.take(wait).await? else {
            return Ok(0);
        };
        let count = messages.len();
        if self.is == Store::Apart {
            broker.publish_all(topic, messages).await?;
            super::settle(consumer.as_mut(), done).await?;
        } else {
            let mut step = consumer.transaction().await?;
            step.publish(topic, messages).await?;
            step.settle(done).await?;
            step.commit().await?;
        }
        self.consumer = Some(consumer);
        Ok(count)
    }
}
