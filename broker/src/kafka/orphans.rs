//! Looks after partitions that no member has.
//!
//! In Kafka's classic cooperative protocol a partition changes hands in two steps: its owner
//! gives it up, and by joining again begins the assignment that hands it out. A static member
//! that dies between them is given what the first step left it, and its group begins no new
//! assignment for one that only came back: nobody has the partition from then on. A member
//! that finds this leaves and joins again, by which the group shares out everything.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;

use super::context::Client;
use super::native;
use crate::name::{Group, Topic};

/// How long an assignment may take to settle: handing partitions over takes a second at most.
const SETTLING_MAX: Duration = Duration::from_secs(5);

pub(super) struct Orphans {
    group: Group,
    topic: Topic,
    partitions: BTreeSet<u32>,
    /// When to look; none once the group was whole.
    next: Option<Instant>,
}

impl Orphans {
    pub(super) fn new(group: &Group, topic: &Topic, partitions: &[u32]) -> Self {
        let partitions = partitions.iter().copied().collect();
        Self { group: group.clone(), topic: topic.clone(), partitions, next: None }
    }

    /// Takes note that the member's share changed.
    pub(super) fn changed(&mut self) {
        self.next = Some(Instant::now() + SETTLING_MAX);
    }

    /// Looks where it is time to, and joins the group anew where a partition has no owner.
    pub(super) fn look(&mut self, client: &Client) {
        if self.next.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.changed();
        let group = match native::members(client, self.group.as_str()) {
            Ok(group) if group.is_stable => group,
            // It is on its way to another assignment, or nobody answers.
            _ => return,
        };
        let owned = group.members.iter().flat_map(|member| &member.partitions);
        let owned = owned.filter(|(topic, _)| topic == self.topic.as_str());
        let owned: BTreeSet<u32> = owned.map(|(_, number)| *number).collect();
        let orphans: Vec<u32> = self.partitions.difference(&owned).copied().collect();
        if orphans.is_empty() {
            self.next = None;
            return;
        }
        tracing::warn!(group = %self.group, topic = %self.topic, partitions = ?orphans,
            "no member has these partitions; the group shares them out anew");
        client.unsubscribe();
        if let Err(error) = client.subscribe(&[self.topic.as_str()]) {
            tracing::warn!(%error, "could not join the group anew");
        }
    }
}
