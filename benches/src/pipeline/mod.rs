//! The image pipeline against the model alone, the bare moves of its bytes, Kafka's own work,
//! and the same job in Python.

mod alone;
mod peers;
mod precision;
mod programs;
mod replay;
mod rounds;
mod server;
mod stage;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use broker::Broker;
use model_server::settings::{self, Settings};
use tokio::runtime::Runtime;

use crate::Kafka;
use crate::images::Images;
use crate::machine::Machine;
use crate::report::Row;
use peers::Peers;
use programs::Programs;
use rounds::Rounds;

/// How the limits come about.
const LIMITS: [&str; 3] = [
    "limit of (b): the time of an image in (a), and after it that of a bare loop over SQLite which \
     makes the same moves of the same bytes in the same commits; `with the loop's CPU`: instead of \
     the loop's time only its CPU time counts, shared by all cores",
    "limit of (c): the time of an image in (a) and the CPU time of Kafka's own process for an \
     image, shared by all cores",
    "(b) and (c) run app1, model_server_sub, model_server_pub and app2; (d), (e) and (f) take images \
     from a full topic and write predictions to another, as our two programs in between do on the \
     same topic",
];

/// How much is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often each side runs; the table holds the medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Images in each run, taken again from the first one when they end
    #[arg(long, default_value_t = 30_000)]
    images: usize,
    /// A tenth of the images and one round: whether it works, not how fast
    #[arg(long)]
    quick: bool,
    /// The model file that every side serves, with its siblings for the other runtimes
    #[arg(long, value_name = "FILE", default_value = "modelling/models/mnist-cnn/mnist-cnn.onnx")]
    model: PathBuf,
}

/// What all runs share.
struct Bench<'a> {
    images: Images,
    /// Images in each run.
    count: usize,
    model: PathBuf,
    /// The `[model]` that programs get by default.
    settings: settings::Model,
    cores: usize,
    directory: &'a Path,
    runtime: &'a Runtime,
    kafka: Kafka,
    broker: Arc<dyn Broker>,
    programs: Programs,
    peers: Peers,
}

/// Measures all rows.
pub(crate) fn run(
    given: &Arguments,
    directory: &Path,
    runtime: &Runtime,
    machine: &mut Machine,
) -> Result<Vec<Row>> {
    let kafka = Kafka::from_environment()?;
    let model = given.model.canonicalize();
    let model = model.with_context(|| format!("cannot find the model {:?}", given.model))?;
    let bench = Bench {
        images: Images::load()?,
        count: if given.quick { given.images / 10 } else { given.images }.max(1),
        settings: model_settings(&model)?,
        model,
        cores: machine.cores(),
        directory,
        runtime,
        broker: runtime.block_on(kafka.connect())?,
        kafka,
        programs: Programs::find()?,
        peers: Peers::find()?,
    };
    let rounds = if given.quick { 1 } else { given.rounds.max(1) };
    machine.add_kafka(bench.kafka.pid);
    for (name, version) in bench.peers.versions()? {
        machine.add_version(name, version);
    }
    machine.add_setting(bench.setting(rounds));
    LIMITS.iter().for_each(|limit| machine.add_setting(*limit));
    let mut all = Rounds::default();
    for round in 1..=rounds {
        all.measure(&bench, round)?;
    }
    let mut rows = all.rows(&bench);
    rows.extend(precision::rows(&bench, rounds)?);
    runtime.block_on(bench.broker.shutdown())?;
    Ok(rows)
}

impl Bench<'_> {
    /// How it was measured, in a sentence.
    fn setting(&self, rounds: usize) -> String {
        let settings::Model { workers, batch_max, options, .. } = &self.settings;
        format!(
            "medians of {rounds} rounds, in which the sides take turns; {} images in each run, \
             {}, of 784 bytes; {workers} models of {} thread each, batches of {batch_max}, {}; \
             Python's runtimes with {} threads",
            self.count,
            self.images.source,
            options.threads,
            options.precision,
            self.threads()
        )
    }

    /// The threads that compute.
    fn threads(&self) -> usize {
        self.settings.workers * self.settings.options.threads
    }
}

/// The `[model]` that an ini file gives which names only the file.
fn model_settings(model: &Path) -> Result<settings::Model> {
    let text = format!(
        "[broker]\nkind = embedded\n[embedded]\ndirectory = unused\n[model]\npath = {}\n",
        model.display()
    );
    let file = broker::config::File::parse(
        Path::new("bench.ini"),
        &text,
        &broker::config::ProcessEnvironment,
    )?;
    Ok(Settings::from_file(&file)?.model)
}
