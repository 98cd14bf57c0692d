//! Protocol buffers whose messages are named.

use std::marker::PhantomData;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto};

use super::cache::Cache;
use super::registry::Registry;
use super::schema::{Kind, Schema};
use super::wire;
use super::writer::Writer;
use crate::codec::{Codec, corrupt, formless, misfit};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

/// Protocol buffers in Confluent's wire format, which names the message: one of another type is
/// `Corrupt`.
pub struct Protobuf<T> {
    writer: Writer,
    /// The message's full name.
    name: String,
    /// The message's place in its file.
    indexes: Vec<u32>,
    foreign: Arc<Cache<u32, Arc<FileDescriptorProto>>>,
    value: PhantomData<fn() -> T>,
}

impl<T> Protobuf<T> {
    /// Values of the message called `name` (with its package) in the `.proto` file whose text is
    /// `schema`; `ConfigInvalid` where there is none.
    pub fn new(registry: &Registry, schema: &str, name: &str) -> Result<Self> {
        let file = parse(schema)?;
        let Some(indexes) = find(&file, name) else {
            let message = format!("the protobuf schema has no message {name:?}");
            return Err(Error::new(ErrorKind::ConfigInvalid, "parse schema", message));
        };
        let writer = Writer::new(registry, Kind::Protobuf, schema, name.to_owned());
        let foreign = Cache::new(registry.cached()).into();
        Ok(Self { writer, name: name.to_owned(), indexes, foreign, value: PhantomData })
    }

    /// Fails where a message is of another type, by the file that it was written with.
    async fn check_name(&self, id: u32, schema: Arc<Schema>, body: &mut Bytes) -> Result<()> {
        let indexes = wire::read_indexes(body)?;
        let compile = || async move { parse(&schema.text).map(Arc::new) };
        let file = self.foreign.get(&id, compile).await?;
        match name_of(&file, &indexes) {
            Some(name) if name == self.name => Ok(()),
            Some(name) => Err(corrupt(format!("the payload is a {name}, not a {}", self.name))),
            None => Err(corrupt(format!("the schema has no message at the place {indexes:?}"))),
        }
    }
}

impl<T: prost::Message + Default> Codec<T> for Protobuf<T> {
    async fn encode(&self, topic: &Topic, value: &T) -> Result<Message> {
        let mut payload = self.writer.begin(topic).await?;
        wire::write_indexes(&mut payload, &self.indexes);
        value.encode(&mut payload).map_err(|error| formless::<T>("protobuf", error))?;
        Ok(self.writer.message(payload))
    }

    async fn decode(&self, message: &Message) -> Result<T> {
        let (id, schema, mut body) = self.writer.open(message).await?;
        let checked = self.check_name(id, schema, &mut body).await;
        let value =
            checked.and_then(|()| T::decode(body).map_err(|error| misfit::<T>("protobuf", error)));
        value.map_err(|error| error.with("schema", id))
    }
}

impl<T> std::fmt::Debug for Protobuf<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { writer, name, indexes, .. } = self;
        f.debug_struct("Protobuf")
            .field("writer", writer)
            .field("name", name)
            .field("indexes", indexes)
            .finish_non_exhaustive()
    }
}

/// Reads a `.proto` file, or its descriptor in base64, which some publishers register instead.
fn parse(schema: &str) -> Result<FileDescriptorProto> {
    let descriptor = STANDARD.decode(schema).ok();
    if let Some(file) = descriptor.and_then(|bytes| FileDescriptorProto::decode(&bytes[..]).ok()) {
        return Ok(file);
    }
    protox_parse::parse("schema.proto", schema).map_err(|error| {
        let message = "the protobuf schema is not valid";
        Error::new(ErrorKind::ConfigInvalid, "parse schema", message).with_source(error)
    })
}

/// The place of a message in its file, by its full name.
fn find(file: &FileDescriptorProto, name: &str) -> Option<Vec<u32>> {
    let rest = match file.package() {
        "" => name,
        package => name.strip_prefix(package)?.strip_prefix('.')?,
    };
    let (mut indexes, mut messages) = (Vec::new(), &file.message_type);
    for part in rest.split('.') {
        let index = messages.iter().position(|message| message.name() == part)?;
        indexes.push(u32::try_from(index).ok()?);
        messages = &messages[index].nested_type;
    }
    Some(indexes)
}

/// The full name of a message, by its place in its file.
fn name_of(file: &FileDescriptorProto, indexes: &[u32]) -> Option<String> {
    let mut name = file.package().to_owned();
    let mut messages: &[DescriptorProto] = &file.message_type;
    for index in indexes {
        let message = messages.get(*index as usize)?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(message.name());
        messages = &message.nested_type;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "syntax = \"proto3\"; package shop.v1;
        message Order { message Line { string item = 1; } repeated Line lines = 1; }
        message Refund { string order = 1; }";

    #[test]
    fn the_place_of_a_message_is_found_by_its_name_and_back() {
        let file = parse(FILE).unwrap();
        let names = [
            ("shop.v1.Order", vec![0]),
            ("shop.v1.Order.Line", vec![0, 0]),
            ("shop.v1.Refund", vec![1]),
        ];
        for (name, indexes) in names {
            assert_eq!(find(&file, name).as_ref(), Some(&indexes));
            assert_eq!(name_of(&file, &indexes).as_deref(), Some(name));
        }
        for name in ["Order", "shop.v1.Line", "shop.v1", "shop.v1.", "shop.v1.Order.Refund"] {
            assert_eq!(find(&file, name), None, "{name}");
        }
        for indexes in [vec![2], vec![0, 1], vec![1, 0]] {
            assert_eq!(name_of(&file, &indexes), None, "{indexes:?}");
        }
    }

    #[test]
    fn a_descriptor_in_base64_is_read_too() {
        let file = parse(FILE).unwrap();
        let descriptor = STANDARD.encode(file.encode_to_vec());
        assert_eq!(parse(&descriptor).unwrap().package(), "shop.v1");
        assert_eq!(parse("message {").unwrap_err().kind(), ErrorKind::ConfigInvalid);
    }
}
