//! Topics and groups.

use std::collections::BTreeSet;

use async_trait::async_trait;
use google_cloud_gax::error::Error as GoogleError;
use google_cloud_gax::paginator::ItemPaginator as _;
use google_cloud_pubsub::model::Topic as PubsubTopic;

use super::broker::{Inner, PubsubBroker};
use super::error::translate;
use super::names;
use super::seat::{give_up, wire};
use crate::contract::{
    Admin, Broker as _, GroupDescription, MemberDescription, TopicDescription, TopicSpec,
};
use crate::delivery::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Group, Topic};
use crate::subscription::Start;

/// The partition that every member shares.
const PARTITION: u32 = 0;

impl Inner {
    /// The full names of a topic's subscriptions that are ours.
    async fn subscriptions_of(&self, topic: &str) -> Result<Vec<String>, GoogleError> {
        let list = self.clients.topics.list_topic_subscriptions().set_topic(topic);
        let mut names = Vec::new();
        let mut items = list.by_item();
        while let Some(name) = items.next().await.transpose()? {
            names.push(name);
        }
        names.retain(|name| names::is_ours(name));
        Ok(names)
    }

    /// The full names of all subscriptions of groups, with what they stand for.
    async fn seats(&self, operation: &'static str) -> Result<Vec<(String, Topic, Group)>> {
        let list = self.clients.subscriptions.list_subscriptions();
        let mut items = list.set_project(self.config.project.path()).by_item();
        let mut seats = Vec::new();
        while let Some(found) = items.next().await {
            let found = found.map_err(|error| translate(operation, error))?;
            if let Some((topic, group)) = names::of_group(&found.name) {
                seats.push((found.name, topic, group));
            }
        }
        Ok(seats)
    }

    /// The full names and topics of a group's subscriptions; `NotFound` where it has none.
    async fn seats_of(
        &self,
        operation: &'static str,
        group: &Group,
    ) -> Result<Vec<(String, Topic)>> {
        let seats = self.seats(operation).await?.into_iter();
        let of_group = seats.filter(|(_, _, name)| name == group);
        let mut seats: Vec<(String, Topic)> = of_group.map(|(path, t, _)| (path, t)).collect();
        if seats.is_empty() {
            let error = Error::new(ErrorKind::NotFound, operation, "there is no such group");
            return Err(error.with("group", group));
        }
        seats.sort_by(|(_, one), (_, other)| one.cmp(other));
        Ok(seats)
    }
}

fn unsupported(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, operation, "the pubsub broker has no offsets")
}

#[async_trait]
impl Admin for PubsubBroker {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<()> {
        self.inner.check_open("create topic")?;
        if spec.partitions == 0 {
            let problem = "a topic needs at least one partition";
            let error = Error::new(ErrorKind::ConfigInvalid, "create topic", problem);
            return Err(error.with("topic", &spec.topic));
        }
        let capabilities = self.capabilities();
        capabilities.require(spec.partitions == 1, "partitions")?;
        capabilities.require(!spec.compacted, "compaction")?;
        capabilities.require(spec.retention_bytes.is_none(), "retention by bytes")?;
        let path = self.inner.config.project.topic("create topic", &spec.topic)?;
        let retention = wire(spec.retention.unwrap_or(self.inner.config.retention));
        let topic = PubsubTopic::new().set_name(path).set_message_retention_duration(retention);
        let made = self.inner.clients.topics.create_topic().with_request(topic).send().await;
        let refused = |error| translate("create topic", error).with("topic", &spec.topic);
        made.map(drop).map_err(refused)
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.inner.check_open("delete topic")?;
        let failed = |error| translate("delete topic", error).with("topic", topic);
        let path = self.inner.config.project.topic("delete topic", topic)?;
        let subscriptions = self.inner.subscriptions_of(&path).await.map_err(failed)?;
        let delete = self.inner.clients.topics.delete_topic().set_topic(path);
        delete.send().await.map_err(failed)?;
        self.inner.publishers.forget(topic);
        for subscription in subscriptions {
            give_up(&self.inner, &subscription).await?;
        }
        Ok(())
    }

    /// Without partitions: Pub/Sub tells no bounds.
    async fn describe(&self, topic: &Topic) -> Result<TopicDescription> {
        self.inner.check_open("describe")?;
        let path = self.inner.config.project.topic("describe", topic)?;
        let found = self.inner.clients.topics.get_topic().set_topic(path).send().await;
        found.map_err(|error| translate("describe", error).with("topic", topic))?;
        Ok(TopicDescription { topic: topic.clone(), partitions: Vec::new() })
    }

    async fn list(&self) -> Result<Vec<Topic>> {
        self.inner.check_open("list topics")?;
        let list = self.inner.clients.topics.list_topics();
        let mut items = list.set_project(self.inner.config.project.path()).by_item();
        let mut topics = BTreeSet::new();
        while let Some(found) = items.next().await {
            let found = found.map_err(|error| translate("list topics", error))?;
            // Names that ours cannot be are others' business.
            topics.extend(Topic::new(names::id(&found.name)));
        }
        Ok(topics.into_iter().collect())
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.inner.check_open("list groups")?;
        let seats = self.inner.seats("list groups").await?.into_iter();
        let groups: BTreeSet<Group> = seats.map(|(_, _, group)| group).collect();
        Ok(groups.into_iter().collect())
    }

    /// Members of other processes are not known to Pub/Sub.
    async fn describe_group(&self, group: &Group) -> Result<GroupDescription> {
        self.inner.check_open("describe group")?;
        let seats = self.inner.seats_of("describe group", group).await?;
        let members = self.inner.members(group).into_iter().zip(1..);
        let members = members.map(|((topic, instance), number)| MemberDescription {
            name: instance.unwrap_or_else(|| format!("member {number} of this connection")),
            partitions: vec![(topic, PARTITION)],
        });
        Ok(GroupDescription {
            group: group.clone(),
            members: members.collect(),
            topics: seats.into_iter().map(|(_, topic)| topic).collect(),
        })
    }

    async fn resolve(&self, topic: &Topic, start: Start) -> Result<Vec<Position>> {
        self.inner.check_open("resolve")?;
        Err(unsupported("resolve").with("topic", topic).with("start", format!("{start:?}")))
    }

    async fn reset_group(&self, group: &Group, topic: &Topic, _to: &[Position]) -> Result<()> {
        self.inner.check_open("reset group")?;
        Err(unsupported("reset group").with("group", group).with("topic", topic))
    }

    /// `InUse` only for members over this connection: Pub/Sub does not tell of others.
    async fn delete_group(&self, group: &Group) -> Result<()> {
        self.inner.check_open("delete group")?;
        let seats = self.inner.seats_of("delete group", group).await?;
        let members = self.inner.members(group).len();
        if members > 0 {
            let error = Error::new(ErrorKind::InUse, "delete group", "the group has members");
            return Err(error.with("group", group).with("members", members));
        }
        for (path, _) in seats {
            give_up(&self.inner, &path).await?;
        }
        Ok(())
    }
}
