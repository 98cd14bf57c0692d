//! From publication to delivery at a moderate rate, between two connections that know nothing
//! of each other.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use broker::embedded::Durability;
use broker::{Broker, BrokerExt, Consumer, Group, Limit, Message, Outcome, Subscription, Topic};
use tokio::time::MissedTickBehavior;

use super::Arguments;
use super::bare_sqlite::Batches;
use super::embedded::{self, DURABILITIES};
use super::work::Load;
use crate::Kafka;
use crate::measure::percentile;
use crate::report::Row;

const PAYLOAD: usize = 256;
const INTERVAL: Duration = Duration::from_millis(5);
const MESSAGES: usize = 4_000;
const WAIT: Duration = Duration::from_secs(10);
const UNIT: &str = "µs";
/// The median with durability normal.
const WANTED_US: f64 = 500.0;

pub(super) async fn rows(given: &Arguments, directory: &Path, server: &Kafka) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let count = given.batches(MESSAGES);
    for (durability, name) in DURABILITIES {
        eprintln!("embedded latency, durability {name}: {count} messages");
        let place = directory.join(crate::unique("store"));
        let sender = embedded::open(&place, durability).await?;
        let receiver = embedded::open(&place, durability).await?;
        let topic = embedded::create(&sender).await?;
        let times = measure(&sender, &receiver, &topic, count).await?;
        sender.shutdown().await?;
        receiver.shutdown().await?;
        let load = Load::new(PAYLOAD, 1, given.batches(1_000), 1);
        let mut bare = Batches::create(&place.join("bare.db"), durability, &load)?.publish()?;
        bare.sort();
        std::fs::remove_dir_all(&place)?;
        let latency = of(&format!("embedded latency, durability {name}"), &times, Some(&bare));
        if durability == Durability::Normal {
            rows.push(latency[0].wanted().with_ceiling(WANTED_US));
        }
        rows.extend(latency);
    }
    eprintln!("Kafka latency: {count} messages");
    let (sender, receiver) = (server.connect().await?, server.connect().await?);
    let topic = embedded::create(&sender).await?;
    let times = measure(&sender, &receiver, &topic, count).await?;
    sender.admin().delete_topic(&topic).await?;
    sender.shutdown().await?;
    receiver.shutdown().await?;
    rows.extend(of("Kafka latency", &times, None));
    Ok(rows)
}

/// The limit is a bare commit: nobody can have a message before it.
fn of(name: &str, times: &[Duration], commits: Option<&[Duration]>) -> [Row; 2] {
    let micros = |times: &[Duration], share| percentile(times, share).as_secs_f64() * 1e6;
    [("p50", 0.5), ("p99", 0.99)].map(|(label, share)| {
        let limit = commits.map(|commits| micros(commits, share));
        Row { limit, ..Row::plain(format!("{name}, {label}"), micros(times, share), UNIT) }
    })
}

/// The sorted times from just before `publish` until `receive` returned.
async fn measure(
    sender: &Arc<dyn Broker>,
    receiver: &Arc<dyn Broker>,
    topic: &Topic,
    count: usize,
) -> Result<Vec<Duration>> {
    let group = Group::new(&crate::unique("group"))?;
    let mut consumer = receiver.subscribe(Subscription::group(topic, &group)).await?;
    let begun = Instant::now();
    // The first message waits until the group has its partitions, so it does not count.
    sender.publish_one(topic, message(begun)).await?;
    while receive(consumer.as_mut(), begun).await?.is_empty() {}
    let sending = tokio::spawn(send(sender.clone(), topic.clone(), begun, count));
    let mut times = Vec::with_capacity(count);
    while times.len() < count {
        times.extend(receive(consumer.as_mut(), begun).await?);
    }
    sending.await??;
    times.sort();
    Ok(times)
}

/// How long the next messages took; nothing where only the assignment changed.
async fn receive(consumer: &mut dyn Consumer, begun: Instant) -> Result<Vec<Duration>> {
    let deliveries = consumer.receive(Limit::new(100, WAIT)).await?;
    let now = begun.elapsed();
    let events = consumer.events();
    ensure!(!deliveries.is_empty() || !events.is_empty(), "no message came for {WAIT:?}");
    let mut times = Vec::with_capacity(deliveries.len());
    for delivery in &deliveries {
        let sent: [u8; 8] = delivery.payload[..8].try_into()?;
        times.push(now - Duration::from_nanos(u64::from_le_bytes(sent)));
    }
    let outcomes = deliveries.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
    match consumer.settle(outcomes).await.into_iter().next() {
        Some(unsettled) => Err(unsettled.error.into()),
        None => Ok(times),
    }
}

async fn send(broker: Arc<dyn Broker>, topic: Topic, begun: Instant, count: usize) -> Result<()> {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..count {
        ticks.tick().await;
        broker.publish_one(&topic, message(begun)).await?;
    }
    Ok(())
}

/// A message that tells when it was made.
fn message(begun: Instant) -> Message {
    let mut payload = vec![0; PAYLOAD];
    let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    payload[..8].copy_from_slice(&nanos.to_le_bytes());
    Message::new(payload)
}
