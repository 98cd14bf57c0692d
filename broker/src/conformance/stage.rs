//! What rules are played on: a broker with a topic and a group of their own, and consumers
//! that wait for what must come.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::time::Instant;

use super::Harness;
use crate::contract::{Broker, Consumer, TopicSpec};
use crate::delivery::{Delivery, Outcome, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::BrokerExt;
use crate::message::{Message, Timestamp};
use crate::name::{Group, Topic};
use crate::policy::Policy;
use crate::subscription::{Event, Limit, Subscription};

/// How long to wait for what must come; only a broken backend or machine reaches it.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long to watch for what must not come.
pub(super) const QUIET: Duration = Duration::from_millis(400);
/// One look at a consumer that others are waited for beside.
const GLANCE: Duration = Duration::from_millis(20);

/// What tells the names of this process from all others.
static RUN: LazyLock<String> =
    LazyLock::new(|| format!("-{:x}-{:x}-", std::process::id(), Timestamp::now().as_micros()));

/// A name that no other rule, run or process uses.
pub(super) fn unique(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{what}{}{count}", *RUN)
}

/// Whether a rule in this process made the name of a topic or group, for those who clean up
/// behind the suite.
pub fn is_of_this_run(name: &str) -> bool {
    name.contains(RUN.as_str())
}

pub(super) fn unique_topic() -> Topic {
    Topic::new(&unique("topic")).unwrap()
}

pub(super) fn unique_group() -> Group {
    Group::new(&unique("group")).unwrap()
}

/// A broker with an empty topic and the name of a group that nobody joined yet.
pub(super) struct Stage {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) topic: Topic,
    pub(super) group: Group,
}

impl Stage {
    /// A stage whose topic has `partitions`, or one where the backend has no partitions.
    pub(super) async fn new(harness: &dyn Harness, partitions: u32) -> Self {
        Self::over(harness.broker().await, partitions).await
    }

    /// A stage on the delivery layer.
    pub(super) async fn layered(harness: &dyn Harness, default: Policy) -> Self {
        Self::over(harness.delivery_layer(default).await, 1).await
    }

    async fn over(broker: Arc<dyn Broker>, partitions: u32) -> Self {
        let topic = make_topic(&broker, partitions).await;
        Self { broker, topic, group: unique_group() }
    }

    /// The same topic and group over a fresh connection.
    pub(super) async fn reconnected(&self, harness: &dyn Harness) -> Self {
        let broker = harness.broker().await;
        Self { broker, topic: self.topic.clone(), group: self.group.clone() }
    }

    pub(super) async fn publish(&self, batch: Vec<Message>) -> Vec<Position> {
        self.broker.publish_all(&self.topic, batch).await.unwrap()
    }

    pub(super) async fn publish_texts(&self, texts: impl IntoIterator<Item = impl ToString>) {
        let batch = texts.into_iter().map(|text| Message::new(text.to_string())).collect();
        self.publish(batch).await;
    }

    /// The texts as they came; sorted where only the messages of one key have an order.
    pub(super) fn in_order(&self, deliveries: &[Delivery]) -> Vec<String> {
        let mut texts = texts(deliveries);
        if !self.broker.capabilities().partitions {
            texts.sort_by_key(|text| (text.len(), text.clone()));
        }
        texts
    }

    pub(super) fn subscription(&self) -> Subscription {
        Subscription::group(&self.topic, &self.group)
    }

    pub(super) async fn subscribe(&self, subscription: Subscription) -> Tap {
        Tap::new(self.broker.subscribe(subscription).await.unwrap())
    }

    /// A new member of the stage's group.
    pub(super) async fn member(&self) -> Tap {
        self.subscribe(self.subscription()).await
    }

    /// A reader of the whole topic.
    pub(super) async fn reader(&self) -> Tap {
        self.subscribe(Subscription::reader(&self.topic)).await
    }

    /// Everything that the topic holds now, partition by partition in order.
    pub(super) async fn everything(&self) -> Vec<Delivery> {
        self.reader().await.until_caught_up().await
    }

    /// Waits until the group's position in partition zero is durable between the first `count`
    /// messages and the next, which Kafka does a little later. Without lag figures it waits for
    /// longer than any commit interval.
    pub(super) async fn wait_committed(&self, count: u64) {
        if !self.broker.capabilities().lag {
            return tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let (least, most) = self.between(count).await;
        let start = Instant::now();
        loop {
            let lag = self.broker.lag(&self.topic, &self.group).await.unwrap();
            let (committed, end) = (lag[0].committed, lag[0].end);
            let most = most.unwrap_or(end);
            if committed.is_some_and(|committed| (least..=most).contains(&committed)) {
                return;
            }
            let wrong = format!("{committed:?} is committed, not {least} to {most}");
            assert!(start.elapsed() < PATIENCE, "{wrong}");
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// The offset right behind the first `count` messages of partition zero and that of the
    /// next one, where there is one. Both are the same unless offsets have gaps.
    async fn between(&self, count: u64) -> (u64, Option<u64>) {
        let all = self.everything().await;
        let positions = all.iter().map(|delivery| delivery.position());
        let offsets = positions.filter(|position| position.partition() == 0);
        let offsets: Vec<u64> = offsets.map(Position::offset).collect();
        let count = usize::try_from(count).unwrap();
        let least = count.checked_sub(1).map_or(0, |last| offsets[last] + 1);
        (least, offsets.get(count).copied())
    }

    /// Asserts that a member who joins now finds nothing of what came before: it gets a
    /// marker first, which takes no waiting for something that must not come.
    pub(super) async fn assert_all_settled(&self) {
        self.publish_texts(["marker"]).await;
        let first = self.member().await.next().await;
        assert_eq!(text(&first), "marker", "{first:?} came again");
    }
}

pub(super) async fn make_topic(broker: &Arc<dyn Broker>, partitions: u32) -> Topic {
    let topic = unique_topic();
    let partitions = if broker.capabilities().partitions { partitions } else { 1 };
    broker.admin().create_topic(&TopicSpec::new(&topic, partitions)).await.unwrap();
    topic
}

/// The texts `0` to `count - 1`.
pub(super) fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

pub(super) fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.payload).into_owned()
}

pub(super) fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(text).collect()
}

