//! Topics and groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use tokio::runtime::Handle;
use tokio::time::{Duration, timeout};

use super::broker::{Inner, KafkaBroker};
use super::control::blocking;
use super::error::{from_code, translate};
use super::log::LogContext;
use super::start::{self, ASK_TIMEOUT};
use super::{groups, native};
use crate::contract::{Admin, GroupDescription, PartitionDescription, TopicDescription, TopicSpec};
use crate::delivery::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Group, Topic};
use crate::subscription::Start;

/// How long a change of the topics may take to be seen.
const SETTLE_MAX: Duration = Duration::from_secs(10);

fn admin_client(inner: &Inner, operation: &'static str) -> Result<AdminClient<LogContext>> {
    let client = inner.config.control().create_with_context(LogContext);
    let client: AdminClient<LogContext> = client.map_err(|error| translate(operation, error))?;
    let tokens = inner.config.tokens();
    if tokens.are_used() {
        // Nobody polls this client, which is how others ask for one.
        native::set_token(client.inner(), tokens.read());
    }
    Ok(client)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ASK_TIMEOUT)).operation_timeout(Some(ASK_TIMEOUT))
}

fn single(
    operation: &'static str,
    topic: &Topic,
    answer: KafkaResult<Vec<TopicResult>>,
) -> Result<()> {
    let answer = answer.map_err(|error| translate(operation, error).with("topic", topic))?;
    match answer.into_iter().next() {
        Some(Err((_, code))) => Err(from_code(operation, code).with("topic", topic)),
        _ => Ok(()),
    }
}

async fn create(inner: Arc<Inner>, spec: TopicSpec) -> Result<()> {
    let runtime = Handle::current();
    blocking("create topic", move || {
        // Replicas as the cluster has them by default.
        let replicas = TopicReplication::Fixed(-1);
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let millis = spec.retention.map(|retention| retention.as_millis().to_string());
        let bytes = spec.retention_bytes.map(|bytes| bytes.to_string());
        let mut topic = NewTopic::new(spec.topic.as_str(), partitions, replicas);
        if let Some(millis) = &millis {
            topic = topic.set("retention.ms", millis);
        }
        if let Some(bytes) = &bytes {
            topic = topic.set("retention.bytes", bytes);
        }
        if spec.compacted {
            topic = topic.set("cleanup.policy", "compact");
        }
        let client = admin_client(&inner, "create topic")?;
        let answer = runtime.block_on(client.create_topics([&topic], &options()));
        single("create topic", &spec.topic, answer)
    })
    .await
}

async fn delete(inner: Arc<Inner>, topic: Topic) -> Result<()> {
    let runtime = Handle::current();
    blocking("delete topic", move || {
        let client = admin_client(&inner, "delete topic")?;
        let answer = runtime.block_on(client.delete_topics(&[topic.as_str()], &options()));
        single("delete topic", &topic, answer)
    })
    .await
}

fn unseen(operation: &'static str, topic: &Topic) -> Error {
    let problem = "the change is made, and brokers don't show it yet";
    Error::new(ErrorKind::Timeout, operation, problem).with("topic", topic)
}

#[async_trait]
impl Admin for KafkaBroker {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<()> {
        self.inner.check_open("create topic")?;
        if spec.partitions == 0 {
            let problem = "a topic needs at least one partition";
            let error = Error::new(ErrorKind::ConfigInvalid, "create topic", problem);
            return Err(error.with("topic", &spec.topic));
        }
        create(self.inner.clone(), spec.clone()).await?;
        let shown = self.inner.control.await_leaders("create topic", &spec.topic);
        let shown = timeout(SETTLE_MAX, shown).await;
        shown.map_err(|_| unseen("create topic", &spec.topic))?
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.inner.check_open("delete topic")?;
        delete(self.inner.clone(), topic.clone()).await?;
        self.inner.forget_topic(topic);
        let gone = self.inner.control.await_absence("delete topic", topic);
        timeout(SETTLE_MAX, gone).await.map_err(|_| unseen("delete topic", topic))?
    }

    async fn describe(&self, topic: &Topic) -> Result<TopicDescription> {
        self.inner.check_open("describe")?;
        let numbers = self.inner.control.partitions("describe", topic).await?;
        let name = topic.clone();
        let bounds = self
            .inner
            .control
            .ask("describe", move |client| start::bounds(client, name.as_str(), &numbers))
            .await?;
        let partitions = bounds.into_iter().map(|(partition, bounds)| PartitionDescription {
            partition,
            start: bounds.low,
            end: bounds.high,
        });
        Ok(TopicDescription { topic: topic.clone(), partitions: partitions.collect() })
    }

    async fn list(&self) -> Result<Vec<Topic>> {
        self.inner.check_open("list topics")?;
        let topics = self.inner.control.ask("list topics", |client| {
            let metadata = client.fetch_metadata(None, ASK_TIMEOUT)?;
            let names = metadata.topics().iter().map(|topic| topic.name());
            // Kafka's own topics begin like this.
            let names = names.filter(|name| !name.starts_with("__"));
            Ok(names.filter_map(|name| Topic::new(name).ok()).collect::<BTreeSet<_>>())
        });
        Ok(topics.await?.into_iter().collect())
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.inner.check_open("list groups")?;
        let names = self.inner.control.ask("list groups", native::groups).await?;
        let groups = names.iter().filter_map(|name| Group::new(name).ok());
        Ok(groups.collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupDescription> {
        self.inner.check_open("describe group")?;
        let group = group.clone();
        self.inner
            .control
            .work("describe group", move |client| groups::describe(client, &group))
            .await
    }

    async fn resolve(&self, topic: &Topic, start: Start) -> Result<Vec<Position>> {
        self.inner.check_open("resolve")?;
        let numbers = self.inner.control.partitions("resolve", topic).await?;
        let name = topic.clone();
        let begins = self
            .inner
            .control
            .ask("resolve", move |client| start::resolve(client, name.as_str(), &numbers, start))
            .await?;
        Ok(begins.iter().map(|begin| Position::new(begin.partition, begin.deliver)).collect())
    }

    async fn reset_group(&self, group: &Group, topic: &Topic, to: &[Position]) -> Result<()> {
        self.inner.check_open("reset group")?;
        let known = self.inner.control.partitions("reset group", topic).await?;
        if let Some(unknown) = to.iter().find(|position| !known.contains(&position.partition())) {
            let problem = format!("the topic has no partition {}", unknown.partition());
            let error = Error::new(ErrorKind::NotFound, "reset group", problem);
            return Err(error.with("topic", topic));
        }
        let named = self.inner.named(group)?;
        let (group, topic, to) = (group.clone(), topic.clone(), to.to_vec());
        let work = self.inner.control.work("reset group", move |client| {
            groups::require_stopped(client, &group, "reset group")?;
            groups::reset(&named, &group, &topic, &to)
        });
        work.await
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        self.inner.check_open("delete group")?;
        let (inner, group, runtime) = (self.inner.clone(), group.clone(), Handle::current());
        blocking("delete group", move || {
            let client = admin_client(&inner, "delete group")?;
            let answer = runtime.block_on(client.delete_groups(&[group.as_str()], &options()));
            let failed = |error| translate("delete group", error).with("group", &group);
            groups::deleted(&group, answer.map_err(failed)?)
        })
        .await
    }
}
