//! The producer: one result for each message, one wake-up for each batch.
//!
//! A message's tag, which librdkafka hands back with its result, is its batch's slot and its
//! place therein, so that sending allocates nothing for a message.

use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::util::IntoOpaque;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::config::Config;
use super::control::blocking;
use super::error::{from_code, translate};
use super::oauth::Tokens;
use super::{convert, log, native};
use crate::contract::Published;
use crate::delivery::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

const _: () = assert!(usize::BITS == 64, "a tag holds two numbers of 32 bits");
const PLACE_BITS: u32 = 32;
/// How long a sender waits for the news that a full queue has room.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// How long one wait for results lasts. The wrapper spins through the last millisecond of each.
const POLL_MAX: Duration = Duration::from_secs(1);

/// A batch whose results are not all in.
struct Batch {
    results: Vec<Option<Published>>,
    /// Results to come.
    open: usize,
    done: oneshot::Sender<Vec<Option<Published>>>,
}

#[derive(Default)]
struct Batches {
    slots: Vec<Option<Batch>>,
    free: Vec<usize>,
}

impl Batches {
    fn begin(&mut self, messages: usize, done: oneshot::Sender<Vec<Option<Published>>>) -> usize {
        let results = std::iter::repeat_with(|| None).take(messages).collect();
        let batch = Some(Batch { results, open: messages, done });
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = batch;
                slot
            }
            None => {
                self.slots.push(batch);
                self.slots.len() - 1
            }
        }
    }

    /// Takes the result of one message; the last one completes the batch.
    fn answer(&mut self, slot: usize, place: usize, published: Published) -> Option<Batch> {
        let batch = self.slots.get_mut(slot)?.as_mut()?;
        if let Some(result) = batch.results.get_mut(place) {
            *result = Some(published);
        }
        self.release(slot, 1)
    }

    /// Waits for so many fewer.
    fn release(&mut self, slot: usize, count: usize) -> Option<Batch> {
        let batch = self.slots.get_mut(slot)?.as_mut()?;
        batch.open -= count;
        if batch.open > 0 {
            return None;
        }
        self.free.push(slot);
        self.slots[slot].take()
    }
}

/// What librdkafka calls back.
#[derive(Default)]
struct Deliveries {
    batches: Mutex<Batches>,
    /// A sender waits for room in the queue.
    stalled: AtomicBool,
    room: Notify,
    tokens: Tokens,
}

impl Deliveries {
    /// Answers the batch that this result completes, outside the lock: whoever waits for it
    /// wants the lock next.
    fn answer(&self, slot: usize, place: usize, published: Published) {
        let complete = self.lock().answer(slot, place, published);
        if let Some(batch) = complete {
            // Whoever published may have gone.
            let _ = batch.done.send(batch.results);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Batches> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        self.tokens.read()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log::record(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log::record_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        let published = match result {
            Ok(message) => Published::Written(Position::new(
                u32::try_from(message.partition()).unwrap_or_default(),
                u64::try_from(message.offset()).unwrap_or_default(),
            )),
            Err((error, message)) => {
                let cause = translate("publish", error.clone()).with("topic", message.topic());
                if native::is_not_persisted(message) {
                    Published::NotWritten(cause)
                } else {
                    Published::Unknown(cause)
                }
            }
        };
        let (slot, place) = (tag >> PLACE_BITS, tag & u32::MAX as usize);
        self.answer(slot, place, published);
        if self.stalled.load(Ordering::Relaxed) && self.stalled.swap(false, Ordering::AcqRel) {
            self.room.notify_waiters();
        }
    }
}

type Native = BaseProducer<Deliveries>;

pub(super) struct Producer {
    native: Arc<Native>,
    /// Ends the thread that serves the results, within [`POLL_MAX`].
    ended: Arc<AtomicBool>,
    deliveries: Arc<Deliveries>,
    message_bytes_max: usize,
}

/// A batch being sent, so that a dropped future leaves no slot behind.
struct Sending<'a> {
    deliveries: &'a Deliveries,
    slot: usize,
    /// Messages that librdkafka has not seen yet.
    left: usize,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if self.left > 0 {
            // Nobody waits for its results.
            drop(self.deliveries.lock().release(self.slot, self.left));
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// Starts the thread that waits for results and hands them on.
fn serve(native: Arc<Native>, ended: Arc<AtomicBool>) -> Result<()> {
    let work = move || {
        while !ended.load(Ordering::Acquire) {
            native.poll(POLL_MAX);
        }
    };
    let thread = std::thread::Builder::new().name("kafka-producer".into()).spawn(work);
    thread.map(drop).map_err(|error| {
        let problem = "no thread can be started";
        Error::new(ErrorKind::Unexpected, "connect", problem).with_source(error)
    })
}

type Record<'a, T> = BaseRecord<'a, [u8], [u8], T>;

/// Refuses what no broker is asked to take.
pub(super) fn check(message: &Message, bytes_max: usize) -> Result<()> {
    let size = message.size();
    if size > bytes_max {
        let problem = format!("the message has {size} bytes, and {bytes_max} are allowed");
        return Err(Error::new(ErrorKind::TooLarge, "publish", problem));
    }
    convert::check_headers(&message.headers)
}

/// A message as librdkafka takes it. A tombstone is one without a value; it keeps its header,
/// so that headers keep their order.
pub(super) fn record<'a, T: IntoOpaque>(
    topic: &'a Topic,
    message: &'a Message,
    tag: T,
    bytes_max: usize,
) -> Result<Record<'a, T>> {
    check(message, bytes_max)?;
    let payload: &[u8] = &message.payload;
    Ok(BaseRecord {
        topic: topic.as_str(),
        partition: None,
        payload: (!payload.is_empty() || !message.is_tombstone()).then_some(payload),
        key: message.key.as_deref(),
        timestamp: message.timestamp.map(convert::to_millis),
        headers: convert::to_headers(&message.headers),
        delivery_opaque: tag,
    })
}

impl Producer {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let native = config.producer();
        let deliveries = Deliveries { tokens: config.tokens(), ..Deliveries::default() };
        let native = native.create_with_context(deliveries);
        let native: Native = native.map_err(|error| translate("connect", error))?;
        let deliveries = native.client().context().clone();
        let message_bytes_max = config.message_bytes_max;
        let (native, ended) = (Arc::new(native), Arc::new(AtomicBool::new(false)));
        serve(native.clone(), ended.clone())?;
        Ok(Self { native, ended, deliveries, message_bytes_max })
    }

