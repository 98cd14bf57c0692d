//! Google Cloud Pub/Sub at `FOREBAY_TEST_PUBSUB` (host:port), which an emulator serves. Tests
//! share it, and it goes on: it keeps everything in memory, so that a restart would lose all.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use broker::config::{File, ProcessEnvironment};
use broker::conformance::Harness;
use broker::pubsub::{Config, connect};
use broker::{Broker, Consumer, Subscription};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

struct Pubsub {
    config: String,
    /// Holds up all that passes the relay.
    stalled: watch::Sender<bool>,
    _relay: JoinSet<()>,
}

impl Pubsub {
    /// The server that the environment names; without one the test can't run.
    async fn found() -> Option<Self> {
        Self::with("").await
    }

    async fn with(lines: &str) -> Option<Self> {
        let Ok(server) = std::env::var("FOREBAY_TEST_PUBSUB") else {
            let missing = "FOREBAY_TEST_PUBSUB is not set: start a server with scripts/servers";
            assert!(std::env::var_os("FOREBAY_REQUIRE_SERVERS").is_none(), "{missing}");
            eprintln!("not run: {missing}");
            return None;
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap();
        let (mut relay, stalled) = (JoinSet::new(), watch::Sender::new(false));
        relay.spawn(relay::run(listener, server, stalled.subscribe()));
        // Should a connection be lost, its messages come again soon. The emulator keeps all that
        // was ever published in memory, so that few messages may be as large as can be.
        let config = format!(
            "[pubsub]\nproject = forebay\nemulator = {host}\nlease = 10s\n\
             caught_up_after = 2s\nmessage_bytes_max = 1MiB\n{lines}"
        );
        Some(Self { config, stalled, _relay: relay })
    }
}

async fn open(config: &str) -> Arc<dyn Broker> {
    let file = File::parse(Path::new("pubsub.ini"), config, &ProcessEnvironment).unwrap();
    let config = Config::from_section(file.section("pubsub"), &ProcessEnvironment).unwrap();
    connect(config).await.unwrap()
}

#[async_trait]
impl Harness for Pubsub {
    async fn broker(&self) -> Arc<dyn Broker> {
        open(&self.config).await
    }

    /// Other tests need the server to go on, and it would forget everything.
    async fn restart_server(&self) {}

    /// Pub/Sub takes nobody for dead whose client extends its leases.
    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer> {
        self.broker().await.subscribe(subscription.clone()).await.unwrap()
    }
}

mod bare {
    use super::*;

    broker::conformance_tests!(Pubsub::found().await);
}

mod delivery_layer {
    use super::*;
    use crate::layered::Layered;

    broker::conformance_tests!(Pubsub::found().await.map(Layered));
}

/// What only Pub/Sub has.
mod own {
    use std::time::{Duration, Instant};

    use broker::{
        BrokerExt, Delivery, ErrorKind, Event, Group, Limit, Message, Outcome, Topic, TopicSpec,
    };
    use google_cloud_auth::credentials::anonymous;
    use google_cloud_pubsub::client::{Publisher, SubscriptionAdmin};
    use google_cloud_pubsub::model::Message as PubsubMessage;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A topic of its own.
    async fn topic(broker: &Arc<dyn Broker>) -> Topic {
        let name = format!("own-{:x}-{:x}", std::process::id(), fastrand::u64(..));
        let topic = Topic::new(&name).unwrap();
        broker.admin().create_topic(&TopicSpec::new(&topic, 1)).await.unwrap();
        topic
    }

    /// Receives until `count` deliveries came.
    async fn take(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
        let (start, mut all) = (Instant::now(), Vec::new());
        while all.len() < count {
            assert!(start.elapsed() < PATIENCE, "of {count} came {all:?}");
            let limit = Limit::new(count - all.len(), Duration::from_secs(1));
            all.extend(consumer.receive(limit).await.unwrap());
        }
        all
    }

