//! One step of a program: state, results and settlements in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

use bytes::Bytes;

use super::Shared;
use super::cache::{KEY_BYTES_MAX, Table, Writes};
use super::member::Owned;
use super::record::Place;
use super::replay::seconds;
use crate::contract::Transaction;
use crate::delivery::{AckToken, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

/// After so many records the cache notes anew where in the log it stands.
const NOTE_INTERVAL: u64 = 10_000;

/// A transaction with state. Nothing of it is visible before [`commit`](Self::commit); dropping
/// it aborts, and the deliveries come again.
pub struct Step<'a> {
    transaction: Box<dyn Transaction + 'a>,
    partitions: &'a mut BTreeMap<u32, Owned>,
    shared: &'a Shared,
    writes: BTreeMap<u32, Writes>,
    /// The partitions of which a delivery is done with.
    settled: BTreeSet<u32>,
}

impl<'a> Step<'a> {
    pub(super) fn new(
        transaction: Box<dyn Transaction + 'a>,
        partitions: &'a mut BTreeMap<u32, Owned>,
        shared: &'a Shared,
    ) -> Self {
        let (writes, settled) = (BTreeMap::new(), BTreeSet::new());
        Self { transaction, partitions, shared, writes, settled }
    }

    /// The state of a partition as this step sees it, with its own writes. `Fenced` where the
    /// partition is not this member's, or went since its deliveries came.
    pub fn state(&mut self, partition: u32) -> Result<State<'_>> {
        let Some(owned) = self.partitions.get_mut(&partition) else {
            return Err(not_owned(partition));
        };
        let Some(table) = owned.table.as_ref().filter(|_| !owned.is_stale) else {
            return Err(not_owned(partition));
        };
        let writes = self.writes.entry(partition).or_default();
        Ok(State { table, writes, is_broken: &mut owned.is_broken })
    }

    /// Adds messages, as [`Transaction::publish`] does.
    pub async fn publish(&mut self, topic: &Topic, batch: Vec<Message>) -> Result<()> {
        self.transaction.publish(topic, batch).await
    }

    /// Adds settlements, as [`Transaction::settle`] does.
    pub async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Result<()> {
        let done = outcomes.iter().filter(|(_, o)| !matches!(o, Outcome::Retry { .. }));
        self.settled.extend(done.map(|(token, _)| token.position().partition()));
        self.transaction.settle(outcomes).await
    }

    /// Makes everything visible at once, durable when it returns. After a failure nothing is,
    /// and the deliveries come again.
    ///
    /// A partition's state may be written only where a delivery of it is acknowledged or
    /// rejected in the same step, since that is what fences an owner of before: else it is
    /// `Unsupported`.
    pub async fn commit(mut self) -> Result<()> {
        self.writes.retain(|_, writes| !writes.is_empty());
        if let Some(partition) = self.writes.keys().find(|p| !self.settled.contains(p)) {
            let message = "state is written of a partition of which no delivery is settled";
            let error = Error::new(ErrorKind::Unsupported, "commit", message);
            return Err(error.with("partition", partition));
        }
        let ends = self.ends().await?;
        let records = self.records();
        if !records.is_empty() {
            self.transaction.publish(&self.shared.spec.topic, records).await?;
        }
        let Self { transaction, partitions, writes, .. } = self;
        // Whoever drops this future does not learn whether it was committed; the log knows.
        for partition in writes.keys() {
            partitions.entry(*partition).and_modify(|owned| owned.is_stale = true);
        }
        transaction.commit().await?;
        for (partition, writes) in writes {
            if let Some(owned) = partitions.get_mut(&partition) {
                owned.apply(partition, &writes, ends.get(&partition).copied());
            }
        }
        Ok(())
    }

    /// Drops everything; the deliveries come again.
    pub async fn abort(self) -> Result<()> {
        self.transaction.abort().await
    }

    fn records(&self) -> Vec<Message> {
        let partitions = self.shared.spec.partitions;
        let all = self.writes.iter().flat_map(|(partition, writes)| {
            let place = Place { partition: *partition, partitions };
            writes.iter().map(move |(key, value)| place.state(key, value.clone()))
        });
        all.collect()
    }

    /// Where the log ends now, for partitions that have not noted that for long. All before it
    /// is this owner's, and so is in the table, if this step's commit succeeds: that proves that
    /// there was no other owner.
    async fn ends(&self) -> Result<BTreeMap<u32, u64>> {
        let is_due = |partition: &u32| {
            self.partitions.get(partition).is_some_and(|owned| owned.unnoted >= NOTE_INTERVAL)
        };
        if !self.writes.keys().any(is_due) {
            return Ok(BTreeMap::new());
        }
        let topic = self.shared.broker.admin().describe(&self.shared.spec.topic).await?;
        let ends = topic.partitions.into_iter().map(|known| (known.partition, known.end));
        Ok(ends.filter(|(partition, _)| is_due(partition)).collect())
    }
}

