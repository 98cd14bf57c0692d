//! Who of a group owns which partition, and where the group stands in it.
//!
//! Partition `i` belongs to member `i mod n` in the order in which they joined. Who owns too
//! much gives it back once its deliveries are settled; who misses some claims it when it is
//! free. Each claim has a number, and what is settled under an earlier one is fenced.

use std::collections::BTreeMap;

/// Where a group stands in a partition.
#[derive(Default)]
pub(super) struct Place {
    pub(super) committed: u64,
    /// The member that owns it, and the number of its claim.
    owner: Option<(u64, u64)>,
    /// How many owners delivered from `committed` on and died before it moved.
    pub(super) starts: u32,
}

impl Place {
    /// A place that is free.
    pub(super) fn at(committed: u64) -> Self {
        Self { committed, ..Self::default() }
    }

    pub(super) fn is_owned(&self, assignment: u64) -> bool {
        self.owner.is_some_and(|(_, current)| current == assignment)
    }

    pub(super) fn is_free(&self) -> bool {
        self.owner.is_none()
    }

    pub(super) fn claim(&mut self, member: u64, assignment: u64) {
        self.owner = Some((member, assignment));
    }

    /// Gives it back in order, which leaves no crash to be counted.
    pub(super) fn give_back(&mut self) {
        (self.owner, self.starts) = (None, 0);
    }

    /// The owner goes on at `committed`, from where it has delivered already.
    pub(super) fn commit(&mut self, committed: u64) {
        (self.committed, self.starts) = (committed, 1);
    }

    /// The owner goes on elsewhere, from where it has delivered nothing yet.
    pub(super) fn move_to(&mut self, committed: u64) {
        (self.committed, self.starts) = (committed, 0);
    }
}

/// A group.
#[derive(Default)]
pub(super) struct Members {
    /// The topic of each member.
    members: BTreeMap<u64, u64>,
    /// By topic and partition.
    pub(super) places: BTreeMap<(u64, u32), Place>,
}

impl Members {
    /// Adds a member; false where it is one already.
    pub(super) fn join(&mut self, member: u64, topic: u64) -> bool {
        self.members.insert(member, topic).is_none()
    }

    /// Removes a member, whose partitions become free.
    pub(super) fn leave(&mut self, member: u64) {
        self.members.remove(&member);
        for place in self.places.values_mut() {
            if place.owner.is_some_and(|(owner, _)| owner == member) {
                place.give_back();
            }
        }
    }

    /// Removes all members as if they had died.
    pub(super) fn evict(&mut self) {
        self.members.clear();
        self.places.values_mut().for_each(|place| place.owner = None);
    }

    /// Forgets a topic that was deleted.
    pub(super) fn forget(&mut self, topic: u64) {
        self.members.retain(|_, its| *its != topic);
        self.places.retain(|(its, _), _| *its != topic);
    }

    /// The partitions of a topic that should be the member's.
    pub(super) fn share(&self, member: u64, topic: u64, partitions: u32) -> Vec<u32> {
        let peers: Vec<u64> = self.on(topic).collect();
        let Some(rank) = peers.iter().position(|peer| *peer == member) else { return Vec::new() };
        (0..partitions).skip(rank).step_by(peers.len()).collect()
    }

    fn on(&self, topic: u64) -> impl Iterator<Item = u64> {
        self.members.iter().filter(move |(_, its)| **its == topic).map(|(member, _)| *member)
    }

    /// How many members there are, on one topic or on any.
    pub(super) fn count(&self, topic: Option<u64>) -> usize {
        self.members.values().filter(|its| topic.is_none_or(|topic| topic == **its)).count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.places.is_empty()
    }

    pub(super) fn is_on(&self, topic: u64) -> bool {
        self.on(topic).next().is_some() || self.places.keys().any(|(its, _)| *its == topic)
    }

    /// Each member with its partitions.
    pub(super) fn owned(&self) -> impl Iterator<Item = (u64, Vec<(u64, u32)>)> {
        self.members.keys().map(|member| {
            let own = self
                .places
                .iter()
                .filter(|(_, place)| place.owner.is_some_and(|(owner, _)| owner == *member));
            (*member, own.map(|(place, _)| *place).collect())
        })
    }
}
