//! Who of a group owns which partition.
//!
//! A member is a field with a lease in the hash of its topic's members; the server's clock
//! decides when it runs out. A partition's own lease names its owner and a generation that
//! grows with each change: a claim succeeds only under the generation that was seen, and what
//! is settled under an old one is fenced. Members look at both now and then, and each by itself
//! comes to the same plan: partition `i` belongs to member `i mod n` of the live ones in the
//! order of their names. Who owns too much gives it back once its deliveries are settled; who
//! misses some claims it when it is free or its owner is not alive.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::connection::Link;
use super::convert::{self, array, number, text, unexpected};
use super::keys::{self, TopicKeys};
use super::position::EntryId;
use super::scripts;
use crate::error::{Error, ErrorKind, Result};
use crate::name::Group;

/// How long a consumer may go without receiving before its lease is let run out.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(300);

/// One member of a group on a topic.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) group: Group,
    pub(super) topic: Arc<TopicKeys>,
    lease: Duration,
    last_poll: Mutex<Instant>,
}

/// The lease of a partition, as a member sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) owner: Option<String>,
    pub(super) generation: u64,
}

/// A partition that was claimed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimed {
    pub(super) number: u32,
    pub(super) generation: u64,
    /// The owner before went without leaving.
    pub(super) crashed: bool,
    /// The last entry that the group was given.
    pub(super) last: EntryId,
}

/// What one member should do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) claim: Vec<u32>,
    pub(super) give_back: Vec<u32>,
}

/// The plan of `me`, who reads the partitions `held`. What is its own and not held was claimed
/// by a call that was dropped before it learnt of it; it is claimed anew.
pub(super) fn plan(me: &str, live: &[String], leases: &[Lease], held: &BTreeSet<u32>) -> Plan {
    let mut plan = Plan::default();
    for (number, lease) in (0..).zip(leases) {
        let turn = number as usize % live.len().max(1);
        let mine = live.get(turn).is_some_and(|name| name == me);
        let owned = lease.owner.as_deref() == Some(me);
        let free = lease.owner.as_ref().is_none_or(|owner| !live.contains(owner));
        if mine && (free || owned && !held.contains(&number)) {
            plan.claim.push(number);
        } else if !mine && owned {
            plan.give_back.push(number);
        }
    }
    plan
}

impl Member {
    pub(super) fn new(group: &Group, topic: Arc<TopicKeys>, lease: Duration) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{:016x}-{}-{count}", fastrand::u64(..), std::process::id());
        let last_poll = Mutex::new(Instant::now());
        Self { name, group: group.clone(), topic, lease, last_poll }
    }

    /// Notes that the consumer is being used.
    pub(super) fn polled(&self) {
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether the lease is worth renewing.
    pub(super) fn is_polling(&self) -> bool {
        let last = *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed() < POLL_INTERVAL_MAX
    }

    fn lease_key(&self, number: u32) -> String {
        keys::lease(&self.topic.streams[number as usize], &self.group)
    }

    /// Renews the lease, and joins (again) where that is asked for. Returns the live members in
    /// the order of their names; `NotFound` where the topic is gone.
    pub(super) async fn attend(&self, link: &Link, joins: bool) -> Result<Vec<String>> {
        let keys = [self.topic.description.as_str(), self.topic.members.as_str()];
        let arguments = |command: &mut Cmd| {
            let group = format!("{}/", self.group);
            let millis = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
            command.arg(group).arg(&self.name).arg(millis).arg(u8::from(joins));
        };
        let answer = link.run("join group", &scripts::ATTEND, &keys, &arguments).await?;
        if answer == Value::Nil {
            let error = Error::new(ErrorKind::NotFound, "receive", "the topic does not exist");
            return Err(error.with("topic", &self.topic.topic));
        }
        let mut live: Vec<String> =
            array("join group", answer)?.into_iter().filter_map(text).collect();
        live.sort_unstable();
        Ok(live)
    }

    /// The leases of all partitions, in the order of their numbers.
    pub(super) async fn leases(&self, link: &Link) -> Result<Vec<Lease>> {
        leases(link, &self.topic, &self.group).await
    }

    /// Takes a partition under the generation that was seen; nothing where another was faster.
    pub(super) async fn claim(
        &self,
        link: &Link,
        number: u32,
        seen: u64,
        behind: EntryId,
    ) -> Result<Option<Claimed>> {
        let lease = self.lease_key(number);
        let keys = [lease.as_str(), &self.topic.streams[number as usize]];
        let arguments = |command: &mut Cmd| {
            command.arg(&self.name).arg(seen).arg(self.group.as_str()).arg(behind.to_string());
        };
        let answer = link.run("claim partition", &scripts::CLAIM, &keys, &arguments).await?;
        let answer = array("claim partition", answer)?;
        let [generation, crashed, last] = &answer[..] else { return Ok(None) };
        let wrong = || unexpected("claim partition", "no generation");
        Ok(Some(Claimed {
            number,
            generation: convert::number(generation).ok_or_else(wrong)?,
            crashed: *crashed == Value::Int(1),
            last: convert::id("claim partition", last)?,
        }))
    }

    /// Gives a partition back in order.
    pub(super) async fn release(&self, link: &Link, number: u32) -> Result<()> {
        let lease = self.lease_key(number);
        let arguments = |command: &mut Cmd| {
            command.arg(&self.name);
        };
        link.run("give back", &scripts::RELEASE, &[&lease], &arguments).await.map(drop)
    }

    /// Leaves the group in order, with all that this member owns.
    pub(super) async fn leave(&self, link: &Link) -> Result<()> {
        let mut command = redis::cmd("HDEL");
        command.arg(&self.topic.members).arg(format!("{}/{}", self.group, self.name));
        link.query("leave group", &command).await?;
        let numbers = 0..self.topic.streams.len() as u32;
        let released = numbers.map(|number| self.release(link, number));
        futures::future::try_join_all(released).await.map(drop)
    }
}

