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
async fn a_receipt_says_what_the_setting_promises() {
    for (durability, survives) in [
        (super::Durability::Full, Durability::Disk),
        (super::Durability::Normal, Durability::Process),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let broker = open(Config { durability, ..Config::new(directory.path()) }).await.unwrap();
        assert_eq!(broker.capabilities().durability, survives);
    }
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

/// How long to wait for what must come; only a broken machine reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn compacted(broker: &std::sync::Arc<dyn Broker>) -> Topic {
    let topic = Topic::new("compacted").unwrap();
    broker.admin().create_topic(&TopicSpec::new(&topic, 1).compacted()).await.unwrap();
    topic
}

/// The keys, payloads and offsets that a reader sees now.
async fn contents(broker: &std::sync::Arc<dyn Broker>, topic: &Topic) -> Vec<(u64, String)> {
    let mut reader = broker.subscribe(Subscription::reader(topic)).await.unwrap();
    let mut seen = Vec::new();
    loop {
        for delivery in reader.receive(Limit::new(100, WAIT)).await.unwrap() {
            let key = String::from_utf8_lossy(delivery.key.as_deref().unwrap()).into_owned();
            let payload = String::from_utf8_lossy(&delivery.payload);
            seen.push((delivery.position().offset(), format!("{key}={payload}")));
        }
        if reader.events().contains(&Event::CaughtUp) {
            return seen;
        }
    }
}

async fn wait_until_contents(
    broker: &std::sync::Arc<dyn Broker>,
    topic: &Topic,
    expected: &[(u64, &str)],
) {
    let begun = std::time::Instant::now();
    loop {
        let seen = contents(broker, topic).await;
        let same = |(seen, expected): (&(u64, String), &(u64, &str))| {
            (seen.0, seen.1.as_str()) == *expected
        };
        if seen.len() == expected.len() && seen.iter().zip(expected).all(same) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{seen:?} never became {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn put(broker: &std::sync::Arc<dyn Broker>, topic: &Topic, key: &'static str, value: u32) {
    let message = Message::new(value.to_string()).with_key(key);
    broker.publish_one(topic, message).await.unwrap();
}

#[tokio::test]
async fn compaction_keeps_the_last_message_of_each_key_at_its_offset() {
    let directory = tempfile::tempdir().unwrap();
    let broker = broker(directory.path()).await;
    let topic = compacted(&broker).await;
    let batch = |round: u32| {
        let keys = ["a", "b", "c"];
        keys.map(|key| Message::new(round.to_string()).with_key(key)).to_vec()
    };
    for round in 0..20 {
        broker.publish_all(&topic, batch(round)).await.unwrap();
    }
    put(&broker, &topic, "a", 20).await;
    put(&broker, &topic, "d", 0).await;
    let left = [(58, "b=19"), (59, "c=19"), (60, "a=20"), (61, "d=0")];
    wait_until_contents(&broker, &topic, &left).await;
    // A second pass works on what the first left.
    for round in 21..25 {
        put(&broker, &topic, "c", round).await;
        put(&broker, &topic, "e", round).await;
    }
    let left = [(58, "b=19"), (60, "a=20"), (61, "d=0"), (68, "c=24"), (69, "e=24")];
    wait_until_contents(&broker, &topic, &left).await;
    let bounds = broker.admin().describe(&topic).await.unwrap().partitions[0];
    assert_eq!((bounds.start, bounds.end), (0, 70));
}

#[tokio::test]
async fn a_group_goes_over_the_gaps_and_settles_to_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let broker = broker(directory.path()).await;
    let topic = compacted(&broker).await;
    for round in 0..30 {
        put(&broker, &topic, "a", round).await;
        put(&broker, &topic, ["b", "c", "d"][round as usize % 3], round).await;
    }
    let left = [(55, "b=27"), (57, "c=28"), (58, "a=29"), (59, "d=29")];
    wait_until_contents(&broker, &topic, &left).await;
    let group = Group::new("g").unwrap();
    let narrow = Subscription { in_flight_max: 1, ..Subscription::group(&topic, &group) };
    let mut member = broker.subscribe(narrow).await.unwrap();
    let mut offsets = Vec::new();
    while offsets.len() < 4 {
        let deliveries = member.receive(Limit::new(10, WAIT)).await.unwrap();
        assert!(!member.events().iter().any(|e| matches!(e, Event::OffsetOutOfRange { .. })));
        offsets.extend(deliveries.iter().map(|delivery| delivery.position().offset()));
        let acks = deliveries.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
        assert!(member.settle(acks).await.is_empty());
    }
    assert_eq!(offsets, [55, 57, 58, 59]);
    assert_eq!(broker.lag(&topic, &group).await.unwrap()[0].behind, 0);
    let from = Subscription::reader(&topic).starting(Start::Offset(56));
    let mut reader = broker.subscribe(from).await.unwrap();
    let first = reader.receive(Limit::new(1, WAIT)).await.unwrap();
    assert_eq!(first[0].position().offset(), 57);
}

#[tokio::test]
async fn tombstones_go_after_a_while_but_the_newest_message_stays() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        Config { tombstone_retention: Duration::from_millis(100), ..Config::new(directory.path()) };
    let broker = open(config).await.unwrap();
    let topic = compacted(&broker).await;
    for key in ["a", "b"] {
        put(&broker, &topic, key, 1).await;
    }
    broker.publish_one(&topic, Message::tombstone("a")).await.unwrap();
    broker.publish_one(&topic, Message::tombstone("b")).await.unwrap();
    wait_until_contents(&broker, &topic, &[(3, "b=")]).await;
    put(&broker, &topic, "c", 1).await;
    wait_until_contents(&broker, &topic, &[(4, "c=1")]).await;
}

#[tokio::test]
async fn a_compacted_topic_is_not_deleted_for_its_age_or_size_but_throttles_when_full() {
    let directory = tempfile::tempdir().unwrap();
    let broker = broker(directory.path()).await;
    let topic = Topic::new("t").unwrap();
    let spec = TopicSpec {
        retention: Some(Duration::ZERO),
        retention_bytes: Some(1000),
        ..TopicSpec::new(&topic, 1).compacted()
    };
    broker.admin().create_topic(&spec).await.unwrap();
    let message = |key: u32| Message::new(vec![0; 500]).with_key(key.to_string());
    let mut written = 0;
    let error = loop {
        match broker.publish_one(&topic, message(written)).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), written), (ErrorKind::Throttled, 4));
    // Retention looks at least once in this time.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(contents(&broker, &topic).await.len(), 4);
    assert_eq!(broker.admin().describe(&topic).await.unwrap().partitions[0].start, 0);
}