/// The error; a success fails the rule.
#[track_caller]
pub(super) fn failure<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("the call succeeded"),
        Err(error) => error,
    }
}

#[track_caller]
pub(super) fn assert_kind<T>(result: Result<T>, kind: ErrorKind) {
    let error = failure(result);
    assert_eq!(error.kind(), kind, "{error:?}");
}

/// Asserts that the error of a missing topic names it, and that waiting won't help.
#[track_caller]
pub(super) fn assert_missing<T>(result: Result<T>, topic: &Topic) {
    let error = failure(result);
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(error.to_string().contains(topic.as_str()), "{topic} is not named: {error}");
    assert!(!error.is_retryable(), "{error}");
}

/// A consumer whose deliveries are waited for.
pub(super) struct Tap {
    pub(super) consumer: Box<dyn Consumer>,
    ready: VecDeque<Delivery>,
    /// The partitions that are assigned, as the events tell.
    pub(super) owned: BTreeSet<u32>,
    pub(super) caught_up: bool,
}

impl Tap {
    pub(super) fn new(consumer: Box<dyn Consumer>) -> Self {
        Self { consumer, ready: VecDeque::new(), owned: BTreeSet::new(), caught_up: false }
    }

    /// Receives once and keeps what came.
    async fn poll(&mut self, limit: Limit) {
        let deliveries = self.consumer.receive(limit).await.unwrap();
        let (count, max) = (deliveries.len(), limit.messages);
        assert!(count <= max, "{count} deliveries came where {max} were asked for");
        self.ready.extend(deliveries);
        self.note_events();
    }

    pub(super) fn note_events(&mut self) {
        for event in self.consumer.events() {
            match event {
                Event::Assigned(partitions) => self.owned.extend(partitions),
                Event::Revoked(gone) => self.owned.retain(|number| !gone.contains(number)),
                Event::CaughtUp => self.caught_up = true,
                Event::OffsetOutOfRange { .. } => panic!("unexpected: {event:?}"),
            }
        }
    }

    /// Waits for exactly `count` deliveries.
    pub(super) async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let start = Instant::now();
        while self.ready.len() < count {
            let missing = count - self.ready.len();
            assert!(
                start.elapsed() < PATIENCE,
                "{missing} of {count} deliveries are missing; came: {:?}",
                self.ready
            );
            self.poll(Limit::new(missing, Duration::from_secs(1))).await;
        }
        self.ready.drain(..count).collect()
    }

    pub(super) async fn next(&mut self) -> Delivery {
        self.take(1).await.remove(0)
    }

    /// What comes within a short look; for tests that watch several consumers in turn.
    pub(super) async fn glance(&mut self, count: usize) -> Vec<Delivery> {
        if self.ready.is_empty() {
            self.poll(Limit::new(count, GLANCE)).await;
        }
        self.ready.drain(..).collect()
    }

    /// Receives until the reader is told that it caught up.
    pub(super) async fn until_caught_up(&mut self) -> Vec<Delivery> {
        let start = Instant::now();
        while !self.caught_up {
            assert!(start.elapsed() < PATIENCE, "no event caught up; came: {:?}", self.ready);
            self.poll(Limit::new(1000, Duration::from_secs(1))).await;
        }
        self.ready.drain(..).collect()
    }

    /// Asserts that nothing comes for a while.
    pub(super) async fn assert_quiet(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.poll(Limit::new(100, left)).await;
            assert!(self.ready.is_empty(), "nothing was to come: {:?}", self.ready);
        }
    }

    /// Settles deliveries alike; none may fail.
    pub(super) async fn settle(
        &mut self,
        deliveries: impl IntoIterator<Item = Delivery>,
        outcome: Outcome,
    ) {
        let outcomes = outcomes(deliveries, &outcome);
        let unsettled = self.consumer.settle(outcomes).await;
        assert!(unsettled.is_empty(), "{unsettled:?}");
    }

    pub(super) async fn ack(&mut self, deliveries: impl IntoIterator<Item = Delivery>) {
        self.settle(deliveries, Outcome::Ack).await;
    }
}

pub(super) fn outcomes(
    deliveries: impl IntoIterator<Item = Delivery>,
    outcome: &Outcome,
) -> Vec<(crate::AckToken, Outcome)> {
    deliveries.into_iter().map(|delivery| (delivery.into_token(), outcome.clone())).collect()
}

/// Receives on all members in turn until `done` holds of what each owns; nothing may come.
pub(super) async fn settle_in(taps: &mut [Tap], done: impl Fn(&[Tap]) -> bool) {
    let start = Instant::now();
    while !done(taps) {
        let owned: Vec<_> = taps.iter().map(|tap| &tap.owned).collect();
        assert!(start.elapsed() < PATIENCE, "the group does not come to rest: {owned:?}");
        for tap in &mut *taps {
            let early = tap.glance(1).await;
            assert!(early.is_empty(), "nothing was published yet: {early:?}");
        }
    }
}
