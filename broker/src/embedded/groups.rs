//! What tools ask of groups, and do to those that have stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::{Connection, params};

use super::log::TopicRow;
use super::membership::MemberRow;
use super::store::{Failure, refuse};
use crate::contract::{GroupDescription, MemberDescription};
use crate::delivery::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Group, Topic};

/// The rows that a group has.
pub(super) struct Rows {
    members: Vec<(MemberRow, String)>,
    /// Topic, partition and owner of each position.
    positions: Vec<(String, u32, Option<String>)>,
}

impl Rows {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.positions.is_empty()
    }

    /// The group as its living members see it.
    pub(super) fn describe(
        self,
        group: &Group,
        directory: &Path,
        boot: &str,
    ) -> Result<GroupDescription> {
        let mut partitions: BTreeMap<String, Vec<(Topic, u32)>> = BTreeMap::new();
        let mut topics = BTreeSet::new();
        for (topic, number, owner) in self.positions {
            let topic = Topic::new(&topic)?;
            if let Some(owner) = owner {
                partitions.entry(owner).or_default().push((topic.clone(), number));
            }
            topics.insert(topic);
        }
        let mut members = Vec::new();
        for (row, topic) in self.members {
            topics.insert(Topic::new(&topic)?);
            if !row.is_dead(directory, boot) {
                let partitions = partitions.remove(&row.name).unwrap_or_default();
                members.push(MemberDescription { name: row.name, partitions });
            }
        }
        let topics = topics.into_iter().collect();
        Ok(GroupDescription { group: group.clone(), members, topics })
    }
}

/// Reads a group's rows.
pub(super) fn rows(connection: &Connection, group: &Group) -> Result<Rows, rusqlite::Error> {
    let members = connection
        .prepare_cached(
            "SELECT m.name, m.boot, m.lease_until, t.name FROM members m
             JOIN topics t ON t.id = m.topic WHERE m.grp = ?1 ORDER BY m.name",
        )?
        .query_map([group.as_str()], |row| Ok((MemberRow::read(row)?, row.get(3)?)))?
        .collect::<Result<_, _>>()?;
    let positions = connection
        .prepare_cached(
            "SELECT t.name, p.number, o.owner FROM positions o
             JOIN partitions p ON p.id = o.partition JOIN topics t ON t.id = p.topic
             WHERE o.grp = ?1 ORDER BY t.name, p.number",
        )?
        .query_map([group.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    Ok(Rows { members, positions })
}

/// Refuses where the group has a living member, on one topic or on any.
pub(super) fn require_stopped(
    connection: &Connection,
    group: &Group,
    topic: Option<i64>,
    directory: &Path,
    boot: &str,
) -> Result<(), Failure> {
    let members: Vec<MemberRow> = connection
        .prepare_cached(
            "SELECT name, boot, lease_until FROM members
             WHERE grp = ?1 AND (?2 IS NULL OR topic = ?2)",
        )?
        .query_map(params![group.as_str(), topic], MemberRow::read)?
        .collect::<Result<_, _>>()?;
    let living = members.iter().filter(|member| !member.is_dead(directory, boot)).count();
    if living == 0 {
        return Ok(());
    }
    let problem = format!("the group has {living} members; stop them first");
    let error = Error::new(ErrorKind::InUse, "change group", problem);
    Err(Failure::Refused(error.with("group", group)))
}

/// Moves positions. Members that died before are fenced by the new generation.
pub(super) fn reset(
    connection: &Connection,
    group: &Group,
    topic: &TopicRow,
    to: &[Position],
) -> Result<(), Failure> {
    let mut move_to = connection.prepare_cached(
        "INSERT INTO positions (grp, partition, committed) VALUES (?1, ?2, ?3)
         ON CONFLICT (grp, partition) DO UPDATE SET
             committed = excluded.committed, owner = NULL, generation = generation + 1, starts = 0",
    )?;
    for position in to {
        let number = position.partition();
        let Some(partition) = topic.partitions.get(number as usize) else {
            let problem = format!("the topic has no partition {number}");
            return Err(refuse(ErrorKind::NotFound, "reset group", problem));
        };
        let offset = i64::try_from(position.offset()).unwrap_or(i64::MAX);
        move_to.execute(params![group.as_str(), partition, offset])?;
    }
    Ok(())
}

/// Forgets a group.
pub(super) fn delete(connection: &Connection, group: &Group) -> Result<(), Failure> {
    let members = connection.execute("DELETE FROM members WHERE grp = ?1", [group.as_str()])?;
    let positions = connection.execute("DELETE FROM positions WHERE grp = ?1", [group.as_str()])?;
    if members + positions == 0 {
        return Err(refuse(ErrorKind::NotFound, "delete group", format!("no group {group}")));
    }
    Ok(())
}
