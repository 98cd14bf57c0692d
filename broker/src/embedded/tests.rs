//! What only the embedded broker promises; the rest is the conformance suite's.

use std::time::Duration;

use super::{Config, open};
use crate::*;

async fn broker(directory: &std::path::Path) -> std::sync::Arc<dyn Broker> {
    let config = Config { durability: super::Durability::Normal, ..Config::new(directory) };
    open(config).await.unwrap()
}

const WAIT: Duration = Duration::from_millis(500);

#[tokio::test]
async fn what_is_published_is_received_settled_and_gone() {
    let directory = tempfile::tempdir().unwrap();
    let broker = broker(directory.path()).await;
    let (topic, group) = (Topic::new("t").unwrap(), Group::new("g").unwrap());
    broker.admin().create_topic(&TopicSpec::new(&topic, 2)).await.unwrap();
    let batch: Vec<Message> =
        (0..10).map(|i| Message::new(format!("m{i}")).with_key(format!("k{i}"))).collect();
    broker.publish_all(&topic, batch).await.unwrap();
    let mut consumer = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
    let mut payloads = Vec::new();
    while payloads.len() < 10 {
        let deliveries = consumer.receive(Limit::new(100, WAIT)).await.unwrap();
        consumer.events();
        payloads.extend(deliveries.iter().map(|d| d.payload.clone()));
        let acks = deliveries.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
        assert!(consumer.settle(acks).await.is_empty());
    }
    payloads.sort();
    assert_eq!(payloads[9], "m9");
    let lag = broker.lag(&topic, &group).await.unwrap();
    assert!(lag.iter().all(|partition| partition.behind == 0), "{lag:?}");
}

#[tokio::test]
async fn a_data_directory_that_is_a_file_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = open(Config::new(file.path())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    assert!(error.to_string().contains("is a file"), "{error}");
}

#[tokio::test]
async fn a_full_partition_throttles_and_retention_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let broker = broker(directory.path()).await;
    let topic = Topic::new("t").unwrap();
    let spec = TopicSpec { retention_bytes: Some(1000), ..TopicSpec::new(&topic, 1) };
    broker.admin().create_topic(&spec).await.unwrap();
    let mut throttled = None;
    for _ in 0..10 {
        let message = Message::new(vec![0; 500]);
        throttled = throttled.or(broker.publish_one(&topic, message).await.err());
    }
    assert_eq!(throttled.expect("the bound is 2000 bytes").kind(), ErrorKind::Throttled);
    let freed = async {
        while broker.publish_one(&topic, Message::new("x")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), freed).await.expect("retention makes room");
    assert!(broker.admin().describe(&topic).await.unwrap().partitions[0].start > 0);
    let mut reader =
        broker.subscribe(Subscription::reader(&topic).starting(Start::Offset(0))).await.unwrap();
    let mut events = Vec::new();
    while events.is_empty() {
        reader.receive(Limit::new(10, WAIT)).await.unwrap();
        events = reader.events();
    }
    assert!(matches!(events[0], Event::OffsetOutOfRange { wanted: 0, .. }), "{events:?}");
}

#[tokio::test]
async fn a_store_of_a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(broker(directory.path()).await);
    let database = rusqlite::Connection::open(directory.path().join("forebay.db")).unwrap();
    database.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(database);
    let error = open(Config::new(directory.path())).await.err().unwrap();
    assert!(error.to_string().contains("format 99"), "{error}");
}
