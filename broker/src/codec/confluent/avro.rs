//! Avro whose schema may change from one message to the next.

use std::sync::Arc;

use apache_avro::AvroSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cache::Cache;
use super::registry::Registry;
use super::schema::{Kind, Schema};
use super::writer::{Writer, unreadable};
use crate::codec::Codec;
use crate::codec::avro::Compiled;
use crate::error::Result;
use crate::message::Message;
use crate::name::Topic;

/// Avro in Confluent's wire format: values are written with the codec's schema, and read with
/// the one that they were written with and resolved to the codec's.
#[derive(Debug, Clone)]
pub struct Avro {
    writer: Writer,
    schema: Arc<Compiled>,
    foreign: Arc<Cache<u32, Arc<Foreign>>>,
}

/// A schema that messages were written with.
#[derive(Debug)]
struct Foreign {
    schema: Compiled,
    is_ours: bool,
}

impl Avro {
    /// Values of a schema, given as JSON; `ConfigInvalid` where it is none.
    pub fn new(registry: &Registry, schema: &str) -> Result<Self> {
        let compiled = Compiled::parse(schema, &[])?;
        let writer = Writer::new(registry, Kind::Avro, schema, compiled.name());
        let foreign = Cache::new(registry.cached()).into();
        Ok(Self { writer, schema: compiled.into(), foreign })
    }

    /// Values of the schema that `T` derives by `apache_avro::AvroSchema`.
    pub fn derived<T: AvroSchema>(registry: &Registry) -> Result<Self> {
        Self::new(registry, &serde_json::json!(T::get_schema()).to_string())
    }

    /// The compiled form of a schema that a message was written with.
    async fn foreign(&self, id: u32, schema: Arc<Schema>) -> Result<Arc<Foreign>> {
        let compile = || {
            let (registry, ours) = (self.writer.registry.clone(), self.schema.clone());
            async move {
                let references = registry.references(&schema).await.map_err(unreadable)?;
                let schema = Compiled::parse(&schema.text, &references)?;
                let is_ours = schema.equals(&ours);
                Ok(Arc::new(Foreign { schema, is_ours }))
            }
        };
        self.foreign.get(&id, compile).await
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync> Codec<T> for Avro {
    async fn encode(&self, topic: &Topic, value: &T) -> Result<Message> {
        let mut payload = self.writer.begin(topic).await?;
        self.schema.write(value, &mut payload)?;
        Ok(self.writer.message(payload))
    }

    async fn decode(&self, message: &Message) -> Result<T> {
        let (id, schema, body) = self.writer.open(message).await?;
        let named = |error: crate::Error| error.with("schema", id);
        let foreign = self.foreign(id, schema).await.map_err(named)?;
        let reader = (!foreign.is_ours).then_some(&*self.schema);
        foreign.schema.read(&body, reader).map_err(named)
    }
}
