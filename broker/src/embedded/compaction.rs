//! Compaction: of a compacted topic only the last message of each key stays in the long run.
//!
//! A pass over a partition first learns the last offset of each key that was written since the
//! pass before, then goes over all rows up to there and drops what a later message supersedes,
//! and tombstones that were kept long enough. It reads and writes in short steps, so that nobody
//! waits long for the lock, and holds at most [`KEYS_BYTES_MAX`] of keys; where that is reached
//! the next pass goes on. A pass begins when half of a partition is new, so that what is written
//! again is bounded by what was published. Offsets keep their values, the newest message always
//! stays, and a pass that a crash ends is only begun anew. One process at a time compacts.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rusqlite::{Connection, params};

use super::broker::Inner;
use super::error::from_io;
use super::frame::{self, Messages};
use super::schema::OFFSET_BITS;
use super::store::Failure;
use crate::error::Result;
use crate::message::{Message, Timestamp};

/// How often a process looks for something to compact.
const INTERVAL: Duration = Duration::from_secs(2);
/// The pause between two steps, in which others write.
const STEP_PAUSE: Duration = Duration::from_millis(2);
/// A step ends with the row that passes it.
const STEP_BYTES_MAX: usize = 1 << 20;
/// The most bytes of keys that one pass holds.
const KEYS_BYTES_MAX: usize = 32 << 20;
/// What a key costs beside its bytes.
const KEY_COST: usize = 64;

/// Compacts now and then for as long as the broker is there.
pub(super) async fn run(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = compact_all(&inner).await {
            tracing::warn!(%error, "compaction failed and will be tried again");
        }
    }
}

async fn compact_all(inner: &Arc<Inner>) -> Result<()> {
    let keep = i64::try_from(inner.config.tombstone_retention.as_millis()).unwrap_or(i64::MAX / 2);
    let expired = Timestamp::now().as_micros() / 1000 - keep;
    let due = inner.reader.query(move |connection| Pass::due(connection, expired)).await?;
    if due.is_empty() {
        return Ok(());
    }
    let Some(_lock) = lock(&inner.config.directory)? else { return Ok(()) };
    for mut pass in due {
        pass.learn(inner).await?;
        pass.sweep(inner).await?;
    }
    Ok(())
}

