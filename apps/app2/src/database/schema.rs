//! The tables, and the mark by which a file is known as ours.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use model_server::process::{Failure, Reason};
use rusqlite::{Connection, TransactionBehavior};

use super::failed;

/// "FOBY": marks the file as a database of predictions.
const APPLICATION: i64 = 0x464F_4259;
/// The version of the tables.
const FORMAT: i64 = 1;
/// How long another process may write.
const BUSY_MAX: Duration = Duration::from_secs(30);

const TABLES: &str = "
CREATE TABLE predictions (
    id TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    input_digest TEXT NOT NULL,
    truth TEXT,
    published_us INTEGER NOT NULL,
    label TEXT NOT NULL,
    probability REAL NOT NULL,
    probabilities TEXT NOT NULL,
    queued_us INTEGER NOT NULL,
    computing_us INTEGER NOT NULL,
    total_us INTEGER NOT NULL,
    persisted_us INTEGER NOT NULL,
    UNIQUE (id, model)
) STRICT;
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counters VALUES ('repeats', 0);
";

/// What a database says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// There is nothing in it yet.
    Empty,
    /// It holds our tables.
    Ours,
}

/// Opens the file for writing, and makes what is missing.
pub(super) fn open(path: &Path) -> Result<Connection, Failure> {
    refuse_directory(path)?;
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make(directory, path)?;
    }
    let failed = |error| failed("open", path, error);
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY_MAX).map_err(failed)?;
    // Looked at before anything is changed: it may be another program's.
    check(&connection, path)?;
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        .map_err(failed)?;
    // Another process may be making the tables at this moment.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    if check(&transaction, path)? == Kind::Empty {
        let marks =
            format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT};");
        transaction.execute_batch(&format!("{TABLES} {marks}")).map_err(failed)?;
    }
    transaction.commit().map_err(failed)?;
    Ok(connection)
}

pub(crate) fn refuse_directory(path: &Path) -> Result<(), Failure> {
    match path.is_dir() {
        true => Err(Failure::new(Reason::Start, format!("the database {path:?} is a directory"))),
        false => Ok(()),
    }
}

fn make(directory: &Path, path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory).map_err(|error| {
        let full =
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let reason = if full { Reason::StorageFull } else { Reason::Start };
        Failure::new(reason, format!("cannot make the directory of the database {path:?}"))
            .because(error)
    })
}

/// Refuses a database that is not ours, or of another version.
pub(crate) fn check(connection: &Connection, path: &Path) -> Result<Kind, Failure> {
    let read = |sql| connection.query_row::<i64, _, _>(sql, [], |row| row.get(0));
    let failed = |error| failed("read", path, error);
    let refused = |what| Failure::new(Reason::Start, format!("the database {path:?} {what}"));
    let application = read("PRAGMA application_id").map_err(failed)?;
    let version = read("PRAGMA user_version").map_err(failed)?;
    let things = read("SELECT count(*) FROM sqlite_schema").map_err(failed)?;
    if (application, version, things) == (0, 0, 0) {
        return Ok(Kind::Empty);
    }
    if application != APPLICATION {
        return Err(refused("belongs to another program".to_owned()));
    }
    if version != FORMAT {
        return Err(refused(format!("has format {version}; this program knows {FORMAT}")));
    }
    for table in ["predictions", "counters"] {
        let count = connection.query_row::<i64, _, _>(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1",
            [table],
            |row| row.get(0),
        );
        if count.map_err(failed)? == 0 {
            return Err(refused(format!("has no table {table}")));
        }
    }
    Ok(Kind::Ours)
}
