use serde::{Deserialize, Serialize};

use super::*;
use crate::codec::ready;
use crate::error::ErrorKind;

/// One field of each kind, and a type that holds itself.
const EVERYTHING: &str = r#"{"type": "record", "name": "Everything", "namespace": "shop", "fields": [
    {"name": "flag", "type": "boolean"},
    {"name": "number", "type": "long"},
    {"name": "ratio", "type": "double"},
    {"name": "text", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "maybe", "type": ["null", "string"]},
    {"name": "list", "type": {"type": "array", "items": "int"}},
    {"name": "map", "type": {"type": "map", "values": "long"}},
    {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["Red", "Green"]}},
    {"name": "next", "type": ["null", "Everything"]}
]}"#;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Colour {
    Red,
    Green,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    flag: bool,
    number: i64,
    ratio: f64,
    text: String,
    at: i64,
    maybe: Option<String>,
    list: Vec<i32>,
    map: std::collections::BTreeMap<String, i64>,
    colour: Colour,
    next: Option<Box<Self>>,
}

fn everything(depth: usize) -> Everything {
    Everything {
        flag: true,
        number: -5,
        ratio: 0.25,
        text: "ä".into(),
        at: 1_700_000_000_000_000,
        maybe: Some(String::new()),
        list: vec![1, -2, 300_000],
        map: [("a".to_owned(), i64::MIN)].into(),
        colour: Colour::Green,
        next: (depth > 0).then(|| Box::new(everything(depth - 1))),
    }
}

fn topic() -> Topic {
    Topic::new("orders").unwrap()
}

async fn bytes<T>(codec: &Avro, value: &T) -> bytes::Bytes
where
    T: Serialize + DeserializeOwned + Send + Sync,
{
    codec.encode(&topic(), value).await.unwrap().payload
}

async fn rejection(codec: &Avro, payload: impl Into<bytes::Bytes>) -> String {
    let decoded: Result<Everything> = codec.decode(&Message::new(payload)).await;
    let error = decoded.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn avro_round_trips_and_says_what_it_is() {
    let codec = Avro::new(EVERYTHING).unwrap();
    for depth in 0..3 {
        let message = codec.encode(&topic(), &everything(depth)).await.unwrap();
        assert_eq!(message.headers.get_str(CONTENT_TYPE), Some("avro/binary"));
        assert_eq!(message.decode::<Everything>(&codec).await.unwrap(), everything(depth));
    }
}

#[tokio::test]
async fn a_schema_is_derived() {
    let codec = Avro::derived::<Vec<i64>>().unwrap();
    let numbers = vec![1, -1];
    assert_eq!(bytes(&codec, &numbers).await, [4, 2, 1, 0][..]);
    let message = codec.encode(&topic(), &numbers).await.unwrap();
    assert_eq!(message.decode::<Vec<i64>>(&codec).await.unwrap(), numbers);
}

#[tokio::test]
async fn a_payload_that_is_cut_off_or_goes_on_is_corrupt_at_every_byte() {
    let codec = Avro::new(EVERYTHING).unwrap();
    let payload = bytes(&codec, &everything(1)).await;
    for end in 0..payload.len() {
        let reason = rejection(&codec, payload.slice(..end)).await;
        assert!(reason.contains("cut off"), "{end}: {reason}");
    }
    let longer = [&payload[..], &[0]].concat();
    assert!(rejection(&codec, longer).await.contains("goes on behind its end"));
}

#[tokio::test]
async fn a_payload_of_any_depth_is_refused_before_it_overflows_the_stack() {
    let codec = Avro::new(EVERYTHING).unwrap();
    let one = bytes(&codec, &everything(0)).await;
    // The record without its last byte, by which another one follows.
    let again = [&one[..one.len() - 1], &[2]].concat();
    let deep = [again.repeat(10_000), one.to_vec()].concat();
    assert!(rejection(&codec, deep).await.contains("nested too deep"));
    let allowed = everything(40);
    let payload = bytes(&codec, &allowed).await;
    let read: Everything = codec.decode(&Message::new(payload)).await.unwrap();
    assert_eq!(read, allowed);
}

#[tokio::test]
async fn items_that_are_claimed_and_not_there_are_refused_before_they_are_allocated() {
    let codec = Avro::new(r#"{"type": "array", "items": "null"}"#).unwrap();
    // Two to the power of 40 nulls, in no byte each.
    let mut payload = vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 0];
    assert!(rejection(&codec, payload.clone()).await.contains("claims more items"));
    payload = [2, 2, 2, 2, 2, 2, 2, 2, 0].to_vec();
    let read: Vec<()> = codec.decode(&Message::new(payload)).await.unwrap();
    assert_eq!(read.len(), 8);
}

#[cfg(feature = "schema-registry")]
#[test]
fn a_value_of_another_schema_is_resolved_to_the_readers() {
    let old = r#"{"type": "record", "name": "Order", "fields": [
        {"name": "id", "type": "int"}, {"name": "gone", "type": "string"}]}"#;
    let new = r#"{"type": "record", "name": "Order", "fields": [
        {"name": "note", "type": ["null", "string"], "default": null},
        {"name": "id", "type": "long"},
        {"name": "currency", "type": "string", "default": "EUR"}]}"#;
    #[derive(Serialize)]
    struct Old {
        id: i32,
        gone: String,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct New {
        note: Option<String>,
        id: i64,
        currency: String,
    }
    let (old, new) = (Compiled::parse(old, &[]).unwrap(), Compiled::parse(new, &[]).unwrap());
    let mut payload = Vec::new();
    old.write(&Old { id: 7, gone: "x".into() }, &mut payload).unwrap();
    let read: New = old.read(&payload, Some(&new)).unwrap();
    assert_eq!(read, New { note: None, id: 7, currency: "EUR".into() });
    assert!(old.equals(&old) && !old.equals(&new));
}

