//! The database: its file, its tables, its settings.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::config::{Config, Durability};
use super::error::{from_io, from_sqlite};
use crate::error::{Error, ErrorKind, Result};

/// The version of tables and frames; a store of a newer one is refused.
const FORMAT: i64 = 1;

/// A partition's rows begin at its id shifted by this; the rest is the batch's first offset.
pub(super) const OFFSET_BITS: u32 = 40;

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

/// Makes the directory and its tables where they are missing.
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

fn migrate(connection: &Connection) -> Result<()> {
    let sql = |error| from_sqlite("open store", error);
    let version: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
    match version {
        FORMAT => Ok(()),
        0 => {
            let script = format!("BEGIN; {TABLES} PRAGMA user_version = {FORMAT}; COMMIT;");
            connection.execute_batch(&script).map_err(sql)
        }
        other => {
            let message = format!("the store has format {other}; this program knows {FORMAT}");
            Err(Error::new(ErrorKind::ConfigInvalid, "open store", message))
        }
    }
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
