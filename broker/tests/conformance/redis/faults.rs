//! What goes wrong with users, limits and members.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use broker::conformance::Harness;
use broker::{
    Broker, BrokerExt, Consumer, Delivery, ErrorKind, Group, Limit, Message, Outcome, Policy,
    Published, Subscription, Topic, TopicSpec,
};

use super::Redis;
use super::server::Server;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A server of the test's own, which a rule may restart.
pub(super) struct Own {
    pub(super) server: Mutex<Server>,
    pub(super) redis: Redis,
}

impl Own {
    /// None where the tests of Redis don't run.
    pub(super) fn start(arguments: &[&str]) -> Option<Self> {
        Redis::found()?;
        let server = Server::start(arguments);
        let redis = Redis::at(server.url());
        Some(Self { server: Mutex::new(server), redis })
    }

    async fn set(&self, name: &str, value: &str) {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(name).arg(value);
        let () = set.query_async(&mut self.redis.raw().await).await.unwrap();
    }

    /// The error of connecting with these lines.
    async fn refused(&self, lines: &str) -> broker::Error {
        self.redis.open(lines).await.map(drop).unwrap_err()
    }
}

#[async_trait]
impl Harness for Own {
    async fn broker(&self) -> Arc<dyn Broker> {
        self.redis.broker().await
    }

    async fn restart_server(&self) {
        let mut server = self.server.lock().unwrap();
        server.kill();
        server.restart();
    }

    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer> {
        self.redis.usurp(subscription).await
    }
}

pub(super) async fn make_topic(broker: &Arc<dyn Broker>) -> (Topic, Group) {
    let topic = Topic::new(&format!("topic-{:016x}", fastrand::u64(..))).unwrap();
    broker.admin().create_topic(&TopicSpec::new(&topic, 1)).await.unwrap();
    let group = Group::new(topic.as_str()).unwrap();
    (topic, group)
}

