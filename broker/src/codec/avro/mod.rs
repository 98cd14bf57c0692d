//! Avro, by serde, with one schema on both sides.

use apache_avro::AvroSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(super) use compiled::Compiled;

use super::{CONTENT_TYPE, Codec, expect_type};
use crate::error::Result;
use crate::message::Message;
use crate::name::Topic;

mod compiled;
mod walk;

/// Avro with the content type `avro/binary`: bare values, whose schema both sides know.
///
/// What was written with an older or newer schema can't be told apart; where schemas change,
/// `confluent::Avro` names the one that each message was written with.
#[derive(Debug, Clone)]
pub struct Avro {
    schema: std::sync::Arc<Compiled>,
}

impl Avro {
    /// Values of a schema, given as JSON; `ConfigInvalid` where it is none.
    pub fn new(schema: &str) -> Result<Self> {
        Ok(Self { schema: Compiled::parse(schema, &[])?.into() })
    }

    /// Values of the schema that `T` derives by `apache_avro::AvroSchema`.
    pub fn derived<T: AvroSchema>() -> Result<Self> {
        Ok(Self { schema: Compiled::of(T::get_schema())?.into() })
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync> Codec<T> for Avro {
    async fn encode(&self, _: &Topic, value: &T) -> Result<Message> {
        let mut payload = Vec::new();
        self.schema.write(value, &mut payload)?;
        Ok(Message::new(payload).with_header(CONTENT_TYPE, "avro/binary"))
    }

    async fn decode(&self, message: &Message) -> Result<T> {
        expect_type(message, "Avro", |essence| TYPES.contains(&essence))?;
        self.schema.read(&message.payload, None)
    }
}

/// What publishers call the format.
const TYPES: [&str; 6] = [
    "avro/binary",
    "application/avro",
    "application/avro-binary",
    "application/x-avro",
    "application/x-avro-binary",
    "application/octet-stream",
];

#[cfg(test)]
mod tests;
