//! Bare librdkafka through `rdkafka`, with the settings that the SDK uses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::Semaphore;

use super::work::Load;

const POLL: Duration = Duration::from_millis(100);
/// A consumer that gets nothing for so long will get nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Counts what is delivered, and lets the sender go on with each whole batch.
struct Deliveries {
    batch: u64,
    delivered: AtomicU64,
    failed: AtomicU64,
    room: Semaphore,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        let delivered = self.delivered.fetch_add(1, Ordering::Relaxed) + 1;
        if delivered.is_multiple_of(self.batch) {
            self.room.add_permits(1);
        }
    }
}

/// Publishes it all and waits for every result: messages a second.
pub(super) async fn publish(servers: &str, topic: &str, load: &Load) -> Result<f64> {
    let context = Deliveries {
        batch: load.batch as u64,
        delivered: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        room: Semaphore::new(load.depth),
    };
    let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("partitioner", "murmur2_random")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("queue.buffering.max.kbytes", "65536")
        .set("message.max.bytes", "1048000")
        .create_with_context(context)?;
    // One message first, since the SDK's producer is connected already.
    let deliveries = producer.client().context().clone();
    send(&producer, topic, load, 1).await?;
    producer.flush(SILENCE_MAX)?;
    deliveries.delivered.store(0, Ordering::Relaxed);
    deliveries.room.forget_permits(usize::from(load.batch == 1));
    let started = Instant::now();
    for _ in 0..load.batches {
        deliveries.room.acquire().await?.forget();
        send(&producer, topic, load, load.batch).await?;
    }
    // Batches end out of step, so the last ones together free all room.
    let all = u32::try_from(load.depth)?;
    deliveries.room.acquire_many(all).await?.forget();
    let rate = load.messages() as f64 / started.elapsed().as_secs_f64();
    let failed = deliveries.failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "Kafka refused {failed} messages");
    Ok(rate)
}

async fn send(
    producer: &ThreadedProducer<Deliveries>,
    topic: &str,
    load: &Load,
    count: usize,
) -> Result<()> {
    for _ in 0..count {
        let mut record = BaseRecord::<[u8], [u8], ()>::to(topic).payload(&load.payload[..]);
        while let Err((error, back)) = producer.send(record) {
            let full = rdkafka::types::RDKafkaErrorCode::QueueFull;
            ensure!(error.rdkafka_error_code() == Some(full), "cannot send: {error}");
            record = back;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}

/// Polls so many messages as a new group, in batches that are held until they are read and
/// then stored to be committed, as often as the SDK commits: messages a second, from the first
/// one on.
pub(super) fn consume(servers: &str, topic: &str, messages: usize, batch: usize) -> Result<f64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", crate::unique("group"))
        .set("enable.auto.offset.store", "false")
        .set("auto.commit.interval.ms", "100")
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "100")
        .create()?;
    consumer.subscribe(&[topic])?;
    let (mut received, mut bytes) = (0, 0);
    let mut started = Instant::now();
    let mut held = Vec::with_capacity(batch);
    while received < messages {
        let Some(message) = consumer.poll(POLL) else {
            let silent = received == 0 && started.elapsed() > SILENCE_MAX;
            ensure!(!silent, "none of {messages} messages came");
            continue;
        };
        if received == 0 {
            started = Instant::now();
        }
        held.push(message?);
        received += 1;
        if held.len() == batch || received == messages {
            bytes += settle(&consumer, &mut held)?;
        }
    }
    ensure!(bytes > 0, "the payloads were empty");
    Ok((received - 1) as f64 / started.elapsed().as_secs_f64())
}

/// Reads a batch and stores how far it got in each partition: its payloads' bytes.
fn settle(consumer: &BaseConsumer, held: &mut Vec<BorrowedMessage<'_>>) -> Result<usize> {
    // Partitions are few: looking through them is quicker than any map.
    let mut last: Vec<&BorrowedMessage<'_>> = Vec::new();
    let mut bytes = 0;
    for message in held.iter() {
        bytes += message.payload().map_or(0, <[u8]>::len);
        match last.iter_mut().find(|other| other.partition() == message.partition()) {
            Some(other) => *other = message,
            None => last.push(message),
        }
    }
    for message in last {
        consumer.store_offset_from_message(message)?;
    }
    held.clear();
    Ok(bytes)
}
