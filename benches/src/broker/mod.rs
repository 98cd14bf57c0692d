//! The brokers alone: the SDK on Kafka against librdkafka, the embedded one against SQLite.

mod bare_kafka;
mod bare_pubsub;
mod bare_redis;
mod bare_sqlite;
mod contest;
mod embedded;
mod kafka;
mod latency;
mod peers;
mod pubsub;
mod redis;
mod router;
mod work;

use std::path::Path;

use anyhow::Result;
pub(crate) use bare_sqlite::open as open_sqlite;

use crate::Kafka;
use crate::machine::Machine;
use crate::report::Row;

/// How much is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often each side runs; the table holds the medians
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A tenth of the messages and one round: whether it works, not how fast
    #[arg(long)]
    quick: bool,
    /// Only this part, while working on it
    #[arg(long)]
    only: Option<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Kafka,
    Peers,
    Redis,
    Pubsub,
    Embedded,
    Latency,
}

impl Arguments {
    fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    /// So many batches, or a tenth of them.
    fn batches(&self, batches: usize) -> usize {
        if self.quick { (batches / 10).max(1) } else { batches }
    }
}

/// Measures all rows.
pub(crate) async fn run(
    given: &Arguments,
    directory: &Path,
    machine: &mut Machine,
) -> Result<Vec<Row>> {
    let server = Kafka::from_environment()?;
    machine.add_kafka(server.pid);
    machine.add_setting(format!(
        "medians of {} rounds, in which the sides take turns; against a server {} batches of {} \
         or {} single messages are out at once; CPU is that of the client's process",
        given.rounds(),
        contest::DEPTH,
        contest::BATCH,
        contest::SINGLES_OUT,
    ));
    let mut rows = Vec::new();
    if given.wants(Part::Kafka) {
        rows.extend(kafka::rows(given, &server).await?);
    }
    if given.wants(Part::Peers) {
        rows.extend(peers::rows(given, &server, machine).await?);
    }
    if given.wants(Part::Redis) {
        rows.extend(redis::rows(given).await?);
    }
    if given.wants(Part::Pubsub) {
        rows.extend(pubsub::rows(given).await?);
    }
    if given.wants(Part::Embedded) {
        rows.extend(embedded::rows(given, directory).await?);
        rows.extend(embedded::routed(given, directory).await?);
    }
    if given.wants(Part::Latency) {
        rows.extend(latency::rows(given, directory, &server).await?);
    }
    Ok(rows)
}
