use serde::{Deserialize, Serialize};
use serde_json::json;

use super::*;
use crate::policy::Failure;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u32,
    note: Option<String>,
}

fn order() -> Order {
    Order { id: 7, note: Some("leave it with the neighbours".into()) }
}

fn topic() -> Topic {
    Topic::new("orders").unwrap()
}

async fn rejection<T: std::fmt::Debug>(codec: &impl Codec<T>, message: &Message) -> String {
    let error = message.decode(codec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    let failure = Failure::from(error);
    assert!(!failure.is_retryable(), "{failure:?}");
    failure.reason().to_owned()
}

#[tokio::test]
async fn json_round_trips_and_says_what_it_is() {
    let message = Json.encode(&topic(), &order()).await.unwrap();
    assert_eq!(message.headers.get_str(CONTENT_TYPE), Some("application/json"));
    assert_eq!(message.decode::<Order>(&Json).await.unwrap(), order());
}

#[tokio::test]
async fn a_bad_payload_is_a_rejection_with_its_cause() {
    let cases = [
        (&b""[..], "EOF"),
        (b"{\"id\": 7", "EOF"),
        (b"{\"id\": \"seven\"}", "invalid type"),
        (b"{\"id\": 7} and more", "trailing characters"),
        (b"\xff", "expected value"),
    ];
    for (payload, cause) in cases {
        let reason = rejection::<Order>(&Json, &Message::new(payload)).await;
        assert!(reason.contains(cause) && reason.contains("Order"), "{reason}");
    }
}

#[tokio::test]
async fn a_content_type_that_contradicts_is_a_rejection() {
    let payload = json!(order()).to_string();
    let message = |value: &str| Message::new(payload.clone()).with_header("Content-Type", value);
    for fine in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.shop+json"]
    {
        assert_eq!(message(fine).decode::<Order>(&Json).await.unwrap(), order(), "{fine}");
    }
    let reason = rejection::<Order>(&Json, &message("image/png")).await;
    assert!(reason.contains("\"image/png\", not JSON"), "{reason}");
}

#[cfg(feature = "protobuf")]
mod protobuf {
    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Line {
        #[prost(string, tag = "1")]
        item: String,
        #[prost(message, optional, boxed, tag = "2")]
        inner: Option<Box<Self>>,
    }

    #[tokio::test]
    async fn protobuf_round_trips_and_says_what_it_is() {
        let line = Line { item: "tea".into(), inner: None };
        let message = Protobuf.encode(&topic(), &line).await.unwrap();
        assert_eq!(message.headers.get_str(CONTENT_TYPE), Some("application/protobuf"));
        assert_eq!(message.decode::<Line>(&Protobuf).await.unwrap(), line);
        let other = Message::new(message.payload).with_header(CONTENT_TYPE, "application/json");
        let reason = rejection::<Line>(&Protobuf, &other).await;
        assert!(reason.contains("not protobuf"), "{reason}");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_value_or_corrupt(payload: Vec<u8>) {
            decode_all::<Line>(&Protobuf, payload);
        }
    }
}

/// Whatever comes of it, it must not panic, and an error must be a rejection.
fn decode_all<T>(codec: &impl Codec<T>, payload: Vec<u8>) {
    let message = Message::new(payload);
    let decoded = ready(codec.decode(&message));
    if let Err(error) = decoded {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(!error.is_retryable());
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_a_json_value_or_corrupt(payload: Vec<u8>) {
        decode_all::<serde_json::Value>(&Json, payload);
    }
}
