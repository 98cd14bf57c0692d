//! The SDK on Kafka against a bare loop of the same batching.

use std::sync::Arc;

use anyhow::Result;
use broker::{Broker, Topic, TopicSpec};

use super::work::{self, Load};
use super::{Arguments, bare_kafka};
use crate::Kafka;
use crate::measure::median;
use crate::report::Row;

/// Messages in a batch, and batches that are out at once.
pub(super) const BATCH: usize = 500;
pub(super) const DEPTH: usize = 4;
const PARTITIONS: u32 = 2;
const GOAL: f64 = 0.9;

/// Payload bytes and batches a round.
const LOADS: [(usize, &str, usize); 3] =
    [(100, "100 B", 1_000), (1_000, "1 KB", 400), (20_000, "20 KB", 20)];
/// Messages a round where each waits for the one before.
const SINGLE: usize = 2_000;

pub(super) async fn rows(given: &Arguments, server: &Kafka) -> Result<Vec<Row>> {
    let broker = server.connect().await?;
    let mut rows = Vec::new();
    for (bytes, size, batches) in LOADS {
        let load = Load::new(bytes, BATCH, given.batches(batches), DEPTH);
        rows.extend(of_size(given, server, &broker, size, &load).await?);
    }
    let load = Load::new(100, 1, given.batches(SINGLE), 1);
    rows.push(single(given, server, &broker, &load).await?);
    broker.shutdown().await?;
    Ok(rows)
}

async fn create(broker: &Arc<dyn Broker>) -> Result<Topic> {
    let topic = Topic::new(&crate::unique("messages"))?;
    broker.admin().create_topic(&TopicSpec::new(&topic, PARTITIONS)).await?;
    Ok(topic)
}

async fn of_size(
    given: &Arguments,
    server: &Kafka,
    broker: &Arc<dyn Broker>,
    size: &str,
    load: &Load,
) -> Result<[Row; 2]> {
    let topic = create(broker).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    // The first round only warms both sides.
    for round in 0..=given.rounds() {
        let rates = (
            bare_kafka::publish(&server.servers, topic.as_str(), load).await?,
            work::publish(broker, &topic, load).await?,
        );
        eprintln!("Kafka publish {size} round {round}: {:.0}/s, bare {:.0}/s", rates.1, rates.0);
        if round > 0 {
            bare.push(rates.0);
            ours.push(rates.1);
        }
    }
    let name = format!("Kafka publish {size}, batches of {BATCH}");
    let publish = Row::limited(name, median(ours), median(bare), "messages/s").with_goal(GOAL);
    let consume = consume(given, server, broker, &topic, size, 2 * load.messages()).await?;
    broker.admin().delete_topic(&topic).await?;
    Ok([publish, consume])
}

async fn consume(
    given: &Arguments,
    server: &Kafka,
    broker: &Arc<dyn Broker>,
    topic: &Topic,
    size: &str,
    messages: usize,
) -> Result<Row> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 1..=given.rounds() {
        let (servers, name) = (server.servers.clone(), topic.to_string());
        let alone = move || bare_kafka::consume(&servers, &name, messages, BATCH);
        bare.push(tokio::task::spawn_blocking(alone).await??);
        ours.push(work::consume(broker, topic, messages, BATCH).await?);
        let rates = (ours[round - 1], bare[round - 1]);
        eprintln!("Kafka consume {size} round {round}: {:.0}/s, bare {:.0}/s", rates.0, rates.1);
    }
    let name = format!("Kafka consume {size}, batches of {BATCH}");
    Ok(Row::limited(name, median(ours), median(bare), "messages/s").with_goal(GOAL))
}

async fn single(
    given: &Arguments,
    server: &Kafka,
    broker: &Arc<dyn Broker>,
    load: &Load,
) -> Result<Row> {
    let topic = create(broker).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 1..=given.rounds() {
        bare.push(bare_kafka::publish(&server.servers, topic.as_str(), load).await?);
        ours.push(work::publish(broker, &topic, load).await?);
        let rates = (ours[round - 1], bare[round - 1]);
        eprintln!("Kafka publish singly round {round}: {:.0}/s, bare {:.0}/s", rates.0, rates.1);
    }
    broker.admin().delete_topic(&topic).await?;
    let name = "Kafka publish 100 B, each waits for the one before";
    Ok(Row::limited(name, median(ours), median(bare), "messages/s").with_goal(GOAL))
}