impl std::fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Step").field("writes", &self.writes).finish_non_exhaustive()
    }
}

fn not_owned(partition: u32) -> Error {
    let message = "the partition's state is not this member's";
    Error::new(ErrorKind::Fenced, "use state", message).with("partition", partition)
}

impl Owned {
    /// Follows the log, to which a step has added so many records. Where the cache fails the
    /// step stands all the same, and the partition is read from the log again.
    fn apply(&mut self, partition: u32, writes: &Writes, end: Option<u64>) {
        let Some(table) = &mut self.table else { return };
        let mut standing = table.standing.clone();
        let count = writes.len() as u64;
        if let Some(end) = end {
            standing.next = standing.next.max(end);
            standing.reach = standing.reach.max(end);
            self.unnoted = 0;
        }
        standing.reach += count;
        standing.complete = Some(seconds());
        self.unnoted += count;
        match table.apply(writes, standing) {
            Ok(()) => self.is_stale = false,
            Err(error) => tracing::warn!(partition, %error, "the cache misses a committed step"),
        }
    }
}

/// The state of one partition within a step.
#[derive(Debug)]
pub struct State<'a> {
    table: &'a Table,
    writes: &'a mut Writes,
    is_broken: &'a mut bool,
}

impl State<'_> {
    /// The value of a key.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(value) = self.writes.get(key) {
            return Ok(value.clone());
        }
        let value = self.table.get(key);
        *self.is_broken |= value.is_err();
        value
    }

    /// Sets the value of a key; `TooLarge` for a key of 64 KiB and more. A value that is too
    /// large for a message fails the commit.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        if key.len() > KEY_BYTES_MAX {
            let size = key.len();
            let message = format!("a key of {size} bytes is over the limit of {KEY_BYTES_MAX}");
            return Err(Error::new(ErrorKind::TooLarge, "write state", message));
        }
        self.writes.insert(key, Some(value.into()));
        Ok(())
    }

    /// Lets a key go.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.writes.insert(key.into(), None);
    }

    /// The keys that begin with `prefix`, with their values, in the order of their bytes.
    pub fn prefix(&self, prefix: &[u8]) -> impl Iterator<Item = Result<(Bytes, Bytes)>> {
        let start = Bytes::copy_from_slice(prefix);
        let written = self
            .writes
            .range(start.clone()..)
            .take_while(move |(key, _)| key.starts_with(&start))
            .map(|(key, value)| (key.clone(), value.clone()));
        Merged { stored: self.table.prefix(prefix).peekable(), written: written.peekable() }
    }
}

/// Two sorted sequences as one, in which what was written stands for what is stored.
struct Merged<S: Iterator, W: Iterator> {
    stored: Peekable<S>,
    written: Peekable<W>,
}

impl<S, W> Iterator for Merged<S, W>
where
    S: Iterator<Item = Result<(Bytes, Bytes)>>,
    W: Iterator<Item = (Bytes, Option<Bytes>)>,
{
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let stored = match self.stored.peek() {
                Some(Ok((key, _))) => Some(key),
                Some(Err(_)) => return self.stored.next(),
                None => None,
            };
            let Some((written, _)) = self.written.peek() else { return self.stored.next() };
            if stored.is_some_and(|stored| stored < written) {
                return self.stored.next();
            }
            if stored == Some(written) {
                self.stored.next();
            }
            if let Some((key, Some(value))) = self.written.next() {
                return Some(Ok((key, value)));
            }
        }
    }
}

/// The committed state of a partition, to look at beside the steps. It is as of the last commit
/// of the member that gave it out, also when the partition is another's by now.
#[derive(Debug, Clone)]
pub struct View(pub(super) Table);

impl View {
    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(key)
    }

    /// The keys that begin with `prefix`, with their values, in the order of their bytes.
    pub fn prefix(&self, prefix: &[u8]) -> impl Iterator<Item = Result<(Bytes, Bytes)>> {
        self.0.prefix(prefix)
    }
}
