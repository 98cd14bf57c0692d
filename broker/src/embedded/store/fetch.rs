//! Reading messages from their partitions.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use crate::embedded::error::from_sqlite;
use crate::embedded::frame;
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
    /// The first message's offset; above the wanted one where retention deleted that.
    pub(in crate::embedded) from: u64,
    pub(in crate::embedded) messages: Vec<Message>,
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
            return Ok(moved.then_some(Fetched { number: self.number, from, messages: vec![] }));
        }
        self.read(connection, from).map(Some)
    }

    fn read(self, connection: &Connection, from: u64) -> Result<Fetched> {
        let sql = |error| from_sqlite("receive", error);
        let base = self.partition << OFFSET_BITS;
        let wanted = base | from as i64;
        let mut statement = connection
            .prepare_cached(
                "SELECT id, count, data FROM batches
                 WHERE id >= (SELECT MAX(id) FROM batches WHERE id BETWEEN ?1 AND ?2)
                   AND id < ?3 ORDER BY id",
            )
            .map_err(sql)?;
        let end = (self.partition + 1) << OFFSET_BITS;
        let mut rows = statement.query([base, wanted, end]).map_err(sql)?;
        let mut fetched = Fetched { number: self.number, from, messages: Vec::new() };
        let mut bytes = 0;
        while fetched.messages.len() < self.messages_max && bytes < self.bytes_max {
            let Some(row) = rows.next().map_err(sql)? else { break };
            let first = (row.get::<_, i64>(0).map_err(sql)? - base) as u64;
            let data: Vec<u8> = row.get(2).map_err(sql)?;
            bytes += data.len();
            decode_row(first, data.into(), from, self.messages_max, &mut fetched.messages)?;
        }
        Ok(fetched)
    }
}

fn decode_row(
    first: u64,
    mut data: Bytes,
    from: u64,
    limit: usize,
    out: &mut Vec<Message>,
) -> Result<()> {
    let mut offset = first;
    while !data.is_empty() && out.len() < limit {
        let message = frame::decode(&mut data)?;
        if offset >= from {
            out.push(message);
        }
        offset += 1;
    }
    Ok(())
}
