//! Topics and groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;
use redis::{Cmd, Value};

use super::broker::{Inner, RedisBroker};
use super::convert::{array, text};
use super::groups;
use super::keys::{self, TopicKeys};
use super::membership;
use super::position::EntryId;
use super::scripts;
use crate::contract::{
    Admin, GroupDescription, MemberDescription, PartitionDescription, TopicDescription, TopicSpec,
};
use crate::delivery::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Group, Topic};
use crate::subscription::Start;

/// The version of what the keys hold.
const FORMAT: u32 = 1;
/// The most partitions of a topic.
const PARTITIONS_MAX: u32 = 4096;
/// A group that exists for a moment, to make an empty stream.
const FIRST_GROUP: &str = "forebay.first";

fn refuse(kind: ErrorKind, operation: &'static str, problem: impl Into<String>) -> Error {
    Error::new(kind, operation, problem)
}

impl Inner {
    /// Makes a stream that is empty, unless it is there already.
    async fn create_stream(&self, stream: &str) -> Result<()> {
        let mut make = redis::cmd("XGROUP");
        make.arg("CREATE").arg(stream).arg(FIRST_GROUP).arg("0").arg("MKSTREAM");
        // Where another makes the stream at this moment, its group is there.
        let made = self.link.query("create topic", &make).await;
        let mut unmake = redis::cmd("XGROUP");
        unmake.arg("DESTROY").arg(stream).arg(FIRST_GROUP);
        match self.link.query("create topic", &unmake).await {
            Ok(_) => Ok(()),
            Err(error) => made.and(Err(error)),
        }
    }

    async fn create(&self, spec: &TopicSpec) -> Result<()> {
        let prefix = &self.config.prefix;
        let topic = TopicKeys::new(prefix, &spec.topic, spec.partitions);
        let exists = || {
            refuse(ErrorKind::AlreadyExists, "create topic", "the topic exists")
                .with("topic", &spec.topic)
        };
        let known = redis::cmd("EXISTS").arg(&topic.description).take();
        if self.link.query("create topic", &known).await? == Value::Int(1) {
            return Err(exists());
        }
        try_join_all(topic.streams.iter().map(|stream| self.create_stream(stream))).await?;
        let list = redis::cmd("SADD").arg(keys::topics(prefix)).arg(spec.topic.as_str()).take();
        self.link.query("create topic", &list).await?;
        let retention = spec.retention.unwrap_or(self.config.retention).as_millis();
        let bytes = spec.retention_bytes.unwrap_or(self.config.retention_bytes);
        let arguments = |command: &mut Cmd| {
            let millis = u64::try_from(retention).unwrap_or(u64::MAX);
            command.arg(FORMAT).arg(spec.partitions).arg(millis).arg(bytes);
        };
        let keys = [topic.description.as_str()];
        let made = self.link.run("create topic", &scripts::CREATE_TOPIC, &keys, &arguments).await?;
        if made == Value::Int(1) { Ok(()) } else { Err(exists()) }
    }

    /// Deletes the streams before the topic's hash, so that a failure in between can be mended
    /// by deleting again.
    async fn delete(&self, topic: &TopicKeys) -> Result<()> {
        for stream in &topic.streams {
            let groups = match groups::of_stream(&self.link, "delete topic", stream).await {
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                other => other?,
            };
            let mut command = redis::cmd("UNLINK");
            command.arg(&**stream);
            for group in groups {
                command.arg(format!("{stream}:{}", group.name));
            }
            self.link.query("delete topic", &command).await?;
        }
        let mut command = redis::cmd("DEL");
        command.arg(&topic.description).arg(&topic.members);
        self.link.query("delete topic", &command).await?;
        let list = keys::topics(&self.config.prefix);
        let unlist = redis::cmd("SREM").arg(list).arg(topic.topic.as_str()).take();
        self.link.query("delete topic", &unlist).await.map(drop)
    }

    async fn names(&self, operation: &'static str) -> Result<Vec<Topic>> {
        let command = redis::cmd("SMEMBERS").arg(keys::topics(&self.config.prefix)).take();
        let names = array(operation, self.link.query(operation, &command).await?)?;
        let mut names: Vec<Topic> =
            names.into_iter().filter_map(|name| Topic::new(&text(name)?).ok()).collect();
        names.sort();
        Ok(names)
    }

