//! Typed messages come back as the values that they were, whatever the backend does to headers.

use serde::{Deserialize, Serialize};

use super::Harness;
use super::stage::{Stage, make_topic};
use crate::cloudevents::{Event, Mode, Time};
use crate::codec::{Codec, Json};
use crate::delivery::Outcome;
use crate::ext::BrokerExt;
use crate::message::{Message, Timestamp};
use crate::policy::{Failure, Policy};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    number: u32,
    note: String,
}

/// A value, its codec and the broker.
pub async fn a_typed_value_round_trips(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let order = Order { number: 7, note: "Grüße".into() };
    stage.broker.publish_typed(&stage.topic, &Json, &order).await.unwrap();
    let received = stage.everything().await;
    assert_eq!(received[0].decode::<Order>(&Json).await.unwrap(), order);
}

fn event() -> Event {
    Event::new("A234-1234", "/shop/till%203", "shop.order.paid")
        .with_subject("order 7: Grüße")
        .with_time(Time::from(Timestamp::from_micros(1_700_000_000_123_456)))
        .with_extension("traceid", "00-4bf9")
        .with_extension("empty", "")
        .with_extension("partitionkey", "customer-5")
        .with_data("application/octet-stream", (0..=255).collect::<Vec<u8>>())
}

async fn round_trip(harness: &dyn Harness, mode: Mode, event: &Event) {
    let stage = Stage::new(harness, 1).await;
    stage.broker.publish_typed(&stage.topic, &mode, event).await.unwrap();
    let received = stage.everything().await;
    assert_eq!(received[0].key.as_deref(), Some(&b"customer-5"[..]));
    assert_eq!(&received[0].decode::<Event>(&mode).await.unwrap(), event);
}

/// Attributes are headers, with either prefix.
pub async fn a_cloud_event_survives_in_binary_mode(harness: &dyn Harness) {
    round_trip(harness, Mode::Binary, &event()).await;
    round_trip(harness, Mode::BinaryDashed, &event()).await;
}

/// Attributes are in the payload, extensions with their types.
pub async fn a_cloud_event_survives_in_structured_mode(harness: &dyn Harness) {
    let event = event().with_extension("count", 5).with_extension("final", true);
    round_trip(harness, Mode::Structured, &event).await;
    round_trip(harness, Mode::Structured, &event.with_data("text/plain", "just a text")).await;
}

/// What can't be decoded goes to the dead letters at its first attempt, with the cause and its
/// bytes; what comes behind it goes on.
pub async fn a_bad_payload_is_a_reject_with_its_cause(harness: &dyn Harness) {
    let dead_letters = make_topic(&harness.broker().await, 1).await;
    let policy = Policy::default().with_dead_letters(&dead_letters);
    let stage = Stage::layered(harness, policy.clone()).await;
    let good = Order { number: 7, note: String::new() };
    let good = Json.encode(&stage.topic, &good).await.unwrap();
    stage.publish(vec![Message::new("{\"number\": \"seven\"}"), good]).await;

    let mut member = stage.member().await;
    for delivery in member.take(2).await {
        let outcome = match delivery.decode::<Order>(&Json).await {
            Ok(_) => Outcome::Ack,
            Err(error) => policy.outcome(delivery.attempt(), Failure::from(error)),
        };
        member.settle([delivery], outcome).await;
    }
    let letters = Stage { topic: dead_letters, ..stage }.everything().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(&letters[0].payload[..], b"{\"number\": \"seven\"}");
    let headers = &letters[0].headers;
    let reason = headers.get_str("dead-letter-reason").unwrap();
    assert!(reason.contains("no JSON of the type") && reason.contains("invalid type"), "{reason}");
    assert_eq!(headers.get_str("dead-letter-attempts"), Some("1"));
}
