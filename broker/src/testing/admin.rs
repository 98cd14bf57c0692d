//! Topics and groups.

use async_trait::async_trait;

use super::broker::Connection;
use super::groups::{Members, Place};
use super::log::Log;
use crate::contract::{Admin, GroupDescription, MemberDescription, TopicDescription, TopicSpec};
use crate::delivery::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Group, Topic};
use crate::subscription::Start;

/// Refuses for a group that is at work, on one topic or on any.
fn require_stopped(group: &Group, members: Option<&Members>, topic: Option<u64>) -> Result<()> {
    let count = members.map_or(0, |members| members.count(topic));
    if count == 0 {
        return Ok(());
    }
    let problem = format!("the group has {count} members; stop them first");
    Err(Error::new(ErrorKind::InUse, "change group", problem).with("group", group))
}

fn no_group(operation: &'static str, group: &Group) -> Error {
    Error::new(ErrorKind::NotFound, operation, "there is no such group").with("group", group)
}

#[async_trait]
impl Admin for Connection {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<()> {
        self.link.check_open("create topic")?;
        let refuse = |kind, problem| {
            Err(Error::new(kind, "create topic", problem).with("topic", &spec.topic))
        };
        if spec.partitions == 0 {
            return refuse(ErrorKind::ConfigInvalid, "a topic needs at least one partition");
        }
        let mut state = self.link.store.lock();
        if state.topics.contains_key(&spec.topic) {
            return refuse(ErrorKind::AlreadyExists, "the topic exists already");
        }
        let log = Log::new(state.next_id(), spec);
        state.topics.insert(spec.topic.clone(), log);
        Ok(())
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.link.check_open("delete topic")?;
        let mut state = self.link.store.lock();
        let id = state.log(topic, "delete topic")?.id;
        state.topics.remove(topic);
        state.groups.values_mut().for_each(|members| members.forget(id));
        drop(state);
        self.link.store.tell();
        Ok(())
    }

    async fn describe(&self, topic: &Topic) -> Result<TopicDescription> {
        self.link.check_open("describe")?;
        let partitions = self.link.store.lock().log(topic, "describe")?.describe();
        Ok(TopicDescription { topic: topic.clone(), partitions })
    }

    async fn list(&self) -> Result<Vec<Topic>> {
        self.link.check_open("list")?;
        Ok(self.link.store.lock().topics.keys().cloned().collect())
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.link.check_open("groups")?;
        let state = self.link.store.lock();
        let known = state.groups.iter().filter(|(_, members)| !members.is_empty());
        Ok(known.map(|(group, _)| group.clone()).collect())
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupDescription> {
        self.link.check_open("describe group")?;
        let state = self.link.store.lock();
        let members = state.groups.get(group).filter(|members| !members.is_empty());
        let members = members.ok_or_else(|| no_group("describe group", group))?;
        let name =
            |id: u64| state.topics.iter().find(|(_, log)| log.id == id).map(|(name, _)| name);
        let described = members.owned().map(|(member, partitions)| MemberDescription {
            name: format!("member-{member}"),
            partitions: partitions
                .into_iter()
                .filter_map(|(topic, number)| Some((name(topic)?.clone(), number)))
                .collect(),
        });
        let members_described = described.collect();
        let topics = state.topics.iter().filter(|(_, log)| members.is_on(log.id));
        let topics = topics.map(|(name, _)| name.clone()).collect();
        Ok(GroupDescription { group: group.clone(), members: members_described, topics })
    }

    async fn resolve(&self, topic: &Topic, start: Start) -> Result<Vec<Position>> {
        self.link.check_open("resolve")?;
        let mut state = self.link.store.lock();
        let numbered = (0..).zip(&state.log(topic, "resolve")?.partitions);
        Ok(numbered.map(|(number, it)| Position::new(number, it.resolve(start))).collect())
    }

    async fn reset_group(&self, group: &Group, topic: &Topic, to: &[Position]) -> Result<()> {
        self.link.check_open("reset group")?;
        let mut state = self.link.store.lock();
        let log = state.log(topic, "reset group")?;
        let (id, count) = (log.id, log.partitions.len() as u32);
        require_stopped(group, state.groups.get(group), Some(id))?;
        if let Some(wrong) = to.iter().find(|position| position.partition() >= count) {
            let problem = format!("the topic has no partition {}", wrong.partition());
            let error = Error::new(ErrorKind::NotFound, "reset group", problem);
            return Err(error.with("topic", topic));
        }
        let members = state.groups.entry(group.clone()).or_default();
        for position in to {
            let place = Place::at(position.offset());
            members.places.insert((id, position.partition()), place);
        }
        Ok(())
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        self.link.check_open("delete group")?;
        let mut state = self.link.store.lock();
        require_stopped(group, state.groups.get(group), None)?;
        let known = state.groups.remove(group).filter(|members| !members.is_empty());
        known.map(drop).ok_or_else(|| no_group("delete group", group))
    }
}
