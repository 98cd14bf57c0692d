//! What is done with our brokers; the same for each of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use broker::{Broker, Group, Limit, Message, Outcome, Subscription, Topic};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::measure::{Figures, Meter};

const RECEIVE_WAIT: Duration = Duration::from_secs(1);
/// A consumer that gets nothing for so many waits will get nothing.
const EMPTY_MAX: usize = 60;

/// What is published.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) payload: Bytes,
    pub(super) batch: usize,
    pub(super) batches: usize,
    /// How many batches are out at once.
    pub(super) depth: usize,
}

impl Load {
    /// `bytes` that no compression would make much smaller.
    pub(super) fn new(bytes: usize, batch: usize, batches: usize, depth: usize) -> Self {
        let payload = (0..bytes).map(|i| (i * 7 + i / 13) as u8).collect::<Vec<_>>().into();
        Self { payload, batch, batches: batches.next_multiple_of(depth), depth }
    }

    pub(super) fn messages(&self) -> usize {
        self.batch * self.batches
    }
}

/// Publishes it all and waits for every result.
pub(super) async fn publish(
    broker: &Arc<dyn Broker>,
    topic: &Topic,
    load: &Load,
) -> Result<Figures> {
    let meter = Meter::start();
    let mut publishers = JoinSet::new();
    for _ in 0..load.depth {
        let (broker, topic, load) = (broker.clone(), topic.clone(), load.clone());
        publishers.spawn(async move {
            for _ in 0..load.batches / load.depth {
                let batch = vec![Message::new(load.payload.clone()); load.batch];
                for result in broker.publish(&topic, batch).await? {
                    result.position()?;
                }
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(published) = publishers.join_next().await {
        published??;
    }
    Ok(meter.stop(load.messages()))
}

/// Receives and settles so many messages as a new group; what comes behind the first batch counts.
pub(super) async fn consume(
    broker: &Arc<dyn Broker>,
    topic: &Topic,
    messages: usize,
    batch: usize,
) -> Result<Figures> {
    let group = Group::new(&crate::unique("group"))?;
    let mut consumer = broker.subscribe(Subscription::group(topic, &group)).await?;
    let (mut received, mut first, mut empty, mut bytes) = (0, 0, 0, 0);
    let mut meter = Meter::start();
    while received < messages {
        let deliveries = consumer.receive(Limit::new(batch, RECEIVE_WAIT)).await?;
        if deliveries.is_empty() {
            consumer.events();
            empty += 1;
            ensure!(empty < EMPTY_MAX, "only {received} of {messages} messages came");
            continue;
        }
        if received == 0 {
            (meter, first) = (Meter::start(), deliveries.len());
        }
        received += deliveries.len();
        bytes += deliveries.iter().map(|delivery| delivery.payload.len()).sum::<usize>();
        let outcomes = deliveries.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
        if let Some(unsettled) = consumer.settle(outcomes).await.into_iter().next() {
            return Err(unsettled.error.into());
        }
    }
    ensure!(bytes > 0, "the payloads were empty");
    Ok(meter.stop(received - first))
}
