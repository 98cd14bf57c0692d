//! Typed messages: how values become messages and come back.
//!
//! A [`Codec`] writes the payload and says in the header `content-type` what it is. Bytes that
//! are no such value are `Corrupt` and not worth a retry, so a [`Failure`](crate::Failure) made
//! of the error by `?` settles the delivery as a reject with the cause.
//!
//! | codec | feature | format |
//! |---|---|---|
//! | [`Json`] | always in | JSON, by serde |
//! | `Protobuf` | `protobuf` | protocol buffers, by prost |
//! | `Avro` | `avro` | Avro with one schema on both sides, by serde |
//! | `confluent::{Json, Protobuf, Avro}` | `schema-registry` | the same in Confluent's wire format, with a schema registry |
//! | [`cloudevents::Mode`](crate::cloudevents::Mode) | always in | CloudEvents 1.0 |

use std::any::type_name;
use std::future::Future;

use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

#[cfg(feature = "avro")]
mod avro;
#[cfg(feature = "schema-registry")]
pub mod confluent;
mod json;
#[cfg(feature = "protobuf")]
mod protobuf;

#[cfg(feature = "avro")]
pub use avro::Avro;
pub use json::Json;
pub(crate) use json::is_json;
#[cfg(feature = "protobuf")]
pub use protobuf::Protobuf;

/// The header that says what a payload is.
pub(crate) const CONTENT_TYPE: &str = "content-type";

/// How values of one type become messages and come back.
pub trait Codec<T>: Send + Sync {
    /// The message that carries `value` on `topic`: its payload and its `content-type`.
    ///
    /// A codec with a schema registry may ask it here; dropping the future is safe.
    fn encode(&self, topic: &Topic, value: &T) -> impl Future<Output = Result<Message>> + Send;

    /// The value that a message carries.
    ///
    /// `Corrupt` where the payload is no such value, or its `content-type` says that it is
    /// something else: no retry helps. Where the codec needs a schema registry that does not
    /// answer, the error is retryable. Dropping the future is safe.
    fn decode(&self, message: &Message) -> impl Future<Output = Result<T>> + Send;
}

impl Message {
    /// The value that it carries, by [`Codec::decode`]; a [`Delivery`](crate::Delivery) has it
    /// too.
    pub async fn decode<T>(&self, codec: &impl Codec<T>) -> Result<T> {
        codec.decode(self).await
    }
}

/// The content type of a message, where it has one. Names of headers differ in case between
/// the publishers of this world.
pub(crate) fn content_type(message: &Message) -> Option<&[u8]> {
    let mut headers = message.headers.iter();
    headers.find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE)).map(|(_, value)| value)
}

/// A media type in lower case, without its parameters.
pub(crate) fn essence(content_type: &[u8]) -> String {
    let text = String::from_utf8_lossy(content_type);
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Fails with `Corrupt` where a message says that it is something else than what is wanted; one
/// that says nothing may be anything.
fn expect_type(message: &Message, wanted: &str, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    let Some(given) = content_type(message).map(essence) else { return Ok(()) };
    if is_wanted(&given) {
        return Ok(());
    }
    Err(corrupt(format!("the content type is {given:?}, not {wanted}")))
}

pub(crate) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, "decode", message)
}

/// A payload that is no `T`.
fn misfit<T>(format: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    corrupt(format!("the payload is no {format} of the type"))
        .with("type", type_name::<T>())
        .with_source(source)
}

/// A value that the format has no form for.
fn formless<T: ?Sized>(
    format: &str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::new(ErrorKind::Unexpected, "encode", format!("the value has no form in {format}"))
        .with("type", type_name::<T>())
        .with_source(source)
}

/// What a codec gives that waits for nobody.
#[cfg(test)]
pub(crate) fn ready<O>(codec: impl Future<Output = O>) -> O {
    futures::FutureExt::now_or_never(codec).expect("the codec waits for nobody")
}

#[cfg(test)]
mod tests;
