//! Entries of a stream as messages, and the other way round.

use bytes::Bytes;
use redis::{Cmd, Value};

use super::position::EntryId;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Headers, Message, Timestamp};

const PAYLOAD: &str = "payload";
const KEY: &str = "key";
const HEADERS: &str = "headers";
const TIMESTAMP: &str = "timestamp";

/// Adds a message's fields to a command.
pub(super) fn write_fields(command: &mut Cmd, message: &Message) {
    command.arg(PAYLOAD).arg(&message.payload[..]);
    if let Some(key) = &message.key {
        command.arg(KEY).arg(&key[..]);
    }
    if !message.headers.is_empty() {
        command.arg(HEADERS).arg(&message.headers.as_block()[..]);
    }
    if let Some(time) = message.timestamp {
        command.arg(TIMESTAMP).arg(time.as_micros());
    }
}

/// How many fields and values `write_fields` adds.
pub(super) fn field_count(message: &Message) -> usize {
    let optional =
        [message.key.is_some(), !message.headers.is_empty(), message.timestamp.is_some()];
    2 + 2 * optional.into_iter().filter(|is_there| *is_there).count()
}

/// An error for a reply that is not as Redis documents it.
pub(super) fn unexpected(operation: &'static str, what: &str) -> Error {
    let problem = format!("the server's answer is not understood: {what}");
    Error::new(ErrorKind::Unexpected, operation, problem)
}

/// The elements of an array; none for nil.
pub(super) fn array(operation: &'static str, value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::Nil => Ok(Vec::new()),
        _ => Err(unexpected(operation, "no array")),
    }
}

/// The pairs of a map, which may come as a flat array.
pub(super) fn pairs(operation: &'static str, value: Value) -> Result<Vec<(Bytes, Value)>> {
    if let Value::Map(pairs) = value {
        let name = |(name, value)| Some((bytes(name)?, value));
        return Ok(pairs.into_iter().filter_map(name).collect());
    }
    let mut items = array(operation, value)?.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        let name = bytes(name).ok_or_else(|| unexpected(operation, "a name is no text"))?;
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// The bytes of a string, without copying them.
pub(super) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into_bytes().into()),
        Value::Int(number) => Some(number.to_string().into_bytes().into()),
        _ => None,
    }
}

/// A text, none where it is none.
pub(super) fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?.into()).ok()
}

/// A whole number, also where it comes as text.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        Value::SimpleString(text) => text.parse().ok(),
        _ => None,
    }
}

/// An entry's id.
pub(super) fn id(operation: &'static str, value: &Value) -> Result<EntryId> {
    let id = match value {
        Value::BulkString(text) => EntryId::parse(text),
        Value::SimpleString(text) => EntryId::parse(text.as_bytes()),
        _ => None,
    };
    id.ok_or_else(|| unexpected(operation, "no entry id"))
}

/// Entries with their ids, as reading a stream returns them.
pub(super) fn entries(operation: &'static str, value: Value) -> Result<Vec<(EntryId, Message)>> {
    array(operation, value)?.into_iter().map(|item| entry(operation, item)).collect()
}

fn entry(operation: &'static str, value: Value) -> Result<(EntryId, Message)> {
    let mut parts = array(operation, value)?.into_iter();
    let (Some(head), Some(fields)) = (parts.next(), parts.next()) else {
        return Err(unexpected(operation, "an entry is cut off"));
    };
    let id = id(operation, &head)?;
    Ok((id, message(id, array(operation, fields)?)))
}

/// A message of an entry's fields: names and values in turn.
pub(super) fn message(id: EntryId, mut fields: Vec<Value>) -> Message {
    if !fields.chunks(2).any(|pair| as_bytes(&pair[0]) == PAYLOAD.as_bytes()) {
        return foreign(id, fields);
    }
    let mut message = Message { timestamp: Some(time_of(id)), ..Message::default() };
    let mut others = Headers::default();
    for pair in fields.chunks_exact_mut(2) {
        let value = bytes(std::mem::take(&mut pair[1])).unwrap_or_default();
        match as_bytes(&pair[0]) {
            b"payload" => message.payload = value,
            b"key" => message.key = Some(value),
            b"headers" => match Headers::from_block(value.clone()) {
                Ok(headers) => message.headers = headers,
                Err(_) => others.push(HEADERS, &value),
            },
            b"timestamp" => message.timestamp = micros(&value).or(message.timestamp),
            other => others.push(&String::from_utf8_lossy(other), &value),
        }
    }
    others.iter().for_each(|(name, value)| message.headers.push(name, value));
    message
}

