//! JSON, by serde.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CONTENT_TYPE, Codec, expect_type, formless, misfit};
use crate::error::Result;
use crate::message::Message;
use crate::name::Topic;

/// JSON with the content type `application/json`; what ends in `+json` is read too.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl Json {
    /// The message that carries a value, for types that are never read back.
    pub(crate) fn message<T: Serialize + ?Sized>(value: &T) -> Result<Message> {
        let payload = serde_json::to_vec(value).map_err(|error| formless::<T>("JSON", error))?;
        Ok(Message::new(payload).with_header(CONTENT_TYPE, "application/json"))
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync> Codec<T> for Json {
    async fn encode(&self, _: &Topic, value: &T) -> Result<Message> {
        Self::message(value)
    }

    async fn decode(&self, message: &Message) -> Result<T> {
        expect_type(message, "JSON", is_json)?;
        serde_json::from_slice(&message.payload).map_err(|error| misfit::<T>("JSON", error))
    }
}

/// Whether a media type is JSON, as CloudEvents and RFC 6839 tell it.
pub(crate) fn is_json(essence: &str) -> bool {
    essence.ends_with("/json") || essence.ends_with("+json")
}