/// The right to compact, until it is dropped; nothing where another process has it.
fn lock(directory: &Path) -> Result<Option<File>> {
    let path = directory.join("compact.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| from_io("compact", error))?;
    Ok(file.try_lock().is_ok().then_some(file))
}

/// A row of a partition.
struct Row {
    first: u64,
    count: u64,
    time: i64,
    data: Bytes,
}

/// Reads rows from `from` up to `until`, a bounded amount.
fn rows(
    connection: &Connection,
    partition: i64,
    from: u64,
    until: u64,
) -> Result<Vec<Row>, rusqlite::Error> {
    let base = partition << OFFSET_BITS;
    let mut statement = connection.prepare_cached(
        "SELECT id, count, time, data FROM batches WHERE id >= ?1 AND id < ?2 ORDER BY id",
    )?;
    let mut found = statement.query([base | from as i64, base | until as i64])?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while bytes < STEP_BYTES_MAX
        && let Some(row) = found.next()?
    {
        let first = (row.get::<_, i64>(0)? - base) as u64;
        let data: Vec<u8> = row.get(3)?;
        bytes += data.len();
        let count: i64 = row.get(1)?;
        rows.push(Row { first, count: count as u64, time: row.get(2)?, data: data.into() });
    }
    Ok(rows)
}

/// What a step does to a row: its new bytes, or none where nothing is left of it.
struct Change {
    id: i64,
    data: Option<Bytes>,
    freed: i64,
}

/// One pass over a partition.
struct Pass {
    partition: i64,
    /// Where the pass before ended.
    cleaned: u64,
    /// The partition's end when the pass began.
    next: u64,
    /// Tombstones of before this time go.
    expired: i64,
    /// The last offset of each key that is written below `until`.
    last: HashMap<Bytes, u64>,
    until: u64,
    /// What the pass leaves below `until`.
    bytes: i64,
    oldest_tombstone: i64,
    /// A tombstone is left only because nothing is behind it.
    ends_in_tombstone: bool,
}

impl Pass {
    /// The partitions that are worth a pass: half of their bytes are new, or they are full and
    /// have something new, or a tombstone's time has come.
    fn due(connection: &Connection, expired: i64) -> Result<Vec<Self>, rusqlite::Error> {
        connection
            .prepare_cached(
                "SELECT p.id, p.cleaned, p.next FROM partitions p JOIN topics t ON t.id = p.topic
                 WHERE t.compacted AND (p.tombstones < ?1 OR p.cleaned < p.next
                   AND ((p.bytes - p.clean_bytes) * 2 >= p.bytes OR p.bytes > p.bytes_max))",
            )?
            .query_map([expired], |row| {
                let (cleaned, next): (i64, i64) = (row.get(1)?, row.get(2)?);
                Ok(Self {
                    partition: row.get(0)?,
                    cleaned: cleaned as u64,
                    next: next as u64,
                    expired,
                    last: HashMap::new(),
                    until: cleaned as u64,
                    bytes: 0,
                    oldest_tombstone: i64::MAX,
                    ends_in_tombstone: false,
                })
            })?
            .collect()
    }

    /// Learns the last offset of each key from where the pass before ended.
    async fn learn(&mut self, inner: &Inner) -> Result<()> {
        let mut room = KEYS_BYTES_MAX;
        while self.until < self.next && room > 0 {
            let rows = self.step(inner, self.until, self.next).await?;
            if rows.is_empty() {
                self.until = self.next;
            }
            for row in rows {
                self.until = row.first + row.count;
                for message in Messages::of(row.first, row.data) {
                    let (offset, message) = message?;
                    let Some(key) = message.key else { continue };
                    room = room.saturating_sub(key.len() + KEY_COST);
                    // A slice of the row would keep the whole row in memory.
                    self.last.insert(Bytes::copy_from_slice(&key), offset);
                }
            }
            tokio::time::sleep(STEP_PAUSE).await;
        }
        Ok(())
    }

    /// Drops what is superseded or expired from all rows up to where the keys are known.
    async fn sweep(mut self, inner: &Inner) -> Result<()> {
        let mut from = 0;
        loop {
            let rows = self.step(inner, from, self.until).await?;
            let Some(last) = rows.last() else { break };
            from = last.first + last.count;
            let mut changes = Vec::new();
            for row in rows {
                changes.extend(self.clean(row)?);
            }
            if !changes.is_empty() {
                let partition = self.partition;
                inner
                    .writer
                    .write(move |connection| write(connection, partition, &changes))
                    .await?;
            }
            tokio::time::sleep(STEP_PAUSE).await;
        }
        inner.writer.write(move |connection| self.finish(connection)).await
    }

    async fn step(&self, inner: &Inner, from: u64, until: u64) -> Result<Vec<Row>> {
        let partition = self.partition;
        inner.reader.query(move |connection| rows(connection, partition, from, until)).await
    }

    /// What has to change in a row, if anything.
    fn clean(&mut self, row: Row) -> Result<Option<Change>> {
        let before = row.data.len();
        let (mut kept, mut removed, mut is_changed) = (BytesMut::new(), 0, false);
        let mut at = row.first;
        for message in Messages::of(row.first, row.data) {
            let (offset, message) = message?;
            removed += offset - at;
            at = offset + 1;
            if self.is_superfluous(offset, &message, row.time) {
                is_changed = true;
                removed += 1;
                continue;
            }
            if removed > 0 {
                frame::encode_removed(&mut kept, removed as u32);
                removed = 0;
            }
            frame::encode(&mut kept, &message, Timestamp::from_micros(0));
        }
        if !is_changed {
            self.bytes += before as i64;
            return Ok(None);
        }
        self.bytes += kept.len() as i64;
        let id = self.partition << OFFSET_BITS | row.first as i64;
        let freed = before as i64 - kept.len() as i64;
        let data = (!kept.is_empty()).then(|| kept.freeze());
        Ok(Some(Change { id, data, freed }))
    }

    fn is_superfluous(&mut self, offset: u64, message: &Message, time: i64) -> bool {
        let Some(key) = &message.key else { return false };
        if self.last.get(key).is_some_and(|last| *last > offset) {
            return true;
        }
        if !message.is_tombstone() {
            return false;
        }
        if offset + 1 == self.next {
            self.ends_in_tombstone = true;
            return false;
        }
        if time >= self.expired {
            self.oldest_tombstone = self.oldest_tombstone.min(time);
        }
        time < self.expired
    }

    fn finish(&self, connection: &Connection) -> Result<(), Failure> {
        // Where nothing counts as clean the next message brings a pass.
        let clean_bytes = if self.ends_in_tombstone { 0 } else { self.bytes };
        connection
            .prepare_cached(
                "UPDATE partitions SET cleaned = ?2, clean_bytes = ?3, tombstones = ?4
                 WHERE id = ?1",
            )?
            .execute(params![
                self.partition,
                self.until as i64,
                clean_bytes,
                self.oldest_tombstone
            ])?;
        tracing::debug!(
            partition = self.partition,
            from = self.cleaned,
            until = self.until,
            bytes = self.bytes,
            "compacted"
        );
        Ok(())
    }
}

/// Rows that went in the meantime, as with their topic, are passed over.
fn write(connection: &Connection, partition: i64, changes: &[Change]) -> Result<(), Failure> {
    let mut update = connection.prepare_cached("UPDATE batches SET data = ?2 WHERE id = ?1")?;
    let mut delete = connection.prepare_cached("DELETE FROM batches WHERE id = ?1")?;
    let mut freed = 0;
    for change in changes {
        let changed = match &change.data {
            Some(data) => update.execute(params![change.id, &data[..]])?,
            None => delete.execute([change.id])?,
        };
        freed += if changed > 0 { change.freed } else { 0 };
    }
    connection
        .prepare_cached("UPDATE partitions SET bytes = bytes - ?2 WHERE id = ?1")?
        .execute([partition, freed])?;
    Ok(())
}
