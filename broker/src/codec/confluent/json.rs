//! JSON with a JSON Schema.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::Subjects;
use super::registry::Registry;
use super::schema::Kind;
use super::writer::Writer;
use crate::codec::{Codec, formless, misfit};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

/// JSON in Confluent's wire format. The Rust type is what a value is checked against: the
/// schema is registered and told to others, and no validator runs over each message.
#[derive(Debug, Clone)]
pub struct Json {
    writer: Writer,
}

impl Json {
    /// Values of a JSON Schema; its `title` is the record's name, which subjects may need.
    pub fn new(registry: &Registry, schema: &str) -> Result<Self> {
        let parsed: serde_json::Value = serde_json::from_str(schema).map_err(|error| {
            let message = "the JSON Schema is not valid JSON";
            Error::new(ErrorKind::ConfigInvalid, "parse schema", message).with_source(error)
        })?;
        let title = parsed.get("title").and_then(|title| title.as_str()).unwrap_or_default();
        if title.is_empty() && registry.subjects() != Subjects::Topic {
            let message = "the JSON Schema has no title to name its subject by";
            return Err(Error::new(ErrorKind::ConfigInvalid, "parse schema", message));
        }
        Ok(Self { writer: Writer::new(registry, Kind::Json, schema, title.to_owned()) })
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync> Codec<T> for Json {
    async fn encode(&self, topic: &Topic, value: &T) -> Result<Message> {
        let mut payload = self.writer.begin(topic).await?;
        serde_json::to_writer(&mut payload, value).map_err(|error| formless::<T>("JSON", error))?;
        Ok(self.writer.message(payload))
    }

    async fn decode(&self, message: &Message) -> Result<T> {
        let (id, _, body) = self.writer.open(message).await?;
        let value = serde_json::from_slice(&body).map_err(|error| misfit::<T>("JSON", error));
        value.map_err(|error| error.with("schema", id))
    }
}