    async fn ack(consumer: &mut dyn Consumer, deliveries: Vec<Delivery>) {
        let acks = deliveries.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack));
        let unsettled = consumer.settle(acks.collect()).await;
        assert!(unsettled.is_empty(), "{unsettled:?}");
    }

    fn server() -> String {
        format!("http://{}", std::env::var("FOREBAY_TEST_PUBSUB").unwrap())
    }

    #[tokio::test]
    async fn attributes_and_ordering_keys_of_others_are_headers_and_keys() {
        let Some(pubsub) = Pubsub::found().await else { return };
        let broker = pubsub.broker().await;
        let topic = topic(&broker).await;
        let foreign = Publisher::builder(format!("projects/forebay/topics/{topic}"))
            .with_endpoint(server())
            .with_credentials(anonymous::Builder::new().build());
        let message = PubsubMessage::new()
            .set_data("body")
            .set_ordering_key("key")
            .set_attributes([("b", "2"), ("a", "1")]);
        let id = foreign.build().await.unwrap().publish(message).await.unwrap();
        let mut reader = broker.subscribe(Subscription::reader(&topic)).await.unwrap();
        let came = take(&mut *reader, 1).await.remove(0);
        let expected =
            Message::new("body").with_key("key").with_header("a", "1").with_header("b", "2");
        assert_eq!(*came, Message { timestamp: came.timestamp, ..expected });
        assert_eq!(came.position().offset().to_string(), id);
    }

    #[tokio::test]
    async fn a_group_is_an_ordered_subscription_that_never_expires() {
        for (line, exactly_once) in [("", false), ("exactly_once = true\n", true)] {
            let Some(pubsub) = Pubsub::with(line).await else { return };
            let broker = pubsub.broker().await;
            let topic = topic(&broker).await;
            let group = Group::new("workers").unwrap();
            drop(broker.subscribe(Subscription::group(&topic, &group)).await.unwrap());
            let admin = SubscriptionAdmin::builder()
                .with_endpoint(server())
                .with_credentials(anonymous::Builder::new().build());
            let path = format!("projects/forebay/subscriptions/{topic}~workers");
            let admin = admin.build().await.unwrap();
            let made = admin.get_subscription().set_subscription(path).send().await.unwrap();
            assert!(made.enable_message_ordering && made.dead_letter_policy.is_none(), "{made:?}");
            assert_eq!(made.enable_exactly_once_delivery, exactly_once);
            assert_eq!(made.ack_deadline_seconds, 10);
            assert!(made.expiration_policy.is_none_or(|policy| policy.ttl.is_none()));
        }
    }

    #[tokio::test]
    async fn a_readers_subscription_ends_with_it() {
        let Some(pubsub) = Pubsub::found().await else { return };
        let broker = pubsub.broker().await;
        let topic = topic(&broker).await;
        let admin = google_cloud_pubsub::client::TopicAdmin::builder()
            .with_endpoint(server())
            .with_credentials(anonymous::Builder::new().build());
        let admin = admin.build().await.unwrap();
        let count = async || {
            let path = format!("projects/forebay/topics/{topic}");
            let list = admin.list_topic_subscriptions().set_topic(path).send().await;
            list.unwrap().subscriptions.len()
        };
        let reader = broker.subscribe(Subscription::reader(&topic)).await.unwrap();
        assert_eq!(count().await, 1);
        drop(reader);
        let start = Instant::now();
        while count().await > 0 {
            assert!(start.elapsed() < PATIENCE, "the subscription is still there");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let _reader = broker.subscribe(Subscription::reader(&topic)).await.unwrap();
        broker.shutdown().await.unwrap();
        assert_eq!(count().await, 0, "shutdown waits for it");
    }

    #[tokio::test]
    async fn the_largest_message_that_pubsub_takes_round_trips() {
        let Some(pubsub) = Pubsub::found().await else { return };
        let config = pubsub.config.replace("message_bytes_max = 1MiB\n", "");
        let broker = open(&config).await;
        let topic = topic(&broker).await;
        let size = broker.capabilities().message_bytes_max;
        let key = vec![255; 700];
        let mut message = Message::new(vec![7; size - 700 - 66_000]).with_key(key);
        message.headers.push("long", &vec![9; 66_000 - 4]);
        assert_eq!(message.size(), size);
        broker.publish_one(&topic, message.clone()).await.unwrap();
        let mut reader = broker.subscribe(Subscription::reader(&topic)).await.unwrap();
        let came = take(&mut *reader, 1).await.remove(0);
        assert!(Message { timestamp: None, ..came.message().clone() } == message);
    }

    #[tokio::test]
    async fn what_pubsub_cannot_hold_is_too_large_and_stops_nobody() {
        let Some(pubsub) = Pubsub::found().await else { return };
        let broker = pubsub.broker().await;
        let topic = topic(&broker).await;
        let batch = vec![
            Message::new("x").with_key(vec![b'k'; 1025]),
            Message::new("x").with_header("long", vec![7; 80_000]),
            Message::new("good").with_key("key"),
        ];
        let mut results = broker.publish(&topic, batch).await.unwrap();
        results.pop().unwrap().position().unwrap();
        for result in results {
            let error = result.position().unwrap_err();
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::TooLarge, false));
        }
    }

    #[tokio::test]
    async fn a_key_goes_on_after_a_failure() {
        let Some(pubsub) = Pubsub::found().await else { return };
        let broker = pubsub.broker().await;
        let other = pubsub.broker().await;
        let topic = topic(&broker).await;
        let message = || Message::new("body").with_key("key");
        broker.publish_one(&topic, message()).await.unwrap();
        // The other connection knows nothing of it, so this one's client stays.
        other.admin().delete_topic(&topic).await.unwrap();
        let error = broker.publish_one(&topic, message()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        other.admin().create_topic(&TopicSpec::new(&topic, 1)).await.unwrap();
        broker.publish_one(&topic, message()).await.unwrap();
    }

    #[tokio::test]
    async fn exactly_once_confirms_the_settled_prefix_and_keeps_it() {
        let Some(pubsub) = Pubsub::with("exactly_once = true\n").await else { return };
        let broker = pubsub.broker().await;
        let topic = topic(&broker).await;
        let numbers = (0..50).map(|number| Message::new(number.to_string()).with_key("key"));
        broker.publish_all(&topic, numbers.collect()).await.unwrap();
        let group = Group::new("workers").unwrap();
        let mut member = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
        let mut held = take(&mut *member, 50).await;
        let behind = held.split_off(20);
        let head = held.remove(0);
        // Neither waits for what an open message precedes.
        ack(&mut *member, behind).await;
        ack(&mut *member, held).await;
        ack(&mut *member, vec![head]).await;
        // Confirmed is for good, also where the process dies now.
        drop(member);
        let mut next = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
        broker.publish_one(&topic, Message::new("last").with_key("key")).await.unwrap();
        let last = take(&mut *next, 1).await.remove(0);
        assert_eq!(last.payload, "last");
    }

    #[tokio::test]
    async fn a_stall_beyond_the_lease_brings_nothing_twice_to_who_holds_it() {
        for line in ["", "exactly_once = true\n"] {
            let Some(pubsub) = Pubsub::with(line).await else { return };
            let broker = pubsub.broker().await;
            let topic = topic(&broker).await;
            let numbers = (0..20).map(|number| Message::new(number.to_string()));
            broker.publish_all(&topic, numbers.collect()).await.unwrap();
            let group = Group::new("workers").unwrap();
            let mut member = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
            let held = take(&mut *member, 20).await;
            pubsub.stalled.send_replace(true);
            tokio::time::sleep(Duration::from_secs(13)).await;
            pubsub.stalled.send_replace(false);
            let quiet = Limit::new(20, Duration::from_secs(3));
            let again = member.receive(quiet).await.unwrap();
            assert!(again.is_empty(), "{again:?}");
            // With exactly-once delivery an acknowledgement may be refused: then it comes again.
            let acks = held.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack));
            let refused = member.settle(acks.collect()).await;
            assert!(refused.iter().all(|refusal| !refusal.error.is_retryable()), "{refused:?}");
            let again = take(&mut *member, refused.len()).await;
            ack(&mut *member, again).await;
            drop(member);
            let mut next = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
            assert!(next.receive(quiet).await.unwrap().is_empty(), "news of the assignment");
            assert_eq!(next.events(), [Event::Assigned(vec![0])]);
            let again = next.receive(quiet).await.unwrap();
            assert!(again.is_empty(), "{again:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unavailable() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let config = format!("[pubsub]\nproject = p\nemulator = {free}\n");
        let file = File::parse(Path::new("pubsub.ini"), &config, &ProcessEnvironment).unwrap();
        let config = Config::from_section(file.section("pubsub"), &ProcessEnvironment).unwrap();
        let error = connect(config).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true));
    }

    #[tokio::test]
    async fn credentials_that_are_none_are_refused_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        let endpoint = "endpoint = https://127.0.0.1:1";
        let config =
            format!("[pubsub]\nproject = p\n{endpoint}\ncredentials = {}\n", path.display());
        for text in [None, Some("secret"), Some("{\"type\": \"secret\"}")] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let file = File::parse(Path::new("pubsub.ini"), &config, &ProcessEnvironment).unwrap();
            let config = Config::from_section(file.section("pubsub"), &ProcessEnvironment).unwrap();
            let error = connect(config).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{error:?}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}

