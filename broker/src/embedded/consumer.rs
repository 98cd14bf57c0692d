//! A member of a group, or a reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::broker::Inner;
use super::log::TopicRow;
use super::membership::{self, Claimed, Commit, Member};
use super::store::{Fetch, Fetched, Want};
use super::transaction::EmbeddedTransaction;
use crate::contract::{Consumer, Transaction};
use crate::delivery::{AckToken, Delivery, Outcome, Shared, Unsettled};
use crate::error::{Error, ErrorKind, Result};
use crate::name::Group;
use crate::subscription::{Event, Limit, Seek, Start, Subscription};
use crate::window::{Bounds, Lender, Window, in_turn};

/// The most messages that one fetch takes from a partition.
const FETCH_MESSAGES_MAX: usize = 4096;
/// The most events that are kept for a caller who does not take them.
const EVENTS_MAX: usize = 1024;
/// How long the first look lasts at least, so that a `receive` that must not wait sees something.
const LOOK_MIN: Duration = Duration::from_millis(2);
/// The most bytes that one fetch takes from a partition.
const FETCH_BYTES_MAX: usize = 4 << 20;

/// A partition that this consumer reads.
pub(super) struct Assigned {
    pub(super) row: i64,
    pub(super) window: Window,
    pub(super) generation: i64,
    pub(super) committed: u64,
    /// Tells this assignment's tokens from those of another.
    pub(super) assignment: u64,
    pub(super) giving_back: bool,
    /// Its first delivery was counted.
    started: bool,
    /// For a reader: where the partition ended when it subscribed.
    end: u64,
}

pub(super) struct Membership {
    pub(super) group: Group,
    pub(super) member: Arc<Member>,
    pub(super) next_view: Instant,
}

pub(super) struct EmbeddedConsumer {
    pub(super) inner: Arc<Inner>,
    pub(super) subscription: Subscription,
    pub(super) topic: TopicRow,
    pub(super) membership: Option<Membership>,
    pub(super) partitions: BTreeMap<u32, Assigned>,
    events: Vec<Event>,
    /// An event came that no `receive` has returned for.
    news: bool,
    caught_up: bool,
    /// The partition that delivers first, in turn, so that a full one starves no other.
    turn: usize,
}

