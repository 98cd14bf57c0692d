//! Publishing, one lane to a topic.
//!
//! Google's client gathers messages of one ordering key for a request, and sends those of a key
//! one request after the other. After a failure it refuses the key until it is resumed, which
//! happens here once all messages of the failed batch have their answer. It keeps a task for
//! each key that it ever saw, so a lane takes a new client after [`KEYS_MAX`] of them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use google_cloud_pubsub::client::{BasePublisher, Publisher};
use google_cloud_pubsub::publisher::PublishFuture;
use tokio::sync::RwLock;

use super::config::Config;
use super::convert::{offset, to_pubsub};
use super::error::unpublished;
use crate::contract::Published;
use crate::delivery::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

/// How many keys one client of a lane serves.
const KEYS_MAX: usize = 10_000;

pub(super) struct Publishers {
    base: BasePublisher,
    config: Config,
    /// `None` once shut down.
    lanes: Mutex<Option<HashMap<Topic, Arc<Lane>>>>,
}

/// Whoever publishes only reads; a flush, during which nobody may publish, writes.
type Lane = RwLock<Client>;

struct Client {
    publisher: Publisher,
    keys: Mutex<HashSet<u64>>,
    hasher: RandomState,
    /// No more is taken.
    closed: bool,
}

impl Client {
    fn keys(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        self.keys().len() >= KEYS_MAX
    }
}

/// A message on its way, with the ordering key to resume where it fails.
struct Pending {
    sent: Result<PublishFuture>,
    key: String,
}

impl Publishers {
    pub(super) fn new(base: BasePublisher, config: Config) -> Self {
        Self { base, config, lanes: Mutex::new(Some(HashMap::new())) }
    }

    /// Publishes a batch to the topic whose full name is `path`.
    pub(super) async fn publish(
        &self,
        topic: &Topic,
        path: &str,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>> {
        let lane = self.lane(topic, path)?;
        let (publisher, pending) = {
            let mut client = lane.read().await;
            if client.is_full() {
                drop(client);
                self.renew(&lane, path).await;
                client = lane.read().await;
            }
            if client.closed {
                return Err(closed());
            }
            let pending: Vec<Pending> =
                batch.into_iter().map(|message| self.send(&client, message)).collect();
            (client.publisher.clone(), pending)
        };
        Ok(settle(&publisher, pending).await)
    }

    /// Gives a lane a new client once all that was published by the old one has its answer.
    async fn renew(&self, lane: &Lane, path: &str) {
        let mut client = lane.write().await;
        if client.is_full() && !client.closed {
            client.publisher.flush().await;
            *client = self.client(path);
        }
    }

    /// Waits until all that was published has its answer; from now on nothing is taken.
    pub(super) async fn close(&self) {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).take();
        for lane in lanes.into_iter().flat_map(HashMap::into_values) {
            let mut client = lane.write().await;
            client.closed = true;
            client.publisher.flush().await;
        }
    }

    /// Ends the lane of a topic that is gone.
    pub(super) fn forget(&self, topic: &Topic) {
        if let Some(lanes) = &mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner) {
            lanes.remove(topic);
        }
    }

    fn lane(&self, topic: &Topic, path: &str) -> Result<Arc<Lane>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = lanes.as_mut().ok_or_else(closed)?;
        if let Some(lane) = lanes.get(topic) {
            return Ok(lane.clone());
        }
        let lane = Arc::new(Lane::new(self.client(path)));
        lanes.insert(topic.clone(), lane.clone());
        Ok(lane)
    }

    fn client(&self, path: &str) -> Client {
        let publisher = self.base.publisher(path);
        let publisher = publisher
            .set_message_count_threshold(self.config.batch_messages)
            .set_byte_threshold(self.config.batch_bytes)
            .set_delay_threshold(self.config.batch_delay)
            .build();
        let (keys, hasher) = (Mutex::default(), RandomState::new());
        Client { publisher, keys, hasher, closed: false }
    }

    fn send(&self, client: &Client, message: Message) -> Pending {
        let converted = self.check_size(&message).and_then(|()| to_pubsub(message));
        let message = match converted {
            Ok(message) => message,
            Err(error) => return Pending { sent: Err(error), key: String::new() },
        };
        let key = message.ordering_key.clone();
        if !key.is_empty() {
            client.keys().insert(client.hasher.hash_one(&key));
        }
        Pending { sent: Ok(client.publisher.publish(message)), key }
    }

    fn check_size(&self, message: &Message) -> Result<()> {
        let (size, max) = (message.size(), self.config.message_bytes_max);
        if size <= max {
            return Ok(());
        }
        let error = Error::new(ErrorKind::TooLarge, "publish", "the message is too large");
        Err(error.with("bytes", size).with("message_bytes_max", max))
    }
}

/// Waits for all answers, then resumes the keys that a failure stopped.
async fn settle(publisher: &Publisher, pending: Vec<Pending>) -> Vec<Published> {
    let mut results = Vec::with_capacity(pending.len());
    let mut stopped = BTreeSet::new();
    for Pending { sent, key } in pending {
        let future = match sent {
            Ok(future) => future,
            Err(error) => {
                results.push(Published::NotWritten(error));
                continue;
            }
        };
        results.push(match future.await {
            Ok(id) => Published::Written(Position::new(0, offset(&id))),
            Err(error) => {
                stopped.insert(key);
                unpublished(error)
            }
        });
    }
    stopped.into_iter().for_each(|key| publisher.resume_publish(key));
    results
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "publish", "the broker was shut down")
}
