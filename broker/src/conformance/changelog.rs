//! State that is written with input and output, or not at all.

use std::path::PathBuf;
use std::time::Duration;

use super::Harness;
use super::stage::{
    Stage, assert_kind, failure, make_topic, numbers, outcomes, text, texts, unique, unique_topic,
};
use crate::changelog::{Changelog, Member, Spec, Step};
use crate::delivery::{Delivery, Outcome};
use crate::error::ErrorKind;
use crate::message::Message;
use crate::name::Topic;
use crate::subscription::{Limit, Subscription};

const LIMIT: Limit = Limit::new(100, Duration::from_secs(1));

/// A directory of its own for a cache, that goes with it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(std::env::temp_dir().join(unique("changelog")))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // It is not there where the rule failed before it was made.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An input with its group, and the topics of a program that adds its messages up.
struct Sum {
    stage: Stage,
    state: Topic,
    results: Topic,
}

impl Sum {
    /// Nothing where the backend has no transactions, after it has said so.
    async fn new(harness: &dyn Harness, inputs: usize) -> Option<Self> {
        let stage = Stage::new(harness, 1).await;
        let state = unique_topic();
        if !stage.broker.capabilities().transactions {
            let directory = Directory::new();
            let spec = Spec::new(&state, 1);
            let opened = Changelog::open(stage.broker.clone(), spec, &directory.0).await;
            let error = failure(opened);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert!(error.to_string().contains("transactions"), "{error}");
            return None;
        }
        stage.publish_texts(numbers(inputs)).await;
        let results = make_topic(&stage.broker, 1).await;
        Some(Self { stage, state, results })
    }

    /// A member with a name of its own, of which some backends derive who may fence it.
    fn subscription(&self) -> Subscription {
        Subscription { instance: Some(unique("instance")), ..self.stage.subscription() }
    }

    async fn member(&self, directory: &Directory, subscription: Subscription) -> Member {
        let spec = Spec::new(&self.state, 1);
        let broker = self.stage.broker.clone();
        let changelog = Changelog::open(broker, spec, &directory.0).await.unwrap();
        changelog.subscribe(subscription).await.unwrap()
    }

    /// Adds deliveries to the sum and publishes it.
    async fn prepare<'a>(&self, member: &'a mut Member, deliveries: Vec<Delivery>) -> Step<'a> {
        let mut step = member.step().await.unwrap();
        let mut state = step.state(0).unwrap();
        let mut sum = state.get(b"sum").unwrap().map_or(0, |sum| number(&sum));
        let mut results = Vec::new();
        for delivery in &deliveries {
            sum += number(&delivery.payload);
            results.push(Message::new(sum.to_string()));
        }
        state.put("sum", sum.to_string()).unwrap();
        step.publish(&self.results, results).await.unwrap();
        step.settle(outcomes(deliveries, &Outcome::Ack)).await.unwrap();
        step
    }

    async fn results(&self) -> Vec<String> {
        let reader = Stage {
            broker: self.stage.broker.clone(),
            topic: self.results.clone(),
            group: self.stage.group.clone(),
        };
        texts(&reader.everything().await)
    }
}

fn number(bytes: &[u8]) -> u64 {
    String::from_utf8_lossy(bytes).parse().unwrap()
}

/// The sums after each of so many numbers.
fn sums(count: u64) -> Vec<String> {
    (0..count).map(|number| (number * (number + 1) / 2).to_string()).collect()
}

async fn take(member: &mut Member, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let limit = Limit { messages: count - all.len(), ..LIMIT };
        all.extend(member.receive(limit).await.unwrap());
    }
    all
}

/// Each owner goes on where the one before stopped, with a cache of its own or without one.
pub async fn state_follows_its_partition(harness: &dyn Harness) {
    let Some(sum) = Sum::new(harness, 30).await else { return };
    let caches = [Directory::new(), Directory::new()];
    for turn in 0..6 {
        let mut member = sum.member(&caches[turn % 2], sum.subscription()).await;
        let deliveries = take(&mut member, 5).await;
        sum.prepare(&mut member, deliveries).await.commit().await.unwrap();
    }
    assert_eq!(sum.results().await, sums(30));
}

/// What a step wrote goes with it.
pub async fn an_aborted_step_leaves_no_state(harness: &dyn Harness) {
    let Some(sum) = Sum::new(harness, 10).await else { return };
    let cache = Directory::new();
    let mut member = sum.member(&cache, sum.subscription()).await;
    let deliveries = take(&mut member, 5).await;
    sum.prepare(&mut member, deliveries).await.abort().await.unwrap();
    for _ in 0..2 {
        let deliveries = take(&mut member, 5).await;
        sum.prepare(&mut member, deliveries).await.commit().await.unwrap();
    }
    assert_eq!(sum.results().await, sums(10));
}

/// A process that stalled while another took its partition over changes nothing any more.
pub async fn an_owner_of_before_writes_no_state(harness: &dyn Harness) {
    let Some(sum) = Sum::new(harness, 10).await else { return };
    let caches = [Directory::new(), Directory::new()];
    let subscription = sum.subscription();
    let mut stalled = sum.member(&caches[0], subscription.clone()).await;
    let deliveries = take(&mut stalled, 5).await;
    let step = sum.prepare(&mut stalled, deliveries).await;
    let usurper = harness.usurp(&subscription).await;
    let mut usurper = super::stage::Tap::new(usurper);
    assert_eq!(text(&usurper.next().await), "0");
    assert_kind(step.commit().await, ErrorKind::Fenced);
    drop(usurper);
    drop(stalled);
    let mut member = sum.member(&caches[1], sum.subscription()).await;
    let deliveries = take(&mut member, 10).await;
    sum.prepare(&mut member, deliveries).await.commit().await.unwrap();
    assert_eq!(sum.results().await, sums(10));
}
