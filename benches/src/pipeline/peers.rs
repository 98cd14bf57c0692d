//! The same job in Python.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use broker::{BrokerExt, Topic, TopicSpec};
use serde::Deserialize;

use super::Bench;
use super::server::{self, Found, Served};
use super::stage::PARTITIONS;
use crate::measure::cpu_of;

const SCRIPT: &str = "benches/peers/python/peer.py";
const VERSIONS: &str = "
import importlib.metadata as m, platform
print('Python', platform.python_version())
for name in 'torch', 'onnxruntime', 'confluent-kafka', 'numpy': print(name, m.version(name))
";
/// Labels may differ on images that are a tie but for rounding.
const AGREEMENT: f64 = 0.999;

/// One way to write it.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) mode: &'static str,
    pub(super) runtime: &'static str,
    /// How many times faster we want to be.
    pub(super) goal: f64,
}

pub(super) const KINDS: [Kind; 3] = [
    Kind { name: "(d) Python, torch, one by one", mode: "one", runtime: "torch", goal: 5.0 },
    Kind {
        name: "(e) Python, torch, batched by hand",
        mode: "batched",
        runtime: "torch",
        goal: 4.0,
    },
    Kind {
        name: "(f) Python, onnxruntime, batched by hand",
        mode: "batched",
        runtime: "onnx",
        goal: 1.5,
    },
];

/// The interpreter that has what the peers import.
pub(super) struct Peers {
    python: PathBuf,
}

#[derive(Deserialize)]
struct Figures {
    images: usize,
    images_per_second: f64,
    cpu_seconds: f64,
}

impl Peers {
    /// Where `scripts/fetch-python-peers` installs it.
    pub(super) fn find() -> Result<Self> {
        let cache = crate::cache()?;
        let python = cache.join("python-peers/bin/python");
        let (shown, script) = (python.display(), Path::new(SCRIPT));
        ensure!(python.is_file(), "{shown} is missing: run scripts/fetch-python-peers");
        ensure!(script.is_file(), "{SCRIPT} is missing: run this in the root of the checkout");
        Ok(Self { python })
    }

    /// Names and versions of what they use.
    pub(super) fn versions(&self) -> Result<Vec<(String, String)>> {
        let text = self.output(&["-c", VERSIONS])?;
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs.map(|(name, version)| (name.to_owned(), version.to_owned())).collect())
    }

    /// Predicts all images of the topic.
    pub(super) fn run(&self, bench: &Bench, images: &Topic, kind: &Kind) -> Result<Served> {
        let output = Topic::new(&crate::unique("peer"))?;
        bench.runtime.block_on(bench.broker.ensure_topic(&TopicSpec::new(&output, PARTITIONS)))?;
        let folder = bench.model.parent().and_then(Path::to_str).context("no model folder")?;
        let (count, threads) = (bench.count.to_string(), bench.threads().to_string());
        let kafka = cpu_of(bench.kafka.pid)?;
        let text = self.output(&[
            SCRIPT,
            "--brokers",
            &bench.kafka.servers,
            "--input",
            images.as_str(),
            "--output",
            output.as_str(),
            "--mode",
            kind.mode,
            "--runtime",
            kind.runtime,
            "--threads",
            &threads,
            "--count",
            &count,
            "--model",
            folder,
        ])?;
        let figures: Figures = serde_json::from_str(&text)
            .with_context(|| format!("the peer printed no figures: {text:?}"))?;
        ensure!(figures.images == bench.count, "the peer predicted {} images", figures.images);
        let kafka_us = bench.kafka_us_since(kafka)?;
        let found = server::read(bench, &output)?;
        bench.delete_topics(&[output.as_str()])?;
        Ok(Served {
            images_per_second: figures.images_per_second,
            cpu_us: figures.cpu_seconds * 1e6 / bench.count as f64,
            kafka_us,
            found,
        })
    }

    fn output(&self, arguments: &[&str]) -> Result<String> {
        let mut python = Command::new(&self.python);
        let python = python.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = python.output().context("cannot start Python")?;
        ensure!(output.status.success(), "Python ended with {}", output.status);
        String::from_utf8(output.stdout).context("Python printed no UTF-8")
    }
}

/// Fails unless both found the same labels.
pub(super) fn compare(ours: &Found, theirs: &Found) -> Result<()> {
    let same = ours.labels.iter().zip(&theirs.labels).filter(|(a, b)| a == b).count();
    let share = same as f64 / ours.labels.len() as f64;
    ensure!(share >= AGREEMENT, "only {:.2} % of the labels are the same", 100.0 * share);
    Ok(())
}
