//! Kafka at `FOREBAY_TEST_KAFKA` (host:port). Tests share the server, which goes on.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use broker::config::{File, ProcessEnvironment};
use broker::conformance::Harness;
use broker::kafka::{Config, connect};
use broker::{
    Broker, BrokerExt, Consumer, Delivery, Event, Group, Limit, Message, Outcome, Start,
    Subscription, Topic, TopicSpec,
};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

struct Kafka {
    config: String,
}

impl Kafka {
    /// The server that the environment names; without one the test can't run.
    fn found() -> Option<Self> {
        let Ok(servers) = std::env::var("FOREBAY_TEST_KAFKA") else {
            let missing = "FOREBAY_TEST_KAFKA is not set: start a server with scripts/servers";
            assert!(std::env::var_os("FOREBAY_REQUIRE_SERVERS").is_none(), "{missing}");
            eprintln!("not run: {missing}");
            return None;
        };
        let config = format!(
            "[kafka]\nbootstrap.servers = {servers}\nsession.timeout.ms = 6000\n\
             heartbeat.interval.ms = 500\n"
        );
        Some(Self { config })
    }
}

async fn open(config: &str) -> Arc<dyn Broker> {
    let file = File::parse(Path::new("kafka.ini"), config, &ProcessEnvironment).unwrap();
    connect(Config::from_section(&mut file.section("kafka")).unwrap()).await.unwrap()
}

#[async_trait]
impl Harness for Kafka {
    async fn broker(&self) -> Arc<dyn Broker> {
        open(&self.config).await
    }

    /// Other tests need the server to go on.
    async fn restart_server(&self) {}

    /// A static member that joins anew takes the place of the one before, which is fenced.
    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer> {
        assert!(subscription.instance.is_some(), "only a static member can be usurped");
        self.broker().await.subscribe(subscription.clone()).await.unwrap()
    }
}

broker::conformance_tests!(Kafka::found());

/// Rules of retention, which only an operator's call makes quick enough for a test.
mod retention {
    use super::*;

    /// A topic of its own with messages of 500 bytes, each in a batch of its own.
    async fn topic_of(broker: &Arc<dyn Broker>, name: &str, count: u64) -> Topic {
        let topic = Topic::new(&format!("{name}-{:x}", unique())).unwrap();
        broker.admin().create_topic(&TopicSpec::new(&topic, 1)).await.unwrap();
        for number in 0..count {
            let position = broker.publish_one(&topic, Message::new(vec![7; 500])).await.unwrap();
            assert_eq!(position.offset(), number);
        }
        topic
    }

    fn unique() -> i64 {
        broker::Timestamp::now().as_micros()
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

    /// Receives until something came, with what happened before.
    async fn receive(consumer: &mut dyn Consumer, events: &mut Vec<Event>) -> Vec<Delivery> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let limit = Limit::new(100, Duration::from_secs(1));
            let deliveries = consumer.receive(limit).await.unwrap();
            events.extend(consumer.events());
            if !deliveries.is_empty() {
                return deliveries;
            }
            assert!(Instant::now() < until, "nothing comes; events: {events:?}");
        }
    }

    fn holes(events: &[Event]) -> Vec<(u64, u64)> {
        let hole = |event: &Event| match event {
            Event::OffsetOutOfRange { partition: 0, wanted, resumed } => Some((*wanted, *resumed)),
            _ => None,
        };
        events.iter().filter_map(hole).collect()
    }

    fn outcomes(deliveries: Vec<Delivery>) -> Vec<(broker::AckToken, Outcome)> {
        deliveries.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack)).collect()
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
        let Some(kafka) = Kafka::found() else { return };
        // Next to nothing is fetched ahead.
        let lines = "queued.min.messages = 1\nfetch.message.max.bytes = 1000\n";
        let broker = open(&format!("{}{lines}", kafka.config)).await;
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
}
