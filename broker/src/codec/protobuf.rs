//! Protocol buffers, by prost.

use super::{CONTENT_TYPE, Codec, expect_type, misfit};
use crate::error::Result;
use crate::message::Message;
use crate::name::Topic;

/// Protocol buffers with the content type `application/protobuf`.
///
/// The bytes do not say which message they are: a payload of another type may be read without
/// an error. Where topics are shared, `confluent::Protobuf` names the message.
#[derive(Debug, Clone, Copy, Default)]
pub struct Protobuf;

impl<T: prost::Message + Default> Codec<T> for Protobuf {
    async fn encode(&self, _: &Topic, value: &T) -> Result<Message> {
        let message = Message::new(value.encode_to_vec());
        Ok(message.with_header(CONTENT_TYPE, "application/protobuf"))
    }

    async fn decode(&self, message: &Message) -> Result<T> {
        expect_type(message, "protobuf", |essence| TYPES.contains(&essence))?;
        T::decode(message.payload.clone()).map_err(|error| misfit::<T>("protobuf", error))
    }
}

/// What publishers call the format.
const TYPES: [&str; 4] = [
    "application/protobuf",
    "application/x-protobuf",
    "application/vnd.google.protobuf",
    "application/octet-stream",
];
