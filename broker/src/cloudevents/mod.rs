//! CloudEvents 1.0: events with the attributes that the specification names, as messages.
//!
//! In **binary** mode the payload is the event's data and each attribute is a header, by the
//! Kafka binding: `ce_id`, `ce_source`, `ce_type`, and `content-type` for the data's. In
//! **structured** mode the payload is one JSON object, its content type
//! `application/cloudevents+json`. The headers are the same on every backend, so that an event
//! keeps its meaning when it is copied from one broker to another; for subscribers who know the
//! Pub/Sub binding alone there is [`Mode::BinaryDashed`]. Reading takes every mode, whatever the
//! codec was made for.
//!
//! The extension `partitionkey` becomes the message's key.
//!
//! ```
//! use broker::Topic;
//! use broker::cloudevents::{Event, Mode};
//! use broker::codec::Codec;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> broker::Result<()> {
//! let event = Event::new("7", "/shop/till-3", "shop.order.paid")
//!     .with_data("application/json", r#"{"total": 12}"#)
//!     .with_extension("partitionkey", "customer-5");
//! let message = Mode::Binary.encode(&Topic::new("orders")?, &event).await?;
//! assert_eq!(message.headers.get_str("ce_type"), Some("shop.order.paid"));
//! assert_eq!(message.key.as_deref(), Some(&b"customer-5"[..]));
//! assert_eq!(Mode::Binary.decode(&message).await?, event);
//! # Ok(())
//! # }
//! ```

mod binary;
mod check;
mod event;
mod structured;
mod time;

use crate::capabilities::Capabilities;
use crate::codec::{Codec, content_type, corrupt, essence};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

pub use event::{Event, Extension};
pub use time::Time;

/// The version of the specification, which every event names.
const VERSION: &str = "1.0";
/// What the content types of structured events begin with, in whatever format.
const STRUCTURED: &str = "application/cloudevents";
/// The extension that says which events belong together.
const PARTITION_KEY: &str = "partitionkey";

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Data as the payload, attributes as headers that begin with `ce_`.
    Binary,
    /// The same with `ce-`, as the Pub/Sub binding wants it.
    BinaryDashed,
    /// Attributes and data as one JSON object.
    Structured,
}

impl Mode {
    /// The binary mode that others who use the same broker expect.
    pub fn binary_on(capabilities: &Capabilities) -> Self {
        if capabilities.backend == "pubsub" { Self::BinaryDashed } else { Self::Binary }
    }
}

impl Codec<Event> for Mode {
    /// An event that breaks a rule of the specification is `Unexpected` with the rule's words.
    async fn encode(&self, _: &Topic, event: &Event) -> Result<Message> {
        check::event(event).map_err(|problem| {
            Error::new(
                ErrorKind::Unexpected,
                "encode",
                format!("the event is not valid: {problem}"),
            )
        })?;
        let message = match self {
            Self::Binary => binary::write(event, "ce_"),
            Self::BinaryDashed => binary::write(event, "ce-"),
            Self::Structured => structured::write(event)?,
        };
        Ok(match event.extensions.get(PARTITION_KEY) {
            Some(key) => message.with_key(key.to_string()),
            None => message,
        })
    }

    async fn decode(&self, message: &Message) -> Result<Event> {
        let content_type = content_type(message).map(essence).unwrap_or_default();
        let read = match content_type.strip_prefix(STRUCTURED) {
            None => binary::read(message),
            Some("" | "+json") => structured::read(&message.payload),
            Some(format) if format.starts_with("-batch") => Err("it is a batch of events".into()),
            Some(format) => Err(format!("its format is {format:?}, not \"+json\"")),
        };
        let event = read.and_then(|event| check::event(&event).map(|()| event));
        event.map_err(|problem| corrupt(format!("the message is no event: {problem}")))
    }
}

#[cfg(test)]
mod tests;
