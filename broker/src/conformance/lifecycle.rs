//! Topics come and go, brokers shut down, futures are dropped.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::time::{Instant, timeout};

use super::Harness;
use super::stage::{
    PATIENCE, QUIET, Stage, Tap, assert_kind, assert_missing, numbers, text, texts, unique_topic,
};
use crate::contract::{Broker, Published, TopicSpec};
use crate::error::{ErrorKind, Result};
use crate::ext::BrokerExt;
use crate::message::Message;
use crate::name::Topic;
use crate::subscription::{Limit, Subscription};

/// Opens a consumer and receives once, since a backend may look at the topic only then.
async fn first_use(broker: &Arc<dyn Broker>, subscription: Subscription) -> Result<()> {
    let mut consumer = broker.subscribe(subscription).await?;
    consumer.receive(Limit::new(1, PATIENCE)).await.map(drop)
}

async fn assert_not_found(broker: &Arc<dyn Broker>, topic: &Topic) {
    // A backend that saw the topic before may tell so of each message.
    assert_missing(broker.publish_one(topic, Message::new("body")).await, topic);
    let group = super::stage::unique_group();
    let member = Subscription::group(topic, &group);
    assert_missing(first_use(broker, member).await, topic);
    assert_missing(first_use(broker, Subscription::reader(topic)).await, topic);
    assert_missing(broker.admin().describe(topic).await, topic);
    assert_missing(broker.admin().delete_topic(topic).await, topic);
    if broker.capabilities().lag {
        assert_missing(broker.lag(topic, &group).await, topic);
    }
}

/// Connecting asks for no topic; using one that is missing names the problem.
pub async fn a_missing_topic_is_not_found_at_first_use(harness: &dyn Harness) {
    assert_not_found(&harness.broker().await, &unique_topic()).await;
}

/// The second call changes nothing, also from another connection.
pub async fn a_topic_is_made_only_once(harness: &dyn Harness) {
    let stage = Stage::new(harness, 2).await;
    stage.publish_texts(["body"]).await;
    let again = TopicSpec::new(&stage.topic, 1);
    let other = harness.broker().await;
    for broker in [&stage.broker, &other] {
        assert_kind(broker.admin().create_topic(&again).await, ErrorKind::AlreadyExists);
        broker.ensure_topic(&again).await.unwrap();
    }
    assert_eq!(texts(&stage.everything().await), ["body"]);
}

/// The race has one winner, whose topic it is.
pub async fn of_several_who_make_a_topic_at_once_one_succeeds(harness: &dyn Harness) {
    let brokers = [harness.broker().await, harness.broker().await, harness.broker().await];
    let spec = TopicSpec::new(&unique_topic(), 1);
    let made = brokers.iter().map(|broker| broker.admin().create_topic(&spec));
    let made = futures::future::join_all(made).await;
    let (won, lost): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1, "{lost:?}");
    lost.into_iter().for_each(|result| assert_kind(result, ErrorKind::AlreadyExists));
}

/// Also for a connection that has used the topic before.
pub async fn a_deleted_topic_is_not_found(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let other = stage.reconnected(harness).await;
    other.publish_texts(["body"]).await;
    stage.broker.admin().delete_topic(&stage.topic).await.unwrap();
    assert_not_found(&stage.broker, &stage.topic).await;
    assert_not_found(&other.broker, &stage.topic).await;
    let listed = stage.broker.admin().list().await.unwrap();
    assert!(!listed.contains(&stage.topic), "{listed:?}");
}

/// Neither messages nor groups' positions outlive their topic.
pub async fn a_topic_made_anew_starts_from_nothing(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(3)).await;
    let mut member = stage.member().await;
    let deliveries = member.take(3).await;
    member.ack(deliveries).await;
    stage.wait_committed(3).await;
    drop(member);
    let admin = stage.broker.admin();
    admin.delete_topic(&stage.topic).await.unwrap();
    admin.create_topic(&TopicSpec::new(&stage.topic, 1)).await.unwrap();
    stage.publish_texts(["new"]).await;
    assert_eq!(texts(&stage.everything().await), ["new"]);
    assert_eq!(text(&stage.member().await.next().await), "new");
}