/// The leases of a group on a topic.
pub(super) async fn leases(link: &Link, topic: &TopicKeys, group: &Group) -> Result<Vec<Lease>> {
    let asked = topic.streams.iter().map(|stream| async move {
        let mut command = redis::cmd("HMGET");
        command.arg(keys::lease(stream, group)).arg("owner").arg("generation");
        let mut fields = array("read leases", link.query("read leases", &command).await?)?;
        let generation = fields.pop().as_ref().and_then(number).unwrap_or(0);
        Ok(Lease { owner: fields.pop().and_then(text), generation })
    });
    futures::future::try_join_all(asked).await
}

/// The live members of a topic: group and name of each.
pub(super) async fn members(link: &Link, topic: &TopicKeys) -> Result<Vec<(String, String)>> {
    let keys = [topic.members.as_str()];
    let answer = link.run("list members", &scripts::MEMBERS, &keys, &|_| {}).await?;
    let names = array("list members", answer)?.into_iter().filter_map(text);
    let split = |name: String| {
        let (group, member) = name.split_once('/')?;
        Some((group.to_owned(), member.to_owned()))
    };
    Ok(names.filter_map(split).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn owned(owners: &[&str]) -> Vec<Lease> {
        let lease = |owner: &&str| {
            let owner = (!owner.is_empty()).then(|| (*owner).to_owned());
            Lease { owner, generation: 1 }
        };
        owners.iter().map(lease).collect()
    }

    fn check(me: &str, live: &[&str], owners: &[&str], held: &[u32], claim: &[u32], back: &[u32]) {
        let held = held.iter().copied().collect();
        let plan = plan(me, &names(live), &owned(owners), &held);
        assert_eq!((plan.claim, plan.give_back), (claim.to_vec(), back.to_vec()), "{me}");
    }

    #[test]
    fn shares_are_even_and_disjoint() {
        let (live, free) = (["a", "b", "c"], ["", "", "", "", "", "", ""]);
        check("a", &live, &free, &[], &[0, 3, 6], &[]);
        check("b", &live, &free, &[], &[1, 4], &[]);
        check("c", &live, &free, &[], &[2, 5], &[]);
    }

    #[test]
    fn a_newcomer_waits_until_its_share_is_given_back() {
        check("b", &["a", "b"], &["a", "a"], &[], &[], &[]);
        check("a", &["a", "b"], &["a", "a"], &[0, 1], &[], &[1]);
        check("b", &["a", "b"], &["a", ""], &[], &[1], &[]);
    }

    #[test]
    fn a_dead_members_partitions_are_claimed() {
        check("b", &["b"], &["a", "b"], &[1], &[0], &[]);
    }

    #[test]
    fn what_a_dropped_call_claimed_is_claimed_anew() {
        check("a", &["a"], &["a", "a"], &[0], &[1], &[]);
    }
}