pub(super) async fn receive(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let start = Instant::now();
    let mut all = Vec::new();
    while all.len() < count {
        assert!(start.elapsed() < PATIENCE, "{} of {count} came: {all:?}", all.len());
        let limit = Limit::new(count - all.len(), Duration::from_secs(1));
        match consumer.receive(limit).await {
            Ok(deliveries) => all.extend(deliveries),
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    all
}

pub(super) fn texts(deliveries: &[Delivery]) -> Vec<String> {
    let text = |delivery: &Delivery| String::from_utf8_lossy(&delivery.payload).into_owned();
    deliveries.iter().map(text).collect()
}

pub(super) async fn ack(consumer: &mut dyn Consumer, deliveries: Vec<Delivery>) {
    let outcomes = deliveries.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
    let unsettled = consumer.settle(outcomes).await;
    assert!(unsettled.is_empty(), "{unsettled:?}");
}

mod limits {
    use super::*;

    #[tokio::test]
    async fn a_server_without_memory_throttles_and_goes_on() {
        let Some(own) = Own::start(&[]) else { return };
        let broker = own.broker().await;
        let (topic, _) = make_topic(&broker).await;
        own.set("maxmemory", "8mb").await;
        let large = || Message::new(vec![7; 100_000]).with_key("key");
        let error = loop {
            match broker.publish(&topic, vec![large()]).await.unwrap().remove(0) {
                Published::Written(_) => {}
                Published::NotWritten(error) => break error,
                Published::Unknown(error) => panic!("{error:?}"),
            }
        };
        assert_eq!(error.kind(), ErrorKind::Throttled, "{error:?}");
        assert!(error.is_retryable());
        own.set("maxmemory", "0").await;
        broker.publish_one(&topic, large()).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_may_evict_or_keeps_too_little_is_refused() {
        let Some(own) = Own::start(&["--appendonly", "no"]) else { return };
        let error = own.refused("durability = aof\n").await;
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{error:?}");
        own.set("appendonly", "yes").await;
        own.redis.open("durability = aof\n").await.unwrap();
        let error = own.refused("durability = synced\n").await;
        assert!(error.to_string().contains("everysec"), "{error}");
        own.set("appendfsync", "always").await;
        own.redis.open("durability = synced\n").await.unwrap();
        own.set("maxmemory", "100mb").await;
        own.set("maxmemory-policy", "allkeys-lru").await;
        let error = own.refused("").await;
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{error:?}");
        assert!(error.to_string().contains("allkeys-lru"), "{error}");
    }

    #[tokio::test]
    async fn a_message_counts_as_written_once_enough_replicas_have_it() {
        let Some(own) = Own::start(&[]) else { return };
        let broker = own.redis.open("durability = wait:1\ntimeout = 2s\n").await.unwrap();
        let (topic, _) = make_topic(&broker).await;
        let alone = broker.publish(&topic, vec![Message::new("alone")]).await.unwrap().remove(0);
        assert!(
            matches!(&alone, Published::Unknown(e) if e.kind() == ErrorKind::Timeout),
            "{alone:?}"
        );
        let master = own.server.lock().unwrap().port().to_string();
        let _replica = Server::start(&["--replicaof", "127.0.0.1", &master]);
        let start = Instant::now();
        loop {
            let message = vec![Message::new("copied")];
            match broker.publish(&topic, message).await.unwrap().remove(0) {
                Published::Written(_) => break,
                other => assert!(start.elapsed() < PATIENCE, "{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_stream_whose_clock_stands_still_moves_on() {
        let Some(redis) = Redis::found() else { return };
        let broker = redis.broker().await;
        let (topic, _) = make_topic(&broker).await;
        let ahead = (broker::Timestamp::now().as_micros() / 1000 + 3_600_000).to_string();
        let mut add = redis::cmd("XADD");
        add.arg(redis.stream(&topic)).arg(format!("{ahead}-600000")).arg("payload").arg("first");
        let _: String = add.query_async(&mut redis.raw().await).await.unwrap();
        let crowded = broker.publish_one(&topic, Message::new("second")).await.unwrap();
        let next = broker.publish_one(&topic, Message::new("third")).await.unwrap();
        assert!(crowded < next, "{crowded} {next}");
        assert_eq!(next.offset() >> 20, (crowded.offset() >> 20) + 1);
        let mut reader = broker.subscribe(Subscription::reader(&topic)).await.unwrap();
        assert_eq!(texts(&receive(&mut *reader, 3).await), ["first", "second", "third"]);
    }
}

mod users {
    use super::*;

    #[tokio::test]
    async fn who_is_not_let_in_is_told_so() {
        let Some(own) = Own::start(&["--requirepass", "secret"]) else { return };
        for lines in ["", "password = wrong\n", "username = nobody\npassword = secret\n"] {
            let error = own.refused(lines).await;
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{lines:?}: {error:?}");
            assert!(!error.is_retryable() && !format!("{error:?}").contains("secret"), "{error:?}");
        }
        own.redis.open("password = secret\n").await.unwrap().health().await.unwrap();
    }

    /// What a user of the broker needs; it may see no other keys.
    #[tokio::test]
    async fn a_user_with_rights_on_the_prefix_alone_is_enough() {
        let Some(own) = Own::start(&[]) else { return };
        let mut user = redis::cmd("ACL");
        user.arg("SETUSER").arg("service").arg("on").arg(">word");
        user.arg(format!("~{}*", own.redis.prefix));
        user.arg("+@all").arg("-@admin").arg("-@dangerous").arg("+info");
        let () = user.query_async(&mut own.redis.raw().await).await.unwrap();
        let lines = "username = service\npassword = word\n";
        let broker = own.redis.open(lines).await.unwrap();
        let (topic, group) = make_topic(&broker).await;
        broker.publish_one(&topic, Message::new("body")).await.unwrap();
        let mut member = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
        let deliveries = receive(&mut *member, 1).await;
        ack(&mut *member, deliveries).await;
        let elsewhere = Redis { url: own.redis.url.clone(), prefix: "other:".into() };
        let foreign = elsewhere.open(lines).await.unwrap();
        let spec = TopicSpec::new(&topic, 1);
        let error = foreign.admin().create_topic(&spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unavailable() {
        let Some(_) = Redis::found() else { return };
        let port = super::super::server::free_port();
        let nobody = Redis::at(format!("redis://127.0.0.1:{port}/"));
        let error = nobody.open("timeout = 1s\n").await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.is_retryable() && error.to_string().contains(&port.to_string()), "{error}");
    }
}

mod members {
    use super::*;

    /// Subscribes in a runtime that ends without a word, as a process that is killed.
    fn die_after(redis: &Redis, topic: &Topic, group: &Group, work: fn(&[Delivery]) -> bool) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (url, prefix) = (redis.url.clone(), redis.prefix.clone());
        let subscription = Subscription::group(topic, group);
        runtime.block_on(async move {
            let redis = Redis { url, prefix };
            let broker = redis.open("session.timeout = 500ms\n").await.unwrap();
            let mut member = broker.subscribe(subscription).await.unwrap();
            loop {
                let deliveries = receive(&mut *member, 1).await;
                if work(&deliveries) {
                    std::mem::forget((deliveries, member, broker));
                    return;
                }
                ack(&mut *member, deliveries).await;
            }
        });
        runtime.shutdown_background();
    }

    async fn blocking(work: impl FnOnce() + Send + 'static) {
        tokio::task::spawn_blocking(work).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn deliveries_are_counted_though_each_consumer_dies_of_them() {
        let Some(redis) = Redis::found() else { return };
        let redis = Arc::new(redis);
        let broker = redis.open("session.timeout = 500ms\n").await.unwrap();
        let (topic, group) = make_topic(&broker).await;
        let batch = ["good", "deadly", "better"].map(Message::new).to_vec();
        broker.publish_all(&topic, batch).await.unwrap();
        for attempt in 1..=3 {
            let (redis, topic, group) = (redis.clone(), topic.clone(), group.clone());
            let expected = attempt;
            static SEEN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
            blocking(move || {
                die_after(&redis, &topic, &group, |deliveries| {
                    let is_deadly = texts(deliveries) == ["deadly"];
                    if is_deadly {
                        SEEN.lock().unwrap().push(deliveries[0].attempt());
                    }
                    is_deadly
                });
            })
            .await;
            assert_eq!(SEEN.lock().unwrap().last(), Some(&expected));
        }
        let policy = Policy::default().with_attempts(3);
        let layered = broker::layers::Delivery::wrap(broker, policy);
        let mut member = layered.subscribe(Subscription::group(&topic, &group)).await.unwrap();
        assert_eq!(texts(&receive(&mut *member, 1).await), ["better"]);
    }

    /// By the server's own clock it would hold for an hour.
    #[tokio::test]
    async fn a_lease_of_before_the_clock_was_set_back_runs_out() {
        let Some(redis) = Redis::found() else { return };
        let broker = redis.broker().await;
        let (topic, group) = make_topic(&broker).await;
        broker.publish_one(&topic, Message::new("body")).await.unwrap();
        let till = broker::Timestamp::now().as_micros() / 1000 + 3_600_000;
        let mut connection = redis.raw().await;
        let members = format!("{}{{{topic}}}:members", redis.prefix);
        let mut enter = redis::cmd("HSET");
        enter.arg(members).arg(format!("{group}/dead")).arg(format!("{till} 300"));
        let _: u32 = enter.query_async(&mut connection).await.unwrap();
        let lease = format!("{}:{group}", redis.stream(&topic));
        let mut own = redis::cmd("HSET");
        own.arg(lease).arg("owner").arg("dead").arg("generation").arg(1);
        let _: u32 = own.query_async(&mut connection).await.unwrap();
        let mut member = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
        assert_eq!(texts(&receive(&mut *member, 1).await), ["body"]);
    }

    #[tokio::test]
    async fn a_consumer_that_never_waits_gets_everything() {
        let Some(redis) = Redis::found() else { return };
        let broker = redis.broker().await;
        let (topic, group) = make_topic(&broker).await;
        broker.publish_all(&topic, vec![Message::new("body"); 3]).await.unwrap();
        for subscription in [Subscription::reader(&topic), Subscription::group(&topic, &group)] {
            let mut consumer = broker.subscribe(subscription).await.unwrap();
            let (start, mut came) = (Instant::now(), 0);
            while came < 3 {
                assert!(start.elapsed() < PATIENCE, "{came} of 3 came");
                came += consumer.receive(Limit::new(2, Duration::ZERO)).await.unwrap().len();
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn entries_of_other_clients_are_delivered() {
        let Some(redis) = Redis::found() else { return };
        let broker = redis.broker().await;
        let (topic, group) = make_topic(&broker).await;
        let rows: [&[&str]; 3] =
            [&["data", "bare"], &["sensor", "7", "value", "1"], &["payload", "x", "kind", "y"]];
        for fields in rows {
            let mut add = redis::cmd("XADD");
            add.arg(redis.stream(&topic)).arg("*").arg(fields);
            let _: String = add.query_async(&mut redis.raw().await).await.unwrap();
        }
        let mut member = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
        let deliveries = receive(&mut *member, 3).await;
        assert_eq!(texts(&deliveries), ["bare", r#"{"sensor":"7","value":"1"}"#, "x"]);
        assert_eq!(deliveries[2].headers.get("kind"), Some(&b"y"[..]));
    }

    #[tokio::test]
    async fn retention_keeps_what_a_group_has_not_settled() {
        let Some(redis) = Redis::found() else { return };
        let broker = redis.open("session.timeout = 300ms\n").await.unwrap();
        let topic = Topic::new(&format!("kept-{:016x}", fastrand::u64(..))).unwrap();
        let mut spec = TopicSpec::new(&topic, 1);
        spec.retention_bytes = Some(100_000);
        broker.admin().create_topic(&spec).await.unwrap();
        let group = Group::new(topic.as_str()).unwrap();
        let mut member = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
        let batch = (0..100).map(|_| Message::new(vec![7; 10_000])).collect();
        let positions = broker.publish_all(&topic, batch).await.unwrap();
        let mut held = receive(&mut *member, 60).await;
        let open = held.split_off(40);
        ack(&mut *member, held).await;
        let start = Instant::now();
        loop {
            let shown = broker.admin().describe(&topic).await.unwrap().partitions[0];
            assert!(shown.start <= positions[40].offset(), "what is out was deleted");
            assert!(shown.start <= shown.end);
            if shown.start > positions[30].offset() {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "nothing is deleted: {shown:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ack(&mut *member, open).await;
        assert_eq!(receive(&mut *member, 40).await.len(), 40);
    }
}
