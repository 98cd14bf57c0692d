//! The rounds, in each of which every side runs once, and the rows that they become.

use std::time::Duration;

use anyhow::Result;
use broker::embedded::Durability;

use super::Bench;
use super::alone::{self, Alone};
use super::peers::{self, KINDS};
use super::replay::{Bare, Moves};
use super::server::{self, Served};
use super::stage::{Backend, Measured, Stage};
use crate::measure::median;
use crate::report::Row;

/// The part of the limit that we want to reach.
const GOAL: f64 = 0.85;
const UNIT: &str = "images/s";
const SERVER: &str = "model server on the topic of (d), (e) and (f)";
const CPU_UNIT: &str = "µs/image";

/// The figures of all rounds.
#[derive(Default)]
pub(super) struct Rounds {
    alone: Vec<Alone>,
    pipelines: [Vec<Measured>; 3],
    /// Of the embedded pipelines; none of Kafka's.
    bare: [Vec<Bare>; 3],
    server: Vec<Served>,
    peers: [Vec<Served>; 3],
}

impl Rounds {
    /// Runs every side once.
    pub(super) fn measure(&mut self, bench: &Bench, round: usize) -> Result<()> {
        let told = |what: &str, rate: f64| eprintln!("round {round}: {what}: {rate:.0} images/s");
        let alone = alone::predict(&bench.settings, &bench.images, bench.count)?;
        told("model alone", alone.images_per_second);
        self.alone.push(alone);
        for (index, backend) in Backend::ALL.into_iter().enumerate() {
            let stage = Stage::new(bench, backend)?;
            let measured = stage.run()?;
            told(&format!("pipeline on {}", backend.name()), measured.images_per_second);
            self.pipelines[index].push(measured);
            if let Some(bare) = bare(&stage, backend)? {
                told("bare moves of its bytes", 1.0 / bare.wall.as_secs_f64());
                self.bare[index].push(bare);
            }
            stage.clear()?;
        }
        let images = server::fill(bench)?;
        let ours = server::run(bench, &images)?;
        told("model server on a full topic", ours.images_per_second);
        for (index, kind) in KINDS.iter().enumerate() {
            let theirs = bench.peers.run(bench, &images, kind)?;
            told(kind.name, theirs.images_per_second);
            peers::compare(&ours.found, &theirs.found)?;
            self.peers[index].push(theirs);
        }
        self.server.push(ours);
        bench.delete_topics(&[images.as_str()])
    }

    /// The table.
    pub(super) fn rows(self, bench: &Bench) -> Vec<Row> {
        let of = |figure: fn(&Alone) -> f64| median(self.alone.iter().map(figure).collect());
        let alone = of(|alone| alone.images_per_second);
        let mut rows = vec![Row::plain("(a) model alone", alone, UNIT)];
        let mut cpu =
            vec![Row::plain("CPU of the model alone", of(|alone| alone.cpu_us), CPU_UNIT)];
        let sides = Backend::ALL.into_iter().zip(self.pipelines).zip(self.bare);
        for ((backend, pipelines), bare) in sides {
            cpu.extend(cpu_rows(backend, &pipelines));
            rows.extend(pipeline_rows(backend, &pipelines, bare, alone, bench.cores as f64));
        }
        let ours = rate(&self.server);
        rows.push(Row::plain(SERVER, ours, UNIT));
        cpu.extend(served_rows(SERVER, &self.server));
        for (kind, runs) in KINDS.iter().zip(self.peers) {
            let row = Row::compared(kind.name, ours, rate(&runs), UNIT);
            rows.push(row.with_goal(kind.goal));
            cpu.extend(served_rows(kind.name, &runs));
        }
        rows.extend(cpu);
        rows
    }
}

/// The bytes of an embedded run, moved by nothing but SQLite.
fn bare(stage: &Stage, backend: Backend) -> Result<Option<Bare>> {
    let durability = match backend {
        Backend::Embedded("full") => Durability::Full,
        Backend::Embedded(_) => Durability::Normal,
        Backend::Kafka => return Ok(None),
    };
    Moves::of(stage)?.run(stage, durability).map(Some)
}

fn pipeline_rows(
    backend: Backend,
    runs: &[Measured],
    bare: Vec<Bare>,
    alone: f64,
    cores: f64,
) -> Vec<Row> {
    let ours = median(runs.iter().map(|run| run.images_per_second).collect());
    // What comes on top of the model's own time, in seconds an image.
    let limit = |more: f64| 1.0 / (1.0 / alone + more);
    if backend == Backend::Kafka {
        let kafka = median(runs.iter().map(|run| run.kafka_us).collect());
        let limit = limit(kafka / 1e6 / cores);
        let row = Row::limited("(c) pipeline on Kafka", ours, limit, UNIT).with_goal(GOAL);
        return vec![row, Row::plain("Kafka's own CPU in (c)", kafka, CPU_UNIT)];
    }
    let of = |time: fn(&Bare) -> Duration| {
        median(bare.iter().map(|bare| time(bare).as_secs_f64()).collect())
    };
    let (wall, cpu) = (of(|bare| bare.wall), of(|bare| bare.cpu));
    let name = format!("(b) pipeline on {}", backend.name());
    let shared = format!("{name}, limit with the loop's CPU");
    let moves = format!("bare moves of its bytes, {}", backend.name());
    vec![
        Row::plain(format!("CPU of {moves}"), cpu * 1e6, CPU_UNIT),
        Row::limit(moves, 1.0 / wall, UNIT),
        Row::limited(name, ours, limit(wall), UNIT).with_goal(GOAL),
        Row::limited(shared, ours, limit(cpu / cores), UNIT).with_goal(GOAL),
    ]
}

fn rate(runs: &[Served]) -> f64 {
    median(runs.iter().map(|run| run.images_per_second).collect())
}

fn served_rows(name: &str, runs: &[Served]) -> [Row; 2] {
    let of = |figure: fn(&Served) -> f64| median(runs.iter().map(figure).collect());
    [
        Row::plain(format!("CPU of {name}"), of(|run| run.cpu_us), CPU_UNIT),
        Row::plain(format!("Kafka's own CPU, {name}"), of(|run| run.kafka_us), CPU_UNIT),
    ]
}

/// Where the CPU went.
fn cpu_rows(backend: Backend, runs: &[Measured]) -> Vec<Row> {
    let Some(first) = runs.first() else { return Vec::new() };
    let names = first.cpu.iter().map(|(name, _)| *name).enumerate();
    let row = |(index, name): (usize, &str)| {
        let each = runs.iter().map(|run| run.cpu[index].1).collect();
        Row::plain(format!("CPU of {name} on {}", backend.name()), median(each), CPU_UNIT)
    };
    names.map(row).collect()
}
