//! What is published comes back as it was.

use super::Harness;
use super::stage::Stage;
use crate::contract::Published;
use crate::error::ErrorKind;
use crate::message::{Message, Timestamp};

/// Publishes and receives one message, but for the timestamp, which the broker may fill in.
async fn round_trip(harness: &dyn Harness, message: Message) {
    let stage = Stage::new(harness, 1).await;
    stage.publish(vec![message.clone()]).await;
    let received = stage.everything().await;
    assert_eq!(received.len(), 1, "{received:?}");
    let received = Message { timestamp: message.timestamp, ..received[0].message().clone() };
    assert!(received == message, "{received:?} came for {message:?}");
}

/// No payload is a payload.
pub async fn an_empty_payload_round_trips(harness: &dyn Harness) {
    round_trip(harness, Message::default()).await;
    round_trip(harness, Message::default().with_key("key").with_header("name", "")).await;
}

/// Payloads, keys and header values are bytes, not text.
pub async fn every_byte_round_trips(harness: &dyn Harness) {
    let bytes: Vec<u8> = (0..=255).collect();
    let message = Message::new(bytes.clone()).with_key(bytes.clone()).with_header("bytes", bytes);
    round_trip(harness, message).await;
}

/// `message_bytes_max` is a promise, however the bytes are shared out.
pub async fn the_largest_message_round_trips(harness: &dyn Harness) {
    let size = harness.broker().await.capabilities().message_bytes_max;
    round_trip(harness, Message::new(vec![7; size])).await;
    let shared = Message::new(vec![7; size - 100]).with_key(vec![8; 50]);
    let shared = shared.with_header("name", [9; 46]);
    assert_eq!(shared.size(), size);
    round_trip(harness, shared).await;
}

/// A message over the limit harms nobody else in its batch.
pub async fn one_byte_too_many_is_refused_while_the_rest_is_written(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let size = stage.broker.capabilities().message_bytes_max;
    let batch =
        vec![Message::new("before"), Message::new(vec![7; size + 1]), Message::new("after")];
    let results = stage.broker.publish(&stage.topic, batch).await.unwrap();
    let [Published::Written(before), Published::NotWritten(error), Published::Written(after)] =
        &results[..]
    else {
        panic!("{results:?}");
    };
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(!error.is_retryable(), "{error}");
    let received = stage.everything().await;
    let positions: Vec<_> = received.iter().map(|delivery| delivery.position()).collect();
    assert_eq!(positions, [*before, *after]);
    assert_eq!([&received[0].payload[..], &received[1].payload[..]], [b"before", &b"after"[..]]);
}

/// Headers are a list, not a map.
pub async fn headers_keep_bytes_order_and_repeats(harness: &dyn Harness) {
    let message = Message::new("body")
        .with_header("z", "1")
        .with_header("a", [0, 255, 10, 13])
        .with_header("z", "")
        .with_header("Überschrift", "ß")
        .with_header("z", "1");
    round_trip(harness, message).await;
}

/// An empty key is a key: its messages keep an order, those without a key need none.
pub async fn a_key_an_empty_key_and_no_key_are_told_apart(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let keyed = [Some("key"), Some(""), None];
    let message = |key: Option<&'static str>| match key {
        Some(key) => Message::new("body").with_key(key),
        None => Message::new("body"),
    };
    stage.publish(keyed.into_iter().map(message).collect()).await;
    let received = stage.everything().await;
    let mut keys: Vec<_> = received.iter().map(|delivery| delivery.key.as_deref()).collect();
    if !stage.broker.capabilities().partitions {
        // Different keys have no order then; this one is the longest first.
        keys.sort_by_key(|key| std::cmp::Reverse(key.map(<[u8]>::len)));
    }
    assert_eq!(keys, keyed.map(|key| key.map(str::as_bytes)));
}

/// A publisher's own time is kept, on some backends without its microseconds.
pub async fn a_timestamp_round_trips_to_the_millisecond(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let hour_ago = Timestamp::now().as_micros() - 3_600_000_000;
    let given = hour_ago - hour_ago.rem_euclid(1000) + 456;
    let timestamp = Some(Timestamp::from_micros(given));
    stage.publish(vec![Message { timestamp, ..Message::new("body") }]).await;
    let kept = stage.everything().await[0].timestamp.unwrap().as_micros();
    assert!(kept == given || kept == given - 456, "{kept} was kept of {given}");
}

/// Every delivery has a time: the publisher's, else that of publishing.
pub async fn an_absent_timestamp_is_filled_in(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let before = Timestamp::now().as_micros() - 1000;
    stage.publish(vec![Message::new("body")]).await;
    let after = Timestamp::now().as_micros() + 1000;
    let filled = stage.everything().await[0].timestamp.unwrap().as_micros();
    assert!((before..=after).contains(&filled), "{filled} is not in {before}..={after}");
}

/// A caller need not look whether it has something to publish.
pub async fn an_empty_batch_is_published_as_nothing(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    assert!(stage.publish(Vec::new()).await.is_empty());
    assert!(stage.everything().await.is_empty());
}
