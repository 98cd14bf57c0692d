//! The embedded broker: one directory, shared by any number of processes.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::params;

use super::compaction;
use super::config::{Config, Durability};
use super::consumer::EmbeddedConsumer;
use super::log::{self, Appends, TopicRow};
use super::membership::{self, Member};
use super::schema;
use super::store::{Reader, Writer};
use crate::capabilities::{self, Attempts, Capabilities};
use crate::contract::{Admin, Broker, Consumer, PartitionLag, Published};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::subscription::Subscription;

/// How often retention looks for something to delete.
const RETENTION_INTERVAL: Duration = Duration::from_secs(5);

/// What the broker and its consumers share.
pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) boot: String,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    topics: Mutex<HashMap<Topic, Arc<TopicRow>>>,
    members: Mutex<Vec<(Weak<Member>, Group, i64)>>,
    spread: AtomicUsize,
    closed: AtomicBool,
}

/// The broker; see the module.
pub(super) struct Embedded {
    pub(super) inner: Arc<Inner>,
    /// Renews leases and deletes what retention lets go; ends with the broker.
    upkeep: tokio::task::JoinHandle<()>,
    /// Compacts topics; ends with the broker.
    compaction: tokio::task::JoinHandle<()>,
}

/// Opens the store in `config.directory`, making it where it is missing.
pub(super) async fn open(config: Config) -> Result<Embedded> {
    let task = tokio::task::spawn_blocking(move || {
        schema::prepare(&config)?;
        let reader = Reader::start(&config)?;
        let writer = Writer::start(&config)?;
        Ok::<_, Error>((config, reader, writer))
    });
    let (config, reader, writer) = task.await.map_err(|error| {
        Error::new(ErrorKind::Unexpected, "open store", "opening ended early").with_source(error)
    })??;
    let inner = Arc::new(Inner {
        config,
        boot: membership::boot_id(),
        reader,
        writer,
        topics: Mutex::default(),
        members: Mutex::default(),
        spread: AtomicUsize::new(0),
        closed: AtomicBool::new(false),
    });
    let upkeep = tokio::spawn(upkeep(Arc::downgrade(&inner)));
    let compaction = tokio::spawn(compaction::run(Arc::downgrade(&inner)));
    Ok(Embedded { inner, upkeep, compaction })
}

async fn upkeep(inner: Weak<Inner>) {
    let Some(lease) = inner.upgrade().map(|inner| inner.config.session_timeout) else { return };
    let period = (lease / 3).min(RETENTION_INTERVAL).max(Duration::from_millis(20));
    let mut since_retention = Duration::ZERO;
    loop {
        tokio::time::sleep(period).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.renew_leases();
        since_retention += period;
        if since_retention >= RETENTION_INTERVAL {
            since_retention = Duration::ZERO;
            inner.writer.write_later(log::retain);
        }
    }
}

