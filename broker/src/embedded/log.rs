//! What the writing thread does to topics and their messages.

use bytes::{Bytes, BytesMut};
use rusqlite::{Connection, OptionalExtension, params};

use super::frame;
use super::schema::OFFSET_BITS;
use super::store::{Failure, refuse};
use crate::contract::TopicSpec;
use crate::delivery::Position;
use crate::error::{Error, ErrorKind};
use crate::message::{Message, Timestamp};
use crate::name::Topic;

/// The most payload that one row holds, so that a reader of one message reads little more.
const ROW_BYTES_MAX: usize = 1 << 20;
/// How many rows one step of retention deletes, so that it never holds the lock for long.
const RETENTION_ROWS_MAX: i64 = 256;

/// A retention that never ends; the half leaves room to calculate.
const FOREVER: i64 = i64::MAX / 2;

/// A topic's rows; its partitions are in the order of their numbers.
#[derive(Debug, Clone)]
pub(super) struct TopicRow {
    pub(super) id: i64,
    pub(super) partitions: Vec<i64>,
    /// Only the last message of each key is kept.
    pub(super) compacted: bool,
}

/// Encoded messages of one publish call, by partition.
pub(super) struct Appends {
    topic: Topic,
    rows: Vec<Append>,
}

struct Append {
    number: u32,
    partition: i64,
    data: BytesMut,
    /// Where the messages stood in the caller's batch.
    indexes: Vec<usize>,
}

/// What became of each message: its index in the caller's batch, and its place.
pub(super) type Appended = Vec<(usize, Result<Position, Error>)>;

impl Appends {
    /// Encodes messages, each with its index in the batch; keyless ones share `spread`.
    pub(super) fn encode<'a>(
        topic: &Topic,
        row: &TopicRow,
        spread: usize,
        messages: impl Iterator<Item = (usize, &'a Message)>,
    ) -> Self {
        let now = Timestamp::now();
        let count = row.partitions.len();
        let mut open: Vec<Option<Append>> = (0..count).map(|_| None).collect();
        let mut rows = Vec::new();
        for (index, message) in messages {
            let number = match &message.key {
                Some(key) => crate::partition_of(key, count as u32) as usize,
                None => spread % count,
            };
            let append = open[number].get_or_insert_with(|| Append {
                number: number as u32,
                partition: row.partitions[number],
                data: BytesMut::new(),
                indexes: Vec::new(),
            });
            frame::encode(&mut append.data, message, now);
            append.indexes.push(index);
            if append.data.len() >= ROW_BYTES_MAX {
                rows.extend(open[number].take());
            }
        }
        rows.extend(open.into_iter().flatten());
        Self { topic: topic.clone(), rows }
    }

    /// Refuses before anything is written where the topic is gone.
    pub(super) fn check(&self, connection: &Connection) -> Result<(), Failure> {
        let mut exists = connection.prepare_cached("SELECT 1 FROM partitions WHERE id = ?1")?;
        for row in &self.rows {
            if !exists.exists([row.partition])? {
                let error = Error::new(ErrorKind::NotFound, "publish", "the topic does not exist");
                return Err(Failure::Refused(error.with("topic", &self.topic)));
            }
        }
        Ok(())
    }

    /// Refuses where a partition is at its bound, for callers that write all or nothing.
    pub(super) fn check_room(&self, connection: &Connection) -> Result<(), Failure> {
        let mut room = connection
            .prepare_cached("SELECT 1 FROM partitions WHERE id = ?1 AND bytes <= bytes_max")?;
        for row in &self.rows {
            if !room.exists([row.partition])? {
                return Err(Failure::Refused(self.throttled(row)));
            }
        }
        Ok(())
    }

    fn throttled(&self, row: &Append) -> Error {
        let message = "the partition is at its size bound until retention makes room";
        let error = Error::new(ErrorKind::Throttled, "publish", message);
        error.with("topic", &self.topic).with("partition", row.number)
    }

    /// Writes all rows; those of a partition at its bound are `Throttled`, unless the caller
    /// made sure of the room before.
    pub(super) fn write(
        &self,
        connection: &Connection,
        bounded: bool,
    ) -> Result<Appended, Failure> {
        let time = Timestamp::now().as_micros() / 1000;
        let mut appended = Vec::with_capacity(self.rows.iter().map(|r| r.indexes.len()).sum());
        for row in &self.rows {
            match row.write(connection, time, bounded)? {
                Some(first) => {
                    appended.extend(row.indexes.iter().enumerate().map(|(i, index)| {
                        (*index, Ok(Position::new(row.number, first + i as u64)))
                    }))
                }
                None => {
                    appended.extend(row.indexes.iter().map(|i| (*i, Err(self.throttled(row)))));
                }
            }
        }
        Ok(appended)
    }
}

