//! A consumer that owns state: it restores before it delivers.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::Shared;
use super::cache::Table;
use super::replay::Replay;
use super::step::{Step, View};
use crate::contract::Consumer;
use crate::delivery::{AckToken, Delivery, Outcome, Unsettled};
use crate::error::Result;
use crate::subscription::{Event, Limit};

/// How often a member that restores shows that it lives.
const SIGN_INTERVAL: Duration = Duration::from_secs(1);
/// The most events that are kept for a caller who does not take them.
const EVENTS_MAX: usize = 1024;

/// A partition that is this member's.
pub(super) struct Owned {
    pub(super) table: Option<Table>,
    /// The log may have what the table misses.
    pub(super) is_stale: bool,
    /// The table could not be read and is not worth keeping.
    pub(super) is_broken: bool,
    /// How many records were written since the cache noted where it stands.
    pub(super) unnoted: u64,
}

impl Owned {
    const NEW: Self = Self { table: None, is_stale: true, is_broken: false, unnoted: 0 };
}

/// A member of a group with the state of the partitions that it is assigned.
pub struct Member {
    shared: Arc<Shared>,
    consumer: Box<dyn Consumer>,
    ack_deadline: Duration,
    partitions: BTreeMap<u32, Owned>,
    /// Received and not yet handed out, as while their partition is restored.
    ready: VecDeque<AckToken>,
    events: VecDeque<Event>,
    news: bool,
    /// What keeps others from this cache.
    _membership: OwnedMutexGuard<()>,
}

impl Member {
    pub(super) fn new(
        shared: Arc<Shared>,
        membership: OwnedMutexGuard<()>,
        consumer: Box<dyn Consumer>,
        ack_deadline: Duration,
    ) -> Self {
        let (partitions, ready, events) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
        let _membership = membership;
        Self { shared, consumer, ack_deadline, partitions, ready, events, news: false, _membership }
    }

    /// Receives as [`Consumer::receive`] does, except that the state of a partition is brought
    /// up to date before its first delivery comes, which may take longer than `limit.wait`.
    /// Dropping the future loses nothing; restoring goes on with the next call.
    pub async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        let until = Instant::now() + limit.wait;
        let mut has_looked = false;
        loop {
            self.restore().await?;
            let news = std::mem::take(&mut self.news);
            let is_late = has_looked && Instant::now() >= until;
            if !self.ready.is_empty() || news || is_late {
                let count = self.ready.len().min(limit.messages);
                return Ok(self.ready.drain(..count).map(Delivery::new).collect());
            }
            has_looked = true;
            let wait = until.saturating_duration_since(Instant::now());
            let deliveries = self.consumer.receive(Limit { wait, ..limit }).await?;
            self.note_events();
            for delivery in deliveries {
                let token = delivery.into_token();
                self.partitions.entry(token.position().partition()).or_insert(Owned::NEW);
                self.ready.push_back(token);
            }
        }
    }

    fn note_events(&mut self) {
        for event in self.consumer.events() {
            match &event {
                Event::Assigned(numbers) => {
                    self.partitions.extend(numbers.iter().map(|number| (*number, Owned::NEW)));
                }
                Event::Revoked(numbers) => {
                    self.partitions.retain(|number, _| !numbers.contains(number));
                    self.ready.retain(|token| !numbers.contains(&token.position().partition()));
                }
                Event::CaughtUp | Event::OffsetOutOfRange { .. } => {}
            }
            if self.events.len() >= EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back(event);
            self.news = true;
        }
    }

    /// Brings all that is stale up to the log's end.
    async fn restore(&mut self) -> Result<()> {
        let stale: Vec<(u32, bool)> = self
            .partitions
            .iter()
            .filter(|(_, owned)| owned.is_stale || owned.is_broken)
            .map(|(number, owned)| (*number, owned.is_broken))
            .collect();
        if stale.is_empty() {
            return Ok(());
        }
        let mut replay = Replay::begin(&self.shared, &stale).await?;
        while !replay.advance(SIGN_INTERVAL).await? {
            let held: Vec<&AckToken> = self.ready.iter().collect();
            self.consumer.extend(&held, self.ack_deadline).await?;
        }
        for (number, table) in replay.done {
            let owned = Owned { table: Some(table), is_stale: false, ..Owned::NEW };
            self.partitions.insert(number, owned);
        }
        Ok(())
    }

    /// Begins a step over the deliveries that were received.
    pub async fn step(&mut self) -> Result<Step<'_>> {
        let transaction = self.consumer.transaction().await?;
        Ok(Step::new(transaction, &mut self.partitions, &self.shared))
    }

    /// The committed state of a partition; nothing where it is not this member's, or not yet
    /// restored.
    pub fn view(&self, partition: u32) -> Option<View> {
        let owned = self.partitions.get(&partition).filter(|owned| !owned.is_stale)?;
        owned.table.clone().map(View)
    }

    /// Settles deliveries that touch no state, as [`Consumer::settle`] does.
    #[must_use = "settlements that failed are handed back"]
    pub async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        self.consumer.settle(outcomes).await
    }

    /// Moves the deadline of deliveries, as [`Consumer::extend`] does.
    pub async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        self.consumer.extend(tokens, by).await
    }

    /// Takes what happened to the assignment since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("changelog", &self.shared.spec.topic)
            .field("partitions", &self.partitions.keys())
            .finish_non_exhaustive()
    }
}
