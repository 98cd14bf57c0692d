//! The connection that all tasks share.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use super::config::Config;
use super::consumer;
use super::control::{Client, Control};
use super::lag::Observers;
use super::producer::Producer;
use super::state::Link;
use crate::capabilities::{Attempts, Capabilities, Durability};
use crate::contract::{Admin, Broker, Consumer, PartitionLag, Published};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::subscription::Subscription;

/// How long `health` waits for an answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long shutdown waits for a consumer to leave its group.
const LEAVE_MAX: Duration = Duration::from_secs(10);

pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) control: Control,
    producer: Producer,
    observers: Observers,
    /// Topics that were seen to exist, so that publishing need not ask again.
    topics: Mutex<HashSet<Topic>>,
    consumers: Mutex<Vec<Weak<Link>>>,
    closed: AtomicBool,
}

impl Inner {
    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "kafka",
            partitions: true,
            offset_seek: true,
            read_at: true,
            compaction: true,
            lag: true,
            transactions: true,
            attempts: Attempts::Durable,
            durability: Durability::Replicas,
            message_bytes_max: self.config.message_bytes_max,
        }
    }

    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, operation, "the broker was shut down"));
        }
        Ok(())
    }

    /// Remembers a consumer, to end it at shutdown; `Closed` where that came before.
    pub(super) fn enrol(&self, link: &Arc<Link>) -> Result<()> {
        let mut consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_open("subscribe")?;
        consumers.retain(|consumer| consumer.strong_count() > 0);
        consumers.push(Arc::downgrade(link));
        Ok(())
    }

    pub(super) fn forget_topic(&self, topic: &Topic) {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    /// A client that carries a group's name and never joins it.
    pub(super) fn named(&self, group: &Group) -> Result<Arc<Client>> {
        self.observers.of(&self.config, group)
    }

    pub(super) async fn require_topic(&self, topic: &Topic) -> Result<()> {
        let topics = || self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if topics().contains(topic) {
            return Ok(());
        }
        self.control.partitions("publish", topic).await?;
        topics().insert(topic.clone());
        Ok(())
    }
}

pub(super) struct KafkaBroker {
    pub(super) inner: Arc<Inner>,
}

impl KafkaBroker {
    pub(super) async fn connect(config: Config) -> Result<Self> {
        let control = Control::new(&config)?;
        let producer = Producer::new(&config)?;
        control.ping("connect", config.connect_timeout).await?;
        let inner = Inner {
            config,
            control,
            producer,
            observers: Observers::default(),
            topics: Mutex::default(),
            consumers: Mutex::default(),
            closed: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Whether there are messages, none of them was written, and each for a cause of this kind.
fn none_written(results: &[Published], kind: ErrorKind) -> bool {
    let is_not_written =
        |result: &Published| matches!(result, Published::NotWritten(error) if error.kind() == kind);
    !results.is_empty() && results.iter().all(is_not_written)
}

#[async_trait]
impl Broker for KafkaBroker {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Published>> {
        self.inner.check_open("publish")?;
        self.inner.require_topic(topic).await?;
        let results = self.inner.producer.publish(topic, batch).await?;
        if none_written(&results, ErrorKind::NotFound) {
            self.inner.forget_topic(topic);
            let problem = "there is no such topic any more";
            return Err(Error::new(ErrorKind::NotFound, "publish", problem).with("topic", topic));
        }
        if none_written(&results, ErrorKind::Unavailable) {
            // A client that learns of a topic's deletion while it sends says no more than that.
            self.inner.forget_topic(topic);
            let gone = self.inner.require_topic(topic).await.err();
            if let Some(gone) = gone.filter(|error| error.kind() == ErrorKind::NotFound) {
                return Err(gone);
            }
        }
        Ok(results)
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        self.inner.check_open("subscribe")?;
        Ok(Box::new(consumer::subscribe(self.inner.clone(), subscription).await?))
    }

    async fn lag(&self, topic: &Topic, group: &Group) -> Result<Vec<PartitionLag>> {
        self.inner.check_open("lag")?;
        let Inner { config, control, observers, .. } = &*self.inner;
        observers.lag(config, control, topic, group).await
    }

    async fn health(&self) -> Result<()> {
        self.inner.check_open("health")?;
        self.inner.control.ping("health", HEALTH_TIMEOUT).await
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    async fn shutdown(&self) -> Result<()> {
        if self.inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let consumers = {
            let mut consumers = self.inner.consumers.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *consumers)
        };
        let consumers: Vec<Arc<Link>> = consumers.iter().filter_map(Weak::upgrade).collect();
        consumers.iter().for_each(|consumer| consumer.close());
        self.inner.producer.flush().await?;
        for consumer in consumers {
            let mut ended = consumer.ended.subscribe();
            let left = timeout(LEAVE_MAX, ended.wait_for(|ended| *ended)).await;
            if left.is_err() {
                tracing::warn!("a consumer did not leave its group in time");
            }
        }
        self.inner.observers.clear();
        Ok(())
    }
}

impl fmt::Debug for KafkaBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaBroker").field("config", &self.inner.config).finish_non_exhaustive()
    }
}