fn as_bytes(value: &Value) -> &[u8] {
    match value {
        Value::BulkString(bytes) => bytes,
        Value::SimpleString(text) => text.as_bytes(),
        _ => &[],
    }
}

/// An entry of another client that knows nothing of our fields.
fn foreign(id: EntryId, mut fields: Vec<Value>) -> Message {
    let timestamp = Some(time_of(id));
    if let [_, value] = &mut fields[..] {
        let payload = bytes(std::mem::take(value)).unwrap_or_default();
        return Message { timestamp, ..Message::new(payload) };
    }
    let text = |value: &Value| String::from_utf8_lossy(as_bytes(value)).into_owned();
    let pairs = fields.chunks_exact(2);
    let object = pairs.map(|pair| (text(&pair[0]), serde_json::Value::String(text(&pair[1]))));
    let object = serde_json::Value::Object(object.collect());
    let message = Message::new(object.to_string()).with_header("content-type", "application/json");
    Message { timestamp, ..message }
}

fn time_of(id: EntryId) -> Timestamp {
    let millis = i64::try_from(id.millis).unwrap_or(i64::MAX);
    Timestamp::from_micros(millis.saturating_mul(1000))
}

fn micros(text: &[u8]) -> Option<Timestamp> {
    std::str::from_utf8(text).ok()?.parse().ok().map(Timestamp::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: EntryId = EntryId { millis: 5, sequence: 0 };

    fn read(fields: &[(&str, &[u8])]) -> Message {
        let field = |(name, value): &(&str, &[u8])| [name.as_bytes().to_vec(), value.to_vec()];
        message(ID, fields.iter().flat_map(field).map(Value::BulkString).collect())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let whole = Message {
            timestamp: Some(Timestamp::from_micros(1_234_567)),
            ..Message::new([0, 255].as_slice()).with_key("").with_header("a", "1")
        };
        for message in [Message { timestamp: Some(time_of(ID)), ..Message::default() }, whole] {
            let mut command = Cmd::new();
            write_fields(&mut command, &message);
            let arguments: Vec<Value> = command
                .args_iter()
                .map(|argument| match argument {
                    redis::Arg::Simple(bytes) => Value::BulkString(bytes.to_vec()),
                    _ => Value::Nil,
                })
                .collect();
            assert_eq!(arguments.len(), field_count(&message));
            assert!(super::message(ID, arguments) == message, "{message:?}");
        }
    }

    #[test]
    fn a_single_foreign_field_is_the_payload() {
        let message = read(&[("data", b"bytes")]);
        assert_eq!(&message.payload[..], b"bytes");
        assert_eq!(message.timestamp, Some(Timestamp::from_micros(5_000)));
        assert!(message.headers.is_empty());
    }

    #[test]
    fn several_foreign_fields_are_an_object() {
        let message = read(&[("sensor", b"7"), ("value", b"1.5")]);
        assert_eq!(&message.payload[..], br#"{"sensor":"7","value":"1.5"}"#);
        assert_eq!(message.headers.get_str("content-type"), Some("application/json"));
    }

    #[test]
    fn fields_beside_a_payload_are_headers() {
        let message = read(&[("payload", b"x"), ("trace", b"1"), ("headers", b"no block")]);
        assert_eq!(message.headers.get("trace"), Some(&b"1"[..]));
        assert_eq!(message.headers.get("headers"), Some(&b"no block"[..]));
    }

    #[test]
    fn a_time_that_is_none_gives_way_to_that_of_the_id() {
        let message = read(&[("payload", b"x"), ("timestamp", b"noon")]);
        assert_eq!(message.timestamp, Some(Timestamp::from_micros(5_000)));
    }
}