    /// Sends a batch to a topic that exists and waits for all of its results.
    pub(super) async fn publish(
        &self,
        topic: &Topic,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let (done, results) = oneshot::channel();
        let left = batch.len();
        let slot = self.deliveries.lock().begin(left, done);
        let mut sending = Sending { deliveries: &self.deliveries, slot, left };
        for (place, message) in batch.into_iter().enumerate() {
            let sent =
                match record(topic, &message, slot << PLACE_BITS | place, self.message_bytes_max) {
                    Ok(record) => self.send(record).await,
                    Err(error) => Err(error),
                };
            sending.left -= 1;
            if let Err(error) = sent {
                let refused = Published::NotWritten(error.with("topic", topic));
                self.deliveries.answer(slot, place, refused);
            }
        }
        drop(sending);
        let lost = || Error::new(ErrorKind::Unexpected, "publish", "a result was lost");
        let results = results.await.map_err(|_| lost())?;
        let results = results.into_iter();
        Ok(results.map(|result| result.unwrap_or_else(|| Published::Unknown(lost()))).collect())
    }

    /// Queues one message, whose bytes are copied; waits while the queue is full.
    async fn send(&self, mut record: Record<'_, usize>) -> Result<()> {
        loop {
            let refused = match self.native.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            match refused {
                (KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back) => record = back,
                (error, _) => return Err(self.refused(error)),
            }
            let room = self.deliveries.room.notified();
            self.deliveries.stalled.store(true, Ordering::Release);
            // The last result may have come just before: look again by and by.
            let _ = timeout(FULL_PAUSE, room).await;
        }
    }

    /// The cause of a fatal error tells more than that there was one.
    fn refused(&self, error: KafkaError) -> Error {
        match self.native.client().fatal_error() {
            Some((code, reason)) => from_code("publish", code).with("reason", reason),
            None => translate("publish", error),
        }
    }

    /// Waits until everything queued has its result; `message.timeout.ms` bounds it.
    pub(super) async fn flush(&self) -> Result<()> {
        let native = self.native.clone();
        blocking("shutdown", move || {
            native.flush(None).map_err(|error| translate("shutdown", error))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(messages: usize) -> (Batches, usize, oneshot::Receiver<Vec<Option<Published>>>) {
        let (done, results) = oneshot::channel();
        let mut batches = Batches::default();
        let slot = batches.begin(messages, done);
        (batches, slot, results)
    }

    fn written(offset: u64) -> Published {
        Published::Written(Position::new(0, offset))
    }

    #[test]
    fn a_batch_is_answered_once_when_its_last_result_is_in() {
        let (mut batches, slot, _results) = begin(2);
        assert!(batches.answer(slot, 1, written(8)).is_none(), "one result is missing");
        let batch = batches.answer(slot, 0, written(7)).unwrap();
        let offsets: Vec<u64> =
            batch.results.into_iter().map(|r| r.unwrap().position().unwrap().offset()).collect();
        assert_eq!(offsets, [7, 8]);
    }

    #[test]
    fn a_slot_is_used_again_only_after_its_batch() {
        let (mut batches, first, _results) = begin(1);
        let second = batches.begin(1, oneshot::channel().0);
        assert_ne!(first, second);
        assert_ne!(batches.begin(1, oneshot::channel().0), first);
        assert!(batches.answer(first, 0, written(1)).is_some());
        assert_eq!(batches.begin(1, oneshot::channel().0), first);
    }

    #[test]
    fn a_sender_that_gives_up_leaves_no_slot_behind() {
        let deliveries = Deliveries::default();
        let slot = deliveries.lock().begin(3, oneshot::channel().0);
        drop(Sending { deliveries: &deliveries, slot, left: 2 });
        assert!(deliveries.lock().slots[slot].is_some(), "one message is on its way");
        deliveries.answer(slot, 0, written(1));
        assert!(deliveries.lock().slots[slot].is_none());
    }
}
