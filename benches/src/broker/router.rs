//! A router with eight lanes against a bare loop of receive and settle, on the same broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use broker::router::Router;
use broker::{Broker, BrokerExt, Delivery, Failure, Group, Message, Subscription, Topic};
use tokio::sync::Notify;

use super::contest::{BATCH, Sides, create};
use super::{Arguments, work};
use crate::measure::{Figures, Meter};
use crate::report::Row;

const PAYLOAD: usize = 256;
const KEYS: usize = 1_000;
const CONCURRENCY: usize = 8;
const PARTITIONS: u32 = 4;
const GOAL: f64 = 0.9;

/// Both sides consume the same topic, each run as a new group.
pub(super) async fn rows(
    given: &Arguments,
    backend: &str,
    broker: &Arc<dyn Broker>,
    batches: usize,
) -> Result<Vec<Row>> {
    let topic = create(broker, PARTITIONS).await?;
    let messages = BATCH * given.batches(batches);
    fill(broker, &topic, messages).await?;
    let mut sides = Sides::default();
    for round in 0..=given.rounds() {
        let bare = work::consume(broker, &topic, messages, BATCH).await?;
        sides.take(round, routed(broker, &topic, messages).await?, bare);
        eprintln!("router on {backend}, round {round}: {}", sides.last);
    }
    broker.admin().delete_topic(&topic).await?;
    let name = format!("Router on {backend}, 256 B, concurrency {CONCURRENCY}, bare: a loop");
    Ok(sides.rows(&name, Some(GOAL)).into())
}

async fn fill(broker: &Arc<dyn Broker>, topic: &Topic, messages: usize) -> Result<()> {
    for start in (0..messages).step_by(BATCH) {
        let message =
            |number: usize| Message::new(vec![7; PAYLOAD]).with_key((number % KEYS).to_string());
        broker.publish_all(topic, (start..start + BATCH).map(message).collect()).await?;
    }
    Ok(())
}

async fn routed(broker: &Arc<dyn Broker>, topic: &Topic, messages: usize) -> Result<Figures> {
    let group = Group::new(&crate::unique("routed"))?;
    let (seen, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let handler = {
        let (seen, done) = (seen.clone(), done.clone());
        move |_: &Delivery| {
            if seen.fetch_add(1, Ordering::Relaxed) + 1 == messages {
                done.notify_one();
            }
            async { Ok::<(), Failure>(()) }
        }
    };
    let subscription = Subscription::group(topic, &group);
    let meter = Meter::start();
    let router = Router::new(broker.clone()).concurrency(CONCURRENCY).handle(subscription, handler);
    router.run_until(done.notified()).await?;
    let figures = meter.stop(messages);
    let behind: u64 = broker.lag(topic, &group).await?.iter().map(|lag| lag.behind).sum();
    ensure!(behind == 0, "{behind} messages were not settled");
    Ok(figures)
}
