//! The in-flight window of one partition, shared by every log-shaped backend.
//!
//! It holds what was fetched and is not settled, in offset order. Invariants: `entries` is
//! sorted by offset; every offset below the front is settled; nothing at or after `next` is
//! held. Only the contiguous settled prefix may be committed, so a crash brings back all
//! that was open. It does no I/O and reads no clock: callers pass the time.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::delivery::{AckToken, Delivery, Position, Shared};
use crate::name::Topic;
use crate::subscription::Subscription;

mod caution;
#[cfg(test)]
mod tests;

use caution::Caution;

/// The bounds of a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) ack_deadline: Duration,
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
}

impl From<&Subscription> for Bounds {
    fn from(subscription: &Subscription) -> Self {
        Self {
            ack_deadline: subscription.ack_deadline,
            messages_max: subscription.in_flight_max.max(1),
            bytes_max: subscription.in_flight_bytes_max.max(1),
        }
    }
}

/// Whose messages a window lends.
pub(crate) struct Lender<'a> {
    pub(crate) topic: &'a Topic,
    pub(crate) partition: u32,
    /// Tells this assignment's tokens from those of another.
    pub(crate) assignment: u64,
}

/// Partitions in the order of their turns, so that a full one starves no other.
pub(crate) fn in_turn<V>(
    partitions: &BTreeMap<u32, V>,
    turn: usize,
) -> impl Iterator<Item = u32> + use<V> {
    let mut numbers: Vec<u32> = partitions.keys().copied().collect();
    let turn = turn.checked_rem(numbers.len()).unwrap_or(0);
    numbers.rotate_left(turn);
    numbers.into_iter()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Fetched and not delivered, or due for another delivery.
    Queued,
    InFlight {
        deadline: Instant,
    },
    /// Waits for the time that a retry asked for.
    Held,
    Settled,
}

struct Entry {
    offset: u64,
    /// Dropped as soon as the entry is settled, so that a slow head pins no payloads.
    message: Option<Shared>,
    bytes: usize,
    attempt: u32,
    state: State,
}

pub(crate) struct Window {
    bounds: Bounds,
    entries: VecDeque<Entry>,
    next: u64,
    /// How many entries at the front have been offered for their first delivery.
    offered: usize,
    bytes: usize,
    /// Payload bytes of the deliveries that are out and unsettled.
    lent: usize,
    due: BTreeSet<u64>,
    held: BTreeMap<u64, Instant>,
    /// Passed over because an earlier message of their key is held.
    parked: BTreeSet<u64>,
    next_scan: Option<Instant>,
    /// Deliveries of the first offset that earlier owners of the partition counted.
    first: (u64, u32),
    caution: Caution,
}

/// After so many owners that died at one offset, the culprit is looked for one by one.
const CRASHES_MAX: u32 = 2;

impl Window {
    /// A window that goes on at `start`, whose message was delivered `attempts` times before
    /// by owners that died. After [`CRASHES_MAX`] of them it is cautious with the messages
    /// that may have been out with that one.
    pub(crate) fn new(bounds: Bounds, start: u64, attempts: u32) -> Self {
        let suspects = if attempts < CRASHES_MAX { 0 } else { bounds.messages_max };
        Self {
            bounds,
            entries: VecDeque::new(),
            next: start,
            offered: 0,
            bytes: 0,
            lent: 0,
            due: BTreeSet::new(),
            held: BTreeMap::new(),
            parked: BTreeSet::new(),
            next_scan: None,
            first: (start, attempts),
            caution: Caution::with(suspects),
        }
    }

    /// The offset to fetch next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many more messages may be fetched; zero where a bound is reached.
    pub(crate) fn room(&self) -> usize {
        if self.bytes >= self.bounds.bytes_max {
            return 0;
        }
        self.bounds.messages_max.saturating_sub(self.entries.len())
    }

    /// How many more payload bytes may be fetched; a fetch may pass it by its last message.
    pub(crate) fn room_bytes(&self) -> usize {
        self.bounds.bytes_max.saturating_sub(self.bytes)
    }

