//! Single-message and typed sugar over the batched contract; no backend implements it.

use async_trait::async_trait;
use serde::Serialize;

use crate::codec::{Codec, Json};
use crate::contract::{Broker, TopicSpec};
use crate::deliveries::Deliveries;
use crate::delivery::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;
use crate::subscription::Subscription;

/// What callers enjoy on top of [`Broker`].
#[async_trait]
pub trait BrokerExt: Broker {
    /// Publishes one message; durable when it returns.
    async fn publish_one(&self, topic: &Topic, message: Message) -> Result<Position> {
        let mut results = self.publish(topic, vec![message]).await?;
        let missing = || Error::new(ErrorKind::Unexpected, "publish", "no result came back");
        results.pop().ok_or_else(missing)?.position()
    }

    /// Publishes one value in the form that a codec gives it.
    async fn publish_typed<T, C>(&self, topic: &Topic, codec: &C, value: &T) -> Result<Position>
    where
        T: Sync,
        C: Codec<T>,
    {
        self.publish_one(topic, codec.encode(topic, value).await?).await
    }

    /// Publishes one value as JSON, by [`codec::Json`](crate::codec::Json), also of a type that
    /// can't be read back.
    async fn publish_json<T: Serialize + Sync>(
        &self,
        topic: &Topic,
        value: &T,
    ) -> Result<Position> {
        self.publish_one(topic, Json::message(value)?).await
    }

    /// Publishes a batch of which every message must be stored; the first failure is returned.
    async fn publish_all(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Position>> {
        let results = self.publish(topic, batch).await?;
        results.into_iter().map(crate::Published::position).collect()
    }

    /// Subscribes, for deliveries one by one as a stream.
    async fn deliveries(&self, subscription: Subscription) -> Result<Deliveries> {
        Ok(Deliveries::new(self.subscribe(subscription).await?))
    }

    /// Makes the topic where it is not there yet.
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<()> {
        match self.admin().create_topic(spec).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }
}

impl<B: Broker + ?Sized> BrokerExt for B {}
