//! Each codec through the registry, and what it refuses.

use broker::codec::Codec;
use broker::codec::confluent::{Avro, Config, Frame, Json, Kind, Protobuf, Reference, Registry};
use broker::codec::confluent::{Schema, Subjects};
use broker::{Error, ErrorKind, Failure, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// What a message is rejected for.
#[track_caller]
fn rejection(error: Error) -> String {
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    let failure = Failure::from(error);
    assert!(!failure.is_retryable(), "{failure:?}");
    failure.reason().to_owned()
}

/// Changes how the registry checks what is registered under a subject.
async fn demand_compatibility(url: &str, subject: &str) {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let body = r#"{"compatibility": "BACKWARD"}"#;
    let request = format!(
        "PUT /{path}/config/{subject} HTTP/1.0\r\nHost: {host}\r\ncontent-length: {}\r\n\
         content-type: application/vnd.schemaregistry.v1+json\r\n\r\n{body}",
        body.len()
    );
    let mut connection = tokio::net::TcpStream::connect(host).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
}

fn framed(schema: u32, body: &[u8]) -> Message {
    Message::new([&[0], &schema.to_be_bytes()[..], body].concat())
}

#[tokio::test]
async fn values_round_trip_through_the_registry() {
    let Some(url) = registry_url() else { return };
    let (registry, topic) = (registry(&url), topic("round-trip"));
    let avro = Avro::new(&registry, ORDER_AVRO).unwrap();
    let message = avro.encode(&topic, &order()).await.unwrap();
    assert_eq!(message.payload[0], 0);
    assert_eq!(message.headers.get_str("content-type"), Some("application/vnd.confluent.avro"));
    assert_eq!(message.decode::<Order>(&avro).await.unwrap(), order());
    let id = Frame::read(&message.payload).unwrap().schema;
    let latest = registry.latest(&format!("{topic}-value")).await.unwrap();
    assert_eq!((latest.id, latest.version, latest.schema.kind), (id, 1, Kind::Avro));

    let json = Json::new(&registry, ORDER_JSON).unwrap();
    let message = json.encode(&super::topic("round-trip"), &order()).await.unwrap();
    assert_eq!(message.decode::<Order>(&json).await.unwrap(), order());

    let protobuf = Protobuf::new(&registry, SHOP_PROTO, "shop.Order").unwrap();
    let message = protobuf.encode(&super::topic("round-trip"), &shop::order()).await.unwrap();
    assert_eq!(message.decode::<shop::Order>(&protobuf).await.unwrap(), shop::order());
}

#[tokio::test]
async fn a_message_of_an_older_publisher_is_resolved() {
    let Some(url) = registry_url() else { return };
    let (registry, topic) = (registry(&url), topic("older"));
    #[derive(Serialize, Deserialize)]
    struct Old {
        prices: Vec<f32>,
        till: String,
        id: i32,
    }
    let old = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "prices", "type": {"type": "array", "items": "float"}},
        {"name": "till", "type": "string"}, {"name": "id", "type": "int"}]}"#;
    let old = Avro::new(&registry, old).unwrap();
    let value = Old { prices: vec![1.5, -2.0], till: "3".into(), id: 7 };
    let message = old.encode(&topic, &value).await.unwrap();
    let new = Avro::new(&registry, ORDER_AVRO).unwrap();
    assert_eq!(message.decode::<Order>(&new).await.unwrap(), Order { note: None, ..order() });
    let cut = Message::new(message.payload.slice(..message.payload.len() - 1));
    let reason = rejection(cut.decode::<Order>(&new).await.unwrap_err());
    assert!(reason.contains("cut off") && reason.contains("schema: "), "{reason}");
}

