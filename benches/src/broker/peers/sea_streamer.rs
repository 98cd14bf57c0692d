//! sea-streamer, in this process.

use std::time::Duration;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use broker::Topic;
use futures::future::try_join_all;
use sea_streamer_kafka::{AutoOffsetReset, KafkaConsumerOptions, KafkaProducer, KafkaStreamer};
use sea_streamer_types::{
    Buffer, Consumer, ConsumerGroup, ConsumerMode, ConsumerOptions, Message, Producer, StreamKey,
    Streamer, StreamerUri,
};
use tokio::task::JoinSet;

use crate::Kafka;
use crate::broker::contest::Side;
use crate::broker::work::Load;
use crate::measure::{Figures, Meter};

/// As often as the SDK commits.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct SeaStreamer {
    server: String,
}

impl SeaStreamer {
    pub(super) fn new(server: &Kafka) -> Self {
        Self { server: server.servers.clone() }
    }

    async fn connect(&self) -> Result<KafkaStreamer> {
        let uri: StreamerUri = format!("kafka://{}", self.server).parse()?;
        Ok(KafkaStreamer::connect(uri, Default::default()).await?)
    }
}

async fn publish_batch(producer: &KafkaProducer, load: &Load) -> Result<()> {
    let mut sent = Vec::with_capacity(load.batch);
    for _ in 0..load.batch {
        sent.push(producer.send(&load.payload[..])?);
    }
    try_join_all(sent).await?;
    Ok(())
}

#[async_trait]
impl Side for SeaStreamer {
    async fn publish(&self, topic: &Topic, load: &Load) -> Result<Figures> {
        let streamer = self.connect().await?;
        let key = StreamKey::new(topic.as_str())?;
        let producer = streamer.create_producer(key, Default::default()).await?;
        let meter = Meter::start();
        let mut publishers = JoinSet::new();
        for _ in 0..load.depth {
            let (producer, load) = (producer.clone(), load.clone());
            publishers.spawn(async move {
                for _ in 0..load.batches / load.depth {
                    publish_batch(&producer, &load).await?;
                }
                Ok::<_, anyhow::Error>(())
            });
        }
        while let Some(published) = publishers.join_next().await {
            published??;
        }
        let figures = meter.stop(load.messages());
        drop(producer);
        streamer.disconnect().await?;
        Ok(figures)
    }

    async fn consume(&self, topic: &Topic, load: &Load) -> Result<Figures> {
        let streamer = self.connect().await?;
        let mut options = KafkaConsumerOptions::new(ConsumerMode::LoadBalanced);
        options.set_group_id(ConsumerGroup::new(crate::unique("group")));
        options.set_auto_offset_reset(AutoOffsetReset::Earliest);
        options.set_enable_auto_commit(true);
        options.set_auto_commit_interval(COMMIT_INTERVAL);
        let key = StreamKey::new(topic.as_str())?;
        let consumer = streamer.create_consumer(&[key], options).await?;
        let mut bytes = consumer.next().await?.message().as_bytes().len();
        let meter = Meter::start();
        for _ in 1..load.messages() {
            bytes += consumer.next().await?.message().as_bytes().len();
        }
        let figures = meter.stop(load.messages() - 1);
        ensure!(bytes == load.messages() * load.payload.len(), "{bytes} bytes came");
        drop(consumer);
        streamer.disconnect().await?;
        Ok(figures)
    }
}
