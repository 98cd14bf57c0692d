//! SDKs of other languages, each a program that prints its figures.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use broker::Topic;
use serde::Deserialize;

use crate::Kafka;
use crate::broker::contest::Side;
use crate::broker::work::Load;
use crate::measure::Figures;

/// A program that publishes and consumes.
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    command: Vec<PathBuf>,
    version: Vec<String>,
    server: String,
}

#[derive(Deserialize)]
struct Printed {
    rate: f64,
    cpu_us: f64,
}

/// The programs that `scripts/fetch-broker-peers` made.
pub(super) fn find(server: &Kafka) -> Result<[Program; 2]> {
    let cache = crate::cache()?.join("broker-peers");
    let (python, watermill) = (cache.join("venv/bin/python"), cache.join("watermill"));
    let script = PathBuf::from("benches/peers/faststream/peer.py");
    for path in [&python, &watermill] {
        let shown = path.display();
        ensure!(path.is_file(), "{shown} is missing: run scripts/fetch-broker-peers");
    }
    let ask = "import importlib.metadata as m; print(m.version(\"faststream\"))";
    Ok([
        Program {
            name: "FastStream",
            title: "FastStream, Python",
            version: vec![python.display().to_string(), "-c".to_owned(), ask.to_owned()],
            command: vec![python, script],
            server: server.servers.clone(),
        },
        Program {
            name: "Watermill",
            title: "Watermill, Go",
            version: vec![watermill.display().to_string(), "--mode=version".to_owned()],
            command: vec![watermill],
            server: server.servers.clone(),
        },
    ])
}

impl Program {
    pub(super) fn version(&self) -> Result<String> {
        let [program, arguments @ ..] = &self.version[..] else { return Ok(String::new()) };
        let mut command = Command::new(program);
        Ok(output(self.name, command.args(arguments))?.trim().to_owned())
    }

    async fn run(&self, mode: &str, topic: &Topic, load: &Load) -> Result<Figures> {
        let numbers = [
            ("messages", load.messages()),
            ("bytes", load.payload.len()),
            ("batch", load.batch),
            ("in-flight", load.depth),
        ];
        let texts = [
            ("mode", mode.to_owned()),
            ("broker", self.server.clone()),
            ("topic", topic.to_string()),
            ("group", crate::unique("group")),
        ];
        let [program, first @ ..] = &self.command[..] else { return Ok(Figures::default()) };
        let mut command = Command::new(program);
        command.args(first);
        let numbers = numbers.map(|(name, value)| (name, value.to_string()));
        for (name, value) in texts.into_iter().chain(numbers) {
            command.arg(format!("--{name}={value}"));
        }
        let name = self.name;
        let printed = move || output(name, &mut command);
        let printed = tokio::task::spawn_blocking(printed).await??;
        let Printed { rate, cpu_us } = serde_json::from_str(&printed)
            .with_context(|| format!("{name} printed no figures: {printed:?}"))?;
        Ok(Figures { rate, cpu_us })
    }
}

fn output(name: &str, command: &mut Command) -> Result<String> {
    let command = command.stdin(Stdio::null()).stderr(Stdio::inherit()).current_dir(Path::new("."));
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    ensure!(output.status.success(), "{name} ended with {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed no UTF-8"))
}

#[async_trait]
impl Side for Program {
    async fn publish(&self, topic: &Topic, load: &Load) -> Result<Figures> {
        self.run("publish", topic, load).await
    }

    async fn consume(&self, topic: &Topic, load: &Load) -> Result<Figures> {
        self.run("consume", topic, load).await
    }
}