#[tokio::test]
async fn a_schema_that_refers_to_others_is_read_with_them() {
    let Some(url) = registry_url() else { return };
    let (registry, topic) = (registry(&url), topic("refers"));
    let country = Schema::new(
        Kind::Avro,
        r#"{"type": "enum", "name": "Country", "namespace": "shop", "symbols": ["AT", "CH"]}"#,
    );
    let place = r#"{"type": "record", "name": "Place", "namespace": "shop", "fields": [
        {"name": "town", "type": "string"}, {"name": "country", "type": "shop.Country"}]}"#;
    let order = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "to", "type": "shop.Place"}, {"name": "from", "type": "shop.Country"}]}"#;
    let refer = |name: &str| Reference {
        name: format!("shop.{name}"),
        subject: format!("{topic}-{name}"),
        version: 1,
    };
    let with = |text: &str, references: Vec<Reference>| Schema {
        references,
        ..Schema::new(Kind::Avro, text)
    };
    let place = with(place, vec![refer("Country")]);
    let order = with(order, vec![refer("Place"), refer("Country")]);
    registry.register(&format!("{topic}-Country"), &country).await.unwrap();
    registry.register(&format!("{topic}-Place"), &place).await.unwrap();
    let id = registry.register(&format!("{topic}-value"), &order).await.unwrap();

    let ours = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "from", "type": {"type": "enum", "name": "Country", "symbols": ["CH", "AT"]}}]}"#;
    let codec = Avro::new(&registry, ours).unwrap();
    let message = framed(id, &[8, b'G', b'r', b'a', b'z', 0, 2]);
    let read: serde_json::Value = message.decode(&codec).await.unwrap();
    assert_eq!(read, serde_json::json!({"from": "CH"}));
}

#[tokio::test]
async fn what_is_not_in_the_registry_is_rejected() {
    let Some(url) = registry_url() else { return };
    let registry = registry(&url);
    let codec = Avro::new(&registry, ORDER_AVRO).unwrap();
    let error = framed(2_000_000_000, b"").decode::<Order>(&codec).await.unwrap_err();
    let reason = rejection(error);
    assert!(reason.contains("a schema that is not in the registry"), "{reason}");
    assert!(reason.contains("2000000000"), "{reason}");
    let reason = rejection(Message::new("{}").decode::<Order>(&codec).await.unwrap_err());
    assert!(reason.contains("2 bytes are too few"), "{reason}");
    assert_eq!(registry.schema(2_000_000_000).await.unwrap_err().kind(), ErrorKind::NotFound);
    let missing = registry.latest(topic("missing").as_str()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("subject: missing-"), "{missing}");
}

#[tokio::test]
async fn a_payload_of_another_kind_or_type_is_rejected() {
    let Some(url) = registry_url() else { return };
    let registry = registry(&url);
    let avro = Avro::new(&registry, ORDER_AVRO).unwrap();
    let json = Json::new(&registry, ORDER_JSON).unwrap();
    let message = json.encode(&topic("kind"), &order()).await.unwrap();
    let reason = rejection(message.decode::<Order>(&avro).await.unwrap_err());
    assert!(reason.contains("written in Json, not Avro"), "{reason}");

    let orders = Protobuf::<shop::Order>::new(&registry, SHOP_PROTO, "shop.Order").unwrap();
    let refunds = Protobuf::new(&registry, SHOP_PROTO, "shop.Refund").unwrap();
    let lines = Protobuf::new(&registry, SHOP_PROTO, "shop.Order.Line").unwrap();
    let topic = topic("kind");
    let refund = refunds.encode(&topic, &shop::Refund { order: 7 }).await.unwrap();
    let reason = rejection(refund.decode(&orders).await.unwrap_err());
    assert!(reason.contains("is a shop.Refund, not a shop.Order"), "{reason}");
    let line = lines.encode(&topic, &shop::Line { item: "tea".into() }).await.unwrap();
    let reason = rejection(line.decode(&orders).await.unwrap_err());
    assert!(reason.contains("is a shop.Order.Line, not a shop.Order"), "{reason}");
    let id = Frame::read(&line.payload).unwrap().schema;
    let reason = rejection(framed(id, &[2, 20]).decode(&orders).await.unwrap_err());
    assert!(reason.contains("no message at the place [10]"), "{reason}");
}

