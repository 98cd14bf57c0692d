//! The connection that all tasks share.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{join_all, try_join_all};
use tokio::sync::{Notify, RwLock};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::config::Config;
use super::connection::{Link, Server};
use super::consumer;
use super::groups;
use super::keys::{self, TopicKeys};
use super::membership::Member;
use super::producer::Producer;
use super::retention::{self, Description};
use super::server::{self, Found};
use crate::capabilities::{Attempts, Capabilities};
use crate::contract::{Admin, Broker, Consumer, PartitionLag, Published};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::subscription::Subscription;

/// How long `health` waits for an answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often retention looks for something to delete, and topics are looked up anew.
const RETENTION_INTERVAL: Duration = Duration::from_secs(5);

/// What the broker and its consumers share.
pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) server: Arc<Server>,
    /// For everything but messages.
    pub(super) link: Arc<Link>,
    pub(super) producer: Producer,
    found: Found,
    topics: Mutex<HashMap<Topic, Arc<TopicKeys>>>,
    members: Mutex<Vec<Weak<Member>>>,
    departures: Arc<Departures>,
    /// Held for reading by whoever publishes, so that shutdown can wait for them.
    publishing: RwLock<()>,
    closed: AtomicBool,
}

/// Members whose consumers were dropped, on their way out of their groups.
#[derive(Default)]
struct Departures {
    members: Mutex<Vec<Arc<Member>>>,
    changed: Notify,
}

pub(super) struct RedisBroker {
    pub(super) inner: Arc<Inner>,
    /// Renews leases, lets members leave and deletes what retention lets go. It ends when the
    /// broker and its consumers are gone and the last member has left.
    _upkeep: JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RedisBroker {
    pub(super) async fn connect(config: Config) -> Result<Self> {
        let reading = config.clone();
        let server = tokio::task::spawn_blocking(move || Server::new(&reading)).await;
        let server = server.map_err(|error| {
            Error::new(ErrorKind::Unexpected, "connect", "reading files ended early")
                .with_source(error)
        })??;
        let link = Arc::new(server.link());
        let found = server::check(&link, &config).await?;
        let producer = Producer::new(server.link(), &config);
        let inner = Arc::new(Inner {
            config,
            server,
            link,
            producer,
            found,
            topics: Mutex::default(),
            members: Mutex::default(),
            departures: Arc::default(),
            publishing: RwLock::default(),
            closed: AtomicBool::new(false),
        });
        let (link, departures) = (inner.link.clone(), inner.departures.clone());
        let period = (inner.config.session_timeout / 3).min(RETENTION_INTERVAL);
        let upkeep = tokio::spawn(upkeep(Arc::downgrade(&inner), link, departures, period));
        Ok(Self { inner, _upkeep: upkeep })
    }
}

async fn upkeep(
    inner: Weak<Inner>,
    link: Arc<Link>,
    departures: Arc<Departures>,
    period: Duration,
) {
    let mut since_retention = Duration::ZERO;
    loop {
        let slept = timeout(period, departures.changed.notified()).await.is_err();
        departures.serve(&link).await;
        let Some(inner) = inner.upgrade() else { return departures.serve(&link).await };
        if !slept {
            continue;
        }
        inner.renew_leases().await;
        since_retention += period;
        if since_retention >= RETENTION_INTERVAL {
            since_retention = Duration::ZERO;
            inner.retain().await;
        }
    }
}

impl Departures {
    /// Lets members leave. Whom the server does not hear is taken for dead once its lease ran
    /// out.
    async fn serve(&self, link: &Link) {
        let members = std::mem::take(&mut *lock(&self.members));
        let left = join_all(members.iter().map(|member| member.leave(link))).await;
        for error in left.into_iter().filter_map(Result::err) {
            tracing::debug!(%error, "a member did not leave in order");
        }
    }
}

impl Inner {
    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "redis",
            partitions: true,
            offset_seek: true,
            read_at: true,
            compaction: false,
            lag: true,
            transactions: true,
            attempts: Attempts::Durable,
            durability: self.found.survives(&self.config),
            message_bytes_max: self.config.message_bytes_max,
        }
    }

    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, operation, "the broker was shut down"));
        }
        Ok(())
    }

    /// A topic that was seen before, or else is looked up.
    pub(super) async fn topic(
        &self,
        operation: &'static str,
        topic: &Topic,
    ) -> Result<Arc<TopicKeys>> {
        let known = lock(&self.topics).get(topic).cloned();
        match known {
            Some(known) => Ok(known),
            None => Box::pin(self.look_up(operation, topic)).await,
        }
    }

    /// Asks the server for a topic; `NotFound` where there is none.
    pub(super) async fn look_up(
        &self,
        operation: &'static str,
        topic: &Topic,
    ) -> Result<Arc<TopicKeys>> {
        let found = self.refresh(operation, topic).await?;
        let missing = || {
            Error::new(ErrorKind::NotFound, operation, "the topic does not exist")
                .with("topic", topic)
        };
        found.map(|(keys, _)| keys).ok_or_else(missing)
    }

    async fn refresh(
        &self,
        operation: &'static str,
        topic: &Topic,
    ) -> Result<Option<(Arc<TopicKeys>, Description)>> {
        let key = keys::topic(&self.config.prefix, topic);
        let Some(description) = retention::describe(&self.link, operation, &key).await? else {
            self.forget(topic);
            return Ok(None);
        };
        let mut topics = lock(&self.topics);
        let count = description.partitions;
        if let Some(known) = topics.get(topic).filter(|k| k.streams.len() == count as usize) {
            return Ok(Some((known.clone(), description)));
        }
        let keys = Arc::new(TopicKeys::new(&self.config.prefix, topic, count));
        topics.insert(topic.clone(), keys.clone());
        Ok(Some((keys, description)))
    }

    pub(super) fn forget(&self, topic: &Topic) {
        lock(&self.topics).remove(topic);
    }

    async fn retain(&self) {
        let topics: Vec<Topic> = lock(&self.topics).keys().cloned().collect();
        for topic in topics {
            if let Ok(Some((keys, description))) = self.refresh("retain", &topic).await {
                retention::retain(&self.link, &keys, description).await;
            }
        }
    }

    /// Remembers a member, to renew its lease.
    pub(super) fn enrol(&self, member: &Arc<Member>) {
        let mut members = lock(&self.members);
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(member));
    }

    /// Lets a member leave without waiting for it.
    pub(super) fn depart(&self, member: Arc<Member>) {
        lock(&self.departures.members).push(member);
        self.departures.changed.notify_one();
    }

    async fn renew_leases(&self) {
        let members: Vec<_> = lock(&self.members).iter().filter_map(Weak::upgrade).collect();
        let polling = members.iter().filter(|member| member.is_polling());
        let renewed = join_all(polling.map(|member| member.attend(&self.link, false))).await;
        for error in renewed.into_iter().filter_map(Result::err) {
            tracing::debug!(%error, "a lease was not renewed");
        }
    }
}

