//! The connection that all tasks share.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use super::clients::Clients;
use super::config::Config;
use super::consumer;
use super::publisher::Publishers;
use super::state::Link;
use crate::capabilities::{Attempts, Capabilities, Durability};
use crate::contract::{Admin, Broker, Consumer, PartitionLag, Published};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::subscription::Subscription;

/// How long shutdown waits for a consumer to end.
const LEAVE_MAX: Duration = Duration::from_secs(15);

pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) clients: Clients,
    pub(super) publishers: Publishers,
    consumers: Mutex<Vec<Weak<Link>>>,
    closed: AtomicBool,
}

impl Inner {
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

    /// The topics on which a group has members over this connection, one for each member.
    pub(super) fn members(&self, group: &Group) -> Vec<(Topic, Option<String>)> {
        let consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        let links = consumers.iter().filter_map(Weak::upgrade);
        let members = links.filter(|link| link.wish.group.as_ref() == Some(group));
        let members = members.filter(|link| !*link.ended.borrow());
        members.map(|link| (link.wish.topic.clone(), link.wish.instance.clone())).collect()
    }

    fn take_consumers(&self) -> Vec<Arc<Link>> {
        let mut consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *consumers).iter().filter_map(Weak::upgrade).collect()
    }
}

pub(super) struct PubsubBroker {
    pub(super) inner: Arc<Inner>,
}

impl PubsubBroker {
    pub(super) async fn connect(config: Config) -> Result<Self> {
        let clients = Clients::new(&config).await?;
        clients.ping("connect", &config).await?;
        let inner = Inner {
            publishers: Publishers::new(clients.publisher.clone(), config.clone()),
            config,
            clients,
            consumers: Mutex::default(),
            closed: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Whether a message was not written because its topic is gone.
fn is_without_topic(result: &Published) -> bool {
    matches!(result, Published::NotWritten(error) if error.kind() == ErrorKind::NotFound)
}

#[async_trait]
impl Broker for PubsubBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "pubsub",
            partitions: false,
            offset_seek: false,
            read_at: false,
            compaction: false,
            lag: false,
            transactions: false,
            attempts: Attempts::Approximate,
            durability: Durability::Replicas,
            message_bytes_max: self.inner.config.message_bytes_max,
        }
    }

    async fn publish(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Published>> {
        self.inner.check_open("publish")?;
        let path = self.inner.config.project.topic("publish", topic)?;
        let results = self.inner.publishers.publish(topic, &path, batch).await?;
        if !results.is_empty() && results.iter().all(is_without_topic) {
            self.inner.publishers.forget(topic);
            let problem = "there is no such topic";
            return Err(Error::new(ErrorKind::NotFound, "publish", problem).with("topic", topic));
        }
        Ok(results)
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        self.inner.check_open("subscribe")?;
        Ok(Box::new(consumer::subscribe(self.inner.clone(), subscription).await?))
    }

    async fn lag(&self, topic: &Topic, group: &Group) -> Result<Vec<PartitionLag>> {
        self.inner.check_open("lag")?;
        let problem = "pubsub tells a group's lag only by its monitoring";
        let error = Error::new(ErrorKind::Unsupported, "lag", problem);
        Err(error.with("topic", topic).with("group", group))
    }

    async fn health(&self) -> Result<()> {
        self.inner.check_open("health")?;
        self.inner.clients.ping("health", &self.inner.config).await
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    async fn shutdown(&self) -> Result<()> {
        if self.inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let consumers = self.inner.take_consumers();
        for consumer in &consumers {
            consumer.end(Error::new(ErrorKind::Closed, "receive", "the broker was shut down"));
        }
        self.inner.publishers.close().await;
        for consumer in consumers {
            let mut ended = consumer.ended.subscribe();
            if timeout(LEAVE_MAX, ended.wait_for(|ended| *ended)).await.is_err() {
                tracing::warn!(topic = %consumer.wish.topic, "a consumer did not end in time");
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PubsubBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PubsubBroker").field("config", &self.inner.config).finish_non_exhaustive()
    }
}
