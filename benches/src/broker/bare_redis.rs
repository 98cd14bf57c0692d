//! Bare Redis Streams through the crate `redis`.

use std::sync::Arc;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use broker::Topic;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, Client};
use tokio::task::JoinSet;

use super::contest;
use super::work::Load;
use crate::measure::{Figures, Meter};

const GROUP: &str = "bare";
const CONSUMER: &str = "one";
const FIELD: &str = "payload";

/// The server's address.
pub(super) struct Bare {
    pub(super) url: String,
}

impl Bare {
    async fn connect(&self) -> Result<MultiplexedConnection> {
        Ok(Client::open(self.url.as_str())?.get_multiplexed_async_connection().await?)
    }
}

fn stream(topic: &Topic) -> String {
    format!("bare:{topic}")
}

#[async_trait]
impl contest::Side for Bare {
    async fn publish(&self, topic: &Topic, load: &Load) -> Result<Figures> {
        let connection = self.connect().await?;
        let meter = Meter::start();
        let mut publishers = JoinSet::new();
        let stream = Arc::<str>::from(stream(topic));
        for _ in 0..load.depth {
            let (mut connection, stream, load) = (connection.clone(), stream.clone(), load.clone());
            publishers.spawn(async move {
                for _ in 0..load.batches / load.depth {
                    let mut pipe = redis::pipe();
                    for _ in 0..load.batch {
                        pipe.xadd(&*stream, "*", &[(FIELD, &load.payload[..])]);
                    }
                    let ids: Vec<String> = pipe.query_async(&mut connection).await?;
                    ensure!(ids.len() == load.batch, "{} of a batch were added", ids.len());
                }
                Ok(())
            });
        }
        while let Some(published) = publishers.join_next().await {
            published??;
        }
        Ok(meter.stop(load.messages()))
    }

    async fn consume(&self, topic: &Topic, load: &Load) -> Result<Figures> {
        let mut connection = self.connect().await?;
        let stream = stream(topic);
        let _: () = connection.xgroup_create(&stream, GROUP, "0").await?;
        let options = StreamReadOptions::default().group(GROUP, CONSUMER).count(load.batch);
        let (mut received, mut first, mut bytes) = (0, 0, 0);
        let mut meter = Meter::start();
        while received < load.messages() {
            let reply: StreamReadReply =
                connection.xread_options(&[&stream], &[">"], &options).await?;
            let entries = reply.keys.into_iter().flat_map(|key| key.ids).collect::<Vec<_>>();
            ensure!(!entries.is_empty(), "only {received} of the messages came");
            if received == 0 {
                (meter, first) = (Meter::start(), entries.len());
            }
            received += entries.len();
            for entry in &entries {
                bytes += entry.get::<Vec<u8>>(FIELD).map_or(0, |payload| payload.len());
            }
            let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
            let acknowledged: usize = connection.xack(&stream, GROUP, &ids).await?;
            ensure!(acknowledged == ids.len(), "{acknowledged} of {} were settled", ids.len());
        }
        ensure!(bytes == received * load.payload.len(), "{bytes} bytes came");
        let figures = meter.stop(received - first);
        let _: () = connection.del(&stream).await?;
        Ok(figures)
    }
}
