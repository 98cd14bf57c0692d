//! Faults, on the cluster that librdkafka brings along to play them. What works when nothing
//! fails is shown by the conformance suite on real Kafka.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::{Config, connect};
use crate::config::File;
use crate::contract::{Broker, Consumer, Published};
use crate::delivery::{AckToken, Delivery, Outcome};
use crate::error::{Error, ErrorKind};
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::subscription::{Limit, Seek, Start, Subscription};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn config(servers: &str, lines: &str) -> Config {
    let text = format!("[kafka]\nbootstrap.servers = {servers}\n{lines}");
    let environment: HashMap<&str, &str> = HashMap::new();
    let file = File::parse(Path::new("test.ini"), &text, &environment).unwrap();
    Config::from_section(&mut file.section("kafka")).unwrap()
}

/// A cluster of one broker with a topic, and a connection to it.
async fn cluster(lines: &str) -> (Cluster, std::sync::Arc<dyn Broker>, Topic) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("topic", 1, 1).unwrap();
    let broker = connect(config(&cluster.bootstrap_servers(), lines)).await.unwrap();
    (cluster, broker, Topic::new("topic").unwrap())
}

async fn publish(broker: &dyn Broker, topic: &Topic) -> Published {
    let mut results = broker.publish(topic, vec![Message::new("body")]).await.unwrap();
    assert_eq!(results.len(), 1);
    results.remove(0)
}

fn not_written(published: Published) -> Error {
    match published {
        Published::NotWritten(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn connecting_to_nobody_is_unavailable_in_time_and_names_the_servers() {
    let begun = Instant::now();
    let config = config("127.0.0.1:1", "connect_timeout = 500ms\n");
    let error = connect(config).await.err().unwrap();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true));
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn contradicting_keys_are_told_at_connecting() {
    let config = config("127.0.0.1:1", "acks = 1\n");
    let error = connect(config).await.err().unwrap();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::ConfigInvalid, false));
    assert!(error.to_string().contains("acks"), "{error}");
}

#[tokio::test]
async fn what_never_left_the_process_is_not_written() {
    let (cluster, broker, topic) = cluster("message.timeout.ms = 1000\n").await;
    assert!(matches!(publish(&*broker, &topic).await, Published::Written(_)));
    cluster.broker_down(1).unwrap();
    let error = not_written(publish(&*broker, &topic).await);
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Timeout, true));
    cluster.broker_up(1).unwrap();
    let begun = Instant::now();
    while !matches!(publish(&*broker, &topic).await, Published::Written(_)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is written after the outage");
    }
}

#[tokio::test]
async fn what_was_sent_and_not_answered_is_unknown() {
    let (cluster, broker, topic) = cluster("message.timeout.ms = 1000\n").await;
    assert!(matches!(publish(&*broker, &topic).await, Published::Written(_)));
    cluster.broker_round_trip_time(1, Duration::from_secs(4)).unwrap();
    let published = publish(&*broker, &topic).await;
    assert!(matches!(published, Published::Unknown(_)), "{published:?}");
}

#[tokio::test]
async fn a_message_that_the_broker_refuses_is_not_written() {
    use RDKafkaRespErr as E;
    let rows = [
        (E::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, ErrorKind::TooLarge),
        (E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, ErrorKind::PermissionDenied),
    ];
    for (code, kind) in rows {
        let (cluster, broker, topic) = cluster("").await;
        cluster.request_errors(RDKafkaApiKey::Produce, &[code]);
        let error = not_written(publish(&*broker, &topic).await);
        assert_eq!((error.kind(), error.is_retryable()), (kind, false), "{error:?}");
    }
}

#[tokio::test]
async fn a_long_outage_is_told_to_receivers_and_passes() {
    let (cluster, broker, topic) = cluster("outage_max = 500ms\n").await;
    let group = Group::new("group").unwrap();
    let mut member = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
    publish(&*broker, &topic).await;
    let limit = Limit::new(1, Duration::from_secs(20));
    while member.receive(limit).await.unwrap().is_empty() {}
    cluster.broker_down(1).unwrap();
    let error = member.receive(limit).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error:?}");
    cluster.broker_up(1).unwrap();
    publish(&*broker, &topic).await;
    let begun = Instant::now();
    while !matches!(member.receive(limit).await, Ok(deliveries) if !deliveries.is_empty()) {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing comes after the outage");
    }
}

