//! Who of a group owns which partition.
//!
//! A member is a row with a lease and a locked file. A partition's row in `positions` names
//! its owner and a generation that grows with each claim; settling under an old generation
//! is fenced. Members look at the rows now and then, and each by itself comes to the same
//! plan: partition `i` belongs to member `i mod n` of the live ones in the order of their
//! names. Who owns too much gives it back once its deliveries are settled; who misses some
//! claims it when it is free. A member is dead when its file's lock can be taken, which a
//! dying process lets happen at once, or when its lease ran out, which catches a hung one.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rusqlite::{Connection, OptionalExtension, params};

use super::error::from_io;
use super::log;
use super::store::Failure;
use crate::error::Result;
use crate::subscription::Start;

/// How long a consumer may go without receiving before its lease is let run out.
const POLL_INTERVAL_MAX_NANOS: i64 = 300_000_000_000;

/// Nanoseconds on a clock that no clock change moves; comparable within one boot.
pub(super) fn monotonic_nanos() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// What tells this boot from another, so that leases of before a restart count as expired.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".into(), |id| id.trim().to_owned())
}

/// This process's side of one membership: the locked file that shows it alive.
pub(super) struct Member {
    pub(super) name: String,
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
    last_poll: AtomicI64,
}

impl Member {
    /// Makes and locks the member's file.
    pub(super) fn new(directory: &Path) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{:016x}-{}-{count}", monotonic_nanos(), std::process::id());
        let path = directory.join("members").join(&name);
        let io = |error| from_io("subscribe", error);
        let lock = File::options().create_new(true).write(true).open(&path).map_err(io)?;
        lock.lock().map_err(io)?;
        Ok(Self { name, path, _lock: lock, last_poll: AtomicI64::new(monotonic_nanos()) })
    }

    /// Notes that the consumer is being used.
    pub(super) fn polled(&self) {
        self.last_poll.store(monotonic_nanos(), Ordering::Relaxed);
    }

    /// Whether the lease is worth renewing.
    pub(super) fn is_polling(&self) -> bool {
        monotonic_nanos() - self.last_poll.load(Ordering::Relaxed) < POLL_INTERVAL_MAX_NANOS
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // A file that stays is removed by whoever notices that its lock is free.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A group on a topic, as the database shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// Live and dead members in the order of their names, with what tells them apart.
    pub(super) members: Vec<MemberRow>,
    /// The owner of each partition, in the order of their numbers.
    pub(super) owners: Vec<Option<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemberRow {
    pub(super) name: String,
    boot: String,
    lease_until: i64,
}

impl MemberRow {
    /// From the columns name, boot and lease_until.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self { name: row.get(0)?, boot: row.get(1)?, lease_until: row.get(2)? })
    }

    /// Whether its process died or its lease ran out.
    pub(super) fn is_dead(&self, directory: &Path, boot: &str) -> bool {
        if self.boot != boot || self.lease_until < monotonic_nanos() {
            return true;
        }
        match File::open(directory.join("members").join(&self.name)) {
            Ok(file) => file.try_lock().is_ok(),
            Err(_) => true,
        }
    }
}

/// What one member should do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) claim: Vec<u32>,
    pub(super) give_back: Vec<u32>,
}

/// The plan of `me`, who reads the partitions `held`: every member computes the same shares
/// from the same view. What is its own and not held was claimed by a call that was dropped
/// before it learnt of it; it is claimed anew.
pub(super) fn plan(
    me: &str,
    live: &[String],
    owners: &[Option<String>],
    held: &BTreeSet<u32>,
) -> Plan {
    let mut plan = Plan::default();
    for (number, owner) in owners.iter().enumerate() {
        let mine = live.get(number % live.len().max(1)).is_some_and(|name| name == me);
        let owned = owner.as_deref() == Some(me);
        let free = owner.as_ref().is_none_or(|owner| !live.contains(owner));
        let forgotten = owned && !held.contains(&(number as u32));
        if mine && (free || forgotten) {
            plan.claim.push(number as u32);
        } else if !mine && owned {
            plan.give_back.push(number as u32);
        }
    }
    plan
}

