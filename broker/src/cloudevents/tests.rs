//! The examples of the specification, and what it forbids.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::codec::ready;

fn topic() -> Topic {
    Topic::new("events").unwrap()
}

fn write(mode: Mode, event: &Event) -> Message {
    ready(mode.encode(&topic(), event)).unwrap()
}

fn read(message: &Message) -> Result<Event> {
    ready(Mode::Binary.decode(message))
}

fn structured(payload: impl Into<bytes::Bytes>) -> Message {
    Message::new(payload).with_header("content-type", "application/cloudevents+json; charset=UTF-8")
}

/// The event of the specification's examples.
fn example() -> Event {
    Event::new(
        "A234-1234-1234",
        "https://github.com/cloudevents/spec/pull",
        "com.github.pull_request.opened",
    )
    .with_subject("123")
    .with_time("2018-04-05T17:31:00Z".parse::<Time>().unwrap())
    .with_extension("comexampleextension1", "value")
    .with_extension("comexampleothervalue", 5)
    .with_data("text/xml", "<much wow=\"xml\"/>")
}

/// Binary mode keeps only the text of extensions.
fn with_texts(mut event: Event) -> Event {
    for value in event.extensions.values_mut() {
        *value = Extension::Text(value.to_string());
    }
    event
}

#[test]
fn the_kafka_bindings_example_of_binary_mode() {
    let event = Event::new("1234-1234-1234", "/mycontext/subcontext", "com.example.someevent")
        .with_time("2018-04-05T03:56:24Z".parse::<Time>().unwrap())
        .with_data("application/avro", vec![2, 4, 6]);
    let message = Message::new(vec![2, 4, 6])
        .with_header("ce_specversion", "1.0")
        .with_header("ce_type", "com.example.someevent")
        .with_header("ce_source", "/mycontext/subcontext")
        .with_header("ce_id", "1234-1234-1234")
        .with_header("ce_time", "2018-04-05T03:56:24Z")
        .with_header("content-type", "application/avro")
        .with_header("traceparent", "of no concern");
    assert_eq!(read(&message).unwrap(), event);
    let written = write(Mode::Binary, &event);
    for (name, value) in message.headers.iter().filter(|(name, _)| *name != "traceparent") {
        assert_eq!(written.headers.get(name), Some(value), "{name}");
    }
    assert_eq!(written.payload, message.payload);
}

#[test]
fn the_json_formats_examples_of_structured_mode() {
    let attributes = json!({
        "specversion": "1.0",
        "type": "com.github.pull_request.opened",
        "source": "https://github.com/cloudevents/spec/pull",
        "subject": "123",
        "id": "A234-1234-1234",
        "time": "2018-04-05T17:31:00Z",
        "comexampleextension1": "value",
        "comexampleothervalue": 5,
        "unsetextension": null,
    });
    let with = |members: serde_json::Value| {
        let mut object = attributes.as_object().unwrap().clone();
        object.extend(members.as_object().unwrap().clone());
        read(&structured(serde_json::to_vec(&object).unwrap())).unwrap()
    };
    let xml = with(json!({"datacontenttype": "text/xml", "data": "<much wow=\"xml\"/>"}));
    assert_eq!(xml, example());
    let object = with(json!({"datacontenttype": "application/json", "data": {"a": [1, 2.50]}}));
    assert_eq!(object.data.as_deref(), Some(&b"{\"a\":[1,2.5]}"[..]));
    let number = with(json!({"data": 1.5}));
    assert_eq!((number.datacontenttype, number.data.as_deref()), (None, Some(&b"1.5"[..])));
    let text = with(json!({"datacontenttype": "application/json", "data": "I'm just a string"}));
    assert_eq!(text.data.as_deref(), Some(&b"\"I'm just a string\""[..]));
    let binary = with(
        json!({"datacontenttype": "application/vnd.apache.thrift.binary", "data_base64": "AAEC/w=="}),
    );
    assert_eq!(binary.data.as_deref(), Some(&[0, 1, 2, 255][..]));
}

