//! Messages of Pub/Sub as ours, and the other way round.
//!
//! A key of UTF-8 is the ordering key as it is. Any other is its base64 form, which the
//! attribute [`KEY`] says; an empty key, which would be none, is [`EMPTY_ORDERING_KEY`] with the
//! same attribute. The timestamp is an attribute, with microseconds; without it a delivery has
//! the time at which Pub/Sub took the message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use google_cloud_pubsub::model::Message as PubsubMessage;

use super::headers::{self, Attributes};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Message, Timestamp};

/// The longest ordering key, in bytes.
const ORDERING_KEY_LENGTH_MAX: usize = 1024;
/// Microseconds since the epoch.
const TIME: &str = "forebay-time";
/// How the ordering key stands for the key: [`BASE64`] or [`EMPTY`].
const KEY: &str = "forebay-key";
const BASE64: &str = "base64";
const EMPTY: &str = "empty";
/// The ordering key of the empty key.
const EMPTY_ORDERING_KEY: &str = "forebay-empty";

/// The message as Pub/Sub takes it. `TooLarge` where its key or headers are over a limit.
pub(super) fn to_pubsub(message: Message) -> Result<PubsubMessage> {
    let mut attributes = Attributes::new();
    let ordering_key = match &message.key {
        Some(key) => put_key(key, &mut attributes)?,
        None => String::new(),
    };
    // Pub/Sub takes no message without data and attributes.
    let nothing = message.payload.is_empty() && message.headers.is_empty();
    if let Some(time) = message.timestamp.or_else(|| nothing.then(Timestamp::now)) {
        attributes.insert(TIME.to_owned(), time.as_micros().to_string());
    }
    headers::put(&message.headers, &mut attributes)?;
    let message = PubsubMessage::new().set_data(message.payload).set_ordering_key(ordering_key);
    Ok(message.set_attributes(attributes))
}

/// Our message, with the time of publishing where it names none.
pub(super) fn from_pubsub(message: PubsubMessage) -> Message {
    let PubsubMessage { data, mut attributes, ordering_key, publish_time, .. } = message;
    let own = attributes.remove(TIME).and_then(|micros| micros.parse().ok());
    let micros = own.or_else(|| publish_time.as_ref().map(to_micros));
    let key = take_key(ordering_key, &mut attributes);
    let headers = headers::take(attributes);
    Message { key, payload: data, headers, timestamp: micros.map(Timestamp::from_micros) }
}

/// The number that a message id is, else one made of it (FNV-1a), which never changes.
pub(super) fn offset(message_id: &str) -> u64 {
    let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    message_id.parse().unwrap_or_else(|_| message_id.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
}

pub(super) fn to_micros(time: &google_cloud_wkt::Timestamp) -> i64 {
    time.seconds() * 1_000_000 + i64::from(time.nanos() / 1000)
}

fn put_key(key: &Bytes, attributes: &mut Attributes) -> Result<String> {
    let (ordering_key, marker) = match std::str::from_utf8(key) {
        Ok("") => (EMPTY_ORDERING_KEY.to_owned(), Some(EMPTY)),
        Ok(text) => (text.to_owned(), None),
        Err(_) => (STANDARD_NO_PAD.encode(key), Some(BASE64)),
    };
    if ordering_key.len() > ORDERING_KEY_LENGTH_MAX {
        let problem = "the key is longer than an ordering key of 1024 bytes can hold";
        let error = Error::new(ErrorKind::TooLarge, "publish", problem);
        return Err(error.with("bytes", key.len()));
    }
    if let Some(marker) = marker {
        attributes.insert(KEY.to_owned(), marker.to_owned());
    }
    Ok(ordering_key)
}

fn take_key(ordering_key: String, attributes: &mut Attributes) -> Option<Bytes> {
    let decoded = match attributes.remove(KEY).as_deref() {
        Some(EMPTY) => Some(Bytes::new()),
        Some(BASE64) => STANDARD_NO_PAD.decode(&ordering_key).ok().map(Bytes::from),
        _ => None,
    };
    decoded.or_else(|| (!ordering_key.is_empty()).then(|| Bytes::from(ordering_key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(message: &Message) -> Message {
        from_pubsub(to_pubsub(message.clone()).unwrap())
    }

    #[test]
    fn every_key_comes_back_as_it_was() {
        let keys: [Option<&[u8]>; 5] =
            [None, Some(b""), Some(b"key"), Some(&[0, 255, 128]), Some("Schlüssel".as_bytes())];
        for key in keys {
            let key = key.map(Bytes::copy_from_slice);
            let message = Message { key: key.clone(), ..Message::new("body") };
            assert_eq!(round_trip(&message).key, key);
        }
    }

    #[test]
    fn text_keys_are_ordering_keys_and_others_have_an_order_too() {
        let ordering_key =
            |key: &[u8]| to_pubsub(Message::new("x").with_key(key.to_vec())).unwrap().ordering_key;
        assert_eq!(ordering_key(b"key"), "key");
        let special = [ordering_key(b""), ordering_key(&[255]), ordering_key(&[254])];
        assert!(special.iter().all(|key| !key.is_empty()), "{special:?}");
        assert!(special[0] != special[1] && special[1] != special[2], "{special:?}");
    }

    #[test]
    fn a_key_over_the_limit_is_too_large() {
        for (byte, most) in [(b'k', 1024), (255, 768)] {
            let message = |length: usize| Message::new("x").with_key(vec![byte; length]);
            assert_eq!(round_trip(&message(most)).key, message(most).key);
            let error = to_pubsub(message(most + 1)).unwrap_err();
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::TooLarge, false));
        }
    }

    #[test]
    fn a_message_of_nothing_is_still_one() {
        let message = to_pubsub(Message::default()).unwrap();
        assert!(!message.attributes.is_empty());
        let message = from_pubsub(message);
        assert!(message.headers.is_empty() && message.key.is_none());
        assert!(message.timestamp.is_some());
    }

    #[test]
    fn a_timestamp_keeps_its_microseconds_and_gives_way_to_none() {
        let timestamp = Some(Timestamp::from_micros(1_234_567));
        let message = Message { timestamp, ..Message::new("x").with_header("a", "b") };
        assert_eq!(round_trip(&message), message);
        let published = google_cloud_wkt::Timestamp::clamp(3, 4_000_000);
        let foreign = PubsubMessage::new().set_data("x").set_publish_time(published);
        assert_eq!(from_pubsub(foreign).timestamp, Some(Timestamp::from_micros(3_004_000)));
    }

    #[test]
    fn a_message_id_is_an_offset() {
        assert_eq!(offset("18446744073709551615"), u64::MAX);
        assert_eq!(offset("7"), 7);
        assert_eq!(offset("m-7"), offset("m-7"));
        assert_ne!(offset("m-7"), offset("m-8"));
    }
}
