//! Reading for a group under its leases without a script.
//!
//! A script would copy every entry twice, which costs more than all else. Instead the leases
//! are watched and looked at, and the entries are then read in a transaction of Redis, which
//! does nothing where a lease changed since. Each transaction is followed at once by the next
//! watch, so that reading on takes one exchange.

use std::sync::{Mutex, PoisonError};

use redis::{Pipeline, Value};

use super::connection::Link;
use super::convert::{array, entries, number, text, unexpected};
use super::error::{FENCED, from_server};
use super::fetch::{Batch, Want, fresh};
use crate::error::{Error, ErrorKind, Result};

/// What was seen of the leases when the watch began.
#[derive(Debug, Clone)]
struct Seen {
    /// The connection, which alone knows of the watch.
    connection: u64,
    leases: Vec<String>,
    /// Owner and generation of each.
    held: Vec<(Option<String>, u64)>,
}

/// The watch that is under way on a consumer's connection.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Option<Seen>>);

fn fenced() -> Error {
    let problem = format!("{FENCED} the lease has another holder");
    Error::new(ErrorKind::Fenced, "receive", problem)
}

/// Adds the watch and the look at the leases; UNWATCH first, so that leases of before count no
/// more.
fn watch(pipeline: &mut Pipeline, leases: &[String]) {
    pipeline.cmd("UNWATCH");
    pipeline.cmd("WATCH").arg(leases);
    for lease in leases {
        pipeline.cmd("HMGET").arg(lease).arg("owner").arg("generation");
    }
}

/// Reads what `watch` added.
fn seen(connection: u64, leases: Vec<String>, answers: Vec<Value>) -> Result<Seen> {
    let mut held = Vec::with_capacity(leases.len());
    for answer in answers.into_iter().skip(2) {
        let mut fields = array("receive", answer)?;
        let generation = fields.pop().as_ref().and_then(number).unwrap_or(0);
        held.push((fields.pop().and_then(text), generation));
    }
    Ok(Seen { connection, leases, held })
}

impl Watch {
    fn take(&self) -> Option<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reads new entries of several partitions, each under its lease.
    pub(super) async fn read(
        &self,
        link: &Link,
        member: &str,
        group: &str,
        wants: &[(&Want, u64)],
    ) -> Vec<Result<Batch>> {
        match self.try_read(link, member, group, wants).await {
            Ok(batches) => batches,
            Err(error) => wants.iter().map(|_| Err(error.duplicate())).collect(),
        }
    }

    async fn try_read(
        &self,
        link: &Link,
        member: &str,
        group: &str,
        wants: &[(&Want, u64)],
    ) -> Result<Vec<Result<Batch>>> {
        let leases: Vec<String> = wants.iter().map(|(want, _)| want.lease.clone()).collect();
        let known = self.take().filter(|seen| seen.leases == leases);
        let known = known.filter(|seen| link.is_current(seen.connection));
        let seen = match known {
            Some(seen) => seen,
            None => begin(link, leases.clone()).await?,
        };
        let holds = |index: usize| {
            let (owner, generation) = &seen.held[index];
            owner.as_deref() == Some(member) && *generation == wants[index].1
        };
        if !(0..wants.len()).all(holds) {
            let verdict = |index| if holds(index) { Ok(Batch::default()) } else { Err(fenced()) };
            return Ok((0..wants.len()).map(verdict).collect());
        }
        let pipeline = transaction(member, group, wants, &leases);
        let Some(answers) = link.query_all_on(seen.connection, "receive", &pipeline).await? else {
            // The connection is another by now, so that nothing was read.
            return Ok(wants.iter().map(|_| Ok(Batch::default())).collect());
        };
        let mut answers = answers?;
        let next = answers.split_off((wants.len() + 2).min(answers.len()));
        let next = self::seen(seen.connection, leases, next)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        read_answers(wants.len(), answers.pop().unwrap_or_default())
    }
}

async fn begin(link: &Link, leases: Vec<String>) -> Result<Seen> {
    let mut pipeline = Pipeline::new();
    watch(&mut pipeline, &leases);
    let (connection, answers) = link.query_all_numbered("receive", &pipeline).await?;
    seen(connection, leases, answers?)
}

fn transaction(member: &str, group: &str, wants: &[(&Want, u64)], leases: &[String]) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(2 * wants.len() + 4);
    pipeline.cmd("MULTI");
    for (want, _) in wants {
        let command = pipeline.cmd("XREADGROUP").arg("GROUP").arg(group).arg(member);
        command.arg("COUNT").arg(want.count).arg("STREAMS").arg(&*want.stream).arg(">");
    }
    pipeline.cmd("EXEC");
    watch(&mut pipeline, leases);
    pipeline
}

/// The entries of each partition; none at all where a lease changed, which the next look finds.
fn read_answers(count: usize, answer: Value) -> Result<Vec<Result<Batch>>> {
    match answer {
        Value::Nil => Ok((0..count).map(|_| Ok(Batch::default())).collect()),
        Value::ServerError(error) => Err(from_server("receive", error)),
        Value::Array(streams) if streams.len() == count => {
            Ok(streams.into_iter().map(read_stream).collect())
        }
        _ => Err(unexpected("receive", "a transaction without results")),
    }
}

/// One stream was asked for: the answer is its name with its entries, or nothing.
pub(super) fn read_stream(answer: Value) -> Result<Batch> {
    if let Value::ServerError(error) = answer {
        return Err(from_server("receive", error));
    }
    let Some(stream) = array("receive", answer)?.pop() else { return Ok(Batch::default()) };
    let found = array("receive", stream)?.pop().unwrap_or_default();
    Ok(fresh(entries("receive", found)?))
}
