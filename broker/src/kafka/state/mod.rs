//! What a consumer and its thread share: the windows of the assigned partitions.
//!
//! The thread fills the windows and takes partitions away, the async side delivers from them
//! and settles, both under one short lock. So a settlement either comes before a partition
//! is given away, and is committed with it, or it finds the partition gone and does nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::context::Client;
use super::start::{Begin, Place};
use super::transactor::Transactor;
use crate::delivery::{AckToken, Delivery, Outcome, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;
use crate::subscription::{Event, Seek};
use crate::window::{Bounds, Lender, Window};

mod commits;
mod step;
#[cfg(test)]
mod tests;

pub(super) use commits::{Commit, Commits};

/// A partition that the consumer has.
struct Partition {
    number: u32,
    /// Tells this assignment's tokens from those of another.
    assignment: u64,
    window: Window,
    /// The offset to fetch next; before the window's where that one is not written yet.
    fetch: u64,
    /// The group's position as far as it is known; none where it must be committed.
    committed: Option<Place>,
    /// Something was delivered, or waits only for its start to be counted.
    started: bool,
    /// The position whose count of starts is durable: nothing is delivered before that.
    counted: Option<u64>,
    /// It goes to another member: nothing new of it is delivered.
    leaving: bool,
    /// For a reader: what it must have delivered to have caught up.
    end: u64,
}

impl Partition {
    fn room(&self) -> usize {
        if self.leaving { 0 } else { self.window.room() }
    }

    /// Whether there may be something to deliver now.
    fn is_ready(&self, now: Instant) -> bool {
        self.window.ready() > 0 || self.window.next_wake().is_some_and(|wake| wake <= now)
    }
}

/// A wish to move, answered by the consumer's thread.
pub(super) struct Move {
    pub(super) seek: Seek,
    pub(super) reply: oneshot::Sender<Result<()>>,
}

pub(super) struct State {
    /// In the order of their numbers.
    partitions: Vec<Partition>,
    bounds: Bounds,
    is_reader: bool,
    /// Which partition is served first, so that none starves.
    turn: usize,
    events: Vec<Event>,
    /// An event came that no `receive` has returned for.
    news: bool,
    caught_up: bool,
    failure: Option<Error>,
    /// What ended the consumer for good.
    fatal: Option<Error>,
    closed: bool,
    /// The thread passed over a partition whose window is full.
    starved: bool,
    pub(super) moves: VecDeque<Move>,
    /// A commit is on its way.
    pub(super) committing: bool,
    /// A delivery waits for a commit that counts its start.
    pub(super) urgent: bool,
    /// A transaction is being committed, which alone may move positions meanwhile.
    transacting: bool,
    /// The consumer's thread of control panicked: what it held may have been the cause.
    panicked: bool,
}

/// The state with what wakes both sides.
pub(super) struct Link {
    state: Mutex<State>,
    /// Wakes `receive`.
    pub(super) arrived: Notify,
    /// Wakes the thread.
    thread: OnceLock<Thread>,
    /// Becomes true when the thread has left the group.
    pub(super) ended: watch::Sender<bool>,
    /// Wakes who waits for `committing` to end.
    idle: Condvar,
    /// The client, which the thread owns.
    pub(super) client: OnceLock<Weak<Client>>,
    /// Made by the first transaction.
    transactor: Mutex<Option<Transactor>>,
}

fn next_assignment() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Link {
    pub(super) fn new(bounds: Bounds, is_reader: bool) -> Self {
        let state = State {
            partitions: Vec::new(),
            bounds,
            is_reader,
            turn: 0,
            events: Vec::new(),
            news: false,
            caught_up: !is_reader,
            failure: None,
            fatal: None,
            closed: false,
            starved: false,
            moves: VecDeque::new(),
            committing: false,
            urgent: false,
            transacting: false,
            panicked: false,
        };
        Self {
            state: Mutex::new(state),
            arrived: Notify::new(),
            thread: OnceLock::new(),
            ended: watch::Sender::new(false),
            idle: Condvar::new(),
            client: OnceLock::new(),
            transactor: Mutex::new(None),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The producer of the consumer's transactions, of which one is committed at a time.
    pub(super) fn transactor(&self) -> MutexGuard<'_, Option<Transactor>> {
        self.transactor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the calling thread the one that `wake` wakes.
    pub(super) fn attach(&self) {
        self.thread.get_or_init(std::thread::current);
    }

    /// Wakes the consumer's thread.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Ends the consumer; the thread commits, leaves the group and ends.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.panicked |= !state.closed && std::thread::panicking();
        state.closed = true;
        drop(state);
        self.wake();
        self.arrived.notify_one();
    }

    /// Tells `receive` of an event.
    pub(super) fn tell(&self, event: Event) {
        self.lock().tell(event);
        self.arrived.notify_one();
    }

    /// Makes the next `receive` fail; every one where the error ended the consumer.
    pub(super) fn fail(&self, error: Error, is_fatal: bool) {
        let mut state = self.lock();
        if is_fatal {
            state.fatal = Some(error);
        } else {
            state.failure = Some(error);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Adds fetched messages of one partition; those before its window are passed over.
    pub(super) fn arrive(&self, partition: u32, offsets: &[u64], messages: Vec<Message>) {
        let mut state = self.lock();
        let Some(partition) = state.find(partition) else { return };
        let Some(last) = offsets.last() else { return };
        let from = partition.window.next();
        partition.window.pass_gap(offsets.iter().copied().find(|o| *o >= from).unwrap_or(from));
        let wanted = offsets.iter().copied().zip(Shared::all(messages));
        let wanted = wanted.filter(|(offset, _)| *offset >= from);
        partition.fetch = last + 1;
        partition.window.extend(wanted, from.max(last + 1));
        drop(state);
        self.arrived.notify_one();
    }
}

impl State {
    fn find(&mut self, number: u32) -> Option<&mut Partition> {
        let index = self.partitions.binary_search_by_key(&number, |p| p.number).ok()?;
        Some(&mut self.partitions[index])
    }

    fn assigned(&mut self, number: u32, assignment: u64) -> Option<&mut Partition> {
        self.find(number).filter(|partition| partition.assignment == assignment)
    }

    fn of(&mut self, token: &AckToken) -> Option<&mut Partition> {
        self.assigned(token.position.partition(), token.assignment)
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.events.push(event);
        self.news = true;
    }

    /// Takes a partition in, or moves one to a new place, where older tokens are stale.
    pub(super) fn begin(&mut self, begin: &Begin) {
        let partition = Partition {
            number: begin.partition,
            assignment: next_assignment(),
            window: Window::new(self.bounds, begin.deliver, begin.starts()),
            fetch: begin.fetch,
            committed: begin.committed,
            started: false,
            // A reader owns nothing that could kill it again.
            counted: self.is_reader.then_some(begin.deliver),
            leaving: false,
            end: begin.end,
        };
        match self.partitions.binary_search_by_key(&begin.partition, |p| p.number) {
            Ok(index) => {
                let end = self.partitions[index].end;
                self.partitions[index] = Partition { end, ..partition };
            }
            Err(index) => self.partitions.insert(index, partition),
        }
    }

    /// Goes on behind a hole that retention left, or at the start of a log that was cut off.
    pub(super) fn skip_to(&mut self, number: u32, low: u64) {
        let Some(partition) = self.find(number) else { return };
        if low >= partition.window.next() {
            partition.fetch = low;
            partition.window.extend([], low);
        } else {
            let end = partition.end.min(low);
            self.begin(&Begin {
                partition: number,
                fetch: low,
                deliver: low,
                gone: None,
                committed: None,
                end,
            });
        }
    }

    /// Stops delivering from partitions that go to another member.
    pub(super) fn leave(&mut self, numbers: &[u32]) {
        for number in numbers {
            if let Some(partition) = self.find(*number) {
                partition.leaving = true;
            }
        }
    }

    /// Whether a delivery of these partitions is out.
    pub(super) fn in_flight(&self, numbers: &[u32]) -> bool {
        self.partitions.iter().any(|p| numbers.contains(&p.number) && p.window.in_flight())
    }

    /// Takes partitions out, so that their tokens are stale from now on.
    pub(super) fn remove(&mut self, numbers: &[u32]) {
        self.partitions.retain(|partition| !numbers.contains(&partition.number));
    }

    /// How many messages a partition takes; zero also where it is gone or leaving.
    pub(super) fn room(&mut self, number: u32) -> usize {
        let least = self.least_room();
        let Some(room) = self.find(number).map(|partition| partition.room()) else { return 0 };
        self.starved |= room < least;
        if room < least { 0 } else { room }
    }

    /// The least room that is worth filling: a full window is not topped up one by one.
    fn least_room(&self) -> usize {
        (self.bounds.messages_max / 8).clamp(1, 512)
    }

    /// Where each partition is fetched from next.
    pub(super) fn positions(&self) -> BTreeMap<u32, u64> {
        self.partitions.iter().map(|p| (p.number, p.fetch)).collect()
    }

    /// Notes that everything written before the offset `at` was fetched. The places before it
    /// may hold no message, but the marks of transactions: they are settled with what precedes.
    pub(super) fn reached_end(&mut self, number: u32, at: u64) {
        let Some(partition) = self.find(number) else { return };
        partition.fetch = partition.fetch.max(at);
        partition.end = partition.end.min(partition.fetch);
        if at > partition.window.next() {
            partition.window.pass_gap(at);
            partition.window.extend([], at);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        match &self.fatal {
            Some(error) => Err(error.duplicate()),
            None if self.closed => {
                Err(Error::new(ErrorKind::Closed, operation, "the consumer was shut down"))
            }
            None => Ok(()),
        }
    }

    /// What `receive` returns now; none where it has to wait.
    pub(super) fn take(&mut self, topic: &Topic, limit: usize) -> Option<Result<Vec<Delivery>>> {
        if let Err(error) = self.check_open("receive") {
            return Some(Err(error));
        }
        if let Some(error) = self.failure.take() {
            return Some(Err(error));
        }
        let deliveries = self.deliver(topic, Instant::now(), limit);
        if self.is_reader {
            self.forget(&deliveries);
        }
        self.note_caught_up();
        let news = std::mem::take(&mut self.news);
        (news || !deliveries.is_empty()).then_some(Ok(deliveries))
    }

    fn deliver(&mut self, topic: &Topic, now: Instant, limit: usize) -> Vec<Delivery> {
        let mut all = Vec::new();
        let turn = self.turn.checked_rem(self.partitions.len()).unwrap_or(0);
        self.turn = turn + 1;
        let (head, tail) = self.partitions.split_at_mut(turn);
        for partition in tail.iter_mut().chain(head).filter(|partition| !partition.leaving) {
            if all.len() >= limit {
                break;
            }
            if !partition.is_counted() {
                let is_ready = partition.is_ready(now);
                partition.started |= is_ready;
                self.urgent |= is_ready;
                continue;
            }
            let (number, assignment) = (partition.number, partition.assignment);
            let lender = Lender { topic, partition: number, assignment };
            partition.window.lend(now, limit - all.len(), &lender, &mut all);
        }
        all
    }

    /// A reader settles nothing: what it delivered is done.
    fn forget(&mut self, deliveries: &[Delivery]) {
        for delivery in deliveries {
            let position = delivery.position();
            if let Some(partition) = self.find(position.partition()) {
                partition.window.ack(position.offset(), delivery.attempt());
            }
        }
        self.partitions.iter_mut().for_each(|partition| partition.window.advance());
    }

    fn note_caught_up(&mut self) {
        // A reader has no partitions only until its thread has begun.
        let has_begun = !self.caught_up && !self.partitions.is_empty();
        if has_begun && self.partitions.iter().all(|p| p.window.settled() >= p.end) {
            self.caught_up = true;
            self.tell(Event::CaughtUp);
        }
    }

    /// Applies outcomes; those of another assignment do nothing.
    pub(super) fn settle(&mut self, outcomes: &[(AckToken, Outcome)]) {
        if self.is_reader {
            return;
        }
        let now = Instant::now();
        for (token, outcome) in outcomes {
            let offset = token.position.offset();
            let Some(partition) = self.of(token) else { continue };
            match outcome {
                // The delivery layer has stored the dead letter before it settles a rejection.
                Outcome::Ack | Outcome::Reject { .. } => {
                    partition.window.ack(offset, token.attempt);
                }
                Outcome::Retry { after } => {
                    partition.window.retry(offset, token.attempt, now + *after);
                }
            }
        }
        self.partitions.iter_mut().for_each(|partition| partition.window.advance());
        for (token, _) in outcomes {
            if let Some(partition) = self.of(token) {
                partition.window.release(token.position.offset());
            }
        }
    }

    /// Moves the deadlines of deliveries; stale ones are passed over.
    pub(super) fn extend(&mut self, tokens: &[&AckToken], until: Instant) {
        for token in tokens {
            if let Some(partition) = self.of(token) {
                partition.window.postpone(token.position.offset(), token.attempt, until);
            }
        }
    }

    /// When a held or silent delivery may come again.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let counted = self.partitions.iter().filter(|partition| partition.is_counted());
        counted.filter_map(|partition| partition.window.next_wake()).min()
    }

    /// Whether the thread waits for room that is there now, or for deliveries to come back.
    pub(super) fn should_wake(&mut self) -> bool {
        let least = self.least_room();
        let wake = self.starved && self.partitions.iter().any(|p| p.leaving || p.room() >= least);
        self.starved &= !wake;
        wake || self.urgent
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        self.news = false;
        std::mem::take(&mut self.events)
    }

    /// The partitions that a seek means.
    pub(super) fn sought(&mut self, seek: &Seek) -> Result<Vec<u32>> {
        match seek.partition {
            None => Ok(self.partitions.iter().map(|partition| partition.number).collect()),
            Some(number) if self.find(number).is_some() => Ok(vec![number]),
            Some(number) => {
                let error =
                    Error::new(ErrorKind::NotFound, "seek", "the partition is not assigned");
                Err(error.with("partition", number))
            }
        }
    }
}

/// Whether an error of a client ends it for good.
pub(super) fn is_fatal(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::Fatal)
}
