//! What tools ask of groups, and do to those that have stopped.

use std::collections::BTreeSet;

use rdkafka::Offset;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;

use super::control::{Client, drain};
use super::error::{from_code, translate};
use super::native::{self, Member};
use super::start;
use crate::contract::{GroupDescription, MemberDescription};
use crate::delivery::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Group, Topic};

/// The members of a group, and the topics that it has positions in.
pub(super) fn describe(client: &Client, group: &Group) -> Result<GroupDescription> {
    let failed = |error| translate("describe group", error).with("group", group);
    let members = native::members(client, group.as_str()).map_err(failed)?.members;
    let positions = native::positions(client, group.as_str()).map_err(failed)?;
    let positions = positions.into_iter().filter(|position| position.offset.is_some());
    let topics: BTreeSet<String> = positions.map(|position| position.topic).collect();
    if members.is_empty() && topics.is_empty() {
        let error = Error::new(ErrorKind::NotFound, "describe group", "there is no such group");
        return Err(error.with("group", group));
    }
    description(group, members, topics)
}

fn description(
    group: &Group,
    members: Vec<Member>,
    mut topics: BTreeSet<String>,
) -> Result<GroupDescription> {
    topics.extend(members.iter().flat_map(|m| m.partitions.iter().map(|(topic, _)| topic.clone())));
    let mut members = members
        .into_iter()
        .map(|member| {
            let own = member.partitions.into_iter();
            let own = own.map(|(topic, number)| Ok((Topic::new(&topic)?, number)));
            let mut partitions = own.collect::<Result<Vec<_>>>()?;
            partitions.sort_unstable();
            Ok(MemberDescription { name: member.name, partitions })
        })
        .collect::<Result<Vec<_>>>()?;
    members.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    let topics = topics.iter().map(|topic| Topic::new(topic)).collect::<Result<_>>()?;
    Ok(GroupDescription { group: group.clone(), members, topics })
}

/// Refuses while the group has a member, on whatever topic: Kafka knows only whole groups.
pub(super) fn require_stopped(
    client: &Client,
    group: &Group,
    operation: &'static str,
) -> Result<()> {
    let members = native::members(client, group.as_str());
    let members =
        members.map_err(|error| translate(operation, error).with("group", group))?.members;
    if members.is_empty() {
        return Ok(());
    }
    let problem = format!("the group has {} members; stop them first", members.len());
    Err(Error::new(ErrorKind::InUse, operation, problem).with("group", group))
}

/// Moves positions by a client that carries the group's name and never joins it.
pub(super) fn reset(client: &Client, group: &Group, topic: &Topic, to: &[Position]) -> Result<()> {
    drain(client);
    let offset = |at: &Position| Offset::Offset(i64::try_from(at.offset()).unwrap_or(i64::MAX));
    let offsets = to.iter().map(|position| (position.partition(), offset(position)));
    let committed = start::list(topic.as_str(), offsets)
        .and_then(|list| client.commit(&list, CommitMode::Sync));
    committed.map_err(|error| match error.rdkafka_error_code() {
        // The brokers take positions from a stranger only where the group has no members.
        Some(code) if is_of_membership(code) => {
            let problem = "the group has members; stop them first";
            Error::new(ErrorKind::InUse, "reset group", problem).with("group", group)
        }
        _ => translate("reset group", error).with("group", group),
    })
}

fn is_of_membership(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code,
        C::UnknownMemberId
            | C::IllegalGeneration
            | C::RebalanceInProgress
            | C::StaleMemberEpoch
            | C::FencedMemberEpoch
    )
}

/// What brokers said of a group's deletion.
pub(super) fn deleted(
    group: &Group,
    answer: Vec<Result<String, (String, RDKafkaErrorCode)>>,
) -> Result<()> {
    match answer.into_iter().next() {
        Some(Err((_, code))) => Err(from_code("delete group", code).with("group", group)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_sorted_and_names_the_topics_of_members_too() {
        let member = |name: &str, partitions: &[(&str, u32)]| Member {
            name: name.into(),
            partitions: partitions
                .iter()
                .map(|(topic, number)| ((*topic).into(), *number))
                .collect(),
        };
        let members = vec![member("b", &[("new", 1), ("new", 0)]), member("a", &[])];
        let group = Group::new("group").unwrap();
        let shown = description(&group, members, BTreeSet::from(["old".to_owned()])).unwrap();
        let names: Vec<&str> = shown.members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let new = Topic::new("new").unwrap();
        assert_eq!(shown.members[1].partitions, [(new.clone(), 0), (new.clone(), 1)]);
        assert_eq!(shown.topics, [new, Topic::new("old").unwrap()]);
    }
}
