//! What a table was measured on, and with what.

use std::path::Path;

use anyhow::{Context, Result};

/// The machine, the versions and the command.
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: f64,
    kernel: String,
    versions: Vec<(String, String)>,
    settings: Vec<String>,
    command: String,
}

impl Machine {
    /// Asks the system.
    pub(crate) fn read() -> Result<Self> {
        let cores = std::thread::available_parallelism().context("cannot count the cores")?;
        let memory = value_of("/proc/meminfo", "MemTotal")?;
        let kib = memory.trim_end_matches(" kB").parse::<f64>();
        let kib = kib.with_context(|| format!("MemTotal is {memory:?}"))?;
        Ok(Self {
            cpu: value_of("/proc/cpuinfo", "model name").unwrap_or_else(|_| "unknown".to_owned()),
            cores: cores.get(),
            memory_gib: kib / 1024.0 / 1024.0,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            versions: vec![
                ("Forebay".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("SQLite".to_owned(), rusqlite::version().to_owned()),
                ("librdkafka".to_owned(), rdkafka::util::get_rdkafka_version().1),
            ],
            settings: Vec::new(),
            command: command(),
        })
    }

    pub(crate) fn cores(&self) -> usize {
        self.cores
    }

    /// Adds the version of something that a table uses.
    pub(crate) fn add_version(&mut self, name: impl Into<String>, version: impl Into<String>) {
        self.versions.push((name.into(), version.into()));
    }

    /// Adds Kafka's version, as the folder of its classes names it.
    pub(crate) fn add_kafka(&mut self, pid: u32) {
        let line = read(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let version = line.split("kafka-").skip(1).find_map(|rest| {
            let version = rest.split(['/', ':', '\0']).next()?;
            version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
        });
        self.add_version("Kafka", version.unwrap_or_else(|| "of unknown version".to_owned()));
    }

    /// Adds a sentence on how it was measured.
    pub(crate) fn add_setting(&mut self, setting: impl Into<String>) {
        self.settings.push(setting.into());
    }

    /// For people, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Self { cpu, cores, memory_gib, kernel, .. } = self;
        let versions = self.versions.iter().map(|(name, version)| format!("{name} {version}"));
        let mut lines = vec![
            format!(
                "machine: {cpu}, {cores} cores, {memory_gib:.0} GiB of memory, kernel {kernel}"
            ),
            format!("versions: {}", versions.collect::<Vec<_>>().join(", ")),
            format!("command: {}", self.command),
        ];
        lines.extend(self.settings.iter().cloned());
        lines
    }
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// The value behind `NAME:` in a file of the system.
fn value_of(path: &str, name: &str) -> Result<String> {
    let text = read(path)?;
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    });
    value.with_context(|| format!("{path} has no {name:?}"))
}

/// The command; paths in the working folder are relative to it, others are not shown.
fn command() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let here = std::env::current_dir().unwrap_or_default();
    let words = words.map(|word| match Path::new(&word).strip_prefix(&here) {
        Ok(inside) => inside.display().to_string(),
        Err(_) if word.starts_with('/') => "PATH".to_owned(),
        Err(_) => word,
    });
    std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
}
