//! The SDK on a server against a bare loop over the vendor's client: the same messages, the same
//! batching, as many out at once. The sides take turns, and the table holds the medians.
//!
//! Where the server is what both wait for, the rates say little: then the CPU time that the
//! client spends on a message decides.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use broker::{Broker, Topic, TopicSpec};

use super::Arguments;
use super::work::{self, Load};
use crate::measure::{Figures, median};
use crate::report::Row;

/// Messages in a batch, and batches that are out at once.
pub(super) const BATCH: usize = 500;
pub(super) const DEPTH: usize = 4;
/// Single messages that are out at once.
pub(super) const SINGLES_OUT: usize = 1_000;

/// Whoever does the same: the vendor's client, or another SDK.
#[async_trait]
pub(super) trait Side: Sync {
    /// Publishes it all and waits for every result.
    async fn publish(&self, topic: &Topic, load: &Load) -> Result<Figures>;

    /// Receives and settles as many messages as a new group.
    async fn consume(&self, topic: &Topic, load: &Load) -> Result<Figures>;
}

/// Messages of one size, and how many of them in a round.
pub(super) struct Size {
    pub(super) name: &'static str,
    pub(super) bytes: usize,
    pub(super) batches: usize,
    pub(super) singles: usize,
}

/// Two sides on one server.
pub(super) struct Contest<'a> {
    pub(super) given: &'a Arguments,
    pub(super) backend: &'static str,
    /// Names the server to the SDK.
    pub(super) ini: String,
    pub(super) bare: &'a dyn Side,
    pub(super) partitions: u32,
    pub(super) goal: f64,
}

impl Contest<'_> {
    /// Publish and consume of each size, in batches and singly: the backend alone, which has
    /// the goal, and a message of middle size with all layers that a program has.
    pub(super) async fn rows(&self, sizes: &[Size]) -> Result<Vec<Row>> {
        let broker = crate::connect_bare(&self.ini).await?;
        let mut rows = Vec::new();
        for size in sizes {
            rows.extend(self.of_size(&broker, size, "", Some(self.goal)).await?);
        }
        broker.shutdown().await?;
        let broker = crate::connect_to(&self.ini).await?;
        for size in &sizes[sizes.len() / 2..=sizes.len() / 2] {
            rows.extend(self.of_size(&broker, size, ", all layers", None).await?);
        }
        broker.shutdown().await?;
        Ok(rows)
    }

    async fn of_size(
        &self,
        broker: &Arc<dyn Broker>,
        size: &Size,
        what: &str,
        goal: Option<f64>,
    ) -> Result<Vec<Row>> {
        let batches = self.given.batches(size.batches);
        let load = Load::new(size.bytes, BATCH, batches, DEPTH);
        let name = format!("{}, batches of {BATCH}{what}", size.name);
        let mut rows = self.of_load(broker, &name, &load, goal).await?;
        let singles = self.given.batches(size.singles);
        let load = Load::new(size.bytes, 1, singles, SINGLES_OUT.min(singles));
        let name = format!("{}, one by one{what}", size.name);
        rows.extend(self.of_load(broker, &name, &load, goal).await?);
        Ok(rows)
    }

    /// Each side has a topic, which the consumers of that side then read.
    async fn of_load(
        &self,
        broker: &Arc<dyn Broker>,
        name: &str,
        load: &Load,
        goal: Option<f64>,
    ) -> Result<Vec<Row>> {
        let (mut publish, mut consume) = (Sides::default(), Sides::default());
        let create = || create(broker, self.partitions);
        // The first round only warms both sides.
        for round in 0..=self.given.rounds() {
            let (ours, theirs) = (create().await?, create().await?);
            let bare = self.bare.publish(&theirs, load).await?;
            publish.take(round, work::publish(broker, &ours, load).await?, bare);
            let bare = self.bare.consume(&theirs, load).await?;
            let own = work::consume(broker, &ours, load.messages(), load.batch).await?;
            consume.take(round, own, bare);
            eprintln!(
                "{} {name} round {round}: publish {}, consume {}",
                self.backend, publish.last, consume.last
            );
            for topic in [ours, theirs] {
                broker.admin().delete_topic(&topic).await?;
            }
        }
        let publish = publish.rows(&format!("{} publish {name}", self.backend), goal);
        let consume = consume.rows(&format!("{} consume {name}", self.backend), goal);
        Ok(publish.into_iter().chain(consume).collect())
    }
}

/// A topic that no other run has.
pub(super) async fn create(broker: &Arc<dyn Broker>, partitions: u32) -> Result<Topic> {
    let topic = Topic::new(&crate::unique("messages"))?;
    broker.admin().create_topic(&TopicSpec::new(&topic, partitions)).await?;
    Ok(topic)
}

/// The figures of all rounds but the first.
#[derive(Default)]
pub(super) struct Sides {
    ours: Vec<Figures>,
    bare: Vec<Figures>,
    /// What the last round gave, to be shown.
    pub(super) last: String,
}

impl Sides {
    pub(super) fn take(&mut self, round: usize, ours: Figures, bare: Figures) {
        self.last = format!("{:.0}/s, bare {:.0}/s", ours.rate, bare.rate);
        if round > 0 {
            self.ours.push(ours);
            self.bare.push(bare);
        }
    }

    pub(super) fn rows(&self, name: &str, goal: Option<f64>) -> [Row; 2] {
        let of =
            |side: &[Figures], what: fn(&Figures) -> f64| median(side.iter().map(what).collect());
        let rate = |side: &[Figures]| of(side, |figures| figures.rate);
        let cpu = |side: &[Figures]| of(side, |figures| figures.cpu_us);
        let (ours, bare) = (&self.ours, &self.bare);
        let cpu_name = format!("{name}, CPU");
        [
            Row { goal, ..Row::limited(name, rate(ours), rate(bare), "messages/s") },
            Row { goal, ..Row::cost(cpu_name, cpu(ours), cpu(bare), "µs/message") },
        ]
    }
}
