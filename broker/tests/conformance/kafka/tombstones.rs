//! Compacted topics and tombstones, as foreign clients see and write them.

use std::time::{Duration, Instant};

use broker::conformance::Harness;
use broker::{Broker, BrokerExt, Event, Limit, Message, Start, Subscription, Topic, TopicSpec};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::{Kafka, make_topic, receive, unique};

fn client() -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", std::env::var("FOREBAY_TEST_KAFKA").unwrap());
    client
}

/// What a foreign consumer gets: the values of a topic's one partition.
fn foreign_values(topic: &Topic, count: usize) -> Vec<Option<Vec<u8>>> {
    let consumer: BaseConsumer = client().set("group.id", "foreign").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic.as_str(), 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let mut values = Vec::new();
    while values.len() < count {
        assert!(Instant::now() < until, "only {values:?} came");
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            values.push(message.unwrap().payload().map(<[u8]>::to_vec));
        }
    }
    values
}

#[tokio::test]
async fn a_tombstone_is_a_message_without_a_value_and_an_empty_payload_is_not() {
    let Some(kafka) = Kafka::found() else { return };
    let broker = kafka.broker().await;
    let topic = make_topic(&broker, "tombstone", 1).await;
    let tombstone = Message::tombstone("key").with_header("id", "7");
    let batch = vec![tombstone.clone(), Message::new("").with_key("key")];
    broker.publish_all(&topic, batch).await.unwrap();
    let foreign: BaseProducer = client().create().unwrap();
    foreign.send(BaseRecord::<str, str>::to(topic.as_str()).key("key")).unwrap();
    foreign.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(foreign_values(&topic, 3), [None, Some(Vec::new()), None]);
    let mut reader = broker.subscribe(Subscription::reader(&topic)).await.unwrap();
    let mut came = Vec::new();
    while came.len() < 3 {
        came.extend(receive(&mut *reader, &mut Vec::new()).await);
    }
    assert_eq!(came[0].headers, tombstone.headers);
    let tombstones: Vec<bool> = came.iter().map(|delivery| delivery.is_tombstone()).collect();
    assert_eq!(tombstones, [true, false, true]);
}

/// A segment holds 16 of these; only full ones are compacted.
const LARGE: usize = 990_000;

#[tokio::test]
async fn a_compacted_topic_keeps_the_last_message_of_each_key() {
    let Some(kafka) = Kafka::found() else { return };
    let broker = kafka.broker().await;
    let topic = Topic::new(&unique("compacted")).unwrap();
    broker.admin().create_topic(&TopicSpec::new(&topic, 1).compacted()).await.unwrap();
    for number in 0..48_u8 {
        let key = if number == 0 { "rare" } else { "often" };
        let message = Message::new(vec![number; LARGE]).with_key(key);
        broker.publish_one(&topic, message).await.unwrap();
    }
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let offsets = offsets(&*broker, &topic).await;
        // The position of a message never changes, and a key's last one stays.
        assert_eq!((offsets.first(), offsets.last()), (Some(&0), Some(&47)), "{offsets:?}");
        if offsets.len() < 30 {
            break;
        }
        assert!(Instant::now() < until, "nothing is compacted: {offsets:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn offsets(broker: &dyn Broker, topic: &Topic) -> Vec<u64> {
    let reader = Subscription::reader(topic).starting(Start::Earliest);
    let mut reader = broker.subscribe(reader).await.unwrap();
    let mut offsets = Vec::new();
    while !reader.events().contains(&Event::CaughtUp) {
        let deliveries = reader.receive(Limit::new(100, Duration::from_secs(60))).await.unwrap();
        offsets.extend(deliveries.iter().map(|delivery| delivery.position().offset()));
    }
    offsets
}
