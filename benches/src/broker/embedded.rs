//! The embedded broker against bare SQLite that writes and reads the same bytes.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use broker::embedded::{self, Durability};
use broker::{Broker, Topic, TopicSpec};

use super::bare_sqlite::Batches;
use super::work::{self, Load};
use super::{Arguments, router};
use crate::measure::median;
use crate::report::Row;

const PAYLOAD: usize = 256;
/// Messages in a batch, and batches a round with each durability.
const LOADS: [(usize, usize, usize); 3] = [(1, 4_000, 1_000), (100, 2_000, 500), (500, 600, 200)];
/// Publishers at once, whose single messages share commits.
const PUBLISHERS: usize = 64;
/// Messages a second in batches with durability normal.
const WANTED: f64 = 150_000.0;
/// Batches that a router consumes.
const ROUTED: usize = 400;
const SYNCS: usize = 1_000;
const PAGE: usize = 4096;

pub(super) const DURABILITIES: [(Durability, &str); 2] =
    [(Durability::Normal, "normal"), (Durability::Full, "full")];

/// Opens a store.
pub(super) async fn open(directory: &Path, durability: Durability) -> Result<Arc<dyn Broker>> {
    let config = embedded::Config { durability, ..embedded::Config::new(directory) };
    Ok(embedded::open(config).await?)
}

pub(super) async fn create(broker: &Arc<dyn Broker>) -> Result<Topic> {
    let topic = Topic::new(&crate::unique("messages"))?;
    broker.admin().create_topic(&TopicSpec::new(&topic, 1)).await?;
    Ok(topic)
}

pub(super) async fn rows(given: &Arguments, directory: &Path) -> Result<Vec<Row>> {
    let mut rows = vec![syncs(given, directory)?];
    for (durability, name) in DURABILITIES {
        for (batch, normal, full) in LOADS {
            let batches = if durability == Durability::Full { full } else { normal };
            let load = Load::new(PAYLOAD, batch, given.batches(batches), 1);
            let mut sides = Sides::default();
            for round in 1..=given.rounds() {
                let place = directory.join(crate::unique("store"));
                sides.measure(&place, durability, &load).await?;
                std::fs::remove_dir_all(&place)?;
                eprintln!(
                    "embedded, durability {name}, batches of {batch}, round {round}: {}",
                    sides.last()
                );
            }
            let [publish, consume] = sides.rows(name, batch);
            if durability == Durability::Normal && batch > 1 {
                rows.extend([&publish, &consume].map(|row| row.wanted().with_floor(WANTED)));
            }
            rows.extend([publish, consume]);
        }
        rows.push(together(given, directory, durability, name).await?);
    }
    Ok(rows)
}

/// A router on it.
pub(super) async fn routed(given: &Arguments, directory: &Path) -> Result<Vec<Row>> {
    let place = directory.join(crate::unique("store"));
    let broker = open(&place, Durability::Normal).await?;
    let rows = router::rows(given, "embedded", &broker, ROUTED).await?;
    broker.shutdown().await?;
    std::fs::remove_dir_all(&place)?;
    Ok(rows)
}

/// How often a file that grows can be synced: no more commits than that survive a power loss.
fn syncs(given: &Arguments, directory: &Path) -> Result<Row> {
    let path = directory.join(crate::unique("synced"));
    let mut file = File::create(&path)?;
    let count = given.batches(SYNCS);
    let started = Instant::now();
    for _ in 0..count {
        file.write_all(&[1; PAGE])?;
        file.sync_data()?;
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(Row::limit("syncs of 4 KiB written to a file", rate, "syncs/s"))
}

/// Messages a second of each round.
#[derive(Default)]
struct Sides {
    publish: Vec<f64>,
    publish_bare: Vec<f64>,
    consume: Vec<f64>,
    consume_bare: Vec<f64>,
}

impl Sides {
    async fn measure(&mut self, place: &Path, durability: Durability, load: &Load) -> Result<()> {
        let broker = open(place, durability).await?;
        let topic = create(&broker).await?;
        let mut bare = Batches::create(&place.join("bare.db"), durability, load)?;
        let times: Duration = bare.publish()?.iter().sum();
        self.publish_bare.push(load.messages() as f64 / times.as_secs_f64());
        self.publish.push(work::publish(&broker, &topic, load).await?.rate);
        self.consume_bare.push(bare.consume()?);
        let consumed = work::consume(&broker, &topic, load.messages(), load.batch).await?;
        self.consume.push(consumed.rate);
        broker.shutdown().await?;
        Ok(())
    }

    fn last(&self) -> String {
        let last = |rates: &[f64]| rates.last().copied().unwrap_or_default();
        format!(
            "publish {:.0}/s, bare {:.0}/s, consume {:.0}/s, bare {:.0}/s",
            last(&self.publish),
            last(&self.publish_bare),
            last(&self.consume),
            last(&self.consume_bare)
        )
    }

    fn rows(self, durability: &str, batch: usize) -> [Row; 2] {
        let row = |what, ours, bare| {
            let name =
                format!("embedded {what} {PAYLOAD} B, durability {durability}, batches of {batch}");
            Row::limited(name, median(ours), median(bare), "messages/s")
        };
        [
            row("publish", self.publish, self.publish_bare),
            row("consume", self.consume, self.consume_bare),
        ]
    }
}

/// Single messages of many publishers, which are committed in groups.
async fn together(
    given: &Arguments,
    directory: &Path,
    durability: Durability,
    name: &str,
) -> Result<Row> {
    let load = Load::new(PAYLOAD, 1, given.batches(20_000), PUBLISHERS);
    let mut rates = Vec::new();
    for _ in 0..given.rounds() {
        let place = directory.join(crate::unique("store"));
        let broker = open(&place, durability).await?;
        let topic = create(&broker).await?;
        rates.push(work::publish(&broker, &topic, &load).await?.rate);
        broker.shutdown().await?;
        drop(broker);
        std::fs::remove_dir_all(&place)?;
    }
    let name = format!(
        "embedded publish {PAYLOAD} B, durability {name}, {PUBLISHERS} publishers of single messages"
    );
    Ok(Row::plain(name, median(rates), "messages/s"))
}
