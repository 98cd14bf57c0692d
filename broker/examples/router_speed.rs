//! How fast a router is beside a bare loop of receive and settle, on the same broker.
//!
//! Both read the same 256-byte messages and count their bytes. The runs take turns, each with a
//! group of its own; the median of each is compared.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use broker::router::Router;
use broker::{
    Broker, BrokerExt, Delivery, Failure, Group, Limit, Message, Outcome, Result, Subscription,
    Topic, TopicSpec,
};

const MESSAGES: u64 = 200_000;
const BATCH: u64 = 1000;
const KEYS: u64 = 1000;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let stage = common::connect().await?;
    let broker = &stage.broker;
    let topic = fill(broker).await?;
    let (mut bare, mut routed) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = |what| Group::new(&format!("{what}-{round}-{}", std::process::id()));
        bare.push(bare_loop(broker, &topic, &name("bare")?).await?);
        routed.push(router(broker, &topic, &name("router")?).await?);
    }
    let (bare, routed) = (median(bare), median(routed));
    println!("bare loop             {bare:>10.0} messages/s");
    println!("router, concurrency 8 {routed:>10.0} messages/s");
    println!("ratio                 {:>10.2}", routed / bare);
    stage.close().await
}

async fn fill(broker: &Arc<dyn Broker>) -> Result<Topic> {
    let topic = common::topic("speed")?;
    broker.ensure_topic(&TopicSpec::new(&topic, 4)).await?;
    for batch in 0..MESSAGES / BATCH {
        let message = |number: u64| {
            let key = ((batch * BATCH + number) % KEYS).to_string();
            Message::new(vec![7; 256]).with_key(key)
        };
        broker.publish_all(&topic, (0..BATCH).map(message).collect()).await?;
    }
    Ok(topic)
}

fn rate(begun: Instant) -> f64 {
    MESSAGES as f64 / begun.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

async fn bare_loop(broker: &Arc<dyn Broker>, topic: &Topic, group: &Group) -> Result<f64> {
    let mut consumer = broker.subscribe(Subscription::group(topic, group)).await?;
    let (begun, mut count, mut bytes) = (Instant::now(), 0, 0);
    while count < MESSAGES {
        let limit = Limit::new(BATCH as usize, Duration::from_secs(1));
        let deliveries = consumer.receive(limit).await?;
        count += deliveries.len() as u64;
        bytes += deliveries.iter().map(|delivery| delivery.payload.len()).sum::<usize>();
        let done = deliveries.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack));
        if let Some(unsettled) = consumer.settle(done.collect()).await.pop() {
            return Err(unsettled.error);
        }
    }
    assert_eq!(bytes as u64, MESSAGES * 256);
    Ok(rate(begun))
}

async fn router(broker: &Arc<dyn Broker>, topic: &Topic, group: &Group) -> Result<f64> {
    let bytes = Arc::new(AtomicU64::new(0));
    let handler = {
        let bytes = bytes.clone();
        move |delivery: &Delivery| {
            bytes.fetch_add(delivery.payload.len() as u64, Ordering::Relaxed);
            async { Ok::<(), Failure>(()) }
        }
    };
    let done = async {
        while bytes.load(Ordering::Relaxed) < MESSAGES * 256 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let begun = Instant::now();
    let subscription = Subscription::group(topic, group);
    let router = Router::new(broker.clone()).concurrency(8).handle(subscription, handler);
    router.run_until(done).await?;
    assert_eq!(broker.lag(topic, group).await?.iter().map(|it| it.behind).sum::<u64>(), 0);
    Ok(rate(begun))
}
