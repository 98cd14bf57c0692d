//! What is persisted, in figures and as a table.

mod table;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use model_server::process::{Failure, Reason};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use crate::database::{failed, schema};

/// How long another process may hold the database.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// Predicted labels and true ones in one list, with how often they met.
const LABELS: &str = "
SELECT name, sum(predicted), sum(truth), sum(correct) FROM (
    SELECT label AS name, count(*) AS predicted, 0 AS truth, 0 AS correct
    FROM predictions GROUP BY label
    UNION ALL
    SELECT truth, 0, count(*), sum(truth = label)
    FROM predictions WHERE truth IS NOT NULL GROUP BY truth
) GROUP BY name ORDER BY name";
/// A source without a clock leaves 0, which says nothing of the time it took.
const SPAN: &str = "
SELECT count(*), coalesce(max(persisted_us) - min(published_us), 0)
FROM predictions WHERE published_us > 0";
const LATENCIES: &str = "
SELECT max(persisted_us - published_us, 0) FROM predictions WHERE published_us > 0 ORDER BY 1";
const TOTALS: &str = "
SELECT count(*), coalesce(avg(queued_us), 0.0), coalesce(avg(computing_us), 0.0)
FROM predictions";
const REPEATS: &str = "SELECT value FROM counters WHERE name = 'repeats'";

/// What is persisted.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// How many predictions there are, each of another id and model.
    pub persisted: u64,
    /// How many came again and changed nothing.
    pub duplicates: u64,
    /// The share of correct ones among those whose truth is known.
    pub accuracy: Option<f64>,
    /// Between the first publication and the last persistence; 0 while there are none.
    pub images_per_second: f64,
    /// From publication to persistence, in milliseconds.
    pub latency_ms: Latency,
    /// The mean time before a model took an image up, in milliseconds.
    pub queued_ms: f64,
    /// The mean time of computing the batch that an image was in, in milliseconds.
    pub computing_ms: f64,
    /// The labels in their order.
    pub labels: Vec<LabelCount>,
}

/// How long it took, in milliseconds. A percentile is the smallest value that is not exceeded
/// by that share of the values; 0 while there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half were as fast.
    pub p50: f64,
    /// 90 of 100 were as fast.
    pub p90: f64,
    /// 99 of 100 were as fast.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// One label, as it was predicted and as it was true.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelCount {
    /// The label.
    pub label: String,
    /// How many images were predicted to be it.
    pub predicted: u64,
    /// How many images are known to be it.
    pub truth: u64,
    /// How many of those were predicted right.
    pub correct: u64,
    /// `correct` of `truth`.
    pub accuracy: Option<f64>,
}

impl Report {
    /// Reads the database at `path` without changing it, also while it is written to.
    ///
    /// Fails with `Start` where it is missing or not ours.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        if !path.exists() {
            let message = format!("there is no database {path:?}; app2 makes it when it starts");
            return Err(Failure::new(Reason::Start, message));
        }
        schema::refuse_directory(path)?;
        let cannot = |error| failed("read", path, error);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(cannot)?;
        connection.busy_timeout(BUSY_MAX).map_err(cannot)?;
        match schema::check(&connection, path)? {
            schema::Kind::Empty => Ok(Self::default()),
            schema::Kind::Ours => query(&mut connection).map_err(cannot),
        }
    }
}

/// Reads everything in one transaction, so that the figures belong together.
fn query(connection: &mut Connection) -> rusqlite::Result<Report> {
    let transaction = connection.transaction()?;
    let (persisted, queued_us, computing_us): (i64, f64, f64) =
        transaction.query_row(TOTALS, [], |row| row.try_into())?;
    let (timed, span_us): (i64, i64) = transaction.query_row(SPAN, [], |row| row.try_into())?;
    let duplicates: i64 = transaction.query_row(REPEATS, [], |row| row.get(0))?;
    let labels = labels(&transaction)?;
    let correct = labels.iter().map(|label| label.correct).sum();
    let known = labels.iter().map(|label| label.truth).sum();
    Ok(Report {
        persisted: unsigned(persisted),
        duplicates: unsigned(duplicates),
        accuracy: share(correct, known),
        images_per_second: if span_us > 0 { timed as f64 * 1e6 / span_us as f64 } else { 0.0 },
        latency_ms: latency(&transaction)?,
        queued_ms: queued_us / 1e3,
        computing_ms: computing_us / 1e3,
        labels,
    })
}

fn labels(connection: &Connection) -> rusqlite::Result<Vec<LabelCount>> {
    let mut statement = connection.prepare(LABELS)?;
    let rows = statement.query_map([], |row| {
        let (label, predicted, truth, correct): (String, i64, i64, i64) = row.try_into()?;
        let (predicted, truth, correct) = (unsigned(predicted), unsigned(truth), unsigned(correct));
        Ok(LabelCount { label, predicted, truth, correct, accuracy: share(correct, truth) })
    })?;
    rows.collect()
}

fn latency(connection: &Connection) -> rusqlite::Result<Latency> {
    let mut statement = connection.prepare(LATENCIES)?;
    let sorted: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let percentile = |percent| percentile(&sorted, percent) as f64 / 1e3;
    Ok(Latency {
        p50: percentile(50),
        p90: percentile(90),
        p99: percentile(99),
        max: percentile(100),
    })
}

/// The smallest value that `percent` of the sorted values do not exceed; 0 where there is none.
fn percentile(sorted: &[i64], percent: usize) -> i64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    rank.checked_sub(1).and_then(|at| sorted.get(at)).copied().unwrap_or(0)
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A count, which SQLite gives as a signed number.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
