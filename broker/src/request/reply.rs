//! How a request is answered.

use bytes::Bytes;

use super::{CORRELATION_ID, REPLY_TO};
use crate::contract::Broker;
use crate::error::{ErrorKind, Result};
use crate::ext::BrokerExt;
use crate::message::Message;
use crate::name::Topic;
use crate::policy::Failure;

/// Where a request wants its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    topic: Topic,
    correlation_id: Bytes,
}

impl Reply {
    /// Reads where the answer goes; a message that does not say so is to be rejected.
    pub fn to(request: &Message) -> Result<Self, Failure> {
        let missing = |name| Failure::reject(format!("the request has no header {name:?}"));
        let topic = request.headers.get_str(REPLY_TO).ok_or_else(|| missing(REPLY_TO))?;
        let id = request.headers.get(CORRELATION_ID).ok_or_else(|| missing(CORRELATION_ID))?;
        Ok(Self { topic: Topic::new(topic)?, correlation_id: Bytes::copy_from_slice(id) })
    }

    /// Publishes the answer; durable when it returns. Where the requester has gone with its
    /// topic, nobody waits for the answer and it is dropped.
    pub async fn send<B: Broker + ?Sized>(&self, broker: &B, answer: Message) -> Result<()> {
        let answer = answer.with_header(CORRELATION_ID, &self.correlation_id);
        match broker.publish_one(&self.topic, answer).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::debug!(topic = %self.topic, "the requester has gone");
                Ok(())
            }
            other => other.map(drop),
        }
    }
}