impl Inner {
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "use", "the broker was shut down"));
        }
        Ok(())
    }

    async fn topic(&self, topic: &Topic) -> Result<Arc<TopicRow>> {
        let known = lock(&self.topics).get(topic).cloned();
        if let Some(row) = known {
            return self.check_open().map(|()| row);
        }
        self.look_up(topic).await
    }

    /// Forgets what is known of a topic.
    pub(super) fn forget(&self, topic: &Topic) {
        lock(&self.topics).remove(topic);
    }

    /// Finds a topic in the database, not in memory: another process may have made it anew.
    pub(super) async fn look_up(&self, topic: &Topic) -> Result<Arc<TopicRow>> {
        self.check_open()?;
        let wanted = topic.clone();
        let row = self.reader.query(move |connection| log::topic_row(connection, &wanted)).await?;
        let Some(row) = row.map(Arc::new) else {
            lock(&self.topics).remove(topic);
            let error = Error::new(ErrorKind::NotFound, "find topic", "the topic does not exist");
            return Err(error.with("topic", topic));
        };
        lock(&self.topics).insert(topic.clone(), row.clone());
        Ok(row)
    }

    /// Encodes a batch of which every message must be within the limit.
    pub(super) async fn encode_whole(&self, topic: &Topic, batch: &[Message]) -> Result<Appends> {
        let row = self.topic(topic).await?;
        for message in batch {
            self.check_message(topic, &row, message)?;
        }
        let spread = self.spread.fetch_add(1, Ordering::Relaxed);
        Ok(Appends::encode(topic, &row, spread, batch.iter().enumerate()))
    }

    fn check_message(&self, topic: &Topic, row: &TopicRow, message: &Message) -> Result<()> {
        let (size, limit) = (message.size(), self.config.message_bytes_max);
        let (kind, problem) = if size > limit {
            let problem = format!("a message of {size} bytes is over the limit of {limit}");
            (ErrorKind::TooLarge, problem)
        } else if row.compacted && message.key.is_none() {
            let problem = "a compacted topic takes no message without a key";
            (ErrorKind::Unsupported, problem.to_owned())
        } else {
            return Ok(());
        };
        Err(Error::new(kind, "publish", problem).with("topic", topic))
    }

    async fn append(&self, topic: &Topic, batch: &[Message]) -> Result<Vec<Published>> {
        let row = self.topic(topic).await?;
        let spread = self.spread.fetch_add(1, Ordering::Relaxed);
        let mut results: Vec<Option<Published>> = batch
            .iter()
            .map(|m| self.check_message(topic, &row, m).err().map(Published::NotWritten))
            .collect();
        let fitting = batch.iter().enumerate().filter(|(index, _)| results[*index].is_none());
        let appends = Appends::encode(topic, &row, spread, fitting);
        let appended = self.writer.write(move |connection| {
            appends.check(connection)?;
            appends.write(connection, true)
        });
        match appended.await {
            Ok(appended) => {
                for (index, result) in appended {
                    results[index] =
                        Some(result.map_or_else(Published::NotWritten, Published::Written));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(error),
            // A commit that fails is rolled back, so nothing of it is written.
            Err(error) => {
                let fail = || Published::NotWritten(error.duplicate());
                results.iter_mut().for_each(|r| *r = Some(r.take().unwrap_or_else(fail)));
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Makes a member and lets it enter the group.
    pub(super) async fn join(&self, group: &Group, topic: i64) -> Result<Arc<Member>> {
        let member = Arc::new(Member::new(&self.config.directory)?);
        self.enter(group, topic, &member).await?;
        let mut members = lock(&self.members);
        members.retain(|(member, ..)| member.strong_count() > 0);
        members.push((Arc::downgrade(&member), group.clone(), topic));
        Ok(member)
    }

    pub(super) async fn enter(&self, group: &Group, topic: i64, member: &Member) -> Result<()> {
        let work = self.renewal(group, topic, member);
        self.writer.write(work).await
    }

    fn renewal(
        &self,
        group: &Group,
        topic: i64,
        member: &Member,
    ) -> impl FnOnce(&rusqlite::Connection) -> Result<(), super::store::Failure> + Send + 'static
    {
        let (name, group, boot) = (member.name.clone(), group.clone(), self.boot.clone());
        let lease = i64::try_from(self.config.session_timeout.as_nanos()).unwrap_or(i64::MAX / 4);
        move |connection| membership::join(connection, &name, group.as_str(), topic, &boot, lease)
    }

    fn renew_leases(&self) {
        let members = lock(&self.members).clone();
        for (member, group, topic) in members {
            if let Some(member) = member.upgrade().filter(|member| member.is_polling()) {
                self.writer.write_later(self.renewal(&group, topic, &member));
            }
        }
    }

    /// Gives a member's partitions back without waiting.
    pub(super) fn leave(&self, member: &Arc<Member>) {
        let member = member.clone();
        // Keeping the member until its row is gone keeps others from counting a crash.
        self.writer.write_later(move |c| membership::remove(c, &member.name, true));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Broker for Embedded {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "embedded",
            partitions: true,
            offset_seek: true,
            read_at: true,
            compaction: true,
            lag: true,
            transactions: true,
            attempts: Attempts::Durable,
            durability: match self.inner.config.durability {
                Durability::Full => capabilities::Durability::Disk,
                Durability::Normal => capabilities::Durability::Process,
            },
            message_bytes_max: self.inner.config.message_bytes_max,
        }
    }

    async fn publish(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Published>> {
        match self.inner.append(topic, &batch).await {
            // The topic may have been made anew under its name since this process saw it.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.inner.look_up(topic).await?;
                self.inner.append(topic, &batch).await
            }
            other => other,
        }
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        self.inner.check_open()?;
        let row = (*self.inner.look_up(&subscription.topic).await?).clone();
        let inner = self.inner.clone();
        let consumer = match subscription.group.clone() {
            Some(group) => EmbeddedConsumer::member(inner, subscription, row, group).await?,
            None => EmbeddedConsumer::reader(inner, subscription, row).await?,
        };
        Ok(Box::new(consumer))
    }

    async fn lag(&self, topic: &Topic, group: &Group) -> Result<Vec<PartitionLag>> {
        let row = self.inner.topic(topic).await?;
        let group = group.clone();
        let lag = self.inner.reader.query(move |connection| {
            connection
                .prepare_cached(
                    "SELECT p.number, o.committed, p.next, p.start FROM partitions p
                     LEFT JOIN positions o ON o.partition = p.id AND o.grp = ?1
                     WHERE p.topic = ?2 ORDER BY p.number",
                )?
                .query_map(params![group.as_str(), row.id], lag_row)?
                .collect()
        });
        lag.await
    }

    async fn health(&self) -> Result<()> {
        self.inner.check_open()?;
        self.inner.reader.query(|c| c.query_row("SELECT 1", [], |_| Ok(()))).await
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    async fn shutdown(&self) -> Result<()> {
        if self.inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.upkeep.abort();
        self.compaction.abort();
        // Jobs run in their order, so when this one is done all earlier ones are.
        self.inner.writer.write(|_| Ok(())).await
    }
}

fn lag_row(row: &rusqlite::Row<'_>) -> Result<PartitionLag, rusqlite::Error> {
    let (committed, end): (Option<i64>, i64) = (row.get(1)?, row.get(2)?);
    let start: i64 = row.get(3)?;
    let from = committed.unwrap_or(start).max(start);
    Ok(PartitionLag {
        partition: row.get(0)?,
        committed: committed.map(|offset| offset as u64),
        end: end as u64,
        behind: (end - from).max(0) as u64,
    })
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.upkeep.abort();
        self.compaction.abort();
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("config", &self.inner.config).finish_non_exhaustive()
    }
}
