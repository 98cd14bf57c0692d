//! What is told of operations that take too long, and that nothing is lost or repeated then.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::config::File;
use crate::embedded;
use crate::ext::BrokerExt;

/// Where calls stop and never return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stall {
    Nowhere,
    Everywhere,
    BeforeCommit,
    AfterCommit,
}

/// A broker that answers until it is told where to stall.
#[derive(Debug, Clone)]
struct Stalling {
    inner: Arc<dyn Broker>,
    at: Arc<Mutex<Stall>>,
}

impl Stalling {
    /// Comes to a place, where it may stall.
    async fn pass(&self, place: Stall) {
        let is_here = *self.at.lock().unwrap() == place;
        if is_here {
            std::future::pending::<()>().await;
        }
    }

    fn stall(&self, at: Stall) {
        *self.at.lock().unwrap() = at;
    }
}

#[async_trait]
impl Broker for Stalling {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Published>> {
        self.pass(Stall::Everywhere).await;
        self.inner.publish(topic, batch).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        self.pass(Stall::Everywhere).await;
        let consumer = self.inner.subscribe(subscription).await?;
        Ok(Box::new(StallingConsumer { consumer, stalling: self.clone() }))
    }

    async fn lag(&self, topic: &Topic, group: &Group) -> Result<Vec<PartitionLag>> {
        self.pass(Stall::Everywhere).await;
        self.inner.lag(topic, group).await
    }

    async fn health(&self) -> Result<()> {
        self.pass(Stall::Everywhere).await;
        self.inner.health().await
    }

    fn admin(&self) -> &dyn Admin {
        self.inner.admin()
    }

    async fn shutdown(&self) -> Result<()> {
        self.inner.shutdown().await
    }
}

#[derive(Debug)]
struct StallingConsumer {
    consumer: Box<dyn Consumer>,
    stalling: Stalling,
}

#[async_trait]
impl Consumer for StallingConsumer {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        self.stalling.pass(Stall::Everywhere).await;
        self.consumer.receive(limit).await
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        self.stalling.pass(Stall::Everywhere).await;
        self.consumer.settle(outcomes).await
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        self.consumer.extend(tokens, by).await
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        self.consumer.seek(seek).await
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        let inner = self.consumer.transaction().await?;
        Ok(Box::new(StallingStep { inner, stalling: &self.stalling }))
    }

    fn events(&mut self) -> Vec<Event> {
        self.consumer.events()
    }
}

struct StallingStep<'a> {
    inner: Box<dyn Transaction + 'a>,
    stalling: &'a Stalling,
}

#[async_trait]
impl Transaction for StallingStep<'_> {
    async fn publish(&mut self, topic: &Topic, batch: Vec<Message>) -> Result<()> {
        self.inner.publish(topic, batch).await
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Result<()> {
        self.inner.settle(outcomes).await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        let Self { inner, stalling } = *self;
        stalling.pass(Stall::BeforeCommit).await;
        inner.commit().await?;
        stalling.pass(Stall::AfterCommit).await;
        Ok(())
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}

struct Stage {
    _directory: tempfile::TempDir,
    stalling: Stalling,
    broker: Arc<dyn Broker>,
    topic: Topic,
    group: Group,
}

impl Stage {
    /// The layer with short limits around a broker with two messages in a topic.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let inner = embedded::open(embedded::Config::new(directory.path())).await.unwrap();
        let topic = Topic::new("numbers").unwrap();
        inner.admin().create_topic(&TopicSpec::new(&topic, 1)).await.unwrap();
        inner.publish_all(&topic, vec![Message::new("0"), Message::new("1")]).await.unwrap();
        let stalling = Stalling { inner, at: Arc::new(Mutex::new(Stall::Nowhere)) };
        let (brief, long) = (Duration::from_millis(50), Duration::from_secs(60));
        let config = Config {
            publish: brief,
            subscribe: long,
            receive_margin: brief,
            settle: brief,
            transaction: brief,
            admin: brief,
        };
        let broker = Timeout::wrap(Arc::new(stalling.clone()), config);
        let group = Group::new("g").unwrap();
        Self { _directory: directory, stalling, broker, topic, group }
    }

    async fn member(&self) -> Box<dyn Consumer> {
        let subscription = Subscription::group(&self.topic, &self.group);
        self.broker.subscribe(subscription).await.unwrap()
    }

    async fn length(&self) -> u64 {
        let described = self.broker.admin().describe(&self.topic).await.unwrap();
        described.partitions[0].end
    }
}

/// The next delivery; only of a limit that is shorter than the machine's pauses it asks again.
async fn next(member: &mut dyn Consumer) -> Delivery {
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match member.receive(Limit::new(1, Duration::from_secs(60))).await {
            Ok(mut deliveries) if !deliveries.is_empty() => return deliveries.remove(0),
            received => assert!(tokio::time::Instant::now() < until, "{received:?}"),
        }
    }
}

