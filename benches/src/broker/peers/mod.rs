//! Other SDKs that work on several brokers, on the same Kafka: sea-streamer (Rust), FastStream
//! (Python) and Watermill (Go), each used as its documentation shows.

mod process;
mod sea_streamer;

use std::sync::Arc;

use anyhow::Result;
use broker::Broker;

use super::Arguments;
use super::contest::{BATCH, DEPTH, SINGLES_OUT, Side, create};
use super::work::{self, Load};
use crate::Kafka;
use crate::machine::Machine;
use crate::measure::{Figures, median};
use crate::report::Row;

const PARTITIONS: u32 = 2;
const BYTES: usize = 1_000;
/// Ahead of each.
const GOAL: f64 = 1.0;

/// One load of all sides: its name, messages in a batch, batches, and batches that are out.
const LOADS: [(&str, usize, usize, usize); 2] =
    [("batches of 500", BATCH, 60, DEPTH), ("one by one", 1, 20_000, SINGLES_OUT)];

/// The figures of one side, round by round.
#[derive(Default)]
struct Rounds {
    publish: Vec<f64>,
    consume: Vec<f64>,
}

impl Rounds {
    fn take(&mut self, publish: Figures, consume: Figures) {
        self.publish.push(publish.rate);
        self.consume.push(consume.rate);
    }
}

pub(super) async fn rows(
    given: &Arguments,
    server: &Kafka,
    machine: &mut Machine,
) -> Result<Vec<Row>> {
    let programs = process::find(server)?;
    for program in &programs {
        machine.add_version(program.name, &program.version()?);
    }
    let sea = sea_streamer::SeaStreamer::new(server);
    let mut sides: Vec<(&str, &dyn Side)> = vec![("sea-streamer, Rust", &sea)];
    sides.extend(programs.iter().map(|program| (program.title, program as &dyn Side)));
    let broker = server.connect().await?;
    let mut rows = Vec::new();
    for (name, batch, batches, depth) in LOADS {
        let load = Load::new(BYTES, batch, given.batches(batches).max(depth), depth);
        rows.extend(of_load(given, &broker, &sides, name, &load).await?);
    }
    broker.shutdown().await?;
    Ok(rows)
}

async fn of_load(
    given: &Arguments,
    broker: &Arc<dyn Broker>,
    sides: &[(&str, &dyn Side)],
    name: &str,
    load: &Load,
) -> Result<Vec<Row>> {
    let mut ours = Rounds::default();
    let mut theirs: Vec<Rounds> = sides.iter().map(|_| Rounds::default()).collect();
    for round in 1..=given.rounds() {
        let topic = create(broker, PARTITIONS).await?;
        let published = work::publish(broker, &topic, load).await?;
        let consumed = work::consume(broker, &topic, load.messages(), load.batch).await?;
        ours.take(published, consumed);
        broker.admin().delete_topic(&topic).await?;
        for ((title, side), rounds) in sides.iter().zip(&mut theirs) {
            let topic = create(broker, PARTITIONS).await?;
            let published = side.publish(&topic, load).await?;
            rounds.take(published, side.consume(&topic, load).await?);
            eprintln!("{title}, {name}, round {round}: publish {:.0}/s", published.rate);
            broker.admin().delete_topic(&topic).await?;
        }
    }
    let rows = sides.iter().zip(theirs).flat_map(|((title, _), rounds)| {
        let row = |what: &str, ours: &[f64], theirs: Vec<f64>| {
            let name = format!("Kafka {what} 1 KB, {name}, against {title}");
            let (ours, theirs) = (median(ours.to_vec()), median(theirs));
            Row::compared(name, ours, theirs, "messages/s").with_goal(GOAL)
        };
        let Rounds { publish, consume } = rounds;
        [row("publish", &ours.publish, publish), row("consume", &ours.consume, consume)]
    });
    Ok(rows.collect())
}
