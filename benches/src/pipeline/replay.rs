//! The bare moves of a run's bytes: what the embedded pipeline wrote and read, done again by
//! one loop over `rusqlite` and nothing else.
//!
//! The rows are those of the run, taken from its databases, and so are the commits: rows that
//! the run wrote at one moment. In their course, images are inserted and read, then entries of
//! the queue, then predictions, then the rows of `app2` are inserted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use broker::embedded::Durability;
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use super::stage::Stage;
use crate::broker::open_sqlite;
use crate::measure::own_cpu;

/// How the store numbers its rows: the partition in the bits above these.
const OFFSET_BITS: u32 = 40;
const QUEUE: &str = "results-queue";
const BATCHES: &str = "CREATE TABLE batches (
    id INTEGER PRIMARY KEY, count INTEGER NOT NULL, time INTEGER NOT NULL, data BLOB NOT NULL
) STRICT";

/// Rows of the store that were written at once: identity, messages, time, bytes.
type Batches = Vec<(i64, i64, i64, Vec<u8>)>;
/// Rows of `app2`'s database that were written at once.
type Predictions = Vec<Vec<Value>>;

/// All that a run moved.
pub(super) struct Moves {
    topics: [Vec<Batches>; 3],
    predictions: Vec<Predictions>,
    tables: Vec<String>,
}

/// What the moves alone took, for each image.
pub(super) struct Bare {
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
}

impl Moves {
    /// Takes them out of the databases of a run that has ended.
    pub(super) fn of(stage: &Stage) -> Result<Self> {
        let store = Connection::open(stage.store())?;
        let names = [stage.topics.images.as_str(), QUEUE, stage.topics.predictions.as_str()];
        let [images, queue, predictions] = names.map(|topic| batches(&store, topic));
        let rows = Connection::open(stage.database())?;
        let (tables, rows) = (tables(&rows)?, predictions_of(&rows)?);
        Ok(Self { topics: [images?, queue?, predictions?], predictions: rows, tables })
    }

    /// Does them again in new databases.
    pub(super) fn run(&self, stage: &Stage, durability: Durability) -> Result<Bare> {
        let store = open_sqlite(&stage.folder.join("bare-store.db"), durability)?;
        store.execute_batch(BATCHES)?;
        // The program syncs each commit, whatever the store does.
        let rows = open_sqlite(&stage.folder.join("bare-rows.db"), Durability::Full)?;
        rows.execute_batch(&self.tables.join(";"))?;
        let (started, cpu) = (Instant::now(), own_cpu());
        let [images, queue, predictions] = &self.topics;
        let mut done = [0; 3];
        for (index, commit) in images.iter().enumerate() {
            move_batches(&store, commit)?;
            // Each later stage has come as far as the images have.
            let share = (index + 1) as f64 / images.len() as f64;
            let due = |commits: usize| (share * commits as f64) as usize;
            for commit in advance(&mut done[0], queue, due(queue.len())) {
                move_batches(&store, commit)?;
            }
            for commit in advance(&mut done[1], predictions, due(predictions.len())) {
                move_batches(&store, commit)?;
            }
            for commit in advance(&mut done[2], &self.predictions, due(self.predictions.len())) {
                insert(&rows, commit)?;
            }
        }
        let (wall, cpu) = (started.elapsed(), own_cpu() - cpu);
        let images = self.images()?;
        Ok(Bare { wall: wall / images, cpu: cpu / images })
    }

    fn images(&self) -> Result<u32> {
        let messages = |commit: &Batches| commit.iter().map(|row| row.1).sum::<i64>();
        let images: i64 = self.topics[0].iter().map(messages).sum();
        let rows: usize = self.predictions.iter().map(Vec::len).sum();
        ensure!(rows as i64 == images, "{images} images became {rows} rows");
        Ok(u32::try_from(images)?)
    }
}

/// The elements from `done` up to `due`, which are done then.
fn advance<'a, T>(done: &mut usize, all: &'a [T], due: usize) -> &'a [T] {
    let next = &all[*done..due.max(*done)];
    *done += next.len();
    next
}