/// Shutting down twice is fine; everything else is refused, open consumers too.
pub async fn everything_is_closed_after_shutdown(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let mut reader = stage.reader().await;
    reader.until_caught_up().await;
    let broker = &stage.broker;
    broker.shutdown().await.unwrap();
    broker.shutdown().await.unwrap();
    let published = broker.publish(&stage.topic, vec![Message::new("late")]).await;
    assert_kind(published, ErrorKind::Closed);
    assert_kind(broker.subscribe(stage.subscription()).await, ErrorKind::Closed);
    assert_kind(reader.consumer.receive(Limit::new(1, PATIENCE)).await, ErrorKind::Closed);
    assert_kind(broker.health().await, ErrorKind::Closed);
    let admin = broker.admin();
    let spec = TopicSpec::new(&unique_topic(), 1);
    assert_kind(admin.create_topic(&spec).await, ErrorKind::Closed);
    assert_kind(admin.delete_topic(&stage.topic).await, ErrorKind::Closed);
    assert_kind(admin.describe(&stage.topic).await, ErrorKind::Closed);
    assert_kind(admin.list().await, ErrorKind::Closed);
    assert_kind(admin.groups().await, ErrorKind::Closed);
    if broker.capabilities().lag {
        assert_kind(broker.lag(&stage.topic, &stage.group).await, ErrorKind::Closed);
    }
}

/// Publishes until the broker is shut down; returns what was written.
async fn publish_until_closed(broker: Arc<dyn Broker>, topic: Topic, key: usize) -> Vec<String> {
    let mut written = Vec::new();
    for number in 0.. {
        let body = format!("{key}-{number}");
        let message = Message::new(body.clone()).with_key(key.to_string());
        match broker.publish(&topic, vec![message]).await {
            Ok(results) if matches!(results[..], [Published::Written(_)]) => written.push(body),
            Ok(results) => {
                let result = format!("{results:?}");
                let error = results.into_iter().next().unwrap().position().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Closed, "{result}");
                break;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
                break;
            }
        }
    }
    written
}

/// Publishers at work get a true answer, `Written` or `Closed`.
pub async fn shutdown_flushes_what_was_published(harness: &dyn Harness) {
    let stage = Stage::new(harness, 2).await;
    let publisher =
        |key| tokio::spawn(publish_until_closed(stage.broker.clone(), stage.topic.clone(), key));
    let publishers: Vec<_> = (0..4).map(publisher).collect();
    tokio::time::sleep(QUIET / 2).await;
    stage.broker.shutdown().await.unwrap();
    let mut written = Vec::new();
    for publisher in publishers {
        written.extend(publisher.await.unwrap());
    }
    let mut stored = texts(&stage.reconnected(harness).await.everything().await);
    written.sort();
    stored.sort();
    assert!(!written.is_empty(), "nothing was published before the shutdown");
    assert_eq!(stored, written);
}

/// What was settled right before a shutdown is settled for good.
pub async fn shutdown_flushes_what_was_settled(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(20)).await;
    let mut member = stage.member().await;
    let deliveries = member.take(20).await;
    member.ack(deliveries).await;
    stage.broker.shutdown().await.unwrap();
    drop(member);
    stage.reconnected(harness).await.assert_all_settled().await;
}

/// Ends after microseconds, for which timers are too coarse.
async fn moment(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        tokio::task::yield_now().await;
    }
}

/// A member whose calls of `receive` are dropped again and again.
struct Hasty {
    member: Tap,
    received: Vec<String>,
    dropped: u64,
}

impl Hasty {
    /// The only member of a group of its own.
    async fn new(stage: &Stage) -> Self {
        let subscription = Subscription::group(&stage.topic, &super::stage::unique_group());
        let member = stage.subscribe(subscription).await;
        Self { member, received: Vec::new(), dropped: 0 }
    }