    /// All topics that exist.
    async fn all_topics(&self, operation: &'static str) -> Result<Vec<Arc<TopicKeys>>> {
        let names = self.names(operation).await?;
        let mut topics = Vec::with_capacity(names.len());
        for name in names {
            match self.look_up(operation, &name).await {
                Ok(topic) => topics.push(topic),
                // It is about to be made, or was deleted at this moment.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(topics)
    }

    /// The names of the groups that have positions or members on a topic.
    async fn groups_on(
        &self,
        operation: &'static str,
        topic: &TopicKeys,
    ) -> Result<BTreeSet<String>> {
        let asked = topic.streams.iter().map(|s| groups::of_stream(&self.link, operation, s));
        let positions = match try_join_all(asked).await {
            // It was deleted at this moment.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
            other => other?,
        };
        let members = membership::members(&self.link, topic).await?;
        let names = positions.into_iter().flatten().map(|group| group.name);
        let mut names: BTreeSet<String> = names.chain(members.into_iter().map(|m| m.0)).collect();
        names.remove(FIRST_GROUP);
        Ok(names)
    }

    /// The topics on which a group has positions or members.
    async fn topics_of(
        &self,
        operation: &'static str,
        group: &Group,
    ) -> Result<Vec<Arc<TopicKeys>>> {
        let mut topics = self.all_topics(operation).await?;
        let asked = topics.iter().map(|topic| self.groups_on(operation, topic));
        let mut has = try_join_all(asked).await?.into_iter();
        topics.retain(|_| has.next().is_some_and(|groups| groups.contains(group.as_str())));
        if topics.is_empty() {
            let error = refuse(ErrorKind::NotFound, operation, "there is no such group");
            return Err(error.with("group", group));
        }
        Ok(topics)
    }

    async fn require_stopped(&self, group: &Group, topic: &TopicKeys) -> Result<()> {
        let members = membership::members(&self.link, topic).await?;
        let living = members.iter().filter(|(name, _)| name == group.as_str()).count();
        if living == 0 {
            return Ok(());
        }
        let problem = format!("the group has {living} members; stop them first");
        let error = refuse(ErrorKind::InUse, "change group", problem);
        Err(error.with("group", group).with("topic", &topic.topic))
    }

    async fn reset(&self, group: &Group, stream: &str, to: Position) -> Result<()> {
        let lease = keys::lease(stream, group);
        let arguments = |command: &mut Cmd| {
            let behind = EntryId::of(to.offset()).before();
            command.arg(group.as_str()).arg(behind.to_string());
        };
        let keys = [lease.as_str(), stream];
        self.link.run("reset group", &scripts::RESET, &keys, &arguments).await.map(drop)
    }

    async fn delete_positions(&self, group: &Group, topic: &TopicKeys) -> Result<()> {
        for stream in &topic.streams {
            let mut destroy = redis::cmd("XGROUP");
            destroy.arg("DESTROY").arg(&**stream).arg(group.as_str());
            self.link.query("delete group", &destroy).await?;
            let forget = redis::cmd("DEL").arg(keys::lease(stream, group)).take();
            self.link.query("delete group", &forget).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Admin for RedisBroker {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<()> {
        self.inner.check_open("create topic")?;
        if !(1..=PARTITIONS_MAX).contains(&spec.partitions) {
            let count = spec.partitions;
            let problem = format!("a topic has 1 to {PARTITIONS_MAX} partitions, not {count}");
            let error = refuse(ErrorKind::ConfigInvalid, "create topic", problem);
            return Err(error.with("topic", &spec.topic));
        }
        let capabilities = self.inner.capabilities();
        capabilities.require(capabilities.compaction || !spec.compacted, "compaction")?;
        self.inner.create(spec).await
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.inner.check_open("delete topic")?;
        let keys = self.inner.look_up("delete topic", topic).await?;
        self.inner.delete(&keys).await?;
        self.inner.forget(topic);
        Ok(())
    }

    async fn describe(&self, topic: &Topic) -> Result<TopicDescription> {
        self.inner.check_open("describe")?;
        let keys = self.inner.look_up("describe", topic).await?;
        let link = &self.inner.link;
        let asked = keys.streams.iter().map(|stream| groups::bounds(link, "describe", stream));
        let bounds = try_join_all(asked).await.map_err(|error| error.with("topic", topic))?;
        let mut partitions = Vec::with_capacity(bounds.len());
        for (partition, bounds) in (0..).zip(bounds) {
            let end = bounds.last.end()?;
            let start = bounds.first.map_or(Ok(end), EntryId::offset)?;
            partitions.push(PartitionDescription { partition, start, end });
        }
        Ok(TopicDescription { topic: topic.clone(), partitions })
    }

    async fn list(&self) -> Result<Vec<Topic>> {
        self.inner.check_open("list topics")?;
        let topics = self.inner.all_topics("list topics").await?;
        Ok(topics.iter().map(|topic| topic.topic.clone()).collect())
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.inner.check_open("list groups")?;
        let topics = self.inner.all_topics("list groups").await?;
        let asked = topics.iter().map(|topic| self.inner.groups_on("list groups", topic));
        let names: BTreeSet<String> = try_join_all(asked).await?.into_iter().flatten().collect();
        Ok(names.iter().filter_map(|name| Group::new(name).ok()).collect())
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupDescription> {
        self.inner.check_open("describe group")?;
        let topics = self.inner.topics_of("describe group", group).await?;
        let mut members: BTreeMap<String, Vec<(Topic, u32)>> = BTreeMap::new();
        for topic in &topics {
            for (_, name) in membership::members(&self.inner.link, topic)
                .await?
                .into_iter()
                .filter(|(name, _)| name == group.as_str())
            {
                members.entry(name).or_default();
            }
            let leases = membership::leases(&self.inner.link, topic, group).await?;
            for (number, lease) in (0..).zip(leases) {
                if let Some(owned) = lease.owner.and_then(|owner| members.get_mut(&owner)) {
                    owned.push((topic.topic.clone(), number));
                }
            }
        }
        let member = |(name, partitions)| MemberDescription { name, partitions };
        let members = members.into_iter().map(member).collect();
        let topics = topics.iter().map(|topic| topic.topic.clone()).collect();
        Ok(GroupDescription { group: group.clone(), members, topics })
    }

    async fn resolve(&self, topic: &Topic, start: Start) -> Result<Vec<Position>> {
        self.inner.check_open("resolve")?;
        let keys = self.inner.look_up("resolve", topic).await?;
        let link = &self.inner.link;
        let resolved = keys.numbered().map(|(number, stream)| async move {
            let offset = match start {
                Start::Earliest => {
                    let bounds = groups::bounds(link, "resolve", stream).await?;
                    bounds.first.map_or_else(|| bounds.last.end(), EntryId::offset)?
                }
                _ => {
                    let behind = groups::behind(link, "resolve", stream, start).await?;
                    groups::offset_of(start, behind)?
                }
            };
            Ok(Position::new(number, offset))
        });
        try_join_all(resolved).await
    }

    async fn reset_group(&self, group: &Group, topic: &Topic, to: &[Position]) -> Result<()> {
        self.inner.check_open("reset group")?;
        let keys = self.inner.look_up("reset group", topic).await?;
        self.inner.require_stopped(group, &keys).await?;
        for position in to {
            let Some(stream) = keys.streams.get(position.partition() as usize) else {
                let problem = format!("the topic has no partition {}", position.partition());
                let error = refuse(ErrorKind::NotFound, "reset group", problem);
                return Err(error.with("topic", topic));
            };
            self.inner.reset(group, stream, *position).await?;
        }
        Ok(())
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        self.inner.check_open("delete group")?;
        let topics = self.inner.topics_of("delete group", group).await?;
        for topic in &topics {
            self.inner.require_stopped(group, topic).await?;
        }
        for topic in &topics {
            self.inner.delete_positions(group, topic).await?;
        }
        Ok(())
    }
}
