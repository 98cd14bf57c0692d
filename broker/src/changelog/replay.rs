//! Bringing the cache of partitions that were just assigned up to the changelog's end.
//!
//! Where that end is, a marker shows: the new owner publishes one and reads until it comes by.
//! The owner before cannot write behind it, because its transactions settle deliveries that are
//! no longer its own, and so are fenced. A cache is trusted only where nothing speaks against it;
//! else it is dropped and the partition is read from its beginning.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::cache::{Standing, Table, Writes};
use super::record::{Place, Record, new_id};
use crate::contract::Consumer;
use crate::delivery::Delivery;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::BrokerExt;
use crate::message::Message;
use crate::subscription::{Event, Limit, Seek, Start, Subscription};

/// Where a reader waits that is not to read a partition: no log gets so long.
const NOWHERE: Start = Start::Offset(i64::MAX as u64);
/// The most records that one step applies.
const RECORDS_MAX: usize = 4096;
/// How long one look for a record waits before it looks again.
const LOOK: Duration = Duration::from_secs(1);
/// How long a reader may take until it has its partitions.
const READY_MAX: Duration = Duration::from_secs(30);

/// Seconds on a clock that no clock change moves; comparable within one boot.
pub(super) fn seconds() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec
}

/// What tells this boot from another.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".into(), |id| id.trim().to_owned())
}

/// A reader may get its partitions a little after it subscribed. One that waits beyond the end
/// has caught up as soon as it has them.
async fn wait_until_ready(reader: &mut dyn Consumer) -> Result<()> {
    let until = Instant::now() + READY_MAX;
    loop {
        reader.receive(Limit::new(1, LOOK)).await?;
        if reader.events().contains(&Event::CaughtUp) {
            return Ok(());
        }
        if Instant::now() >= until {
            let message = "the changelog's reader gets no partitions";
            return Err(Error::new(ErrorKind::Timeout, "restore state", message));
        }
    }
}

/// A partition that is being read.
struct Target {
    table: Table,
    /// The marker's offset.
    until: u64,
}

/// Partitions on their way to the changelog's end.
pub(super) struct Replay {
    shared: Arc<Shared>,
    reader: Box<dyn Consumer>,
    boot: String,
    open: BTreeMap<u32, Target>,
    /// Those that are there, with their state.
    pub(super) done: Vec<(u32, Table)>,
}

impl Replay {
    /// Marks the ends and decides what is left of the caches; `dropped` ones are not trusted.
    pub(super) async fn begin(shared: &Arc<Shared>, partitions: &[(u32, bool)]) -> Result<Self> {
        let subscription = Subscription::reader(&shared.spec.topic).starting(NOWHERE);
        let mut reader = shared.broker.subscribe(subscription).await?;
        wait_until_ready(&mut *reader).await?;
        let (boot, open, done) = (boot_id(), BTreeMap::new(), Vec::new());
        let mut replay = Self { shared: shared.clone(), reader, boot, open, done };
        for (partition, is_broken) in partitions {
            let until = replay.publish(*partition, Place::marker).await?;
            let mut table = shared.cache.table(*partition, &replay.boot)?;
            let doubt = match is_broken {
                true => Some("it could not be read"),
                false => replay.doubt(*partition, &table, until).await?,
            };
            if let Some(reason) = doubt {
                let topic = &shared.spec.topic;
                tracing::warn!(%topic, partition, reason, "the cache is dropped and built anew");
                table.renew(&replay.boot)?;
            }
            replay.open.insert(*partition, Target { table, until });
        }
        for partition in replay.open.keys().copied().collect::<Vec<_>>() {
            replay.rewind(partition).await?;
        }
        Ok(replay)
    }

    async fn publish(&self, partition: u32, record: fn(Place) -> Message) -> Result<u64> {
        let Shared { broker, spec, .. } = &*self.shared;
        let message = record(Place { partition, partitions: spec.partitions });
        let position = broker.publish_one(&spec.topic, message).await?;
        if position.partition() == partition {
            return Ok(position.offset());
        }
        let found = position.partition();
        let problem = format!("a record for partition {partition} came to partition {found}");
        Err(Error::new(ErrorKind::ConfigInvalid, "restore state", problem)
            .with("topic", &spec.topic))
    }

