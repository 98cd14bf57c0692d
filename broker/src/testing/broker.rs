//! One connection to the store, as a process has it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::Call;
use super::consumer::MemoryConsumer;
use super::log::Log;
use super::store::Store;
use crate::capabilities::{Attempts, Capabilities, Durability};
use crate::contract::{Admin, Broker, Consumer, PartitionLag, Published};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::subscription::Subscription;

/// The most bytes of key, payload and headers in one message.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What a connection shares with its consumers.
pub(super) struct Link {
    pub(super) store: Arc<Store>,
    closed: AtomicBool,
}

impl Link {
    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, operation, "the broker was shut down"));
        }
        Ok(())
    }
}

pub(super) struct Connection {
    pub(super) link: Arc<Link>,
}

impl Connection {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { link: Arc::new(Link { store, closed: AtomicBool::new(false) }) }
    }
}

/// `TooLarge` for a message over the limit, `Unsupported` for one without a key on a compacted
/// topic.
pub(super) fn check(topic: &Topic, log: &Log, message: &Message) -> Result<()> {
    let size = message.size();
    let (kind, problem) = if size > MESSAGE_BYTES_MAX {
        let problem = format!("a message of {size} bytes is over the limit of {MESSAGE_BYTES_MAX}");
        (ErrorKind::TooLarge, problem)
    } else if log.compacted && message.key.is_none() {
        (ErrorKind::Unsupported, "a compacted topic takes no message without a key".to_owned())
    } else {
        return Ok(());
    };
    Err(Error::new(kind, "publish", problem).with("topic", topic))
}

#[async_trait]
impl Broker for Connection {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "memory",
            partitions: true,
            offset_seek: true,
            read_at: true,
            compaction: true,
            lag: true,
            transactions: true,
            attempts: Attempts::Durable,
            durability: Durability::Memory,
            message_bytes_max: MESSAGE_BYTES_MAX,
        }
    }

    async fn publish(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Published>> {
        // Nothing here waits for anything else, so a busy publisher makes way by itself.
        tokio::task::consume_budget().await;
        self.link.check_open("publish")?;
        let store = &self.link.store;
        let mut state = store.lock();
        if let Err(error) = state.fault(Call::Publish, "publish") {
            return Ok(batch.iter().map(|_| Published::NotWritten(error.duplicate())).collect());
        }
        let log = state.log(topic, "publish")?;
        let refused: Vec<Option<Error>> =
            batch.iter().map(|message| check(topic, log, message).err()).collect();
        let fitting = batch.into_iter().zip(&refused).filter(|(_, refused)| refused.is_none());
        let fitting = fitting.map(|(message, _)| message).collect();
        let mut written = log.append(fitting, store.now()).into_iter();
        drop(state);
        store.tell();
        let result = |refused| match refused {
            Some(error) => Some(Published::NotWritten(error)),
            None => written.next().map(Published::Written),
        };
        Ok(refused.into_iter().filter_map(result).collect())
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        self.link.check_open("subscribe")?;
        Ok(Box::new(MemoryConsumer::open(self.link.clone(), subscription)?))
    }

    async fn lag(&self, topic: &Topic, group: &Group) -> Result<Vec<PartitionLag>> {
        self.link.check_open("lag")?;
        let mut state = self.link.store.lock();
        let log = state.log(topic, "lag")?;
        let (id, described) = (log.id, log.describe());
        let places = state.groups.get(group).map(|members| &members.places);
        let lag = described.into_iter().map(|partition| {
            let place = places.and_then(|places| places.get(&(id, partition.partition)));
            let committed = place.map(|place| place.committed);
            PartitionLag {
                partition: partition.partition,
                committed,
                end: partition.end,
                behind: partition.end.saturating_sub(committed.unwrap_or(partition.start)),
            }
        });
        Ok(lag.collect())
    }

    async fn health(&self) -> Result<()> {
        self.link.check_open("health")
    }

    fn admin(&self) -> &dyn Admin {
        self
    }

    async fn shutdown(&self) -> Result<()> {
        self.link.closed.store(true, Ordering::Release);
        self.link.store.tell();
        Ok(())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}
