//! What is counted, as an exporter shows it.

use std::sync::Arc;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::*;
use crate::contract::TopicSpec;
use crate::embedded;
use crate::error::ErrorKind;
use crate::layers;
use crate::layers::chaos::{self, Chaos};
use crate::policy::Policy;

/// An embedded broker under the layers, whose messages have 10 bytes at most, with the topics
/// `images` and `dead`.
struct Stage {
    _directory: tempfile::TempDir,
    broker: Arc<dyn Broker>,
    images: Topic,
    group: Group,
    shown: PrometheusHandle,
}

impl Stage {
    async fn new(recorder: &PrometheusRecorder, faults: chaos::Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = embedded::Config::new(directory.path());
        let config = embedded::Config { message_bytes_max: 10, ..config };
        let bare = embedded::open(config).await.unwrap();
        let [images, dead] = ["images", "dead"].map(|name| Topic::new(name).unwrap());
        for topic in [&images, &dead] {
            bare.admin().create_topic(&TopicSpec::new(topic, 1)).await.unwrap();
        }
        let policy = Policy::default().with_dead_letters(&dead);
        let mut config = layers::Config::default();
        config.retry.backoff.first = Duration::ZERO;
        let broker = config.wrap(Chaos::wrap(bare, faults), policy);
        let (group, shown) = (Group::new("readers").unwrap(), recorder.handle());
        Self { _directory: directory, broker, images, group, shown }
    }

    async fn publish(&self, payloads: &[&'static str]) -> Result<Vec<Published>> {
        let batch = payloads.iter().map(|payload| Message::new(*payload)).collect();
        self.broker.publish(&self.images, batch).await
    }

    async fn member(&self) -> Box<dyn Consumer> {
        let subscription = Subscription::group(&self.images, &self.group);
        self.broker.subscribe(subscription).await.unwrap()
    }

    /// The value of the one line that begins with the metric's name and holds all the labels.
    fn value(&self, name: &str, labels: &[&str]) -> f64 {
        let shown = self.shown.render();
        let is_it = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| {
                rest.starts_with('{') && labels.iter().all(|l| rest.contains(l))
            })
        };
        let lines: Vec<&str> = shown.lines().filter(is_it).collect();
        let [line] = lines[..] else { panic!("{name} {labels:?} has {lines:?} in\n{shown}") };
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

async fn take(member: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        let limit = Limit::new(count - deliveries.len(), Duration::from_secs(60));
        deliveries.extend(member.receive(limit).await.unwrap());
    }
    deliveries
}

fn outcomes(deliveries: Vec<Delivery>, outcome: &Outcome) -> Vec<(AckToken, Outcome)> {
    deliveries.into_iter().map(|delivery| (delivery.into_token(), outcome.clone())).collect()
}

// The recorder is that of the test's one thread.

#[tokio::test]
async fn messages_are_counted_on_their_way() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let stage = Stage::new(&recorder, chaos::Config::default()).await;
    stage.publish(&["one", "two", "three", "much too large"]).await.unwrap();
    let topic = "topic=\"images\"";
    assert_eq!(stage.value(names::PUBLISHED_MESSAGES, &[topic, "backend=\"embedded\""]), 3.0);
    assert_eq!(stage.value(names::PUBLISHED_BYTES, &[topic]), 25.0);
    let refused = [topic, "result=\"not written\"", "kind=\"too large\""];
    assert_eq!(stage.value(names::PUBLISH_FAILURES, &refused), 1.0);
    assert_eq!(stage.value(names::PUBLISH_IN_FLIGHT, &[topic]), 0.0);

    let mut member = stage.member().await;
    let mut deliveries = take(&mut *member, 3).await;
    let here = [topic, "group=\"readers\""];
    assert_eq!(stage.value(names::RECEIVED_MESSAGES, &here), 3.0);
    assert_eq!(stage.value(names::RECEIVED_BYTES, &here), 11.0);
    assert_eq!(stage.value(names::IN_FLIGHT, &here), 3.0);
    let rejected = outcomes(deliveries.split_off(2), &Outcome::Reject { reason: "no".into() });
    let again = outcomes(deliveries.split_off(1), &Outcome::Retry { after: Duration::ZERO });
    assert!(member.settle(outcomes(deliveries, &Outcome::Ack)).await.is_empty());
    assert!(member.settle(rejected).await.is_empty());
    assert!(member.settle(again).await.is_empty());
    for outcome in ["ack", "retry", "reject"] {
        let label = format!("outcome=\"{outcome}\"");
        assert_eq!(stage.value(names::SETTLED_MESSAGES, &[topic, &label]), 1.0, "{outcome}");
    }
    assert_eq!(stage.value(names::DEAD_LETTERS, &[topic]), 1.0);
    assert_eq!(stage.value(names::IN_FLIGHT, &here), 0.0);
    let lag = stage.broker.lag(&stage.images, &stage.group).await.unwrap();
    assert_eq!(stage.value(names::LAG, &[topic, "partition=\"0\""]), lag[0].behind as f64);

    take(&mut *member, 1).await;
    assert_eq!(stage.value(&format!("{}_count", names::REDELIVERIES), &here), 1.0);
    assert_eq!(stage.value(names::IN_FLIGHT, &here), 1.0);
    drop(member);
    assert_eq!(stage.value(names::IN_FLIGHT, &here), 0.0);
}

#[tokio::test]
async fn a_transaction_counts_when_it_is_committed() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let stage = Stage::new(&recorder, chaos::Config::default()).await;
    stage.publish(&["in"]).await.unwrap();
    let mut member = stage.member().await;
    for is_kept in [false, true] {
        let deliveries = take(&mut *member, 1).await;
        let mut step = member.transaction().await.unwrap();
        step.publish(&stage.images, vec![Message::new("out")]).await.unwrap();
        step.settle(outcomes(deliveries, &Outcome::Ack)).await.unwrap();
        let ended = if is_kept { step.commit().await } else { step.abort().await };
        ended.unwrap();
        let published = stage.value(names::PUBLISHED_MESSAGES, &["topic=\"images\""]);
        assert_eq!(published, if is_kept { 2.0 } else { 1.0 });
    }
    assert_eq!(stage.value(names::SETTLED_MESSAGES, &["outcome=\"ack\""]), 1.0);
}

#[tokio::test]
async fn failures_and_retries_are_counted_by_kind() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let faults =
        chaos::Config { error: 1.0, error_kind: ErrorKind::Throttled, ..chaos::Config::default() };
    let stage = Stage::new(&recorder, faults).await;
    assert!(stage.publish(&["one"]).await.is_err());
    let throttled = ["operation=\"publish\"", "kind=\"throttled\""];
    assert_eq!(stage.value(names::ERRORS, &throttled), 1.0);
    assert_eq!(stage.value(names::RETRIES, &["operation=\"publish\""]), 4.0);
    assert_eq!(stage.value(&format!("{}_count", names::OPERATION_SECONDS), &throttled[..1]), 1.0);
}

#[tokio::test]
async fn topics_beyond_the_bound_share_a_label() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let stage = Stage::new(&recorder, chaos::Config::default()).await;
    for number in 0..TOPICS_MAX + 5 {
        let missing = Topic::new(&format!("missing-{number}")).unwrap();
        assert!(stage.broker.publish(&missing, vec![Message::new("x")]).await.is_err());
    }
    assert_eq!(stage.value(names::PUBLISHED_BYTES, &["topic=\"other\""]), 5.0);
}
