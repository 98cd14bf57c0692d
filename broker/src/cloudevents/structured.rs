//! Structured mode: attributes and data as one JSON object.
//!
//! Data that is JSON stands in it as it is, text as a string, anything else in base64 under
//! `data_base64`. Data of JSON is not parsed but cut out, so that its bytes survive.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::STRUCTURED;
use super::event::{Attributes, Event, Extension, Value};
use crate::codec::{CONTENT_TYPE, essence, is_json};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;

pub(super) fn write(event: &Event) -> Result<Message> {
    let payload = serde_json::to_vec(&Object(event)).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "encode", "the event has no form in JSON")
            .with_source(error)
    })?;
    Ok(Message::new(payload).with_header(CONTENT_TYPE, format!("{STRUCTURED}+json; charset=UTF-8")))
}

pub(super) fn read(payload: &Bytes) -> Result<Event, String> {
    let Members(members) = serde_json::from_slice(payload)
        .map_err(|error| format!("it is no JSON object: {error}"))?;
    let (mut attributes, mut data, mut base64) = (Attributes::default(), None, None);
    let mut is_json = true;
    for (name, value) in members {
        // A member that is null is as good as none.
        if value.get() == "null" {
            continue;
        }
        match name.as_str() {
            "data" => data = Some(value),
            "data_base64" => base64 = Some(value),
            _ => {
                let value = attribute(&name, value)?;
                if let ("datacontenttype", Extension::Text(text)) = (name.as_str(), &value) {
                    is_json = crate::codec::is_json(&essence(text.as_bytes()));
                }
                attributes.add(&name, value)?;
            }
        }
    }
    let data = match (data, base64) {
        (Some(_), Some(_)) => return Err("it has both \"data\" and \"data_base64\"".into()),
        (Some(value), None) if is_json => Some(payload.slice_ref(value.get().as_bytes())),
        (Some(value), None) => Some(text_or_json(payload, value)),
        (None, Some(value)) => Some(from_base64(value)?),
        (None, None) => None,
    };
    attributes.event(data)
}

fn attribute(name: &str, value: &RawValue) -> Result<Extension, String> {
    let text = value.get();
    if let Ok(text) = serde_json::from_str::<String>(text) {
        return Ok(text.into());
    }
    match text {
        "true" => Ok(true.into()),
        "false" => Ok(false.into()),
        _ => match text.parse::<i32>() {
            Ok(number) => Ok(number.into()),
            Err(_) => Err(format!("the attribute {name:?} is no text, boolean or 32-bit integer")),
        },
    }
}

/// Data that is not declared as JSON: the text of a string, else the JSON that stands there.
fn text_or_json(payload: &Bytes, value: &RawValue) -> Bytes {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => text.into(),
        Err(_) => payload.slice_ref(value.get().as_bytes()),
    }
}

fn from_base64(value: &RawValue) -> Result<Bytes, String> {
    let text: Option<String> = serde_json::from_str(value.get()).ok();
    let bytes = text.and_then(|text| STANDARD.decode(text).ok());
    bytes.map(Bytes::from).ok_or_else(|| "its \"data_base64\" is not base64".into())
}

/// An event as JSON.
struct Object<'a>(&'a Event);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.attributes() {
            match value {
                Value::Text(text) => map.serialize_entry(name, text)?,
                Value::Boolean(value) => map.serialize_entry(name, &value)?,
                Value::Integer(value) => map.serialize_entry(name, &value)?,
            }
        }
        let content_type = self.0.datacontenttype.as_deref();
        match self
            .0
            .data
            .as_deref()
            .filter(|data| !data.is_empty())
            .map(|data| form(content_type, data))
        {
            None => {}
            Some(Form::Json(value)) => map.serialize_entry("data", value)?,
            Some(Form::Text(text)) => map.serialize_entry("data", text)?,
            Some(Form::Base64(text)) => map.serialize_entry("data_base64", &text)?,
        }
        map.end()
    }
}

/// How data stands in the object.
enum Form<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Base64(String),
}

fn form<'a>(content_type: Option<&str>, data: &'a [u8]) -> Form<'a> {
    let essence = content_type.map(|text| essence(text.as_bytes()));
    let text = std::str::from_utf8(data).ok();
    let json = || text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    match essence.as_deref() {
        Some(essence) if essence.starts_with("text/") && !is_json(essence) => text.map(Form::Text),
        Some(essence) if !is_json(essence) => None,
        // What is not told is JSON in this mode. A null would be taken for no data.
        _ => json().filter(|value| value.get() != "null").map(Form::Json),
    }
    .unwrap_or_else(|| Form::Base64(STANDARD.encode(data)))
}

/// The members of an object in their order, cut out of the text.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}