#[test]
fn structured_mode_writes_what_the_json_format_shows() {
    let message = write(Mode::Structured, &example());
    assert!(
        message
            .headers
            .get_str("content-type")
            .unwrap()
            .starts_with("application/cloudevents+json")
    );
    let object: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    let expected = json!({
        "specversion": "1.0",
        "id": "A234-1234-1234",
        "source": "https://github.com/cloudevents/spec/pull",
        "type": "com.github.pull_request.opened",
        "subject": "123",
        "time": "2018-04-05T17:31:00Z",
        "datacontenttype": "text/xml",
        "comexampleextension1": "value",
        "comexampleothervalue": 5,
        "data": "<much wow=\"xml\"/>",
    });
    assert_eq!(object, expected);
    let cases = [
        ("application/json", &b"{\"a\":  1.0}"[..], json!({"data": {"a": 1.0}})),
        ("application/json", b"null", json!({"data_base64": "bnVsbA=="})),
        ("application/json", b"no json", json!({"data_base64": "bm8ganNvbg=="})),
        ("image/png", &[0, 255], json!({"data_base64": "AP8="})),
        ("text/plain", &[255], json!({"data_base64": "/w=="})),
    ];
    for (media_type, data, expected) in cases {
        let event = Event::new("1", "/a", "b").with_data(media_type, data);
        let message = write(Mode::Structured, &event);
        let object: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&object[name], value, "{media_type}");
        }
        assert_eq!(read(&message).unwrap(), event, "{media_type}");
    }
}

#[test]
fn the_dashed_headers_of_other_bindings_are_read_and_written() {
    let message = write(Mode::BinaryDashed, &example());
    assert_eq!(message.headers.get_str("ce-id"), Some("A234-1234-1234"));
    assert_eq!(message.headers.get("ce_id"), None);
    assert_eq!(read(&message).unwrap(), with_texts(example()));
}

#[test]
fn the_partition_key_becomes_the_messages_key() {
    for mode in [Mode::Binary, Mode::BinaryDashed, Mode::Structured] {
        assert_eq!(write(mode, &example()).key, None);
        let event = example().with_extension("partitionkey", "customer-5");
        let message = write(mode, &event);
        assert_eq!(message.key.as_deref(), Some(&b"customer-5"[..]));
        assert_eq!(read(&message).unwrap().extensions["partitionkey"], "customer-5".into());
    }
}

#[test]
fn what_breaks_a_rule_is_refused_by_name_in_every_mode() {
    let set = |change: fn(&mut Event)| {
        let mut event = example();
        change(&mut event);
        event
    };
    let cases = [
        (set(|event| event.id = String::new()), "\"id\" is empty"),
        (
            set(|event| event.source = "not a uri".into()),
            "\"source\" is \"not a uri\", not a URI reference",
        ),
        (set(|event| event.source = "/half%4".into()), "not a URI reference"),
        (
            set(|event| event.event_type = "bell\u{7}".into()),
            "\"type\" holds the character '\\u{7}'",
        ),
        (set(|event| event.subject = Some(String::new())), "\"subject\" is empty"),
        (
            set(|event| event.dataschema = Some("/relative".into())),
            "\"dataschema\" is \"/relative\", not a URI",
        ),
        (
            set(|event| event.datacontenttype = Some("json".into())),
            "\"datacontenttype\" is \"json\", not a media type",
        ),
        (example().with_extension("Upper", 1), "\"Upper\" is not of lower-case letters"),
        (example().with_extension("", 1), "\"\" is not of lower-case letters"),
        (example().with_extension("data", 1), "\"data\" has a name of the specification"),
        (example().with_extension("x", "\u{fffe}"), "\"x\" holds the character"),
    ];
    for (event, problem) in cases {
        for mode in [Mode::Binary, Mode::Structured] {
            let error = ready(mode.encode(&topic(), &event)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unexpected);
            assert!(!error.is_retryable() && error.to_string().contains(problem), "{error}");
        }
    }
}