#[tokio::test]
async fn an_incompatible_schema_is_refused_in_the_registrys_words() {
    let Some(url) = registry_url() else { return };
    let (registry, topic) = (registry(&url), topic("incompatible"));
    let subject = format!("{topic}-value");
    let field = |fields: &str| {
        let text = format!(r#"{{"type": "record", "name": "Order", "fields": [{fields}]}}"#);
        Schema::new(Kind::Avro, text)
    };
    let first = field(r#"{"name": "id", "type": "int"}"#);
    let second = field(r#"{"name": "id", "type": "int"}, {"name": "note", "type": "string"}"#);
    registry.check(&subject, &first).await.unwrap();
    registry.register(&subject, &first).await.unwrap();
    demand_compatibility(&url, &subject).await;
    registry.check(&subject, &first).await.unwrap();

    let check = registry.check(&subject, &second).await.unwrap_err();
    let register = registry.register(&subject, &second).await.unwrap_err();
    let codec = Avro::new(&registry, &second.text).unwrap();
    #[derive(Serialize, Deserialize)]
    struct Second {
        id: i32,
        note: String,
    }
    let encode = codec.encode(&topic, &Second { id: 7, note: String::new() }).await.unwrap_err();
    for error in [&check, &register, &encode] {
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{error:?}");
        assert!(!error.is_retryable() && error.to_string().contains(&subject), "{error}");
    }
    assert!(register.to_string().contains("note at /fields/1"), "{register}");
    let nonsense = Schema::new(Kind::Avro, "{\"type\": \"nonsense\"}");
    let error = registry.register(topic.as_str(), &nonsense).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{error:?}");
}

#[tokio::test]
async fn subjects_are_named_as_configured() {
    let Some(url) = registry_url() else { return };
    let topic = topic("subjects");
    let schema =
        ORDER_AVRO.replace("\"shop\"", &format!("\"{}\"", topic.as_str().replace('-', "_")));
    let record = format!("{}.Order", topic.as_str().replace('-', "_"));
    let cases = [
        (Subjects::Topic, format!("{topic}-value")),
        (Subjects::Record, record.clone()),
        (Subjects::TopicRecord, format!("{topic}-{record}")),
    ];
    for (subjects, subject) in cases {
        let registry = Registry::new(Config { subjects, ..Config::new(&url) }).unwrap();
        let codec = Avro::new(&registry, &schema).unwrap();
        codec.encode(&topic, &order()).await.unwrap();
        assert_eq!(registry.latest(&subject).await.unwrap().subject, subject);
    }
    let subjects = Subjects::Record;
    let registry = Registry::new(Config { subjects, ..Config::new(&url) }).unwrap();
    let error = Json::new(&registry, "{}").unwrap_err();
    assert!(error.to_string().contains("no title"), "{error}");
}

#[tokio::test]
async fn publishers_that_may_not_register_find_their_schema_or_fail() {
    let Some(url) = registry_url() else { return };
    let topic = topic("find");
    let strict = Registry::new(Config { register: false, ..Config::new(&url) }).unwrap();
    let codec = Avro::new(&strict, ORDER_AVRO).unwrap();
    let error = codec.encode(&topic, &order()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    let open = Avro::new(&registry(&url), ORDER_AVRO).unwrap();
    let written = open.encode(&topic, &order()).await.unwrap();
    assert_eq!(codec.encode(&topic, &order()).await.unwrap(), written);
}

#[test]
fn what_no_codec_can_be_made_of_is_invalid() {
    let registry = registry("http://127.0.0.1:1");
    let errors = [
        Avro::new(&registry, "{}").unwrap_err(),
        Json::new(&registry, "{").unwrap_err(),
        Protobuf::<shop::Order>::new(&registry, "message {", "shop.Order").unwrap_err(),
        Protobuf::<shop::Order>::new(&registry, SHOP_PROTO, "shop.Oder").unwrap_err(),
        Registry::new(Config::new("localhost:8081")).unwrap_err(),
        Registry::new(Config::new("http://ada:secret@localhost")).unwrap_err(),
        Registry::new(Config { ca: Some("/nowhere".into()), ..Config::new("https://a") })
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{error:?}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}
