//! Where groups and streams stand.

use redis::{Cmd, Value};

use super::connection::Link;
use super::convert::{self, array, number, pairs, text, unexpected};
use super::position::EntryId;
use super::scripts;
use crate::contract::PartitionLag;
use crate::error::Result;
use crate::name::Group;
use crate::subscription::Start;

/// How many entries a script looks at in one step, so that it never holds the server for long.
const SCAN_ENTRIES: usize = 100;
/// How far the time of a message may be ahead of the server's clock and still be found.
const CLOCK_SKEW_MILLIS: u64 = 3_600_000;

/// The bounds of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The oldest entry that is kept.
    pub(super) first: Option<EntryId>,
    /// The last entry that ever was.
    pub(super) last: EntryId,
}

/// A group as its stream knows it.
#[derive(Debug)]
pub(super) struct GroupInfo {
    pub(super) name: String,
    pending: u64,
    last: EntryId,
    /// How many entries it was not given yet, where the server knows.
    lag: Option<u64>,
}

/// `NotFound` where there is no such stream.
pub(super) async fn bounds(link: &Link, operation: &'static str, stream: &str) -> Result<Bounds> {
    let answer = link.query(operation, redis::cmd("XINFO").arg("STREAM").arg(stream)).await?;
    let (mut first, mut last) = (None, None);
    for (name, value) in pairs(operation, answer)? {
        match &name[..] {
            b"last-generated-id" => last = Some(convert::id(operation, &value)?),
            b"first-entry" => {
                let id = array(operation, value)?.into_iter().next();
                first = id.map(|id| convert::id(operation, &id)).transpose()?;
            }
            _ => {}
        }
    }
    let last = last.ok_or_else(|| unexpected(operation, "a stream without a last id"))?;
    Ok(Bounds { first, last })
}

/// The groups of a stream; `NotFound` where there is no such stream.
pub(super) async fn of_stream(
    link: &Link,
    operation: &'static str,
    stream: &str,
) -> Result<Vec<GroupInfo>> {
    let answer = link.query(operation, redis::cmd("XINFO").arg("GROUPS").arg(stream)).await?;
    array(operation, answer)?.into_iter().map(|group| read_info(operation, group)).collect()
}

fn read_info(operation: &'static str, value: Value) -> Result<GroupInfo> {
    let mut info = GroupInfo { name: String::new(), pending: 0, last: EntryId::ZERO, lag: None };
    for (name, value) in pairs(operation, value)? {
        match &name[..] {
            b"name" => info.name = text(value).unwrap_or_default(),
            b"pending" => info.pending = number(&value).unwrap_or(0),
            b"last-delivered-id" => info.last = convert::id(operation, &value)?,
            b"lag" => info.lag = number(&value),
            _ => {}
        }
    }
    Ok(info)
}

/// How far a group is behind in one partition.
pub(super) async fn lag(
    link: &Link,
    stream: &str,
    partition: u32,
    group: &Group,
) -> Result<PartitionLag> {
    let end = bounds(link, "lag", stream).await?.last.end()?;
    let groups = of_stream(link, "lag", stream).await?;
    let Some(info) = groups.into_iter().find(|info| info.name == group.as_str()) else {
        let behind = count_behind(link, stream, EntryId::ZERO).await?;
        return Ok(PartitionLag { partition, committed: None, end, behind });
    };
    let open = match info.pending {
        0 => None,
        _ => first_pending(link, stream, group).await?,
    };
    let committed = match open {
        Some(id) => id.offset()?,
        None => info.last.end()?,
    };
    let unread = match info.lag {
        Some(lag) => lag,
        None => count_behind(link, stream, info.last).await?,
    };
    let behind = unread + info.pending;
    Ok(PartitionLag { partition, committed: Some(committed), end, behind })
}

async fn first_pending(link: &Link, stream: &str, group: &Group) -> Result<Option<EntryId>> {
    let command = redis::cmd("XPENDING").arg(stream).arg(group.as_str()).take();
    let summary = array("lag", link.query("lag", &command).await?)?;
    match summary.get(1) {
        None | Some(Value::Nil) => Ok(None),
        Some(first) => convert::id("lag", first).map(Some),
    }
}

/// How many entries come after `id`.
async fn count_behind(link: &Link, stream: &str, mut id: EntryId) -> Result<u64> {
    let mut total = 0;
    loop {
        let arguments = |command: &mut Cmd| {
            command.arg(format!("({id}")).arg(SCAN_ENTRIES);
        };
        let answer = link.run("lag", &scripts::COUNT_ENTRIES, &[stream], &arguments).await?;
        let answer = array("lag", answer)?;
        let [count, last] = &answer[..] else { return Err(unexpected("lag", "no count")) };
        let count = number(count).unwrap_or(0);
        total += count;
        if count < SCAN_ENTRIES as u64 {
            return Ok(total);
        }
        id = convert::id("lag", last)?;
    }
}

/// The id behind which consumption begins.
pub(super) async fn behind(
    link: &Link,
    operation: &'static str,
    stream: &str,
    start: Start,
) -> Result<EntryId> {
    match start {
        Start::Earliest => Ok(EntryId::ZERO),
        Start::Latest => Ok(bounds(link, operation, stream).await?.last),
        Start::Offset(offset) => Ok(EntryId::of(offset).before()),
        Start::Time(time) => find_time(link, operation, stream, time.as_micros()).await,
    }
}

/// The offset that a start behind `id` means.
pub(super) fn offset_of(start: Start, behind: EntryId) -> Result<u64> {
    match start {
        Start::Offset(offset) => Ok(offset),
        _ => behind.end(),
    }
}

/// The id before the first entry of that time or later; the last id where there is none.
async fn find_time(
    link: &Link,
    operation: &'static str,
    stream: &str,
    micros: i64,
) -> Result<EntryId> {
    let millis = u64::try_from(micros / 1000).unwrap_or(0).saturating_sub(CLOCK_SKEW_MILLIS);
    let mut from = EntryId::first_of(millis).to_string();
    loop {
        let arguments = |command: &mut Cmd| {
            command.arg(&from).arg(SCAN_ENTRIES).arg(micros);
        };
        let answer = link.run(operation, &scripts::FIND_TIME, &[stream], &arguments).await?;
        match &array(operation, answer)?[..] {
            [] => return Ok(bounds(link, operation, stream).await?.last),
            [found] => return Ok(convert::id(operation, found)?.before()),
            [_, last, ..] => from = format!("({}", convert::id(operation, last)?),
        }
    }
}
