//! A partition's queue of fetched messages, emptied many at a time.
//!
//! The safe wrapper takes each message by an event of its own, which costs as much as all that
//! is done with a small message afterwards. What is taken here is copied and freed at once.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Arc;
use std::{ptr, slice};

use bytes::BytesMut;
use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::context::{Client, Context};
use super::convert::{Batch, Fetched};
use super::native;
use crate::message::Headers;

/// The most that is taken in one call.
const STEP_MAX: usize = 256;
/// How large a message is taken to be before one was seen.
const UNKNOWN_BYTES: usize = 64 << 10;

/// What ended a batch.
#[derive(Debug)]
pub(super) enum End {
    /// The partition's end: the offset that the next message may have.
    Reached(u64),
    Failed(KafkaError),
}

pub(super) struct Queue {
    raw: *mut sys::rd_kafka_queue_t,
    /// The same queue as the wrapper has it: it wakes the thread, and keeps the client alive.
    _queue: PartitionQueue<Context>,
    client: Arc<Client>,
    /// The partition alone, to ask where it stands.
    place: TopicPartitionList,
    taken: Vec<*mut sys::rd_kafka_message_t>,
    /// How large the messages of the last batch were.
    typical_bytes: usize,
}

// SAFETY: librdkafka's queues may be used from any thread, and this one is used by its owner
// alone. `taken` holds nothing between calls.
unsafe impl Send for Queue {}

impl Queue {
    /// Gives a partition a queue of its own, which tells when it is no longer empty.
    pub(super) fn open(
        client: &Arc<Client>,
        topic: &str,
        partition: i32,
        nonempty: impl Fn() + Send + Sync + 'static,
    ) -> Option<Self> {
        let mut queue = client.split_partition_queue(topic, partition)?;
        queue.set_nonempty_callback(nonempty);
        let mut place = TopicPartitionList::new();
        place.add_partition(topic, partition);
        let topic = CString::new(topic).ok()?;
        let rk = client.client().native_ptr();
        // SAFETY: the client lives, and the name is copied.
        let raw = unsafe { sys::rd_kafka_queue_get_partition(rk, topic.as_ptr(), partition) };
        let (taken, typical_bytes) = (Vec::with_capacity(STEP_MAX), UNKNOWN_BYTES);
        let client = client.clone();
        (!raw.is_null()).then_some(Self { raw, _queue: queue, client, place, taken, typical_bytes })
    }

    /// Copies what is there, up to about a bound, and tells how it ended where it did.
    pub(super) fn take(&mut self, messages_max: usize, bytes_max: usize) -> (Batch, Option<End>) {
        let (mut batch, mut end) = (Batch::default(), None);
        while batch.offsets.len() < messages_max && batch.bytes < bytes_max {
            let fitting = (bytes_max - batch.bytes) / self.typical_bytes.max(1);
            let step = fitting.clamp(1, STEP_MAX).min(messages_max - batch.offsets.len());
            let count = self.fill(step);
            for place in 0..count {
                // SAFETY: `fill` left a message here that lives until `free`.
                let message = unsafe { &*self.taken[place] };
                end = copy(message, &mut batch).or(end);
            }
            self.free();
            self.typical_bytes = batch.bytes / batch.offsets.len().max(1);
            if count < step {
                break;
            }
        }
        (batch, end)
    }

    /// Where the next message may stand, once all that was there is taken: behind the last one
    /// and the marks of transactions, of which nothing else tells. None before the first.
    pub(super) fn position(&self) -> Option<u64> {
        let rk = self.client.client().native_ptr();
        // SAFETY: client and list live; the call writes only into the list's one element.
        unsafe { sys::rd_kafka_position(rk, self.place.ptr()) };
        native::elements(&self.place).first()?.offset
    }

    /// Takes up to `step` messages and returns how many; all must be freed.
    fn fill(&mut self, step: usize) -> usize {
        debug_assert!(self.taken.is_empty() && step <= self.taken.capacity());
        // SAFETY: the queue lives, there is room for `step` pointers, and those that the call
        // reports are written.
        unsafe {
            let first = self.taken.as_mut_ptr();
            let count = sys::rd_kafka_consume_batch_queue(self.raw, 0, first, step);
            let count = usize::try_from(count).unwrap_or(0);
            self.taken.set_len(count);
            count
        }
    }

    fn free(&mut self) {
        for message in self.taken.drain(..) {
            // SAFETY: it came from the queue and is freed only here.
            unsafe { sys::rd_kafka_message_destroy(message) }
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.free();
        // SAFETY: it came from the call that this one belongs to, and the client, which must
        // outlive it, is kept by `_queue`.
        unsafe { sys::rd_kafka_queue_destroy(self.raw) }
    }
}

/// Copies a message, or says which end it stands for.
fn copy(message: &sys::rd_kafka_message_t, batch: &mut Batch) -> Option<End> {
    let offset = u64::try_from(message.offset).unwrap_or_default();
    match RDKafkaErrorCode::from(message.err) {
        RDKafkaErrorCode::NoError => {}
        RDKafkaErrorCode::PartitionEOF => return Some(End::Reached(offset)),
        code => return Some(End::Failed(KafkaError::MessageConsumption(code))),
    }
    // SAFETY: a message without an error holds so many bytes at its key and payload, or null.
    let (key, payload) =
        unsafe { (bytes(message.key, message.key_len), bytes(message.payload, message.len)) };
    let millis = millis(message);
    batch.push(&Fetched { offset, key, payload, millis }, |blocks| headers(message, blocks));
    None
}

fn millis(message: &sys::rd_kafka_message_t) -> Option<i64> {
    use sys::rd_kafka_timestamp_type_t as Kind;
    let mut kind = Kind::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the call only reads the message, which lives, and writes the kind.
    let millis = unsafe { sys::rd_kafka_message_timestamp(message, &raw mut kind) };
    (kind != Kind::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && millis >= 0).then_some(millis)
}

fn headers(message: &sys::rd_kafka_message_t, blocks: &mut BytesMut) -> Headers {
    let mut all = ptr::null_mut();
    // SAFETY: the message lives, and the headers that the call finds are the message's own.
    let code = unsafe { sys::rd_kafka_message_headers(message, &raw mut all) };
    if RDKafkaErrorCode::from(code) != RDKafkaErrorCode::NoError {
        return Headers::default();
    }
    for index in 0.. {
        let (mut name, mut value, mut length) = (ptr::null::<c_char>(), ptr::null(), 0);
        // SAFETY: the headers live as long as the message; the call writes all three.
        let code = unsafe {
            sys::rd_kafka_header_get_all(all, index, &raw mut name, &raw mut value, &raw mut length)
        };
        if RDKafkaErrorCode::from(code) != RDKafkaErrorCode::NoError {
            break;
        }
        // SAFETY: the name ends with a NUL, and the value has so many bytes or is null.
        let (name, value) = unsafe { (CStr::from_ptr(name), bytes(value, length)) };
        match name.to_str() {
            Ok(name) => Headers::encode(blocks, name, value.unwrap_or_default()),
            Err(_) => tracing::warn!(
                partition = message.partition,
                offset = message.offset,
                "a header is left out because its name is not UTF-8"
            ),
        }
    }
    Headers::from_block(blocks.split().freeze()).unwrap_or_default()
}

/// SAFETY: `first` is null or points to `count` bytes that live as long as what is returned.
unsafe fn bytes<'a>(first: *const c_void, count: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!first.is_null()).then(|| unsafe { slice::from_raw_parts(first.cast(), count) })
}
