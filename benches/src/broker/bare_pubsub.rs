//! Bare Pub/Sub through Google's own crate.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use broker::Topic;
use google_cloud_auth::credentials::{Credentials, anonymous};
use google_cloud_pubsub::client::{BasePublisher, Subscriber, SubscriptionAdmin};
use google_cloud_pubsub::model::{Message, Subscription};
use google_cloud_pubsub::subscriber::MessageStream;
use google_cloud_pubsub::subscriber::handler::Handler;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::contest;
use super::work::Load;
use crate::measure::{Figures, Meter};

/// A stream that brings nothing for so long brings nothing any more.
const SILENCE_MAX: Duration = Duration::from_secs(60);

const LEASE_SECONDS: i32 = 20;

/// An emulator's address and the project on it.
pub(super) struct Bare {
    pub(super) host: String,
    pub(super) project: &'static str,
}

impl Bare {
    fn address(&self) -> String {
        format!("http://{}", self.host)
    }

    fn topic(&self, topic: &Topic) -> String {
        format!("projects/{}/topics/{topic}", self.project)
    }

    /// A subscription as the SDK makes one for a group.
    async fn subscription(&self, topic: &Topic) -> Result<String> {
        let admin = SubscriptionAdmin::builder().with_endpoint(self.address());
        let admin = admin.with_credentials(nobody()).build().await?;
        let name = format!("projects/{}/subscriptions/{}", self.project, crate::unique("bare"));
        let wanted = Subscription::new()
            .set_name(&name)
            .set_topic(self.topic(topic))
            .set_ack_deadline_seconds(LEASE_SECONDS)
            .set_enable_message_ordering(true);
        admin.create_subscription().with_request(wanted).send().await?;
        Ok(name)
    }
}

fn nobody() -> Credentials {
    anonymous::Builder::new().build()
}

async fn next(stream: &mut MessageStream) -> Result<(Message, Handler)> {
    let came = timeout(SILENCE_MAX, stream.next()).await.context("the stream is silent")?;
    Ok(came.context("the stream ended")??)
}

#[async_trait]
impl contest::Side for Bare {
    async fn publish(&self, topic: &Topic, load: &Load) -> Result<Figures> {
        let base = BasePublisher::builder().with_endpoint(self.address());
        let base = base.with_credentials(nobody()).build().await?;
        let publisher = base.publisher(self.topic(topic)).build();
        let meter = Meter::start();
        let mut publishers = JoinSet::new();
        for _ in 0..load.depth {
            let (publisher, load) = (publisher.clone(), load.clone());
            publishers.spawn(async move {
                for _ in 0..load.batches / load.depth {
                    let message = || Message::new().set_data(load.payload.clone());
                    let sent: Vec<_> =
                        (0..load.batch).map(|_| publisher.publish(message())).collect();
                    for answer in sent {
                        answer.await?;
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

    async fn consume(&self, topic: &Topic, load: &Load) -> Result<Figures> {
        let path = self.subscription(topic).await?;
        let client = Subscriber::builder().with_endpoint(self.address());
        let client = client.with_credentials(nobody()).build().await?;
        let mut stream = client.subscribe(&path).build();
        let mut bytes = 0;
        let mut meter = Meter::start();
        for received in 0..load.messages() {
            let (message, handler) = next(&mut stream).await?;
            if received == 0 {
                meter = Meter::start();
            }
            bytes += message.data.len();
            handler.ack();
        }
        ensure!(bytes == load.messages() * load.payload.len(), "{bytes} bytes came");
        Ok(meter.stop(load.messages() - 1))
    }
}