#[tokio::test]
async fn a_message_without_a_key_is_refused_where_keys_are_what_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let broker = broker(directory.path()).await;
    let topic = compacted(&broker).await;
    let batch = vec![Message::new("no key"), Message::new("1").with_key("a")];
    let results = broker.publish(&topic, batch).await.unwrap();
    let [Published::NotWritten(error), Published::Written(_)] = &results[..] else {
        panic!("{results:?}");
    };
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("without a key"), "{error}");
}

#[tokio::test]
async fn a_transaction_with_a_delivery_that_came_again_is_fenced() {
    let directory = tempfile::tempdir().unwrap();
    let broker = broker(directory.path()).await;
    let (topic, group) = (Topic::new("t").unwrap(), Group::new("g").unwrap());
    broker.admin().create_topic(&TopicSpec::new(&topic, 1)).await.unwrap();
    broker.publish_one(&topic, Message::new("x")).await.unwrap();
    let subscription = Subscription::group(&topic, &group).with_ack_deadline(WAIT / 5);
    let mut member = broker.subscribe(subscription).await.unwrap();
    let mut deliveries = Vec::new();
    while deliveries.len() < 2 {
        deliveries.extend(member.receive(Limit::new(1, WAIT)).await.unwrap());
    }
    let outcomes = deliveries.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
    let mut transaction = member.transaction().await.unwrap();
    transaction.settle(outcomes).await.unwrap();
    assert_eq!(transaction.commit().await.unwrap_err().kind(), ErrorKind::Fenced);
}