    /// How many messages `deliver` may give out at most, as far as is known without the time.
    pub(crate) fn ready(&self) -> usize {
        self.due.len() + self.entries.len() - self.offered
    }

    /// Whether a delivery is out and unsettled.
    pub(crate) fn in_flight(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.state, State::InFlight { .. }))
    }

    /// Adds fetched messages in offset order; `next` is where the following fetch goes on.
    pub(crate) fn extend(&mut self, fetched: impl IntoIterator<Item = (u64, Shared)>, next: u64) {
        for (offset, message) in fetched {
            debug_assert!(offset >= self.next, "offset {offset} was fetched twice");
            self.caution.fetched(offset);
            let attempt = if offset == self.first.0 { self.first.1 } else { 0 };
            self.push(offset, attempt, message);
        }
        self.next = next;
    }

    fn push(&mut self, offset: u64, attempt: u32, message: Shared) {
        let bytes = message.payload.len();
        self.bytes += bytes;
        let message = Some(message);
        self.entries.push_back(Entry { offset, message, bytes, attempt, state: State::Queued });
    }

    /// Gives out at most `limit` messages, those due again first, each with its attempt.
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        limit: usize,
        mut out: impl FnMut(u64, u32, Shared),
    ) -> usize {
        self.wake(now);
        self.heed_caution();
        let mut given = 0;
        while given < limit
            && let Some(offset) = self.due.first().copied()
        {
            let index = self.find(offset);
            if index.is_some_and(|index| !self.may_lend(index)) {
                return given;
            }
            self.due.pop_first();
            given += index.map_or(0, |index| usize::from(self.hand_out(index, now, &mut out)));
        }
        let blocked = self.blocked_keys();
        while given < limit && self.offered < self.entries.len() && self.may_lend(self.offered) {
            let index = self.offered;
            self.offered += 1;
            if self.is_blocked(index, &blocked) {
                self.parked.insert(self.entries[index].offset);
            } else {
                given += usize::from(self.hand_out(index, now, &mut out));
            }
        }
        given
    }

    /// Gives out at most `limit` messages as deliveries of a partition.
    pub(crate) fn lend(
        &mut self,
        now: Instant,
        limit: usize,
        from: &Lender<'_>,
        out: &mut Vec<Delivery>,
    ) -> usize {
        let Lender { topic, partition, assignment } = *from;
        self.deliver(now, limit, |offset, attempt, message| {
            let (topic, position) = (topic.clone(), Position::new(partition, offset));
            let token = AckToken { topic, position, attempt, assignment, message };
            out.push(Delivery::new(token));
        })
    }

    /// When `deliver` may have something new by itself, without a fetch.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.held.values().copied().chain(self.next_scan).min()
    }

    /// Marks a delivery done; a stale one is passed over, with false.
    pub(crate) fn ack(&mut self, offset: u64, attempt: u32) -> bool {
        let Some(index) = self.open(offset, attempt) else { return false };
        self.set(index, State::Settled);
        true
    }

    /// Holds a delivery until a time; a stale one is passed over, with false.
    pub(crate) fn retry(&mut self, offset: u64, attempt: u32, until: Instant) -> bool {
        let Some(index) = self.open(offset, attempt) else { return false };
        self.set(index, State::Held);
        self.held.insert(offset, until);
        true
    }

    /// Moves the deadline of a delivery; a stale one is passed over.
    pub(crate) fn postpone(&mut self, offset: u64, attempt: u32, until: Instant) {
        if let Some(index) = self.open(offset, attempt) {
            self.set(index, State::InFlight { deadline: until });
        }
    }

    /// Takes an `ack` back that could not be committed: the message is delivered again.
    pub(crate) fn reopen(&mut self, offset: u64, attempt: u32) {
        let Some(index) = self.find(offset) else { return };
        let entry = &self.entries[index];
        if entry.attempt == attempt && entry.message.is_some() && entry.state != State::Queued {
            self.set(index, State::Queued);
            self.held.remove(&offset);
            self.due.insert(offset);
        }
    }

    /// Takes an `ack` or `retry` back that could not be committed: its token stays good.
    pub(crate) fn restore(&mut self, offset: u64, attempt: u32, until: Instant) {
        let Some(index) = self.find(offset) else { return };
        let entry = &self.entries[index];
        if entry.attempt == attempt && entry.message.is_some() && entry.state != State::Queued {
            self.set(index, State::InFlight { deadline: until });
            self.held.remove(&offset);
            self.next_scan.get_or_insert(until);
        }
    }

    /// The offset up to which everything is settled.
    pub(crate) fn settled(&self) -> u64 {
        self.settled_with(|_, _| false)
    }

    /// The offset up to which everything would be settled with these deliveries too, each
    /// named by offset and attempt.
    pub(crate) fn settled_with(&self, also: impl Fn(u64, u32) -> bool) -> u64 {
        let is_open =
            |entry: &&Entry| entry.state != State::Settled && !also(entry.offset, entry.attempt);
        self.entries.iter().find(is_open).map_or(self.next, |entry| entry.offset)
    }

    /// Forgets the settled prefix, and the payloads of what is settled behind it.
    pub(crate) fn advance(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.state == State::Settled) {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= if entry.message.is_some() { entry.bytes } else { 0 };
                self.offered = self.offered.saturating_sub(1);
            }
        }
    }

    /// Frees the payload of one settled delivery that an open one still precedes.
    pub(crate) fn release(&mut self, offset: u64) {
        let Some(index) = self.find(offset) else { return };
        let entry = &mut self.entries[index];
        if entry.state == State::Settled && entry.message.take().is_some() {
            self.bytes -= entry.bytes;
        }
    }

    fn find(&self, offset: u64) -> Option<usize> {
        let front = self.entries.front()?.offset;
        let guess = usize::try_from(offset.checked_sub(front)?).ok()?;
        match self.entries.get(guess) {
            Some(entry) if entry.offset == offset => Some(guess),
            // Offsets have gaps where a log was compacted or holds transaction markers.
            _ => self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok(),
        }
    }

    /// A delivery that its token may still settle: out, or due again and not yet out again.
    fn open(&self, offset: u64, attempt: u32) -> Option<usize> {
        let index = self.find(offset)?;
        let entry = &self.entries[index];
        let is_open = matches!(entry.state, State::InFlight { .. } | State::Queued);
        (is_open && entry.attempt == attempt).then_some(index)
    }

    /// Changes a state, and the count of the bytes that are out with it.
    fn set(&mut self, index: usize, state: State) {
        let entry = &mut self.entries[index];
        let out = |state| matches!(state, State::InFlight { .. });
        match (out(entry.state), out(state)) {
            (false, true) => self.lent += entry.bytes,
            (true, false) => self.lent -= entry.bytes,
            _ => {}
        }
        entry.state = state;
    }

    fn heed_caution(&mut self) {
        let is_cautious = self.caution.is_about(self.settled());
        if is_cautious && !self.in_flight() {
            self.caution.go_on();
        }
    }

    /// Whether the bounds let this message out: the first always, so that none is stuck.
    fn may_lend(&self, index: usize) -> bool {
        let entry = &self.entries[index];
        if !self.caution.allows(entry.offset) {
            return false;
        }
        self.lent == 0 || self.lent + entry.bytes <= self.bounds.bytes_max
    }

    fn hand_out(
        &mut self,
        index: usize,
        now: Instant,
        out: &mut impl FnMut(u64, u32, Shared),
    ) -> bool {
        let entry = &mut self.entries[index];
        if entry.state != State::Queued {
            return false;
        }
        let Some(message) = entry.message.clone() else { return false };
        entry.attempt = entry.attempt.saturating_add(1);
        out(entry.offset, entry.attempt, message);
        self.caution.lent(entry.offset);
        self.set(index, State::InFlight { deadline: now + self.bounds.ack_deadline });
        self.next_scan.get_or_insert(now + self.scan_interval());
        true
    }

    fn scan_interval(&self) -> Duration {
        (self.bounds.ack_deadline / 8).max(Duration::from_millis(5))
    }

    /// Makes due what was held long enough, what ran out of time and what is no longer blocked.
    fn wake(&mut self, now: Instant) {
        let ripe: Vec<u64> =
            self.held.iter().filter(|(_, until)| **until <= now).map(|(o, _)| *o).collect();
        for offset in ripe {
            self.held.remove(&offset);
            if let Some(index) = self.find(offset) {
                self.set(index, State::Queued);
                self.due.insert(offset);
            }
        }
        if self.next_scan.is_some_and(|at| at <= now) {
            self.expire(now);
        }
        if !self.parked.is_empty() {
            let blocked = self.blocked_keys();
            let parked = std::mem::take(&mut self.parked);
            let (wait, go) = parked.into_iter().partition(|offset| {
                self.find(*offset).is_some_and(|index| self.is_blocked(index, &blocked))
            });
            self.parked = wait;
            self.due.extend::<BTreeSet<u64>>(go);
        }
    }

    fn expire(&mut self, now: Instant) {
        let mut waiting = false;
        for index in 0..self.entries.len() {
            match self.entries[index].state {
                State::InFlight { deadline } if deadline <= now => {
                    self.set(index, State::Queued);
                    self.due.insert(self.entries[index].offset);
                }
                State::InFlight { .. } => waiting = true,
                _ => {}
            }
        }
        self.next_scan = waiting.then(|| now + self.scan_interval());
    }

    fn blocked_keys(&self) -> HashSet<Bytes> {
        let held = self.held.keys().filter_map(|offset| self.find(*offset));
        held.filter_map(|index| self.entries[index].message.as_ref()?.key.clone()).collect()
    }

    fn is_blocked(&self, index: usize, blocked: &HashSet<Bytes>) -> bool {
        let key = self.entries[index].message.as_ref().and_then(|message| message.key.as_ref());
        !blocked.is_empty() && key.is_some_and(|key| blocked.contains(key))
    }
}

