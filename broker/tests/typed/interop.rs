//! Confluent's own serializers, for Python, over the same registry: what they write is read
//! here, and the other way round.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use broker::Message;
use broker::codec::Codec;
use broker::codec::confluent::{Avro, Json, Protobuf};
use serde_json::{Value, json};

use super::*;

/// Runs the Python side with some lines as its input; gives the lines that it prints.
fn python(command: &str, url: &str, topic: &Topic, lines: &[Value]) -> Option<Vec<Value>> {
    let python = found("FOREBAY_TEST_SERIALIZERS", "scripts/fetch-python-serializers")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/typed/python/peer.py");
    let mut child = Command::new(python)
        .arg(script)
        .args([command, url, topic.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    lines.iter().for_each(|line| writeln!(input, "{line}").unwrap());
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command}: {}", output.status);
    let printed = String::from_utf8(output.stdout).unwrap();
    Some(printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn line(codec: &str, message: &Message) -> Value {
    let hex: String = message.payload.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"codec": codec, "payload": hex})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_confluents_serializers_write_is_read_here() {
    let Some(url) = registry_url() else { return };
    let topic = topic("python-writes");
    let Some(lines) = python("write", &url, &topic, &[]) else { return };
    let registry = registry(&url);
    let avro = Avro::new(&registry, ORDER_AVRO).unwrap();
    let json = Json::new(&registry, ORDER_JSON).unwrap();
    assert_eq!(lines.len(), 6);
    for line in lines {
        let message = Message::new(from_hex(line["payload"].as_str().unwrap()));
        let name = line["codec"].as_str().unwrap();
        match name {
            "avro" => assert_eq!(message.decode::<Order>(&avro).await.unwrap(), order()),
            "avro-old" => {
                let read: Order = message.decode(&avro).await.unwrap();
                assert_eq!(read, Order { note: None, ..order() });
            }
            "json" => assert_eq!(message.decode::<Order>(&json).await.unwrap(), order()),
            "protobuf" => {
                let codec = Protobuf::new(&registry, SHOP_PROTO, "shop.Order").unwrap();
                assert_eq!(message.decode::<shop::Order>(&codec).await.unwrap(), shop::order());
            }
            "protobuf-first" => {
                let codec = Protobuf::new(&registry, SHOP_PROTO, "shop.Refund").unwrap();
                let refund: shop::Refund = message.decode(&codec).await.unwrap();
                assert_eq!(refund, shop::Refund { order: 7 });
            }
            "protobuf-nested" => {
                let codec = Protobuf::new(&registry, SHOP_PROTO, "shop.Order.Line").unwrap();
                let read: shop::Line = message.decode(&codec).await.unwrap();
                assert_eq!(read, shop::Line { item: "tea".into() });
            }
            _ => panic!("unexpected: {line}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_here_is_read_by_confluents_serializers() {
    let Some(url) = registry_url() else { return };
    let (registry, topic) = (registry(&url), topic("python-reads"));
    let on = |codec: &str| Topic::new(&format!("{topic}-{codec}")).unwrap();
    let avro = Avro::new(&registry, ORDER_AVRO).unwrap();
    let json = Json::new(&registry, ORDER_JSON).unwrap();
    let orders = Protobuf::new(&registry, SHOP_PROTO, "shop.Order").unwrap();
    let refunds = Protobuf::new(&registry, SHOP_PROTO, "shop.Refund").unwrap();
    let nested = Protobuf::new(&registry, SHOP_PROTO, "shop.Order.Line").unwrap();
    let (refund, tea) = (shop::Refund { order: 7 }, shop::Line { item: "tea".into() });
    let written = [
        ("avro", avro.encode(&on("avro"), &order()).await.unwrap()),
        ("json", json.encode(&on("json"), &order()).await.unwrap()),
        ("protobuf", orders.encode(&on("protobuf"), &shop::order()).await.unwrap()),
        ("protobuf-first", refunds.encode(&on("protobuf-first"), &refund).await.unwrap()),
        ("protobuf-nested", nested.encode(&on("protobuf-nested"), &tea).await.unwrap()),
    ];
    let lines: Vec<_> = written.iter().map(|(codec, message)| line(codec, message)).collect();
    let Some(read) = python("read", &url, &topic, &lines) else { return };
    let expected = [
        json!({"codec": "avro", "value": order()}),
        json!({"codec": "json", "value": order()}),
        json!({"codec": "protobuf", "value": order()}),
        json!({"codec": "protobuf-first", "value": {"order": 7}}),
        json!({"codec": "protobuf-nested", "value": {"item": "tea"}}),
    ];
    assert_eq!(read, expected);
}
