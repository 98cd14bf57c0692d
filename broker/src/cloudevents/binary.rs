//! Binary mode: the payload is the data, attributes are headers.

use super::event::{Attributes, Event, Extension, Value};
use crate::codec::{CONTENT_TYPE, content_type};
use crate::message::Message;

/// What the names of attributes begin with: in the Kafka binding, and in those of HTTP and
/// Pub/Sub.
const PREFIXES: [&str; 2] = ["ce_", "ce-"];

pub(super) fn write(event: &Event, prefix: &str) -> Message {
    let mut message = Message::new(event.data.clone().unwrap_or_default());
    for (name, value) in event.attributes() {
        let text = match value {
            Value::Text(text) => text.to_owned(),
            Value::Boolean(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
        };
        match name {
            "datacontenttype" => message.headers.push(CONTENT_TYPE, text.as_bytes()),
            _ => message.headers.push(&format!("{prefix}{name}"), text.as_bytes()),
        }
    }
    message
}

pub(super) fn read(message: &Message) -> Result<Event, String> {
    let mut attributes = Attributes::default();
    for (header, value) in message.headers.iter() {
        let Some(name) = PREFIXES.iter().find_map(|prefix| header.strip_prefix(prefix)) else {
            continue;
        };
        if name == "datacontenttype" {
            return Err(format!("the header {header:?} stands where {CONTENT_TYPE:?} should"));
        }
        attributes.add(name, text(name, value)?)?;
    }
    if let Some(value) = content_type(message) {
        attributes.add("datacontenttype", text("datacontenttype", value)?)?;
    }
    attributes.event(Some(message.payload.clone()))
}

fn text(name: &str, value: &[u8]) -> Result<Extension, String> {
    match std::str::from_utf8(value) {
        Ok(text) => Ok(text.into()),
        Err(_) => Err(format!("the attribute {name:?} is not UTF-8")),
    }
}
