//! The database: its file, its tables, its settings.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::config::{Config, Durability};
use super::error::{from_io, from_sqlite};
use crate::error::{Error, ErrorKind, Result};

/// The version of tables and frames; a store of a newer one is refused.
const FORMAT: i64 = 2;

/// A partition's rows begin at its id shifted by this; the rest is the batch's first offset.
pub(super) const OFFSET_BITS: u32 = 40;

/// The tables as they were in format 1.
pub(super) const TABLES: &str = "
CREATE TABLE topics (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    retention_ms INTEGER NOT NULL,
    retention_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    topic INTEGER NOT NULL REFERENCES topics (id),
    number INTEGER NOT NULL,
    start INTEGER NOT NULL DEFAULT 0,
    next INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    bytes_max INTEGER NOT NULL,
    UNIQUE (topic, number)
) STRICT;
-- One row is one record batch: a row for each message would cost ten times as much.
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    time INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE positions (
    grp TEXT NOT NULL,
    partition INTEGER NOT NULL REFERENCES partitions (id),
    committed INTEGER NOT NULL,
    owner TEXT,
    generation INTEGER NOT NULL DEFAULT 0,
    starts INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (grp, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE members (
    name TEXT PRIMARY KEY,
    grp TEXT NOT NULL,
    topic INTEGER NOT NULL REFERENCES topics (id),
    boot TEXT NOT NULL,
    lease_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What format 2 has more: compaction, and times of rows that never go back. Rows of format 1
/// are rows of format 2. A program of format 1 that is still running goes on: topics that it
/// made are not compacted, and others it can read as long as nothing was removed from them.
const FORMAT_2: &str = "
ALTER TABLE topics ADD COLUMN compacted INTEGER NOT NULL DEFAULT 0;
-- The time of the newest row, in milliseconds.
ALTER TABLE partitions ADD COLUMN time INTEGER NOT NULL DEFAULT 0;
-- Below this offset only the last message of each key is left, and so many bytes.
ALTER TABLE partitions ADD COLUMN cleaned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE partitions ADD COLUMN clean_bytes INTEGER NOT NULL DEFAULT 0;
-- When the oldest tombstone was written that is left there.
ALTER TABLE partitions ADD COLUMN tombstones INTEGER NOT NULL DEFAULT 9223372036854775807;
";

/// Makes the directory and its tables where they are missing, and brings older ones up to date.
pub(super) fn prepare(config: &Config) -> Result<()> {
    let directory = &config.directory;
    let at = |error: Error| error.with("directory", directory.display());
    if directory.exists() && !directory.is_dir() {
        let message = "the data directory is a file";
        return Err(at(Error::new(ErrorKind::ConfigInvalid, "open store", message)));
    }
    std::fs::create_dir_all(directory.join("members"))
        .map_err(|error| at(from_io("open store", error)))?;
    refuse_network_file_system(directory).map_err(at)?;
    let lock = lock_file(directory).map_err(at)?;
    lock.lock().map_err(|error| at(from_io("open store", error)))?;
    let connection = connect(config)?;
    migrate(&connection).map_err(at)
}

pub(super) fn migrate(connection: &Connection) -> Result<()> {
    let sql = |error| from_sqlite("open store", error);
    let version: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
    let steps = match version {
        FORMAT => return Ok(()),
        0 => [TABLES, FORMAT_2].concat(),
        1 => FORMAT_2.to_owned(),
        other => {
            let message = format!("the store has format {other}; this program knows {FORMAT}");
            return Err(Error::new(ErrorKind::ConfigInvalid, "open store", message));
        }
    };
    let script = format!("BEGIN; {steps} PRAGMA user_version = {FORMAT}; COMMIT;");
    connection.execute_batch(&script).map_err(sql)
}

/// The file whose lock orders the writers of all processes. SQLite's own waiting sleeps up
/// to 100 ms and is unfair.
pub(super) fn lock_file(directory: &Path) -> Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join("write.lock"))
        .map_err(|error| from_io("open store", error))
}

/// Opens a connection with the store's settings.
pub(super) fn connect(config: &Config) -> Result<Connection> {
    let path = config.directory.join("forebay.db");
    let sql = |error| from_sqlite("open store", error).with("file", path.display());
    let connection = Connection::open(&path).map_err(sql)?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(sql)?;
    connection.set_prepared_statement_cache_capacity(64);
    let synchronous = match config.durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    let settings = format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = {synchronous};
         PRAGMA wal_autocheckpoint = 4000;
         PRAGMA cache_size = -16384;
         PRAGMA temp_store = MEMORY;"
    );
    connection.execute_batch(&settings).map_err(sql)?;
    Ok(connection)
}

/// Locks and shared memory do not work over networks, and fail silently there.
#[cfg(target_os = "linux")]
fn refuse_network_file_system(directory: &Path) -> Result<()> {
    const NETWORK: [(u64, &str); 4] =
        [(0x6969, "NFS"), (0x517B, "SMB"), (0xFF53_4D42, "CIFS"), (0xFE53_4D42, "SMB2")];
    let Ok(status) = rustix::fs::statfs(directory) else { return Ok(()) };
    let magic = status.f_type as u64 & 0xFFFF_FFFF;
    match NETWORK.iter().find(|(number, _)| *number == magic) {
        Some((_, name)) => {
            let message = format!("the store cannot be on a network file system ({name})");
            Err(Error::new(ErrorKind::ConfigInvalid, "open store", message))
        }
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network_file_system(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(connection: &Connection) -> Vec<String> {
        let mut statement = connection
            .prepare("SELECT t.name || '.' || c.name || ' ' || c.type FROM sqlite_schema t, pragma_table_info(t.name) c")
            .unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_store_of_format_1_becomes_what_a_new_one_is() {
        let (old, new) =
            (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
        old.execute_batch(TABLES).unwrap();
        old.execute_batch("INSERT INTO topics VALUES (7, 't', 1, 2); PRAGMA user_version = 1")
            .unwrap();
        migrate(&old).unwrap();
        migrate(&new).unwrap();
        assert_eq!(columns(&old), columns(&new));
        let kept = "SELECT name || retention_ms || compacted FROM topics";
        let kept: String = old.query_row(kept, [], |row| row.get(0)).unwrap();
        assert_eq!(kept, "t10");
        migrate(&old).unwrap();
    }

    /// Threads stand for processes: each has its own lock and its own connection.
    #[test]
    fn many_that_upgrade_a_store_at_once_upgrade_it_once() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::new(directory.path());
        let old = Connection::open(directory.path().join("forebay.db")).unwrap();
        old.execute_batch(TABLES).unwrap();
        old.execute_batch("INSERT INTO topics VALUES (7, 't', 1, 2); PRAGMA user_version = 1")
            .unwrap();
        drop(old);
        std::thread::scope(|scope| {
            let upgrades: Vec<_> = (0..8).map(|_| scope.spawn(|| prepare(&config))).collect();
            upgrades.into_iter().for_each(|upgrade| upgrade.join().unwrap().unwrap());
        });
        let store = connect(&config).unwrap();
        let version: i64 =
            store.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        let topics: i64 =
            store.query_row("SELECT count(*) FROM topics", [], |row| row.get(0)).unwrap();
        assert_eq!((version, topics), (FORMAT, 1));
    }

    #[test]
    fn a_store_of_a_later_format_is_refused_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::new(directory.path());
        prepare(&config).unwrap();
        let store = connect(&config).unwrap();
        store.pragma_update(None, "user_version", FORMAT + 1).unwrap();
        let error = prepare(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
        assert!(error.to_string().contains(&format!("format {}", FORMAT + 1)), "{error}");
    }
}
