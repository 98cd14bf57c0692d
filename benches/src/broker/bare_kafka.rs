//! Bare librdkafka through `rdkafka`, with the settings that the SDK uses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use async_trait::async_trait;
use broker::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, FutureProducer, FutureRecord, Producer, ProducerContext,
    ThreadedProducer,
};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};

use super::work::Load;
use crate::measure::{Figures, Meter};

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

/// Publishes it all and waits for every result.
pub(super) async fn publish(servers: &str, topic: &str, load: &Load) -> Result<Figures> {
    let context = Deliveries {
        batch: load.batch as u64,
        delivered: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        room: Semaphore::new(load.depth),
    };
    let producer: ThreadedProducer<Deliveries> = settings(servers).create_with_context(context)?;
    // One message first, since the SDK's producer is connected already.
    let deliveries = producer.client().context().clone();
    send(&producer, topic, load, 1).await?;
    producer.flush(SILENCE_MAX)?;
    deliveries.delivered.store(0, Ordering::Relaxed);
    deliveries.room.forget_permits(usize::from(load.batch == 1));
    let meter = Meter::start();
    for _ in 0..load.batches {
        deliveries.room.acquire().await?.forget();
        send(&producer, topic, load, load.batch).await?;
    }
    // Batches end out of step, so the last ones together free all room.
    let all = u32::try_from(load.depth)?;
    deliveries.room.acquire_many(all).await?.forget();
    let figures = meter.stop(load.messages());
    let failed = deliveries.failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "Kafka refused {failed} messages");
    Ok(figures)
}

fn settings(servers: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", servers)
        .set("partitioner", "murmur2_random")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("queue.buffering.max.kbytes", "65536")
        .set("message.max.bytes", "1048000");
    settings
}

/// Single messages, each of which is waited for by itself, as an asynchronous program does.
async fn publish_singly(servers: &str, topic: &Topic, load: &Load) -> Result<Figures> {
    let producer: FutureProducer = settings(servers).create()?;
    publish_one(&producer, topic, load).await?;
    let meter = Meter::start();
    let mut publishers = JoinSet::new();
    for _ in 0..load.depth {
        let (producer, topic, load) = (producer.clone(), topic.clone(), load.clone());
        publishers.spawn(async move {
            for _ in 0..load.batches / load.depth {
                publish_one(&producer, &topic, &load).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(published) = publishers.join_next().await {
        published??;
    }
    Ok(meter.stop(load.messages()))
}

async fn publish_one(producer: &FutureProducer, topic: &Topic, load: &Load) -> Result<()> {
    let record = FutureRecord::<[u8], [u8]>::to(topic.as_str()).payload(&load.payload[..]);
    producer.send(record, SILENCE_MAX).await.map_err(|(error, _)| error)?;
    Ok(())
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
/// then stored to be committed, as often as the SDK commits; what comes behind the first counts.
pub(super) fn consume(
    servers: &str,
    topic: &str,
    messages: usize,
    batch: usize,
) -> Result<Figures> {
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
    let started = Instant::now();
    let mut meter = Meter::start();
    let mut held = Vec::with_capacity(batch);
    while received < messages {
        let Some(message) = consumer.poll(POLL) else {
            let silent = received == 0 && started.elapsed() > SILENCE_MAX;
            ensure!(!silent, "none of {messages} messages came");
            continue;
        };
        if received == 0 {
            meter = Meter::start();
        }
        held.push(message?);
        received += 1;
        if held.len() == batch || received == messages {
            bytes += settle(&consumer, &mut held)?;
        }
    }
    ensure!(bytes > 0, "the payloads were empty");
    Ok(meter.stop(received - 1))
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

/// Both, for a contest.
pub(super) struct Bare {
    pub(super) servers: String,
}

#[async_trait]
impl super::contest::Side for Bare {
    async fn publish(&self, topic: &Topic, load: &Load) -> Result<Figures> {
        if load.batch == 1 {
            return publish_singly(&self.servers, topic, load).await;
        }
        publish(&self.servers, topic.as_str(), load).await
    }

    async fn consume(&self, topic: &Topic, load: &Load) -> Result<Figures> {
        let (servers, topic) = (self.servers.clone(), topic.to_string());
        let (messages, batch) = (load.messages(), load.batch);
        spawn_blocking(move || consume(&servers, &topic, messages, batch)).await?
    }
}
