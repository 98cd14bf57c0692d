//! The side that asks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{CORRELATION_ID, REPLY_TO};
use crate::contract::{Broker, Consumer, TopicSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::BrokerExt;
use crate::message::{Message, Timestamp};
use crate::name::Topic;
use crate::policy::Backoff;
use crate::subscription::{Limit, Subscription};

/// How long answers stay that nobody reads any more.
const RETENTION: Duration = Duration::from_secs(3600);
/// The most answers that are received at once, and how long to wait for the first.
const RECEIVE: Limit = Limit::new(500, Duration::from_secs(10));

/// How a requester asks.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the name of the topic for answers begins with (`replies`).
    pub prefix: String,
    /// How long to wait for an answer (10 s).
    pub timeout: Duration,
    /// The most requests that may wait for their answers at once (10,000).
    pub pending_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        let timeout = Duration::from_secs(10);
        Self { prefix: "replies".to_owned(), timeout, pending_max: 10_000 }
    }
}

/// The requests that wait for their answers.
#[derive(Debug, Default)]
struct Pending {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Message>>>>,
    late: AtomicU64,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Message>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an answer to the request that waits for it.
    fn answer(&self, message: &Message) {
        let id = message.headers.get_str(CORRELATION_ID).and_then(|id| id.parse().ok());
        let waiting = id.and_then(|id: u64| self.lock().remove(&id));
        let taken = waiting.is_some_and(|waiting| waiting.send(Ok(message.clone())).is_ok());
        if !taken {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn fail(&self, error: &Error) {
        for (_, waiting) in self.lock().drain() {
            // A request that has just run out of time needs no answer.
            let _ = waiting.send(Err(error.duplicate()));
        }
    }
}

/// Takes a request off the list however it ends.
struct Ticket<'a> {
    pending: &'a Pending,
    id: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.id);
    }
}

/// Asks over topics and waits for the answers; shared by any number of tasks.
///
/// It has a topic of its own, which [`close`](Self::close) deletes; one that is only dropped
/// leaves the topic behind. A task that ends with the requester reads it.
#[derive(Debug)]
pub struct Requester {
    broker: Arc<dyn Broker>,
    topic: Topic,
    options: Options,
    pending: Arc<Pending>,
    next_id: AtomicU64,
    reading: JoinHandle<()>,
}

impl Requester {
    /// Makes the topic for answers and begins to read it.
    pub async fn open(broker: Arc<dyn Broker>, options: Options) -> Result<Self> {
        let topic = Topic::new(&unique(&options.prefix))?;
        let spec = TopicSpec { retention: Some(RETENTION), ..TopicSpec::new(&topic, 1) };
        broker.admin().create_topic(&spec).await?;
        let consumer = broker.subscribe(Subscription::reader(&topic)).await?;
        let pending: Arc<Pending> = Arc::default();
        let reading = tokio::spawn(read(consumer, pending.clone()));
        Ok(Self { broker, topic, options, pending, next_id: AtomicU64::new(0), reading })
    }

    /// The topic that answers come to.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Publishes a request and waits for its answer.
    ///
    /// `Timeout` where none comes in time; the request may be answered later still, and is
    /// dropped then. `Throttled` where too many wait already. A request is published once;
    /// whoever handles it may see it again after a crash. Dropping the future gives it up.
    pub async fn request(&self, topic: &Topic, message: Message) -> Result<Message> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, ticket) = self.enlist(id)?;
        let message = message
            .with_header(REPLY_TO, self.topic.as_str())
            .with_header(CORRELATION_ID, id.to_string());
        let asked = async {
            self.broker.publish_one(topic, message).await?;
            let gone = |_| Error::new(ErrorKind::Closed, "request", "the requester was closed");
            answer.await.map_err(gone)?
        };
        let answered = timeout(self.options.timeout, asked).await;
        drop(ticket);
        answered.unwrap_or_else(|_| {
            let problem = format!("no answer came within {:?}", self.options.timeout);
            Err(Error::new(ErrorKind::Timeout, "request", problem).with("topic", topic))
        })
    }

    fn enlist(&self, id: u64) -> Result<(oneshot::Receiver<Result<Message>>, Ticket<'_>)> {
        if self.reading.is_finished() {
            let problem = "the topic for answers can't be read any more";
            let error = Error::new(ErrorKind::Closed, "request", problem);
            return Err(error.with("topic", &self.topic));
        }
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.pending.lock();
        let max = self.options.pending_max;
        if waiting.len() >= max {
            let problem = format!("{max} requests wait for their answers already");
            return Err(Error::new(ErrorKind::Throttled, "request", problem));
        }
        waiting.insert(id, sender);
        Ok((answer, Ticket { pending: &self.pending, id }))
    }

    /// How many answers came that nobody waited for, mostly because they were late.
    pub fn late(&self) -> u64 {
        self.pending.late.load(Ordering::Relaxed)
    }

    /// Stops reading and deletes the topic for answers.
    pub async fn close(self) -> Result<()> {
        self.reading.abort();
        match self.broker.admin().delete_topic(&self.topic).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

impl Drop for Requester {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Reads answers until an error that no retry helps, of which all that wait are told.
async fn read(mut consumer: Box<dyn Consumer>, pending: Arc<Pending>) {
    let mut failures = 0;
    loop {
        match consumer.receive(RECEIVE).await {
            Ok(answers) => {
                failures = 0;
                answers.iter().for_each(|answer| pending.answer(answer));
            }
            Err(error) if error.is_retryable() => {
                failures += 1;
                tokio::time::sleep(Backoff::default().pause(failures)).await;
            }
            Err(error) => {
                tracing::warn!(?error, "answers can't be read any more");
                return pending.fail(&error);
            }
        }
    }
}

/// A name that no other instance has.
fn unique(prefix: &str) -> String {
    let (process, now) = (std::process::id(), Timestamp::now().as_micros());
    format!("{prefix}-{process:x}-{now:x}-{:08x}", fastrand::u32(..))
}
