//! Reading entries of several partitions in one step, and waiting for more.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use redis::{Cmd, Value};

use super::connection::Link;
use super::convert::{self, array, entries, number};
use super::position::EntryId;
use super::scripts;
use super::watch::{Watch, read_stream};
use crate::error::Result;
use crate::message::Message;
use crate::name::Group;

/// In what way a partition is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    /// For a reader, which leaves no trace.
    Plain,
    /// New entries for a group.
    New { generation: u64 },
    /// What an owner before had out, from this id on.
    Inherit { generation: u64, cursor: EntryId },
}

/// What is wanted of a partition.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) number: u32,
    pub(super) assignment: u64,
    pub(super) stream: Arc<str>,
    pub(super) lease: String,
    pub(super) mode: Mode,
    /// The last entry known.
    pub(super) after: EntryId,
    pub(super) count: usize,
}

/// An entry that was read, with how often it was delivered before.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    pub(super) attempts: u32,
    pub(super) message: Message,
}

/// What was read of a partition.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    /// Where inheriting goes on; none where all is taken over.
    pub(super) cursor: Option<EntryId>,
}

/// The answer to a want.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) number: u32,
    pub(super) assignment: u64,
    pub(super) batch: Result<Batch>,
}

/// Who reads, and over which connection.
#[derive(Clone)]
pub(super) struct Fetcher {
    /// No other task uses it, so that waiting on it delays nobody.
    pub(super) link: Arc<Link>,
    pub(super) group: Option<Group>,
    pub(super) member: String,
    /// Whether the server tells when an entry comes; a cluster's nodes must be asked.
    pub(super) waits: bool,
    /// The watch over the leases, where the server is no cluster.
    pub(super) watch: Arc<Watch>,
}

impl Fetcher {
    /// Reads what is there. Where nothing is, it waits up to `idle` for the first entry, which
    /// the next call then reads.
    pub(super) async fn fetch(self, wants: Vec<Want>, idle: Duration) -> Vec<Got> {
        let (watched, single): (Vec<&Want>, Vec<&Want>) =
            wants.iter().partition(|want| self.waits && matches!(want.mode, Mode::New { .. }));
        let single = join_all(single.into_iter().map(|want| self.read(want)));
        let (mut got, watched) = join(single, self.read_watched(&watched)).await;
        got.extend(watched);
        let inherits = wants.iter().any(|want| matches!(want.mode, Mode::Inherit { .. }));
        let is_empty = |got: &Got| got.batch.as_ref().is_ok_and(|batch| batch.entries.is_empty());
        if !inherits && got.iter().all(is_empty) {
            self.wait(&wants, idle).await;
        }
        got
    }

    async fn read_watched(&self, wants: &[&Want]) -> Vec<Got> {
        if wants.is_empty() {
            return Vec::new();
        }
        let generation = |want: &&'_ Want| match want.mode {
            Mode::New { generation } => generation,
            _ => 0,
        };
        let leased: Vec<(&Want, u64)> =
            wants.iter().map(|want| (*want, generation(want))).collect();
        let group = self.group.as_ref().map_or("", Group::as_str);
        let batches = self.watch.read(&self.link, &self.member, group, &leased).await;
        let got = wants.iter().zip(batches);
        let got = got.map(|(want, batch)| Got {
            number: want.number,
            assignment: want.assignment,
            batch,
        });
        got.collect()
    }

    async fn read(&self, want: &Want) -> Got {
        let batch = match want.mode {
            Mode::Plain => self.read_plain(want).await,
            Mode::New { generation } => self.read_new(want, generation).await,
            Mode::Inherit { generation, cursor } => self.inherit(want, generation, cursor).await,
        };
        Got { number: want.number, assignment: want.assignment, batch }
    }

    async fn read_plain(&self, want: &Want) -> Result<Batch> {
        let mut command = redis::cmd("XRANGE");
        let from = format!("({}", want.after);
        command.arg(&*want.stream).arg(from).arg("+").arg("COUNT").arg(want.count);
        Ok(fresh(entries("receive", self.link.query("receive", &command).await?)?))
    }

    async fn read_new(&self, want: &Want, generation: u64) -> Result<Batch> {
        let keys = [want.lease.as_str(), &want.stream];
        let arguments = |command: &mut Cmd| {
            self.identify(command, generation);
            command.arg(want.count);
        };
        let answer = self.link.run("receive", &scripts::READ, &keys, &arguments).await?;
        read_stream(answer)
    }

    async fn inherit(&self, want: &Want, generation: u64, cursor: EntryId) -> Result<Batch> {
        let keys = [want.lease.as_str(), &want.stream];
        let arguments = |command: &mut Cmd| {
            self.identify(command, generation);
            command.arg(cursor.to_string()).arg(want.count);
        };
        let answer = self.link.run("take over", &scripts::INHERIT, &keys, &arguments).await?;
        let mut parts = array("take over", answer)?.into_iter();
        let cursor = convert::id("take over", &parts.next().unwrap_or_default())?;
        let found = array("take over", parts.next().unwrap_or_default())?;
        let entries = found.into_iter().map(inherited).collect::<Result<_>>()?;
        Ok(Batch { entries, cursor: (cursor != EntryId::ZERO).then_some(cursor) })
    }

    fn identify(&self, command: &mut Cmd, generation: u64) {
        let group = self.group.as_ref().map_or("", Group::as_str);
        command.arg(&self.member).arg(generation).arg(group);
    }

    /// Waits for an entry behind those known.
    async fn wait(&self, wants: &[Want], idle: Duration) {
        let millis = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        if !self.waits || wants.is_empty() || millis == 0 {
            return tokio::time::sleep(idle).await;
        }
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(1).arg("BLOCK").arg(millis).arg("STREAMS");
        for want in wants {
            command.arg(&*want.stream);
        }
        for want in wants {
            command.arg(want.after.to_string());
        }
        if let Err(error) = self.link.query("receive", &command).await {
            tracing::debug!(%error, "waiting for entries failed");
            tokio::time::sleep(idle).await;
        }
    }
}

pub(super) fn fresh(entries: Vec<(EntryId, Message)>) -> Batch {
    let entry = |(id, message)| Entry { id, attempts: 0, message };
    Batch { entries: entries.into_iter().map(entry).collect(), cursor: None }
}

fn inherited(value: Value) -> Result<Entry> {
    let mut parts = array("take over", value)?.into_iter();
    let id = convert::id("take over", &parts.next().unwrap_or_default())?;
    let fields = array("take over", parts.next().unwrap_or_default())?;
    let count = parts.next().as_ref().and_then(number).unwrap_or(1);
    let attempts = u32::try_from(count).unwrap_or(u32::MAX);
    Ok(Entry { id, attempts, message: convert::message(id, fields) })
}
