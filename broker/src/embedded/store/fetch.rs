//! Reading messages from their partitions.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use crate::embedded::error::from_sqlite;
use crate::embedded::frame::Messages;
use crate::embedded::schema::OFFSET_BITS;
use crate::error::Result;
use crate::message::Message;

/// A wish for messages of some partitions.
pub(in crate::embedded) struct Fetch(pub(in crate::embedded) Vec<Want>);

/// A wish for messages of one partition.
#[derive(Debug, Clone, Copy)]
pub(in crate::embedded) struct Want {
    /// The partition's number in its topic; only handed back.
    pub(in crate::embedded) number: u32,
    /// The partition's row.
    pub(in crate::embedded) partition: i64,
    pub(in crate::embedded) from: u64,
    pub(in crate::embedded) messages_max: usize,
    /// Reading stops with the row that passes it.
    pub(in crate::embedded) bytes_max: usize,
}

/// What a partition had.
pub(in crate::embedded) struct Fetched {
    pub(in crate::embedded) number: u32,
    /// Where reading began; above the wanted offset where retention deleted that.
    pub(in crate::embedded) from: u64,
    pub(in crate::embedded) messages: Vec<Message>,
    /// The offset of each message: compaction leaves gaps.
    pub(in crate::embedded) offsets: Vec<u64>,
    /// Where the following fetch goes on.
    pub(in crate::embedded) next: u64,
}

impl Fetch {
    /// Reads what is there; nothing of a partition that has nothing new.
    pub(in crate::embedded) fn run(&self, connection: &Connection) -> Result<Vec<Fetched>> {
        let mut all = Vec::new();
        for want in &self.0 {
            all.extend(want.run(connection)?);
        }
        Ok(all)
    }
}

impl Want {
    fn run(self, connection: &Connection) -> Result<Option<Fetched>> {
        let sql = |error| from_sqlite("receive", error);
        let bounds = connection
            .prepare_cached("SELECT start, next FROM partitions WHERE id = ?1")
            .and_then(|mut bounds| {
                bounds
                    .query_row([self.partition], |row| {
                        Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
                    })
                    .optional()
            });
        let Some((start, next)) = bounds.map_err(sql)? else { return Ok(None) };
        let from = self.from.max(start);
        if from >= next {
            // Where retention emptied the partition, the reader still learns of its new start.
            let moved = from > self.from && from == start;
            return Ok(moved.then_some(self.nothing(from)));
        }
        self.read(connection, from, next).map(Some)
    }

    fn nothing(self, from: u64) -> Fetched {
        let (messages, offsets) = (Vec::new(), Vec::new());
        Fetched { number: self.number, from, messages, offsets, next: from }
    }

    /// Reads from `from` on; `end` is where the partition is known to end.
    fn read(self, connection: &Connection, from: u64, end: u64) -> Result<Fetched> {
        let sql = |error| from_sqlite("receive", error);
        let base = self.partition << OFFSET_BITS;
        let wanted = base | from as i64;
        let mut statement = connection
            .prepare_cached(
                "SELECT id, count, data FROM batches
                 WHERE id >= COALESCE((SELECT MAX(id) FROM batches WHERE id BETWEEN ?1 AND ?2), ?1)
                   AND id < ?3 ORDER BY id",
            )
            .map_err(sql)?;
        let last = (self.partition + 1) << OFFSET_BITS;
        let mut rows = statement.query([base, wanted, last]).map_err(sql)?;
        let mut fetched = self.nothing(from);
        let mut bytes = 0;
        while fetched.messages.len() < self.messages_max && bytes < self.bytes_max {
            let Some(row) = rows.next().map_err(sql)? else {
                // What is missing up to the end was removed by compaction.
                fetched.next = fetched.next.max(end);
                break;
            };
            let first = (row.get::<_, i64>(0).map_err(sql)? - base) as u64;
            let count: i64 = row.get(1).map_err(sql)?;
            let data: Vec<u8> = row.get(2).map_err(sql)?;
            bytes += data.len();
            fetched.take(first, count as u64, data.into(), self.messages_max)?;
        }
        Ok(fetched)
    }
}

impl Fetched {
    /// Adds the messages of a row, up to `limit` in all.
    fn take(&mut self, first: u64, count: u64, data: Bytes, limit: usize) -> Result<()> {
        for message in Messages::of(first, data) {
            let (offset, message) = message?;
            if offset < self.from {
                continue;
            }
            if self.messages.len() == limit {
                self.next = offset;
                return Ok(());
            }
            self.offsets.push(offset);
            self.messages.push(message);
        }
        self.next = self.next.max(first + count);
        Ok(())
    }
}
