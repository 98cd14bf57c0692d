//! Bare SQLite through `rusqlite`: one row and one commit for each batch, with the settings
//! of the embedded store.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use broker::embedded::Durability;
use rusqlite::{Connection, params};

use super::work::Load;

/// What the embedded store adds to each message: three lengths and a time.
const FRAME_BYTES: usize = 20;

const TABLES: &str = "
    CREATE TABLE batches (
        id INTEGER PRIMARY KEY, count INTEGER NOT NULL, time INTEGER NOT NULL, data BLOB NOT NULL
    ) STRICT;
    CREATE TABLE positions (id INTEGER PRIMARY KEY, committed INTEGER NOT NULL) STRICT;
    INSERT INTO positions VALUES (1, 0);";

/// A database with the settings of the embedded store.
pub(crate) fn open(path: &Path, durability: Durability) -> Result<Connection> {
    let connection = Connection::open(path)?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
         PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -16384;
         PRAGMA temp_store = MEMORY;"
    ))?;
    Ok(connection)
}

/// A database with batches.
pub(super) struct Batches {
    connection: Connection,
    load: Load,
    row: Vec<u8>,
}

impl Batches {
    pub(super) fn create(path: &Path, durability: Durability, load: &Load) -> Result<Self> {
        let connection = open(path, durability)?;
        connection.execute_batch(TABLES)?;
        let message = [&[0; FRAME_BYTES][..], &load.payload[..]].concat();
        Ok(Self { connection, load: load.clone(), row: message.repeat(load.batch) })
    }

    /// Inserts them all: the time of each commit.
    pub(super) fn publish(&mut self) -> Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(self.load.batches);
        for id in 0..self.load.batches as i64 {
            let started = Instant::now();
            self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            self.connection
                .prepare_cached("INSERT INTO batches VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![id, self.load.batch as i64, 0, self.row])?;
            self.connection.prepare_cached("COMMIT")?.execute([])?;
            times.push(started.elapsed());
        }
        Ok(times)
    }

    /// Reads them all and notes the position after each: messages a second.
    pub(super) fn consume(&mut self) -> Result<f64> {
        let started = Instant::now();
        for id in 0..self.load.batches as i64 {
            let row: Vec<u8> = self
                .connection
                .prepare_cached("SELECT data FROM batches WHERE id = ?1")?
                .query_row([id], |row| row.get(0))?;
            ensure!(row.len() == self.row.len(), "a row came back with {} bytes", row.len());
            self.connection
                .prepare_cached("UPDATE positions SET committed = ?1 WHERE id = 1")?
                .execute([id])?;
        }
        Ok(self.load.messages() as f64 / started.elapsed().as_secs_f64())
    }
}