/// Stands between client and emulator, whose gRPC library fails on a stream that is cancelled:
/// it goes on to feed it, and what is ordered stays with it for minutes. So a cancelled stream
/// is ended politely instead. Pub/Sub itself needs none of this.
mod relay {
    use std::collections::HashSet;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, Result, copy};
    use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch::Receiver;
    use tokio::task::JoinSet;

    const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const HEADER_LENGTH: usize = 9;
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const END_STREAM: u8 = 1;

    /// Serves connections until it is aborted; nothing passes while `stalled` holds.
    pub(super) async fn run(listener: TcpListener, server: String, stalled: Receiver<bool>) {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            connections.spawn(connect(client, server.clone(), stalled.clone()));
        }
    }

    async fn connect(client: TcpStream, server: String, stalled: Receiver<bool>) {
        let Ok(server) = TcpStream::connect(server).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, to_server) = server.into_split();
        // The first that ends takes the other with it, and both connections are closed.
        tokio::select! {
            _ = copy(&mut from_server, &mut to_client) => {}
            _ = pass(from_client, to_server, stalled) => {}
        }
    }

    /// Passes frames on; what is not HTTP/2 is passed as it is.
    async fn pass(
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        mut stalled: Receiver<bool>,
    ) -> Result<()> {
        let mut preface = [0; PREFACE.len()];
        from.read_exact(&mut preface).await?;
        to.write_all(&preface).await?;
        if &preface != PREFACE {
            copy(&mut from, &mut to).await?;
            return Ok(());
        }
        let (mut frame, mut ended) = (Vec::new(), HashSet::new());
        loop {
            frame.resize(HEADER_LENGTH, 0);
            from.read_exact(&mut frame).await?;
            let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
            frame.resize(HEADER_LENGTH + length as usize, 0);
            from.read_exact(&mut frame[HEADER_LENGTH..]).await?;
            end_politely(&mut frame, &mut ended);
            // Without a sender the test is over.
            let _ = stalled.wait_for(|stalled| !stalled).await;
            to.write_all(&frame).await?;
        }
    }

    /// Makes the cancelling of a stream that is still open its end.
    fn end_politely(frame: &mut Vec<u8>, ended: &mut HashSet<[u8; 4]>) {
        let (kind, flags) = (frame[3], frame[4]);
        let stream = [frame[5], frame[6], frame[7], frame[8]];
        if kind == RST_STREAM && ended.insert(stream) {
            *frame = vec![0, 0, 0, DATA, END_STREAM];
            frame.extend(stream);
        } else if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            ended.insert(stream);
        }
    }
}