impl Drop for Inner {
    /// Lets the upkeep end.
    fn drop(&mut self) {
        self.departures.changed.notify_one();
    }
}

fn is_without_topic(result: &Published) -> bool {
    matches!(result, Published::NotWritten(error) if error.kind() == ErrorKind::NotFound)
}

#[async_trait]
impl Broker for RedisBroker {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Published>> {
        let inner = &self.inner;
        let _published = inner.publishing.read().await;
        inner.check_open("publish")?;
        let keys = inner.topic("publish", topic).await?;
        let results = inner.producer.publish(&keys, &batch).await;
        let is_gone = !results.is_empty() && results.iter().all(is_without_topic);
        if !is_gone {
            return Ok(results);
        }
        // It may have been made anew with other partitions; nothing was written so far.
        let keys = Box::pin(inner.look_up("publish", topic)).await?;
        Ok(inner.producer.publish(&keys, &batch).await)
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        self.inner.check_open("subscribe")?;
        Ok(Box::new(consumer::subscribe(self.inner.clone(), subscription).await?))
    }

    async fn lag(&self, topic: &Topic, group: &Group) -> Result<Vec<PartitionLag>> {
        self.inner.check_open("lag")?;
        let keys = self.inner.look_up("lag", topic).await?;
        let link = &self.inner.link;
        let lags = keys.numbered().map(|(n, stream)| groups::lag(link, stream, n, group));
        try_join_all(lags).await.map_err(|error| error.with("topic", topic))
    }

    async fn health(&self) -> Result<()> {
        self.inner.check_open("health")?;
        let ping = redis::cmd("PING");
        let answer = timeout(HEALTH_TIMEOUT, self.inner.link.query("health", &ping)).await;
        let silent = |_| Error::new(ErrorKind::Unavailable, "health", "the server is silent");
        let answer = answer.map_err(silent)?;
        answer.map(drop).map_err(|error| match error.kind() {
            ErrorKind::Timeout => {
                Error::new(ErrorKind::Unavailable, "health", "the server is silent")
            }
            _ => error,
        })
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    async fn shutdown(&self) -> Result<()> {
        if self.inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        drop(self.inner.publishing.write().await);
        let members: Vec<_> = lock(&self.inner.members).iter().filter_map(Weak::upgrade).collect();
        members.into_iter().for_each(|member| self.inner.depart(member));
        self.inner.departures.serve(&self.inner.link).await;
        Ok(())
    }
}

impl fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBroker")
            .field("config", &self.inner.config)
            .field("durability", &self.inner.found.tell())
            .finish_non_exhaustive()
    }
}
