//! What the codecs of this format share: the schema to write with, and those of what is read.

use std::sync::Arc;

use bytes::Bytes;

use super::cache::Cache;
use super::registry::Registry;
use super::schema::{Kind, Schema};
use super::wire::{self, Frame};
use crate::codec::{CONTENT_TYPE, corrupt};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

/// A publisher's schema.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    pub(super) registry: Registry,
    schema: Arc<Schema>,
    record: String,
    /// The schema's id by the topic, which decides on the subject.
    ids: Arc<Cache<Topic, u32>>,
}

impl Writer {
    pub(super) fn new(registry: &Registry, kind: Kind, text: &str, record: String) -> Self {
        let schema = Schema::new(kind, text).into();
        let ids = Cache::new(registry.cached()).into();
        Self { registry: registry.clone(), schema, record, ids }
    }

    /// The beginning of a payload on a topic.
    pub(super) async fn begin(&self, topic: &Topic) -> Result<Vec<u8>> {
        let ask = || {
            let (registry, schema) = (self.registry.clone(), self.schema.clone());
            let subject = registry.subjects().of(topic.as_str(), &self.record);
            async move { registry.id_of(&subject, &schema).await }
        };
        self.ids.get(topic, ask).await.map(wire::begin)
    }

    /// The message of a payload that is complete.
    pub(super) fn message(&self, payload: Vec<u8>) -> Message {
        let content_type = match self.schema.kind {
            Kind::Avro => "application/vnd.confluent.avro",
            Kind::Json => "application/vnd.confluent.json",
            Kind::Protobuf => "application/vnd.confluent.protobuf",
        };
        Message::new(payload).with_header(CONTENT_TYPE, content_type)
    }

    /// The schema's id, the schema and the body of a message that someone wrote.
    pub(super) async fn open(&self, message: &Message) -> Result<(u32, Arc<Schema>, Bytes)> {
        let Frame { schema: id, body } = Frame::read(&message.payload)?;
        let schema = self.registry.schema(id).await.map_err(unreadable)?;
        let (given, wanted) = (schema.kind, self.schema.kind);
        if given != wanted {
            let message = format!("the payload is written in {given:?}, not {wanted:?}");
            return Err(corrupt(message).with("schema", id));
        }
        Ok((id, schema, body))
    }
}

/// A schema that is not there, or too large, makes the message unreadable for good. Anything
/// else says nothing about the message: it must not go to the dead letters for a registry that
/// is down, or for credentials that are wrong.
pub(super) fn unreadable(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => {
            corrupt("the payload names a schema that is not in the registry").with_source(error)
        }
        ErrorKind::TooLarge => error,
        _ => error.with_retryable(true),
    }
}