fn next_assignment() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl EmbeddedConsumer {
    /// A member of a group: joins it.
    pub(super) async fn member(
        inner: Arc<Inner>,
        subscription: Subscription,
        topic: TopicRow,
        group: Group,
    ) -> Result<Self> {
        let member = inner.join(&group, topic.id).await?;
        let membership = Membership { group, member, next_view: Instant::now() };
        Ok(Self::new(inner, subscription, topic, Some(membership)))
    }

    /// A reader of all partitions.
    pub(super) async fn reader(
        inner: Arc<Inner>,
        subscription: Subscription,
        topic: TopicRow,
    ) -> Result<Self> {
        let rows = topic.partitions.clone();
        let start = subscription.start;
        let bounds = inner.writer.write(move |connection| {
            rows.iter()
                .map(|row| {
                    let start = membership::resolve(connection, *row, start)?;
                    Ok((start, membership::resolve(connection, *row, Start::Latest)?))
                })
                .collect::<Result<Vec<_>, _>>()
        });
        let bounds = bounds.await?;
        let mut consumer = Self::new(inner, subscription, topic, None);
        for (number, (start, end)) in bounds.into_iter().enumerate() {
            let partition = consumer.topic.partitions[number];
            let number = number as u32;
            let claimed = Claimed { number, partition, committed: start, generation: 0, starts: 0 };
            consumer.assign(claimed, end);
        }
        Ok(consumer)
    }

    fn new(
        inner: Arc<Inner>,
        subscription: Subscription,
        topic: TopicRow,
        membership: Option<Membership>,
    ) -> Self {
        let (partitions, events) = (BTreeMap::new(), Vec::new());
        let (news, caught_up, turn) = (false, false, 0);
        Self { inner, subscription, topic, membership, partitions, events, news, caught_up, turn }
    }

    /// Notes an event; the oldest go where nobody ever takes them.
    pub(super) fn tell(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.events.remove(0);
        }
        self.events.push(event);
        self.news = true;
    }

    pub(super) fn assign(&mut self, claimed: Claimed, end: u64) {
        let bounds = Bounds::from(&self.subscription);
        let assigned = Assigned {
            row: claimed.partition,
            window: Window::new(bounds, claimed.committed, claimed.starts),
            generation: claimed.generation,
            committed: claimed.committed,
            assignment: next_assignment(),
            giving_back: false,
            started: false,
            end,
        };
        self.partitions.insert(claimed.number, assigned);
    }

    /// Counts the first delivery of the partitions that `deliver` is about to reach. It is
    /// durable before anyone sees the message, which may kill its consumer.
    async fn count_starts(&mut self, limit: usize) -> Result<()> {
        let Some(membership) = &self.membership else { return Ok(()) };
        let (mut given, mut fresh, mut rows) = (0, Vec::new(), Vec::new());
        for number in in_turn(&self.partitions, self.turn) {
            let assigned = &self.partitions[&number];
            let ready = if assigned.giving_back { 0 } else { assigned.window.ready() };
            if given < limit && ready > 0 && !assigned.started {
                fresh.push(number);
                rows.push((assigned.row, assigned.generation));
            }
            given += ready;
        }
        if rows.is_empty() {
            return Ok(());
        }
        let group = membership.group.clone();
        let counted = self
            .inner
            .writer
            .write(move |connection| membership::count_starts(connection, group.as_str(), &rows));
        counted.await?;
        for number in fresh {
            self.partitions.entry(number).and_modify(|assigned| assigned.started = true);
        }
        Ok(())
    }

    fn deliver(&mut self, limit: usize) -> Vec<Delivery> {
        let now = Instant::now();
        let mut all = Vec::new();
        for number in in_turn(&self.partitions, self.turn) {
            let Some(assigned) = self.partitions.get_mut(&number) else { continue };
            if assigned.giving_back || all.len() >= limit {
                continue;
            }
            let (topic, assignment) = (&self.subscription.topic, assigned.assignment);
            let lender = Lender { topic, partition: number, assignment };
            assigned.window.lend(now, limit - all.len(), &lender, &mut all);
        }
        self.turn = self.turn.wrapping_add(1);
        if self.membership.is_none() {
            self.forget(&all);
        }
        all
    }

    /// A reader settles nothing, so what it delivered is done.
    fn forget(&mut self, deliveries: &[Delivery]) {
        for delivery in deliveries {
            let position = delivery.position();
            if let Some(assigned) = self.partitions.get_mut(&position.partition()) {
                assigned.window.ack(position.offset(), delivery.attempt());
            }
        }
        for assigned in self.partitions.values_mut() {
            assigned.window.advance();
        }
    }

    fn note_caught_up(&mut self) {
        if self.membership.is_some() || self.caught_up {
            return;
        }
        self.caught_up = self.partitions.values().all(|a| a.window.settled() >= a.end);
        if self.caught_up {
            self.tell(Event::CaughtUp);
        }
    }

    fn wants(&self) -> Vec<Want> {
        let open = self.partitions.iter().filter(|(_, assigned)| !assigned.giving_back);
        let wants = open.map(|(number, assigned)| Want {
            number: *number,
            partition: assigned.row,
            from: assigned.window.next(),
            messages_max: assigned.window.room().min(FETCH_MESSAGES_MAX),
            bytes_max: assigned.window.room_bytes().min(FETCH_BYTES_MAX),
        });
        wants.filter(|want| want.messages_max > 0).collect()
    }

    async fn fetch(&mut self, until: Instant) -> Result<()> {
        let wants = self.wants();
        if wants.is_empty() {
            sleep_until(until).await;
            return Ok(());
        }
        let Ok(fetched) = timeout_at(until, self.inner.reader.fetch(Fetch(wants))).await else {
            return Ok(());
        };
        for fetched in fetched? {
            self.take_in(fetched);
        }
        Ok(())
    }

    fn take_in(&mut self, fetched: Fetched) {
        let Some(assigned) = self.partitions.get_mut(&fetched.number) else { return };
        let wanted = assigned.window.next();
        let messages = fetched.offsets.into_iter().zip(Shared::all(fetched.messages));
        assigned.window.extend(messages, fetched.next);
        if fetched.from > wanted {
            let (partition, resumed) = (fetched.number, fetched.from);
            self.tell(Event::OffsetOutOfRange { partition, wanted, resumed });
        }
    }

    fn next_wake(&self, until: Instant) -> Instant {
        let view = self.membership.as_ref().map(|membership| membership.next_view);
        let windows = self.partitions.values().filter_map(|assigned| assigned.window.next_wake());
        windows.chain(view).fold(until, Instant::min)
    }

    /// Applies an outcome to its window; false for a token of another assignment, or of a
    /// delivery that came again since.
    pub(super) fn apply(&mut self, token: &AckToken, outcome: &Outcome) -> bool {
        let position = token.position;
        let Some(assigned) = self.partitions.get_mut(&position.partition()) else { return false };
        if assigned.assignment != token.assignment {
            return false;
        }
        match outcome {
            // The delivery layer has stored the dead letter before it settles a rejection.
            Outcome::Ack | Outcome::Reject { .. } => {
                assigned.window.ack(position.offset(), token.attempt)
            }
            Outcome::Retry { after } => {
                let until = Instant::now() + *after;
                assigned.window.retry(position.offset(), token.attempt, until)
            }
        }
    }

    /// The new positions of the partitions that moved.
    pub(super) fn commits(&self) -> Vec<Commit> {
        let moved = self.partitions.iter().filter_map(|(number, assigned)| {
            let committed = assigned.window.settled();
            (committed > assigned.committed).then_some(Commit {
                number: *number,
                partition: assigned.row,
                generation: assigned.generation,
                committed,
            })
        });
        moved.collect()
    }

    /// Takes note that the commits are durable, but for those that were fenced.
    pub(super) fn committed(&mut self, commits: &[Commit], fenced: &BTreeSet<u32>) {
        for commit in commits.iter().filter(|commit| !fenced.contains(&commit.number)) {
            if let Some(assigned) = self.partitions.get_mut(&commit.number) {
                assigned.committed = commit.committed;
                assigned.window.advance();
            }
        }
        if !fenced.is_empty() {
            self.partitions.retain(|number, _| !fenced.contains(number));
            self.tell(Event::Revoked(fenced.iter().copied().collect()));
        }
    }

    /// Takes an outcome back whose commit failed, so that its token may be settled again.
    fn restore(&mut self, token: &AckToken) {
        let until = Instant::now() + self.subscription.ack_deadline;
        if let Some(assigned) = self.partitions.get_mut(&token.position.partition())
            && assigned.assignment == token.assignment
        {
            assigned.window.restore(token.position.offset(), token.attempt, until);
        }
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        let until = Instant::now() + limit.wait;
        let mut has_looked = false;
        loop {
            self.inner.check_open()?;
            self.look_at_group().await?;
            self.count_starts(limit.messages).await?;
            let deliveries = self.deliver(limit.messages);
            self.note_caught_up();
            let news = std::mem::take(&mut self.news);
            let is_over = has_looked && Instant::now() >= until;
            if !deliveries.is_empty() || news || is_over {
                return Ok(deliveries);
            }
            let wake = self.next_wake(until);
            let wake = if has_looked { wake } else { wake.max(Instant::now() + LOOK_MIN) };
            self.fetch(wake).await?;
            has_looked = true;
        }
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        let Some(membership) = &self.membership else { return Vec::new() };
        membership.member.polled();
        let group = membership.group.clone();
        for (token, outcome) in &outcomes {
            self.apply(token, outcome);
        }
        let commits = self.commits();
        if commits.is_empty() {
            for (token, _) in &outcomes {
                if let Some(assigned) = self.partitions.get_mut(&token.position.partition()) {
                    assigned.window.release(token.position.offset());
                }
            }
            return Vec::new();
        }
        let job = commits.clone();
        let written =
            self.inner.writer.write(move |c| membership::commit(c, group.as_str(), &job)).await;
        match written {
            Ok(fenced) => {
                self.committed(&commits, &fenced);
                Vec::new()
            }
            Err(error) => {
                let give = |(token, outcome)| {
                    self.restore(&token);
                    Unsettled { token, outcome, error: error.duplicate() }
                };
                outcomes.into_iter().map(give).collect()
            }
        }
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        if let Some(membership) = &self.membership {
            membership.member.polled();
        }
        let until = Instant::now() + by;
        for token in tokens {
            if let Some(assigned) = self.partitions.get_mut(&token.position.partition())
                && assigned.assignment == token.assignment
            {
                assigned.window.postpone(token.position.offset(), token.attempt, until);
            }
        }
        Ok(())
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        self.look_at_group().await?;
        let numbers: Vec<u32> = match seek.partition {
            Some(number) => vec![number],
            None => self.partitions.keys().copied().collect(),
        };
        for number in numbers {
            self.seek_partition(number, seek.to).await?;
        }
        Ok(())
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        if self.membership.is_none() {
            let message = "a reader without a group settles nothing and has no transactions";
            return Err(Error::new(ErrorKind::Unsupported, "transaction", message));
        }
        Ok(Box::new(EmbeddedTransaction::new(self)))
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

impl EmbeddedConsumer {
    async fn seek_partition(&mut self, number: u32, to: Start) -> Result<()> {
        let Some(assigned) = self.partitions.get(&number) else {
            let message = "the partition is not assigned to this consumer";
            let error = Error::new(ErrorKind::NotFound, "seek", message);
            return Err(error.with("partition", number));
        };
        let (partition, generation, end) = (assigned.row, assigned.generation, assigned.end);
        let group = self.membership.as_ref().map(|membership| membership.group.clone());
        let moved = self.inner.writer.write(move |connection| {
            let committed = membership::resolve(connection, partition, to)?;
            let Some(group) = group else { return Ok((committed, BTreeSet::new())) };
            let commit = Commit { number, partition, generation, committed };
            Ok((committed, membership::commit(connection, group.as_str(), &[commit])?))
        });
        let (committed, fenced) = moved.await?;
        if !fenced.is_empty() {
            self.committed(&[], &fenced);
            let message = "the partition went to another member";
            return Err(Error::new(ErrorKind::Fenced, "seek", message).with("partition", number));
        }
        let claimed = Claimed { number, partition, committed, generation, starts: 0 };
        self.assign(claimed, end);
        Ok(())
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        if let Some(membership) = &self.membership {
            self.inner.leave(&membership.member);
        }
    }
}

impl fmt::Debug for EmbeddedConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedConsumer")
            .field("topic", &self.subscription.topic)
            .field("group", &self.subscription.group)
            .field("partitions", &self.partitions.keys())
            .finish_non_exhaustive()
    }
}