impl Append {
    /// The first message's offset, or nothing where the partition is full.
    fn write(
        &self,
        connection: &Connection,
        time: i64,
        bounded: bool,
    ) -> Result<Option<u64>, rusqlite::Error> {
        let (count, bytes) = (self.indexes.len() as i64, self.data.len() as i64);
        // A clock that jumps back must not make rows look old, which retention would delete.
        let placed: Option<(i64, i64)> = connection
            .prepare_cached(
                "UPDATE partitions
                 SET next = next + ?2, bytes = bytes + ?3, time = MAX(time, ?5)
                 WHERE id = ?1 AND (bytes <= bytes_max OR NOT ?4) RETURNING next, time",
            )?
            .query_row(params![self.partition, count, bytes, bounded, time], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let Some((next, time)) = placed else { return Ok(None) };
        let first = next - count;
        connection
            .prepare_cached("INSERT INTO batches (id, count, time, data) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![self.partition << OFFSET_BITS | first, count, time, &self.data[..]])?;
        Ok(Some(first as u64))
    }
}

/// Finds a topic.
pub(super) fn topic_row(
    connection: &Connection,
    topic: &Topic,
) -> Result<Option<TopicRow>, rusqlite::Error> {
    let found = connection
        .prepare_cached("SELECT id, compacted FROM topics WHERE name = ?1")?
        .query_row([topic.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
        .optional()?;
    let Some((id, compacted)) = found else { return Ok(None) };
    let partitions = connection
        .prepare_cached("SELECT id FROM partitions WHERE topic = ?1 ORDER BY number")?
        .query_map([id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(Some(TopicRow { id, partitions, compacted }))
}

/// Makes a topic. Publishing is throttled at twice the bytes that retention keeps; in a
/// compacted topic that is the only bound, since retention would delete keys that are alive.
pub(super) fn create_topic(
    connection: &Connection,
    spec: &TopicSpec,
    retention_ms: i64,
    retention_bytes: i64,
) -> Result<(), Failure> {
    if topic_row(connection, &spec.topic)?.is_some() {
        let error = Error::new(ErrorKind::AlreadyExists, "create topic", "the topic exists");
        return Err(Failure::Refused(error.with("topic", &spec.topic)));
    }
    let bytes_max = retention_bytes.saturating_mul(2);
    let kept = if spec.compacted { (FOREVER, FOREVER) } else { (retention_ms, retention_bytes) };
    let id: i64 = connection.query_row(
        "INSERT INTO topics (name, retention_ms, retention_bytes, compacted)
         VALUES (?1, ?2, ?3, ?4) RETURNING id",
        params![spec.topic.as_str(), kept.0, kept.1, spec.compacted],
        |row| row.get(0),
    )?;
    for number in 0..spec.partitions {
        connection.execute(
            "INSERT INTO partitions (topic, number, bytes_max) VALUES (?1, ?2, ?3)",
            params![id, number, bytes_max],
        )?;
    }
    Ok(())
}

/// Deletes a topic, its messages, its groups' positions and members.
pub(super) fn delete_topic(connection: &Connection, topic: &Topic) -> Result<(), Failure> {
    let Some(row) = topic_row(connection, topic)? else {
        return Err(refuse(ErrorKind::NotFound, "delete topic", format!("no topic {topic}")));
    };
    for partition in &row.partitions {
        connection.execute(
            "DELETE FROM batches WHERE id >= ?1 AND id < ?2",
            [partition << OFFSET_BITS, (partition + 1) << OFFSET_BITS],
        )?;
        connection.execute("DELETE FROM positions WHERE partition = ?1", [partition])?;
    }
    connection.execute("DELETE FROM members WHERE topic = ?1", [row.id])?;
    connection.execute("DELETE FROM partitions WHERE topic = ?1", [row.id])?;
    connection.execute("DELETE FROM topics WHERE id = ?1", [row.id])?;
    Ok(())
}

/// Deletes the oldest batches that are over their topic's time or size; a bounded step.
pub(super) fn retain(connection: &Connection) -> Result<(), Failure> {
    let now = Timestamp::now().as_micros() / 1000;
    let partitions: Vec<(i64, i64, i64, i64)> = connection
        .prepare_cached(
            "SELECT p.id, p.bytes, t.retention_bytes, ?1 - t.retention_ms
             FROM partitions p JOIN topics t ON t.id = p.topic WHERE p.bytes > 0",
        )?
        .query_map([now], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<Result<_, _>>()?;
    for (partition, bytes, bytes_kept, oldest) in partitions {
        retain_partition(connection, partition, bytes - bytes_kept, oldest)?;
    }
    Ok(())
}

fn retain_partition(
    connection: &Connection,
    partition: i64,
    mut excess: i64,
    oldest: i64,
) -> Result<(), rusqlite::Error> {
    let base = partition << OFFSET_BITS;
    let mut statement = connection.prepare_cached(
        "SELECT id + count, time, length(data) FROM batches
         WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3",
    )?;
    let end = (partition + 1) << OFFSET_BITS;
    let mut rows = statement.query([base, end, RETENTION_ROWS_MAX])?;
    let (mut start, mut freed) = (None, 0);
    while let Some(row) = rows.next()? {
        let (next, time, bytes): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if time >= oldest && excess <= 0 {
            break;
        }
        excess -= bytes;
        freed += bytes;
        start = Some(next);
    }
    drop(rows);
    let Some(start) = start else { return Ok(()) };
    connection.execute("DELETE FROM batches WHERE id >= ?1 AND id < ?2", [base, start])?;
    connection.execute(
        "UPDATE partitions SET start = ?2, bytes = bytes - ?3 WHERE id = ?1",
        [partition, start - base, freed],
    )?;
    Ok(())
}

/// The first offset at or after a time; the partition's end where there is none.
pub(super) fn offset_at(
    connection: &Connection,
    partition: i64,
    time: Timestamp,
) -> Result<u64, Failure> {
    let mut statement = connection
        .prepare_cached("SELECT id, data FROM batches WHERE id >= ?1 AND id < ?2 ORDER BY id")?;
    let base = partition << OFFSET_BITS;
    let mut rows = statement.query([base, (partition + 1) << OFFSET_BITS])?;
    while let Some(row) = rows.next()? {
        let first = (row.get::<_, i64>(0)? - base) as u64;
        let data: Bytes = row.get::<_, Vec<u8>>(1)?.into();
        for message in frame::Messages::of(first, data) {
            let (offset, message) = message.map_err(Failure::Refused)?;
            if message.timestamp.is_some_and(|made| made >= time) {
                return Ok(offset);
            }
        }
    }
    let next: i64 =
        connection.query_row("SELECT next FROM partitions WHERE id = ?1", [partition], |row| {
            row.get(0)
        })?;
    Ok(next as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::schema;

    const RETENTION_MS: i64 = 1000;

    /// A topic of one partition, and its row.
    fn topic() -> (Connection, Topic, TopicRow) {
        let connection = Connection::open_in_memory().unwrap();
        schema::migrate(&connection).unwrap();
        let topic = Topic::new("t").unwrap();
        create_topic(&connection, &TopicSpec::new(&topic, 1), RETENTION_MS, 1 << 20).unwrap();
        let row = topic_row(&connection, &topic).unwrap().unwrap();
        (connection, topic, row)
    }

    /// Appends a message of a time as a writer would whose clock shows it.
    fn append(connection: &Connection, (topic, row): (&Topic, &TopicRow), millis: i64) {
        let made = Timestamp::from_micros(millis * 1000);
        let message = Message { timestamp: Some(made), ..Message::new("x") };
        let appends = Appends::encode(topic, row, 0, [(0, &message)].into_iter());
        appends.rows[0].write(connection, millis, true).unwrap().unwrap();
    }

    fn start(connection: &Connection) -> i64 {
        connection.query_row("SELECT start FROM partitions", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn rows_written_while_the_clock_was_back_are_not_deleted_early() {
        let (connection, topic, row) = topic();
        let now = Timestamp::now().as_micros() / 1000;
        for millis in [now, 5, now - 3_600_000] {
            append(&connection, (&topic, &row), millis);
        }
        retain(&connection).unwrap();
        assert_eq!(start(&connection), 0);
    }

    #[test]
    fn a_clock_that_shows_long_ago_deletes_nothing_and_old_rows_go_when_it_is_right() {
        let (connection, topic, row) = topic();
        let old = Timestamp::now().as_micros() / 1000 - 10 * RETENTION_MS;
        append(&connection, (&topic, &row), old);
        append(&connection, (&topic, &row), 5);
        retain(&connection).unwrap();
        assert_eq!(start(&connection), 2);
    }

    #[test]
    fn a_start_at_a_time_finds_the_first_message_though_the_clock_jumped_back() {
        let (connection, topic, row) = topic();
        for millis in [1000, 2000, 500, 3000] {
            append(&connection, (&topic, &row), millis);
        }
        for (millis, offset) in [(0, 0), (1500, 1), (2500, 3), (9000, 4)] {
            let time = Timestamp::from_micros(millis * 1000);
            assert_eq!(offset_at(&connection, row.partitions[0], time).unwrap(), offset);
        }
    }
}