#[cfg(feature = "schema-registry")]
#[test]
fn a_schema_may_refer_to_others() {
    let outer = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "place", "type": "shop.Place"}]}"#;
    let inner = r#"{"type": "record", "name": "Place", "namespace": "shop", "fields": [
        {"name": "town", "type": "string"}, {"name": "country", "type": "shop.Country"}]}"#;
    let country = r#"{"type": "enum", "name": "Country", "namespace": "shop", "symbols": ["AT"]}"#;
    let others = [country.to_owned(), inner.to_owned()];
    let schema = Compiled::parse(outer, &others).unwrap();
    assert_eq!(schema.name(), "shop.Order");
    let payload = [8, b'G', b'r', b'a', b'z', 0];
    let read: serde_json::Value = schema.read(&payload, None).unwrap();
    assert_eq!(read, serde_json::json!({"place": {"town": "Graz", "country": "AT"}}));
    let plain = Compiled::parse(
        r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "place", "type": {"type": "record", "name": "Place", "fields": [
            {"name": "town", "type": "string"}]}}]}"#,
        &[],
    )
    .unwrap();
    let read: serde_json::Value = schema.read(&payload, Some(&plain)).unwrap();
    assert_eq!(read, serde_json::json!({"place": {"town": "Graz"}}));
}

#[test]
fn what_is_no_schema_is_invalid() {
    for text in [
        "",
        "{}",
        "\"nothing\"",
        r#"{"type": "record", "name": "A", "fields": [{"name": "b", "type": "B"}]}"#,
    ] {
        assert_eq!(Avro::new(text).unwrap_err().kind(), ErrorKind::ConfigInvalid, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_a_value_or_corrupt(payload: Vec<u8>) {
        let codec = Avro::new(EVERYTHING).unwrap();
        let decoded: Result<Everything> =
            ready(codec.decode(&Message::new(payload)));
        if let Err(error) = decoded {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        }
    }
}