/// Reads the view of a group.
pub(super) fn view(
    connection: &Connection,
    group: &str,
    topic: i64,
) -> Result<View, rusqlite::Error> {
    let members = connection
        .prepare_cached(
            "SELECT name, boot, lease_until FROM members WHERE grp = ?1 AND topic = ?2 ORDER BY name",
        )?
        .query_map(params![group, topic], MemberRow::read)?
        .collect::<Result<_, _>>()?;
    let owners = connection
        .prepare_cached(
            "SELECT o.owner FROM partitions p
             LEFT JOIN positions o ON o.partition = p.id AND o.grp = ?1
             WHERE p.topic = ?2 ORDER BY p.number",
        )?
        .query_map(params![group, topic], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(View { members, owners })
}

/// Adds a member, or renews its lease.
pub(super) fn join(
    connection: &Connection,
    member: &str,
    group: &str,
    topic: i64,
    boot: &str,
    lease_nanos: i64,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO members (name, grp, topic, boot, lease_until) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (name) DO UPDATE SET lease_until = excluded.lease_until",
        )?
        .execute(params![member, group, topic, boot, monotonic_nanos() + lease_nanos])?;
    Ok(())
}

/// Removes a member that is dead or leaves; its partitions become free. One that leaves in
/// order leaves no crash to be counted.
pub(super) fn remove(connection: &Connection, member: &str, orderly: bool) -> Result<(), Failure> {
    connection.prepare_cached("DELETE FROM members WHERE name = ?1")?.execute([member])?;
    let reset = if orderly { "starts = 0," } else { "" };
    connection
        .prepare_cached(&format!("UPDATE positions SET {reset} owner = NULL WHERE owner = ?1"))?
        .execute([member])?;
    Ok(())
}

/// A partition that was claimed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimed {
    pub(super) number: u32,
    pub(super) partition: i64,
    pub(super) committed: u64,
    pub(super) generation: i64,
    /// How many owners delivered from `committed` on and died before it moved.
    pub(super) starts: u32,
}

/// Takes a free partition, or one of its own anew; nothing where another member was faster.
pub(super) fn claim(
    connection: &Connection,
    me: &str,
    group: &str,
    (number, partition): (u32, i64),
    start: Start,
) -> Result<Option<Claimed>, Failure> {
    let found: Option<(i64, Option<String>)> = connection
        .prepare_cached("SELECT committed, owner FROM positions WHERE grp = ?1 AND partition = ?2")?
        .query_row(params![group, partition], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let committed = match found {
        Some((_, Some(owner))) if owner != me => return Ok(None),
        Some((committed, _)) => committed,
        None => resolve(connection, partition, start)? as i64,
    };
    let (generation, starts) = connection
        .prepare_cached(
            "INSERT INTO positions (grp, partition, committed, owner, generation)
             VALUES (?1, ?2, ?3, ?4, 1)
             ON CONFLICT (grp, partition) DO UPDATE SET
                 owner = excluded.owner, generation = generation + 1
             RETURNING generation, starts",
        )?
        .query_row(params![group, partition, committed, me], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Ok(Some(Claimed { number, partition, committed: committed as u64, generation, starts }))
}

/// Counts that the owner of some partitions is about to deliver from where they stand, so that
/// a message which kills its consumers is found out. Owners that die before count for nothing.
pub(super) fn count_starts(
    connection: &Connection,
    group: &str,
    partitions: &[(i64, i64)],
) -> Result<(), Failure> {
    let mut count = connection.prepare_cached(
        "UPDATE positions SET starts = starts + 1
         WHERE grp = ?1 AND partition = ?2 AND generation = ?3 AND owner IS NOT NULL",
    )?;
    for (partition, generation) in partitions {
        count.execute(params![group, partition, generation])?;
    }
    Ok(())
}

/// The offset that a start means in a partition.
pub(super) fn resolve(
    connection: &Connection,
    partition: i64,
    start: Start,
) -> Result<u64, Failure> {
    let column = match start {
        Start::Earliest => "start",
        Start::Latest => "next",
        Start::Offset(offset) => return Ok(offset),
        Start::Time(time) => return log::offset_at(connection, partition, time),
    };
    let sql = format!("SELECT {column} FROM partitions WHERE id = ?1");
    let offset: i64 = connection.prepare_cached(&sql)?.query_row([partition], |row| row.get(0))?;
    Ok(offset as u64)
}

/// Gives a partition back in order.
pub(super) fn give_back(
    connection: &Connection,
    me: &str,
    group: &str,
    partition: i64,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "UPDATE positions SET owner = NULL, starts = 0
             WHERE grp = ?1 AND partition = ?2 AND owner = ?3",
        )?
        .execute(params![group, partition, me])?;
    Ok(())
}

/// A new position of a partition under the generation that owns it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commit {
    pub(super) number: u32,
    pub(super) partition: i64,
    pub(super) generation: i64,
    pub(super) committed: u64,
}