/// What a log needs whose positions are committed behind the window's back.
#[cfg(feature = "kafka")]
impl Window {
    /// The first offset, and how often earlier owners of the partition delivered it.
    pub(crate) fn first(&self) -> (u64, u32) {
        self.first
    }

    /// Says that no message stands before `offset`, where nothing came yet: logs hold places
    /// without a message, and the count is of the message behind.
    pub(crate) fn pass_gap(&mut self, offset: u64) {
        if self.first.0 == self.next {
            self.first.0 = offset.max(self.next);
        }
    }

    /// Whether the next message to be settled may be one that kills its consumers.
    pub(crate) fn is_suspect(&self) -> bool {
        self.caution.is_about(self.settled())
    }
}

/// What a transaction asks before it settles.
#[cfg(any(feature = "kafka", feature = "redis"))]
impl Window {
    /// Whether a token may still settle this delivery.
    pub(crate) fn is_open(&self, offset: u64, attempt: u32) -> bool {
        self.open(offset, attempt).is_some()
    }
}

/// What a server needs that counts the deliveries of each message itself.
#[cfg(feature = "redis")]
impl Window {
    /// Adds what an earlier owner had out, in offset order: each message with how often it was
    /// delivered. `next` is where the following fetch goes on.
    pub(crate) fn inherit(
        &mut self,
        messages: impl IntoIterator<Item = (u64, u32, Shared)>,
        next: u64,
    ) {
        for (offset, attempts, message) in messages {
            self.push(offset, attempts, message);
        }
        self.next = next;
    }

    /// Is cautious with the messages below `offset`, one of which may kill its consumer.
    pub(crate) fn suspect(&mut self, offset: u64) {
        self.caution.reach(offset);
    }
}