fn ack(delivery: Delivery) -> Vec<(AckToken, Outcome)> {
    vec![(delivery.into_token(), Outcome::Ack)]
}

fn assert_late<T>(result: Result<T>) {
    assert_eq!(result.err().map(|error| error.kind()), Some(ErrorKind::Timeout));
}

#[tokio::test]
async fn a_batch_that_takes_too_long_is_unknown_message_by_message() {
    let stage = Stage::new().await;
    stage.stalling.stall(Stall::Everywhere);
    let batch = vec![Message::new("2"), Message::new("3")];
    let results = stage.broker.publish(&stage.topic, batch).await.unwrap();
    let is_late = |result: &Published| matches!(result, Published::Unknown(error) if error.kind() == ErrorKind::Timeout);
    assert!(results.len() == 2 && results.iter().all(is_late), "{results:?}");
    assert_late(stage.broker.health().await);
    assert_late(stage.broker.lag(&stage.topic, &stage.group).await);
}

#[tokio::test]
async fn a_receive_that_takes_too_long_loses_nothing() {
    let stage = Stage::new().await;
    let mut member = stage.member().await;
    stage.stalling.stall(Stall::Everywhere);
    assert_late(member.receive(Limit::new(1, Duration::from_millis(1))).await);
    stage.stalling.stall(Stall::Nowhere);
    assert_eq!(next(&mut *member).await.payload, "0");
}

#[tokio::test]
async fn a_settlement_that_takes_too_long_hands_its_tokens_back() {
    let stage = Stage::new().await;
    let mut member = stage.member().await;
    let first = next(&mut *member).await;
    stage.stalling.stall(Stall::Everywhere);
    let mut unsettled = member.settle(ack(first)).await;
    assert_eq!(unsettled[0].error.kind(), ErrorKind::Timeout);
    stage.stalling.stall(Stall::Nowhere);
    let again = unsettled.remove(0);
    // A slow disk may make it late again: the tokens come back each time.
    let mut outcomes = vec![(again.token, again.outcome)];
    while !outcomes.is_empty() {
        let unsettled = member.settle(outcomes).await.into_iter();
        outcomes = unsettled.map(|unsettled| (unsettled.token, unsettled.outcome)).collect();
    }
    assert_eq!(next(&mut *member).await.payload, "1");
}

/// Commits the answer to the first message too slowly, and goes on.
async fn commit_late(at: Stall) -> (u64, Delivery, Vec<Event>) {
    let stage = Stage::new().await;
    let mut member = stage.member().await;
    let first = next(&mut *member).await;
    member.events();
    stage.stalling.stall(at);
    let mut step = member.transaction().await.unwrap();
    step.publish(&stage.topic, vec![Message::new("answer")]).await.unwrap();
    step.settle(ack(first)).await.unwrap();
    assert_late(step.commit().await);
    stage.stalling.stall(Stall::Nowhere);
    let then = next(&mut *member).await;
    (stage.length().await, then, member.events())
}

#[tokio::test]
async fn after_a_late_commit_the_consumer_goes_on_where_the_group_really_is() {
    for (at, length, expected) in [(Stall::AfterCommit, 3, "1"), (Stall::BeforeCommit, 2, "0")] {
        let (found, then, events) = commit_late(at).await;
        assert_eq!((found, &*then.payload), (length, expected.as_bytes()), "{at:?}");
        assert_eq!(events, [Event::Revoked(vec![0]), Event::Assigned(vec![0])], "{at:?}");
    }
}

#[tokio::test]
async fn tokens_from_before_a_late_commit_do_nothing() {
    let stage = Stage::new().await;
    let mut member = stage.member().await;
    let first = next(&mut *member).await;
    stage.stalling.stall(Stall::BeforeCommit);
    assert_late(member.transaction().await.unwrap().commit().await);
    stage.stalling.stall(Stall::Nowhere);
    assert!(member.settle(ack(first)).await.is_empty());
    assert_eq!(next(&mut *member).await.payload, "0");
}

#[test]
fn the_section_says_what_is_wrong() {
    let parse = |lines: &str| {
        let environment: HashMap<&str, &str> = HashMap::new();
        let text = format!("[timeout]\n{lines}");
        let file = File::parse(Path::new("t.ini"), &text, &environment).unwrap();
        Config::from_section(file.section("timeout"))
    };
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(parse("publish = 5s\n").unwrap().publish, Duration::from_secs(5));
    let shown = parse("settle = 0s\n").unwrap_err().to_string();
    assert!(shown.contains("[key: settle]") && shown.contains("above zero"), "{shown}");
}
