//! Single-message and typed sugar over the batched contract; no backend implements it.

use async_trait::async_trait;
use serde::Serialize;

use crate::contract::{Broker, TopicSpec};
use crate::delivery::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

/// What callers enjoy on top of [`Broker`].
#[async_trait]
pub trait BrokerExt: Broker {
    /// Publishes one message; durable when it returns.
    async fn publish_one(&self, topic: &Topic, message: Message) -> Result<Position> {
        let mut results = self.publish(topic, vec![message]).await?;
        let missing = || Error::new(ErrorKind::Unexpected, "publish", "no result came back");
        results.pop().ok_or_else(missing)?.position()
    }

    /// Publishes one value as JSON with the content type `application/json`.
    async fn publish_json<T: Serialize + Sync>(&self, topic: &Topic, value: &T) -> Result<Position>
    where
        Self: Sized,
    {
        let payload = serde_json::to_vec(value).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "publish", "the value has no JSON form")
                .with_source(error)
        })?;
        let message = Message::new(payload).with_header("content-type", "application/json");
        self.publish_one(topic, message).await
    }

    /// Publishes a batch of which every message must be stored; the first failure is returned.
    async fn publish_all(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Position>> {
        let results = self.publish(topic, batch).await?;
        results.into_iter().map(crate::Published::position).collect()
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
