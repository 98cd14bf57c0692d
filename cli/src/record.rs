//! A message as one JSON object: what `tail --json` writes, `publish --json-lines` reads.
//!
//! Bytes that are UTF-8 stand as text (`payload`), all others in base64 (`payload_base64`), so
//! that every message comes back as it was.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use broker::{Delivery, Headers, Message, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A message, and where it stood.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Where it stood; only told, and passed over where it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_us: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(default)]
    headers: HeaderList,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

/// Headers: a list keeps their order and repetitions, an object is shorter to write.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum HeaderList {
    List(Vec<Header>),
    Object(BTreeMap<String, String>),
}

impl Default for HeaderList {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// One header.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl Record {
    pub(crate) fn of(delivery: &Delivery) -> Self {
        let position = delivery.position();
        Self {
            topic: Some(delivery.topic().to_string()),
            partition: Some(position.partition()),
            offset: Some(position.offset()),
            ..Self::from(delivery.message())
        }
    }

    /// The message, or what is wrong with it.
    pub(crate) fn into_message(self) -> Result<Message, String> {
        let key = one("key", self.key, self.key_base64)?;
        let payload = one("payload", self.payload, self.payload_base64)?;
        let mut headers = Headers::default();
        match self.headers {
            HeaderList::Object(values) => {
                values.iter().for_each(|(name, value)| headers.push(name, value.as_bytes()));
            }
            HeaderList::List(list) => {
                for Header { name, value, value_base64 } in list {
                    let value = one("value", value, value_base64)?.unwrap_or_default();
                    headers.push(&name, &value);
                }
            }
        }
        let payload = payload.ok_or("neither payload nor payload_base64 is there")?;
        let timestamp = self.time_us.map(Timestamp::from_micros);
        Ok(Message { key, payload, headers, timestamp })
    }
}

impl From<&Message> for Record {
    fn from(message: &Message) -> Self {
        let (key, key_base64) = message.key.as_deref().map_or((None, None), split);
        let (payload, payload_base64) = split(&message.payload);
        Self {
            time_us: message.timestamp.map(Timestamp::as_micros),
            key,
            key_base64,
            headers: HeaderList::List(headers(&message.headers)),
            payload,
            payload_base64,
            ..Self::default()
        }
    }
}

/// Headers for JSON.
pub(crate) fn headers(headers: &Headers) -> Vec<Header> {
    let header = |(name, value): (&str, &[u8])| {
        let (value, value_base64) = split(value);
        Header { name: name.to_owned(), value, value_base64 }
    };
    headers.iter().map(header).collect()
}

/// Bytes as text, or else in base64.
pub(crate) fn split(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

/// The bytes that are given in one of two ways.
fn one(name: &str, text: Option<String>, base64: Option<String>) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("both {name} and {name}_base64 are there")),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(encoded)) => match BASE64.decode(encoded) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) => Err(format!("{name}_base64 is no base64: {error}")),
        },
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Message, String> {
        let record: Record = serde_json::from_str(text).map_err(|error| error.to_string())?;
        record.into_message()
    }

    #[test]
    fn every_message_comes_back_as_it_was() {
        let plain = Message::new("text \n\u{1b} ü");
        let binary = Message {
            timestamp: Some(Timestamp::from_micros(-5)),
            ..Message::new(vec![0, 255, 10])
                .with_key(vec![200, 1])
                .with_header("b", [255])
                .with_header("a", "1")
                .with_header("b", "")
        };
        let empty = Message::new("").with_key("");
        for message in [plain, binary, empty] {
            let written = serde_json::to_string(&Record::from(&message)).unwrap();
            assert!(!written.contains('\n'), "{written}");
            assert_eq!(read(&written).unwrap(), message, "{written}");
        }
    }

    #[test]
    fn a_line_written_by_hand_may_be_short() {
        let message = read(r#"{"headers": {"id": "7"}, "payload": "x"}"#).unwrap();
        assert_eq!(message, Message::new("x").with_header("id", "7"));
    }

    #[test]
    fn a_line_that_is_wrong_says_why() {
        for (line, why) in [
            (r#"{"key": "a"}"#, "neither payload nor payload_base64"),
            (r#"{"payload": "a", "payload_base64": "YQ=="}"#, "both payload and payload_base64"),
            (r#"{"payload_base64": "%"}"#, "no base64"),
            (r#"{"payload": "a", "pyload": "b"}"#, "pyload"),
            ("7", "expected"),
            ("", "EOF"),
        ] {
            let problem = read(line).unwrap_err();
            assert!(problem.contains(why), "{line}: {problem}");
        }
    }
}
