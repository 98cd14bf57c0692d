//! The SQLite file of predictions.
//!
//! It is in WAL mode, so that reports read while predictions are written, and every commit is
//! synced: the broker will not bring again what was settled after it.

pub(crate) mod schema;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use broker::Timestamp;
use model_server::prediction::{ID_LENGTH_MAX, Prediction};
use model_server::process::{Failure, Reason};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};

/// The longest name of a model that is accepted, in bytes.
const MODEL_LENGTH_MAX: usize = 256;

const INSERT: &str = "
INSERT INTO predictions (
    id, model, version, digest, topic, partition, offset, input_digest, truth, published_us,
    label, probability, probabilities, queued_us, computing_us, total_us, persisted_us
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
ON CONFLICT (id, model) DO NOTHING";
const INPUT_DIGEST: &str = "SELECT input_digest FROM predictions WHERE id = ?1 AND model = ?2";
const COUNT_REPEATS: &str = "UPDATE counters SET value = value + ?1 WHERE name = 'repeats'";

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has a row now.
    Persisted,
    /// It had one before, and nothing changed but the counter of repeats.
    Repeated,
    /// It cannot have one, for this reason.
    Refused(String),
}

/// The database, open for writing.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    connection: Connection,
}

impl Database {
    /// Opens the file at `path`, and makes it and its directory where they are missing.
    ///
    /// Fails with `Start` where the path cannot be written or is another program's database, and
    /// with `StorageFull`.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        schema::open(path).map(|connection| Self { path: path.to_owned(), connection })
    }

    /// Persists a batch of JSON payloads as one transaction, durable when it returns. After a
    /// failure nothing of it is persisted.
    pub fn persist<P: AsRef<[u8]>>(&mut self, payloads: &[P]) -> Result<Vec<Verdict>, Failure> {
        let Self { path, connection } = self;
        persist(connection, payloads).map_err(|error| failed("write to", path, error))
    }
}

fn persist<P: AsRef<[u8]>>(
    connection: &mut Connection,
    payloads: &[P],
) -> rusqlite::Result<Vec<Verdict>> {
    // A transaction that reads first could find that another process wrote in between.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now = Timestamp::now().as_micros();
    let mut verdicts = Vec::with_capacity(payloads.len());
    for payload in payloads {
        verdicts.push(match parse(payload.as_ref()) {
            Ok(prediction) => insert(&transaction, &prediction, now)?,
            Err(reason) => Verdict::Refused(reason),
        });
    }
    let repeats = verdicts.iter().filter(|verdict| **verdict == Verdict::Repeated).count();
    if repeats > 0 {
        transaction.prepare_cached(COUNT_REPEATS)?.execute([repeats as i64])?;
    }
    transaction.commit()?;
    Ok(verdicts)
}

fn parse(payload: &[u8]) -> Result<Prediction, String> {
    let prediction: Prediction =
        serde_json::from_slice(payload).map_err(|error| format!("no prediction: {error}"))?;
    let lengths = [
        ("id", prediction.id.len(), ID_LENGTH_MAX),
        ("model's name", prediction.model.name.len(), MODEL_LENGTH_MAX),
    ];
    for (what, length, limit) in lengths {
        if !(1..=limit).contains(&length) {
            let reason = format!("no prediction: the {what} has {length} bytes");
            return Err(format!("{reason}, expected 1 to {limit}"));
        }
    }
    Ok(prediction)
}

fn insert(
    transaction: &Transaction<'_>,
    prediction: &Prediction,
    now: i64,
) -> rusqlite::Result<Verdict> {
    let Prediction { id, model, source, input, outputs, times } = prediction;
    // SQLite's integers are signed.
    let numbers = [source.offset, times.queued_us, times.computing_us, times.total_us];
    let [Ok(offset), Ok(queued_us), Ok(computing_us), Ok(total_us)] = numbers.map(i64::try_from)
    else {
        return Ok(Verdict::Refused(format!(
            "no prediction: a number of {numbers:?} is too large"
        )));
    };
    let probabilities = serde_json::to_string(&outputs.probabilities)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    // By position, in the order of the columns: finding names costs more than the insertion.
    let inserted = transaction.prepare_cached(INSERT)?.execute(params![
        id,
        model.name,
        model.version,
        model.digest,
        source.topic,
        source.partition,
        offset,
        input.digest,
        input.label,
        input.published_us,
        outputs.label,
        f64::from(outputs.probability),
        probabilities,
        queued_us,
        computing_us,
        total_us,
        now,
    ])?;
    if inserted > 0 {
        return Ok(Verdict::Persisted);
    }
    compare(transaction, prediction)
}

/// Whether the row that is there already is of the same input.
fn compare(transaction: &Transaction<'_>, new: &Prediction) -> rusqlite::Result<Verdict> {
    let (id, model, digest) = (&new.id, &new.model.name, &new.input.digest);
    let persisted: String =
        transaction.prepare_cached(INPUT_DIGEST)?.query_row((id, model), |row| row.get(0))?;
    if persisted == *digest {
        return Ok(Verdict::Repeated);
    }
    Ok(Verdict::Refused(format!(
        "conflict: id {id:?} of model {model:?} is persisted for the input {persisted:?}, and came \
         again for {digest:?}"
    )))
}

/// The failure of doing something with the file at `path`.
pub(crate) fn failed(what: &str, path: &Path, error: rusqlite::Error) -> Failure {
    let reason = if is_full(&error) { Reason::StorageFull } else { Reason::Start };
    Failure::new(reason, format!("cannot {what} the database {path:?}")).because(error)
}

fn is_full(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE};
    let Some(code) = error.sqlite_error() else { return false };
    // Growing a file fails in these ways too where the disk is full.
    code.code == ErrorCode::DiskFull
        || matches!(code.extended_code, SQLITE_IOERR_SHMSIZE | SQLITE_IOERR_WRITE)
}
