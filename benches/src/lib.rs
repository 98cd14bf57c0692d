//! Measures Forebay, its peers and the limits side by side in one run, and prints the ratios.
//!
//! Each subcommand makes one table. What is compared runs in turn, round by round, so that a
//! machine which slows down slows all sides; the table holds the medians. All loads are
//! bounded by count. A missed goal is a row that says so, not a failure.

mod broker;
mod images;
mod machine;
mod measure;
mod pipeline;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::broker::config::{File, ProcessEnvironment};
use ::broker::{Broker, Policy, factory};
use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use machine::Machine;
use report::Report;

/// Measures Forebay, its peers and the limits side by side.
///
/// A Kafka is expected where FOREBAY_TEST_KAFKA says, as `scripts/servers run kafka -- COMMAND`
/// gives it, and the programs of a release build beside this one: `make bench` does all that.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    table: Table,
    /// Print one JSON object a row instead of the table
    #[arg(long, global = true)]
    json: bool,
    /// Also put the table into this file, in place of its last one
    #[arg(long, global = true, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Where the stores of the runs are made, on the disk to be measured [default: beside the program]
    #[arg(long, global = true, value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Table {
    /// The image pipeline, the model alone and the same job in Python
    Pipeline(pipeline::Arguments),
    /// The SDK on Kafka against bare librdkafka, and the embedded broker against bare SQLite
    Broker(broker::Arguments),
}

/// Measures a table and prints it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let work = scratch(arguments.directory.as_deref())?;
    let mut machine = Machine::read()?;
    let (table, rows) = match &arguments.table {
        Table::Pipeline(given) => {
            ("pipeline", pipeline::run(given, work.path(), &runtime, &mut machine)?)
        }
        Table::Broker(given) => {
            ("broker", runtime.block_on(broker::run(given, work.path(), &mut machine))?)
        }
    };
    let report = Report { table, machine, rows };
    if let Some(path) = &arguments.markdown {
        report.write_markdown(path)?;
    }
    print!("{}", if arguments.json { report.json()? } else { report.text() });
    Ok(())
}

/// A folder that is removed in the end. The folder for temporary files is no place for it:
/// where that is in memory, syncing a file costs nothing.
fn scratch(given: Option<&Path>) -> Result<tempfile::TempDir> {
    let parent = match given {
        Some(directory) => directory.to_owned(),
        None => programs_directory()?,
    };
    tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot make a folder in {}", parent.display()))
}

/// The folder of this program, where the others are too.
fn programs_directory() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    own.parent().map(PathBuf::from).context("this program has no folder")
}

/// The Kafka to measure, and its process.
struct Kafka {
    servers: String,
    pid: u32,
}

impl Kafka {
    fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            let missing =
                || format!("{name} is not set: run this by `scripts/servers run kafka -- COMMAND`");
            std::env::var(name).with_context(missing)
        };
        let servers = variable("FOREBAY_TEST_KAFKA")?;
        let pid = variable("FOREBAY_TEST_KAFKA_PID")?;
        let pid = pid.parse().with_context(|| format!("FOREBAY_TEST_KAFKA_PID is {pid:?}"))?;
        Ok(Self { servers, pid })
    }

    fn ini(&self) -> String {
        format!("[broker]\nkind = kafka\n[kafka]\nbootstrap.servers = {}\n", self.servers)
    }

    async fn connect(&self) -> Result<Arc<dyn Broker>> {
        connect_to(&self.ini()).await
    }
}

/// Connects as a program does that is given this ini file, with all layers.
async fn connect_to(text: &str) -> Result<Arc<dyn Broker>> {
    let file = File::parse(Path::new("bench.ini"), text, &ProcessEnvironment)?;
    Ok(factory::Config::from_file(&file)?.connect(Policy::default()).await?)
}

/// Connects to the backend alone.
async fn connect_bare(text: &str) -> Result<Arc<dyn Broker>> {
    let file = File::parse(Path::new("bench.ini"), text, &ProcessEnvironment)?;
    Ok(factory::Config::from_file(&file)?.backend.connect().await?)
}

/// Where downloads are kept.
fn cache() -> Result<PathBuf> {
    if let Some(cache) = std::env::var_os("FOREBAY_CACHE") {
        return Ok(PathBuf::from(cache));
    }
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    Ok(PathBuf::from(home).join(".cache/forebay"))
}

/// A name that no other run has.
fn unique(name: &str) -> String {
    format!("bench-{name}-{:x}", ::broker::Timestamp::now().as_micros())
}