/// Which of the commits are fenced: their partition has another owner by now.
pub(super) fn fenced(
    connection: &Connection,
    group: &str,
    commits: &[Commit],
) -> Result<BTreeSet<u32>, rusqlite::Error> {
    let mut current = connection.prepare_cached(
        "SELECT 1 FROM positions
         WHERE grp = ?1 AND partition = ?2 AND generation = ?3 AND owner IS NOT NULL",
    )?;
    let mut fenced = BTreeSet::new();
    for commit in commits {
        if !current.exists(params![group, commit.partition, commit.generation])? {
            fenced.insert(commit.number);
        }
    }
    Ok(fenced)
}

/// Writes the commits that are not fenced and returns those that are.
pub(super) fn commit(
    connection: &Connection,
    group: &str,
    commits: &[Commit],
) -> Result<BTreeSet<u32>, Failure> {
    let mut update = connection.prepare_cached(
        "UPDATE positions SET committed = ?4, starts = 1
         WHERE grp = ?1 AND partition = ?2 AND generation = ?3 AND owner IS NOT NULL",
    )?;
    let mut fenced = BTreeSet::new();
    for commit in commits {
        let Commit { number, partition, generation, committed } = *commit;
        if update.execute(params![group, partition, generation, committed as i64])? == 0 {
            fenced.insert(number);
        }
    }
    Ok(fenced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn owners(owners: &[&str]) -> Vec<Option<String>> {
        owners.iter().map(|o| (!o.is_empty()).then(|| o.to_string())).collect()
    }

    fn held(numbers: &[u32]) -> BTreeSet<u32> {
        numbers.iter().copied().collect()
    }

    #[test]
    fn what_a_dropped_call_claimed_is_claimed_anew() {
        let live = names(&["a"]);
        let owned = owners(&["a", "a"]);
        let expected = Plan { claim: vec![1], give_back: vec![] };
        assert_eq!(plan("a", &live, &owned, &held(&[0])), expected);
    }

    #[test]
    fn shares_are_even_and_disjoint() {
        let live = names(&["a", "b", "c"]);
        let free = owners(&["", "", "", "", "", "", ""]);
        let shares: Vec<_> =
            live.iter().map(|me| plan(me, &live, &free, &held(&[])).claim).collect();
        assert_eq!(shares, [vec![0, 3, 6], vec![1, 4], vec![2, 5]]);
    }

    #[test]
    fn a_newcomer_waits_until_its_share_is_given_back() {
        let live = names(&["a", "b"]);
        let owned = owners(&["a", "a"]);
        assert_eq!(plan("b", &live, &owned, &held(&[])), Plan::default());
        assert_eq!(
            plan("a", &live, &owned, &held(&[0, 1])),
            Plan { claim: vec![], give_back: vec![1] }
        );
        let freed = owners(&["a", ""]);
        assert_eq!(
            plan("b", &live, &freed, &held(&[])),
            Plan { claim: vec![1], give_back: vec![] }
        );
    }

    #[test]
    fn a_dead_members_partitions_are_claimed() {
        let live = names(&["b"]);
        let owned = owners(&["a", "b"]);
        assert_eq!(
            plan("b", &live, &owned, &held(&[1])),
            Plan { claim: vec![0], give_back: vec![] }
        );
    }

    #[test]
    fn only_owners_that_delivered_are_counted() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(super::super::schema::TABLES).unwrap();
        connection
            .execute_batch(
                "INSERT INTO topics VALUES (1, 't', 0, 0);
                 INSERT INTO partitions (id, topic, number, bytes_max) VALUES (1, 1, 0, 0);",
            )
            .unwrap();
        let claim = || {
            let claimed = claim(&connection, "me", "group", (0, 1), Start::Earliest).unwrap();
            claimed.unwrap()
        };
        let die = || remove(&connection, "me", false).unwrap();
        for _ in 0..9 {
            assert_eq!(claim().starts, 0);
            die();
        }
        for starts in 0..3 {
            let claimed = claim();
            assert_eq!(claimed.starts, starts);
            count_starts(&connection, "group", &[(1, claimed.generation)]).unwrap();
            count_starts(&connection, "group", &[(1, claimed.generation - 1)]).unwrap();
            die();
        }
    }

    #[test]
    fn a_locked_file_shows_a_living_member() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("members")).unwrap();
        let member = Member::new(directory.path()).unwrap();
        let row = |boot: &str, lease_until| MemberRow {
            name: member.name.clone(),
            boot: boot.into(),
            lease_until,
        };
        let far = monotonic_nanos() + 1_000_000_000_000;
        assert!(!row("now", far).is_dead(directory.path(), "now"));
        assert!(row("before", far).is_dead(directory.path(), "now"), "another boot");
        assert!(row("now", 0).is_dead(directory.path(), "now"), "an old lease");
        let last = row("now", far);
        drop(member);
        assert!(last.is_dead(directory.path(), "now"), "a dead process");
    }
}