/// Inserts rows as one transaction and reads them.
fn move_batches(store: &Connection, commit: &Batches) -> Result<()> {
    store.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut insert = store.prepare_cached("INSERT INTO batches VALUES (?1, ?2, ?3, ?4)")?;
    for (id, count, time, data) in commit {
        insert.execute(params![id, count, time, data])?;
    }
    store.prepare_cached("COMMIT")?.execute([])?;
    let mut read = store.prepare_cached("SELECT data FROM batches WHERE id = ?1")?;
    for (id, _, _, data) in commit {
        let back: Vec<u8> = read.query_row([id], |row| row.get(0))?;
        ensure!(back.len() == data.len(), "row {id} came back with {} bytes", back.len());
    }
    Ok(())
}

/// Inserts rows as one transaction.
fn insert(database: &Connection, commit: &Predictions) -> Result<()> {
    let columns = commit.first().map_or(0, Vec::len);
    let places = vec!["?"; columns].join(", ");
    database.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut insert =
        database.prepare_cached(&format!("INSERT INTO predictions VALUES ({places})"))?;
    for row in commit {
        insert.execute(params_from_iter(row))?;
    }
    database.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

/// The rows of a topic, by commit.
fn batches(store: &Connection, topic: &str) -> Result<Vec<Batches>> {
    let mut query = store.prepare(&format!(
        "SELECT b.id, b.count, b.time, b.data FROM batches b
         JOIN partitions p ON p.id = b.id >> {OFFSET_BITS} JOIN topics t ON t.id = p.topic
         WHERE t.name = ?1 ORDER BY b.time, b.id"
    ))?;
    let rows =
        query.query_map([topic], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let rows: Batches = rows.collect::<Result<_, _>>()?;
    ensure!(!rows.is_empty(), "the store has nothing of {topic}");
    Ok(by_commit(rows, |a, b| a.2 == b.2))
}

/// What the database was made by.
fn tables(database: &Connection) -> Result<Vec<String>> {
    let mut query = database.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")?;
    let tables = query.query_map([], |row| row.get(0))?;
    Ok(tables.collect::<Result<_, _>>()?)
}

/// The rows of `app2`, by commit.
fn predictions_of(database: &Connection) -> Result<Vec<Predictions>> {
    let mut query = database.prepare("SELECT * FROM predictions ORDER BY rowid")?;
    let (columns, time) = (query.column_count(), query.column_index("persisted_us"));
    let time = time.context("the predictions have no time")?;
    let rows = query.query_map([], |row| (0..columns).map(|column| row.get(column)).collect())?;
    let rows: Predictions = rows.collect::<Result<_, _>>()?;
    Ok(by_commit(rows, |a, b| a[time] == b[time]))
}

/// Splits rows where neighbours were not written at one moment.
fn by_commit<T>(rows: Vec<T>, together: impl Fn(&T, &T) -> bool) -> Vec<Vec<T>> {
    let mut commits: Vec<Vec<T>> = Vec::new();
    for row in rows {
        match commits.last_mut() {
            Some(commit) if commit.last().is_some_and(|last| together(last, &row)) => {
                commit.push(row);
            }
            _ => commits.push(vec![row]),
        }
    }
    commits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_moment_are_one_commit() {
        let commits = by_commit(vec![1, 1, 2, 3, 3], |a, b| a == b);
        assert_eq!(commits, [vec![1, 1], vec![2], vec![3, 3]]);
        assert!(by_commit(Vec::<u8>::new(), |a, b| a == b).is_empty());
    }

    #[test]
    fn a_stage_catches_up_once() {
        let (all, mut done) = ([1, 2, 3], 0);
        assert_eq!(advance(&mut done, &all, 2), [1, 2]);
        assert!(advance(&mut done, &all, 2).is_empty());
        assert_eq!(advance(&mut done, &all, 3), [3]);
    }
}