#[tokio::test]
async fn dropping_a_publish_leaves_the_producer_at_work() {
    let (_cluster, broker, topic) = cluster("").await;
    for _ in 0..20 {
        let batch = vec![Message::new("dropped"); 100];
        let publishing = broker.publish(&topic, batch);
        let _ = tokio::time::timeout(Duration::from_micros(50), publishing).await;
    }
    assert!(matches!(publish(&*broker, &topic).await, Published::Written(_)));
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_full_queue_pushes_back_and_loses_nothing() {
    let (_cluster, broker, topic) = cluster("queue.buffering.max.messages = 10\n").await;
    let batch = (0..500).map(|n| Message::new(n.to_string())).collect();
    let results = broker.publish(&topic, batch).await.unwrap();
    let offsets: Vec<u64> =
        results.into_iter().map(|result| result.position().unwrap().offset()).collect();
    assert_eq!(offsets, (0..500).collect::<Vec<u64>>());
}

/// librdkafka aborts the process where a partition is let go, assigned and let go again before it
/// stopped for the first time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeking_again_and_again_and_leaving_does_no_harm() {
    let (_cluster, broker, topic) = cluster("").await;
    publish(&*broker, &topic).await;
    for _ in 0..30 {
        let mut reader = broker.subscribe(Subscription::reader(&topic)).await.unwrap();
        while reader.receive(Limit::new(1, Duration::from_secs(20))).await.unwrap().is_empty() {}
        reader.seek(Seek { partition: None, to: Start::Offset(0) }).await.unwrap();
    }
    broker.shutdown().await.unwrap();
}

/// A member with one delivery, published and settled in a transaction by the caller.
async fn member_with_one(broker: &dyn Broker, topic: &Topic) -> (Box<dyn Consumer>, Vec<AckToken>) {
    publish(broker, topic).await;
    let group = Group::new("group").unwrap();
    let mut member = broker.subscribe(Subscription::group(topic, &group)).await.unwrap();
    let limit = Limit::new(1, Duration::from_secs(20));
    let mut deliveries = Vec::new();
    while deliveries.is_empty() {
        deliveries = member.receive(limit).await.unwrap();
    }
    (member, deliveries.into_iter().map(Delivery::into_token).collect())
}

async fn transact(
    member: &mut dyn Consumer,
    topic: &Topic,
    tokens: Vec<AckToken>,
) -> Result<(), Error> {
    let mut transaction = member.transaction().await?;
    transaction.publish(topic, vec![Message::new("result")]).await?;
    transaction.settle(tokens.into_iter().map(|token| (token, Outcome::Ack)).collect()).await?;
    transaction.commit().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_tried_again_where_the_coordinator_moves() {
    use RDKafkaRespErr as E;
    let (cluster, broker, topic) = cluster("").await;
    let (mut member, tokens) = member_with_one(&*broker, &topic).await;
    let passing =
        [E::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, E::RD_KAFKA_RESP_ERR_NOT_COORDINATOR];
    cluster.request_errors(RDKafkaApiKey::EndTxn, &passing);
    transact(&mut *member, &topic, tokens).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_refuses_a_transaction_is_told_and_its_delivery_comes_again() {
    use RDKafkaRespErr as E;
    let rows = [
        (E::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID, ErrorKind::Fenced),
        (E::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, ErrorKind::Unavailable),
        (E::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, ErrorKind::PermissionDenied),
    ];
    for (code, kind) in rows {
        let (cluster, broker, topic) = cluster("").await;
        let (mut member, tokens) = member_with_one(&*broker, &topic).await;
        cluster.request_errors(RDKafkaApiKey::TxnOffsetCommit, &[code]);
        let error = transact(&mut *member, &topic, tokens).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        let again = member.receive(Limit::new(1, Duration::from_secs(20))).await.unwrap();
        assert_eq!(again[0].attempt(), 2);
        let tokens = again.into_iter().map(Delivery::into_token).collect();
        transact(&mut *member, &topic, tokens).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_outcome_is_unknown_ends_the_consumer() {
    let (cluster, broker, topic) = cluster("").await;
    let (mut member, tokens) = member_with_one(&*broker, &topic).await;
    let fenced = RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED;
    cluster.request_errors(RDKafkaApiKey::EndTxn, &[fenced]);
    let error = transact(&mut *member, &topic, tokens).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
    assert!(error.to_string().contains("unknown"), "{error}");
    let ended = member.receive(Limit::new(1, Duration::from_secs(20))).await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Fenced, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_is_not_let_in_is_told_where_the_transaction_begins() {
    let (cluster, broker, topic) = cluster("").await;
    let (mut member, _tokens) = member_with_one(&*broker, &topic).await;
    let code = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &[code]);
    let error = member.transaction().await.err().unwrap();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::PermissionDenied, false));
    assert!(error.to_string().contains("group-"), "{error}");
}