#[test]
fn what_is_no_event_is_corrupt_and_says_why() {
    let plain = || {
        Message::new("data")
            .with_header("ce_id", "1")
            .with_header("ce_source", "/a")
            .with_header("ce_type", "b")
    };
    let full = || plain().with_header("ce_specversion", "1.0");
    let object = |members: &str| {
        structured(format!(r#"{{"specversion":"1.0","id":"1","source":"/a","type":"b"{members}}}"#))
    };
    let cases = [
        (Message::new("data"), "\"specversion\" is missing"),
        (plain().with_header("ce_specversion", "0.3"), "version is \"0.3\", not \"1.0\""),
        (full().with_header("ce_id", "2"), "\"id\" is there twice"),
        (full().with_header("ce-id", "2"), "\"id\" is there twice"),
        (full().with_header("ce_subject", [255]), "\"subject\" is not UTF-8"),
        (full().with_header("ce_time", "noon"), "\"time\" is \"noon\", not a time of RFC 3339"),
        (full().with_header("ce_datacontenttype", "a/b"), "stands where \"content-type\" should"),
        (full().with_header("ce_bad_name", "x"), "\"bad_name\" is not of lower-case letters"),
        (structured(""), "no JSON object"),
        (structured("[]"), "no JSON object"),
        (structured("{}"), "\"specversion\" is missing"),
        (object(",\"id\":\"2\""), "\"id\" is there twice"),
        (object(",\"subject\":5"), "\"subject\" is 5, not a text"),
        (object(",\"x\":{}"), "\"x\" is no text, boolean or 32-bit integer"),
        (object(",\"x\":2147483648"), "\"x\" is no text, boolean or 32-bit integer"),
        (object(",\"x\":1.5"), "\"x\" is no text, boolean or 32-bit integer"),
        (object(",\"data\":1,\"data_base64\":\"\""), "both \"data\" and \"data_base64\""),
        (object(",\"data_base64\":\"?\""), "not base64"),
        (
            Message::new("[]").with_header("content-type", "application/cloudevents-batch+json"),
            "a batch of events",
        ),
        (Message::new("").with_header("content-type", "application/cloudevents+avro"), "\"+avro\""),
    ];
    for (message, problem) in cases {
        let error = read(&message).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(problem), "{problem}: {error}");
    }
}

#[test]
fn the_mode_that_a_backends_subscribers_expect_is_known() {
    let on = |backend| Mode::binary_on(&Capabilities { backend, ..capabilities() });
    assert_eq!(on("kafka"), Mode::Binary);
    assert_eq!(on("pubsub"), Mode::BinaryDashed);
}

fn capabilities() -> Capabilities {
    Capabilities {
        backend: "embedded",
        partitions: true,
        offset_seek: true,
        read_at: true,
        compaction: true,
        lag: true,
        transactions: true,
        attempts: crate::Attempts::Durable,
        durability: crate::Durability::Memory,
        message_bytes_max: 1,
    }
}

fn any_extension() -> impl Strategy<Value = Extension> {
    prop_oneof![
        any::<bool>().prop_map(Extension::Boolean),
        any::<i32>().prop_map(Extension::Integer),
        "[ -~äö☃]{0,20}".prop_map(Extension::Text),
    ]
}

prop_compose! {
    fn any_event()(
        (id, kind) in ("[ -~ä]{1,20}", "[a-z.]{1,20}"),
        source in "[a-z:/%20?#]{0,5}/[a-z]{1,5}".prop_filter("a URI", |text| !text.contains('%')),
        subject in proptest::option::of("[ -~☃]{1,20}"),
        micros in proptest::option::of(any::<i64>()),
        extensions in proptest::collection::btree_map("x[a-z0-9]{1,8}", any_extension(), 0..4),
        data in proptest::option::of((
            prop_oneof!["application/json", "text/plain", "image/png", "application/a[+]json"],
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 1..50),
                "[ -~]{1,20}".prop_map(String::into_bytes),
                "(\\[1, [0-9]\\.[0-9]+\\]|\\{\"a\" : null\\}|null|[0-9]{1,30})".prop_map(String::into_bytes),
            ],
        )),
    ) -> Event {
        let mut event = Event::new(id, source, kind);
        event.subject = subject;
        event.time = micros.map(|micros| crate::Timestamp::from_micros(micros).into());
        event.extensions = extensions;
        match data {
            Some((media_type, data)) => event.with_data(&media_type, data),
            None => event,
        }
    }
}

proptest! {
    #[test]
    fn events_round_trip_in_every_mode(event in any_event()) {
        prop_assert_eq!(&read(&write(Mode::Structured, &event)).unwrap(), &event);
        let event = with_texts(event);
        prop_assert_eq!(&read(&write(Mode::Binary, &event)).unwrap(), &event);
        prop_assert_eq!(&read(&write(Mode::BinaryDashed, &event)).unwrap(), &event);
    }

    #[test]
    fn any_bytes_are_an_event_or_corrupt(payload: Vec<u8>) {
        prop_assert_eq!(read(&structured(payload)).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn an_event_that_is_cut_or_bent_is_an_event_or_corrupt(
        event in any_event(), at in any::<prop::sample::Index>(), byte: u8, cut: bool,
    ) {
        let mut payload = write(Mode::Structured, &event).payload.to_vec();
        let at = at.index(payload.len());
        if cut { payload.truncate(at) } else { payload[at] = byte }
        if let Err(error) = read(&structured(payload)) {
            prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn any_headers_are_an_event_or_corrupt(
        headers in proptest::collection::vec(("(ce_|ce-)?(id|source|type|specversion|time|x)", any::<Vec<u8>>()), 0..8),
    ) {
        let add = |message: Message, (name, value): (String, Vec<u8>)| message.with_header(&name, value);
        let message = headers.into_iter().fold(Message::new("data"), add);
        if let Err(error) = read(&message) {
            prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }
}