    /// Receives for a moment, at times none at all.
    async fn receive(&mut self) {
        let moment = moment(Duration::from_micros(self.dropped % 25 * 40));
        let receive = self.member.consumer.receive(Limit::new(7, PATIENCE));
        let Either::Left((deliveries, _)) = select(receive, pin!(moment)).await else {
            self.dropped += 1;
            return;
        };
        let deliveries = deliveries.unwrap();
        self.received.extend(texts(&deliveries));
        self.member.ack(deliveries).await;
        self.member.note_events();
    }
}

/// `receive` may stand in a `select!` that another branch wins: while a group is joined, which
/// several do here to meet all moments, and while messages come.
pub async fn a_receive_that_is_dropped_loses_nothing(harness: &dyn Harness) {
    let stage = Stage::new(harness, 2).await;
    let count = 200;
    let mut members = Vec::new();
    for _ in 0..8 {
        let mut hasty = Hasty::new(&stage).await;
        for _ in 0..100 {
            hasty.receive().await;
        }
        members.push(hasty);
    }
    let (broker, topic) = (stage.broker.clone(), stage.topic.clone());
    let publisher = tokio::spawn(async move {
        for number in 0..count {
            let message = Message::new(number.to_string()).with_key("key");
            broker.publish_one(&topic, message).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let start = Instant::now();
    while members.iter().any(|hasty| hasty.received.len() < count) {
        let came: Vec<_> = members.iter().map(|hasty| hasty.received.len()).collect();
        assert!(start.elapsed() < PATIENCE, "of {count} came {came:?}");
        for hasty in &mut members {
            hasty.receive().await;
        }
    }
    publisher.await.unwrap();
    for mut hasty in members {
        assert!(hasty.dropped >= 100, "only {} calls were dropped", hasty.dropped);
        assert_eq!(hasty.received, numbers(count));
        hasty.member.assert_quiet(QUIET / 4).await;
    }
}

/// Neither shorter, which would spin, nor for ever.
pub async fn receive_waits_as_long_as_it_was_told(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let mut reader = stage.reader().await;
    reader.until_caught_up().await;
    for wait in [Duration::ZERO, QUIET] {
        let asked = Instant::now();
        let deliveries = reader.consumer.receive(Limit::new(10, wait)).await.unwrap();
        assert!(deliveries.is_empty(), "{deliveries:?}");
        assert!(asked.elapsed() >= wait, "{:?} instead of {wait:?}", asked.elapsed());
        assert!(reader.consumer.events().is_empty());
    }
}

/// A full batch is not waited for.
pub async fn receive_returns_as_soon_as_a_message_is_there(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let mut reader = stage.reader().await;
    reader.until_caught_up().await;
    let (broker, topic) = (stage.broker.clone(), stage.topic.clone());
    let publisher = tokio::spawn(async move {
        tokio::time::sleep(QUIET / 4).await;
        broker.publish_one(&topic, Message::new("body")).await.unwrap()
    });
    let receive = reader.consumer.receive(Limit::new(100, PATIENCE * 10));
    let deliveries = timeout(PATIENCE, receive).await.expect("it returns at once").unwrap();
    assert_eq!(texts(&deliveries), ["body"]);
    publisher.await.unwrap();
}

/// A caller to whom the assignment does not matter need not ask for it.
pub async fn messages_come_though_nobody_takes_the_events(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(["body"]).await;
    let mut consumer = stage.broker.subscribe(stage.subscription()).await.unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let deliveries = consumer.receive(Limit::new(1, QUIET)).await.unwrap();
        if !deliveries.is_empty() {
            assert_eq!(texts(&deliveries), ["body"]);
            return;
        }
        assert!(Instant::now() < until, "nothing comes");
    }
}

/// Who must not wait gets what is there, if not by the first call.
pub async fn a_receive_that_must_not_wait_brings_what_is_there(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(["body"]).await;
    let mut member = stage.member().await;
    let start = Instant::now();
    loop {
        let deliveries = member.consumer.receive(Limit::new(1, Duration::ZERO)).await.unwrap();
        if let Some(first) = deliveries.first() {
            return assert_eq!(text(first), "body");
        }
        assert!(start.elapsed() < PATIENCE, "nothing comes");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
