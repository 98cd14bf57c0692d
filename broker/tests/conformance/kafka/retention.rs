//! Rules of retention, which only an operator's call makes quick enough for a test.

use std::sync::Arc;

use broker::{Broker, BrokerExt, Event, Group, Message, Start, Subscription, Topic};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{Harness, Kafka, make_topic, outcomes, receive};

/// A topic of its own with messages of 500 bytes, each in a batch of its own.
async fn topic_of(broker: &Arc<dyn Broker>, name: &str, count: u64) -> Topic {
    let topic = make_topic(broker, name, 1).await;
    for number in 0..count {
        let position = broker.publish_one(&topic, Message::new(vec![7; 500])).await.unwrap();
        assert_eq!(position.offset(), number);
    }
    topic
}

/// Does what retention does.
async fn delete_before(topic: &Topic, offset: i64) {
    let servers = std::env::var("FOREBAY_TEST_KAFKA").unwrap();
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic.as_str(), 0, Offset::Offset(offset)).unwrap();
    client.delete_records(&list, &AdminOptions::new()).await.unwrap();
}

fn holes(events: &[Event]) -> Vec<(u64, u64)> {
    let hole = |event: &Event| match event {
        Event::OffsetOutOfRange { partition: 0, wanted, resumed } => Some((*wanted, *resumed)),
        _ => None,
    };
    events.iter().filter_map(hole).collect()
}

#[tokio::test]
async fn a_group_or_reader_whose_position_is_gone_is_told_and_goes_on() {
    let Some(kafka) = Kafka::found() else { return };
    let broker = kafka.broker().await;
    let topic = topic_of(&broker, "overtaken", 10).await;
    let group = Group::new(topic.as_str()).unwrap();
    let mut member = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
    let mut events = Vec::new();
    let mut first = receive(&mut *member, &mut events).await;
    first.truncate(1);
    assert!(member.settle(outcomes(first)).await.is_empty());
    broker.shutdown().await.unwrap();
    delete_before(&topic, 6).await;
    let broker = kafka.broker().await;
    let subscriptions = [
        (Subscription::group(&topic, &group), 1),
        (Subscription::reader(&topic).starting(Start::Offset(3)), 3),
    ];
    for (subscription, wanted) in subscriptions {
        let mut consumer = broker.subscribe(subscription).await.unwrap();
        let mut events = Vec::new();
        let deliveries = receive(&mut *consumer, &mut events).await;
        assert_eq!(deliveries[0].position().offset(), 6);
        assert_eq!(holes(&events), [(wanted, 6)], "{events:?}");
    }
}

#[tokio::test]
async fn a_consumer_that_is_overtaken_at_work_is_told_and_goes_on() {
    // Next to nothing is fetched ahead.
    let lines = "queued.min.messages = 1\nfetch.message.max.bytes = 1000\n";
    let Some(kafka) = Kafka::found_with(lines) else { return };
    let broker = kafka.broker().await;
    let topic = topic_of(&broker, "overtaken", 60).await;
    let group = Group::new(topic.as_str()).unwrap();
    let narrow = Subscription { in_flight_max: 1, ..Subscription::group(&topic, &group) };
    let mut member = broker.subscribe(narrow).await.unwrap();
    let (mut events, mut offsets) = (Vec::new(), Vec::new());
    while offsets.last() != Some(&59) {
        let deliveries = receive(&mut *member, &mut events).await;
        if offsets.is_empty() {
            delete_before(&topic, 50).await;
        }
        offsets.extend(deliveries.iter().map(|delivery| delivery.position().offset()));
        assert!(member.settle(outcomes(deliveries)).await.is_empty());
    }
    let seen = offsets.iter().position(|offset| *offset == 50).expect("50 is kept");
    assert_eq!(offsets[..seen], (0..seen as u64).collect::<Vec<_>>());
    assert_eq!(offsets[seen..], (50..60).collect::<Vec<_>>());
    assert_eq!(holes(&events), [(seen as u64, 50)], "{events:?}");
}