    /// Why a cache cannot be trusted, if so.
    async fn doubt(
        &mut self,
        partition: u32,
        table: &Table,
        until: u64,
    ) -> Result<Option<&'static str>> {
        if table.is_new {
            return Ok(None);
        }
        let standing = &table.standing;
        let age_max = self.shared.spec.cache_age_max.as_secs();
        let Some((offset, id)) = standing.incarnation else {
            return Ok(Some("it does not know its log"));
        };
        let Some(complete) = standing.complete else {
            return Ok(Some("it was never complete"));
        };
        if standing.boot != self.boot {
            return Ok(Some("the machine was started since"));
        }
        let rested = seconds().saturating_sub(complete);
        if u64::try_from(rested).unwrap_or(u64::MAX) > age_max {
            return Ok(Some("it rested for too long"));
        }
        if standing.reach > until {
            return Ok(Some("it is ahead of the log"));
        }
        let first = self.first_from(partition, offset).await?;
        let is_same =
            first.position().offset() == offset && Record::read(&first) == Record::Incarnation(id);
        Ok((!is_same).then_some("it is of another log"))
    }

    /// The first record at or behind an offset; there is one, since the marker is.
    async fn first_from(&mut self, partition: u32, offset: u64) -> Result<Delivery> {
        self.seek(partition, Start::Offset(offset)).await?;
        loop {
            let deliveries = self.reader.receive(Limit::new(RECORDS_MAX, LOOK)).await?;
            self.reader.events();
            let first = deliveries.into_iter().find(|d| d.position().partition() == partition);
            if let Some(first) = first {
                self.seek(partition, NOWHERE).await?;
                return Ok(first);
            }
        }
    }

    async fn seek(&mut self, partition: u32, to: Start) -> Result<()> {
        self.reader.seek(Seek { partition: Some(partition), to }).await
    }

    async fn rewind(&mut self, partition: u32) -> Result<()> {
        let Some(target) = self.open.get(&partition) else { return Ok(()) };
        let to = match target.table.is_new {
            true => Start::Earliest,
            false => Start::Offset(target.table.standing.next),
        };
        self.seek(partition, to).await
    }

    /// Applies what comes within `wait`; true once all partitions are there.
    pub(super) async fn advance(&mut self, wait: Duration) -> Result<bool> {
        if self.open.is_empty() {
            return Ok(true);
        }
        let deliveries = self.reader.receive(Limit::new(RECORDS_MAX, wait)).await?;
        let mut records: BTreeMap<u32, Vec<Delivery>> = BTreeMap::new();
        for delivery in deliveries {
            records.entry(delivery.position().partition()).or_default().push(delivery);
        }
        for event in self.reader.events() {
            if let Event::OffsetOutOfRange { partition, .. } = event {
                records.remove(&partition);
                self.start_over(partition).await?;
            }
        }
        for (partition, records) in records {
            self.apply(partition, &records).await?;
        }
        Ok(self.open.is_empty())
    }

    /// Reads a partition again whose records went before they were read.
    async fn start_over(&mut self, partition: u32) -> Result<()> {
        let Some(target) = self.open.get_mut(&partition) else { return Ok(()) };
        tracing::warn!(partition, "the cache missed records that are gone and is built anew");
        target.table.renew(&self.boot)?;
        self.rewind(partition).await
    }

    async fn apply(&mut self, partition: u32, records: &[Delivery]) -> Result<()> {
        let Some(mut target) = self.open.remove(&partition) else { return Ok(()) };
        let mut standing = target.table.standing.clone();
        let mut writes = Writes::new();
        let mut has_arrived = false;
        for record in records {
            let offset = record.position().offset();
            has_arrived |= offset >= target.until;
            if offset > target.until {
                break;
            }
            match Record::read(record) {
                Record::State(key, value) => drop(writes.insert(key, value)),
                Record::Incarnation(id) => standing.incarnation = Some((offset, id)),
                Record::Marker | Record::Unknown => {}
            }
            standing.next = offset + 1;
            standing.reach = standing.reach.max(standing.next);
        }
        if has_arrived {
            standing.complete = Some(seconds());
            self.identify(partition, &mut standing).await?;
        }
        target.table.apply(&writes, standing)?;
        if has_arrived {
            self.done.push((partition, target.table));
        } else {
            self.open.insert(partition, target);
        }
        Ok(())
    }

    /// Gives a log an identity that has none.
    async fn identify(&self, partition: u32, standing: &mut Standing) -> Result<()> {
        if standing.incarnation.is_some() {
            return Ok(());
        }
        let Shared { broker, spec, .. } = &*self.shared;
        let id = new_id();
        let record = Place { partition, partitions: spec.partitions }.incarnation(id);
        let offset = broker.publish_one(&spec.topic, record).await?.offset();
        standing.incarnation = Some((offset, id));
        standing.reach = standing.reach.max(offset + 1);
        Ok(())
    }
}
