//! Which message may run next.
//!
//! Messages without a key run freely. Of one key at most one worker runs messages, in the order
//! of their positions. A message that failed comes again through the consumer, with a higher
//! attempt; until then those behind it of its key wait here, so that a retry changes no order
//! and spends none of their attempts.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::board::Chunk;
use crate::delivery::{AckToken, Delivery, Outcome, Position};

/// The most messages of one key that are queued at once, behind which others may come.
const RELEASE_MAX: usize = 64;

/// How much a worker takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share {
    /// Up to so many, but no more than is fair towards the other workers.
    Fair(usize),
    /// Up to so many.
    All(usize),
}

/// A key of which a message runs or is to come again.
#[derive(Default)]
struct Key {
    running: Option<usize>,
    /// Messages that come again; what is behind the first of them waits.
    awaited: BTreeSet<Position>,
    /// When those have come, unless they never will.
    until: Option<Instant>,
    waiting: BTreeMap<Position, Delivery>,
    /// How many messages went from `waiting` to the front of the queue and are there still.
    released: usize,
}

pub(super) struct Queue {
    ready: VecDeque<Delivery>,
    keys: HashMap<Bytes, Key>,
    /// How many keys have messages that come again.
    awaiting: usize,
    /// What each worker runs.
    running: Vec<Option<Chunk>>,
    /// How many deliveries all workers run.
    at_work: usize,
    /// How long after its time a message may take to come again.
    patience: Duration,
}

impl Queue {
    pub(super) fn new(workers: usize, patience: Duration) -> Self {
        Self {
            ready: VecDeque::new(),
            keys: HashMap::new(),
            awaiting: 0,
            running: vec![None; workers],
            at_work: 0,
            patience,
        }
    }

    /// How many deliveries are ready or run. Those that wait for their key are not counted:
    /// what they wait for may be yet to be received.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.at_work
    }

    pub(super) fn is_idle(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether there is nothing at all, also nothing that waits for its key.
    pub(super) fn is_untouched(&self) -> bool {
        self.is_idle() && self.keys.is_empty()
    }

    /// Adds deliveries behind those that are there.
    pub(super) fn push(&mut self, deliveries: Vec<Delivery>) {
        if self.awaiting == 0 {
            return self.ready.extend(deliveries);
        }
        for delivery in deliveries {
            let key = delivery.key.clone();
            match key.filter(|key| self.keys.get(key).is_some_and(|it| !it.awaited.is_empty())) {
                Some(key) => self.arrive(&key, delivery),
                None => self.ready.push_back(delivery),
            }
        }
    }

    /// Adds a delivery of a key that waits for some to come again.
    fn arrive(&mut self, name: &Bytes, delivery: Delivery) {
        let Some(key) = self.keys.get_mut(name) else { return };
        let position = delivery.position();
        if key.awaited.remove(&position) && key.awaited.is_empty() {
            self.awaiting -= 1;
        }
        key.waiting.insert(position, delivery);
        self.release(name);
    }

    /// Gives a worker its next chunk.
    pub(super) fn take(&mut self, worker: usize, share: Share) -> Option<Chunk> {
        let max = match share {
            Share::Fair(max) => max.min(self.ready.len().div_ceil(self.running.len())),
            Share::All(max) => max.min(self.ready.len()),
        };
        let mut chunk = Vec::with_capacity(max);
        while chunk.len() < max
            && let Some(delivery) = self.ready.pop_front()
        {
            chunk.extend(self.admit(worker, delivery));
        }
        if chunk.is_empty() {
            return None;
        }
        let chunk = Arc::new(chunk);
        self.run(worker, &chunk);
        Some(chunk)
    }

    /// Lets the delivery run, or puts it aside behind others of its key.
    fn admit(&mut self, worker: usize, delivery: Delivery) -> Option<Delivery> {
        let Some(name) = delivery.key.clone() else { return Some(delivery) };
        let position = delivery.position();
        let key = match self.keys.entry(name) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(Key { running: Some(worker), ..Key::default() });
                return Some(delivery);
            }
        };
        key.released = key.released.saturating_sub(1);
        let elsewhere = key.running.is_some_and(|other| other != worker);
        let behind = |first: Option<&Position>| first.is_some_and(|first| *first < position);
        if elsewhere || behind(key.awaited.first()) || behind(key.waiting.keys().next()) {
            let name = delivery.key.clone().unwrap_or_default();
            key.waiting.insert(position, delivery);
            // This may have been the last one that stood between those that wait and their turn.
            self.release(&name);
            return None;
        }
        key.running = Some(worker);
        Some(delivery)
    }

    /// Lets a worker run a chunk on that was begun while there was nothing else.
    pub(super) fn resume(&mut self, worker: usize, chunk: &Chunk) {
        for name in chunk.iter().filter_map(|delivery| delivery.key.clone()) {
            self.keys.entry(name).or_default().running = Some(worker);
        }
        self.run(worker, chunk);
    }

    fn run(&mut self, worker: usize, chunk: &Chunk) {
        self.at_work += chunk.len();
        self.running[worker] = Some(chunk.clone());
    }

    fn rest(&mut self, worker: usize) {
        let ran = self.running[worker].take();
        self.at_work -= ran.map_or(0, |chunk| chunk.len());
    }

    /// Ends a chunk of which the first deliveries are done; the others go back.
    pub(super) fn finish(
        &mut self,
        worker: usize,
        chunk: Chunk,
        outcomes: Vec<Outcome>,
    ) -> Vec<(AckToken, Outcome)> {
        self.rest(worker);
        // The worker's was the last one but the queue's own.
        let deliveries = Arc::try_unwrap(chunk).unwrap_or_else(|shared| copies(&shared));
        self.end(worker, deliveries, outcomes, None)
    }

    /// Ends a chunk but for the delivery behind those that are done, which runs on.
    pub(super) fn keep(
        &mut self,
        worker: usize,
        chunk: &Chunk,
        outcomes: Vec<Outcome>,
    ) -> (Chunk, Vec<(AckToken, Outcome)>) {
        self.rest(worker);
        let mut deliveries = copies(chunk);
        let kept = deliveries.remove(outcomes.len());
        let key = kept.key.clone();
        let kept = Arc::new(vec![kept]);
        self.run(worker, &kept);
        (kept, self.end(worker, deliveries, outcomes, key.as_ref()))
    }

    fn end(
        &mut self,
        worker: usize,
        mut deliveries: Vec<Delivery>,
        outcomes: Vec<Outcome>,
        kept: Option<&Bytes>,
    ) -> Vec<(AckToken, Outcome)> {
        let rest = deliveries.split_off(outcomes.len());
        let mut back = Vec::new();
        for delivery in rest.into_iter().rev() {
            match delivery.key.clone() {
                Some(name) => {
                    let waiting = &mut self.keys.entry(name.clone()).or_default().waiting;
                    waiting.insert(delivery.position(), delivery);
                    back.push(name);
                }
                None => self.ready.push_front(delivery),
            }
        }
        let done: Vec<(AckToken, Outcome)> =
            deliveries.into_iter().map(Delivery::into_token).zip(outcomes).collect();
        done.iter().for_each(|(token, outcome)| self.note(token, outcome));
        let ended = done.iter().filter_map(|(token, _)| token.message().key.as_ref());
        for name in ended.chain(&back).filter(|name| kept != Some(*name)) {
            self.end_turn(worker, name);
        }
        done
    }

    /// Lets others run what is left of a key.
    fn end_turn(&mut self, worker: usize, name: &Bytes) {
        let Some(key) = self.keys.get_mut(name).filter(|key| key.running == Some(worker)) else {
            return;
        };
        key.running = None;
        if key.waiting.is_empty() && key.awaited.is_empty() {
            self.keys.remove(name);
        } else {
            self.release(name);
        }
    }

    /// Makes what is behind a message wait that comes again.
    pub(super) fn note(&mut self, token: &AckToken, outcome: &Outcome) {
        let Outcome::Retry { after } = outcome else { return };
        let Some(name) = token.message().key.clone() else { return };
        let key = self.keys.entry(name).or_default();
        self.awaiting += usize::from(key.awaited.is_empty());
        key.awaited.insert(token.position());
        key.until = key.until.max(Some(Instant::now() + *after + self.patience));
    }

    /// Moves what nothing holds back to the front of the queue, unless some of the key is there
    /// or runs already.
    fn release(&mut self, name: &Bytes) {
        let Some(key) = self.keys.get_mut(name) else { return };
        if key.running.is_some() || key.released > 0 {
            return;
        }
        let first = key.awaited.first().copied();
        let mut free = Vec::new();
        while free.len() < RELEASE_MAX
            && let Some(entry) = key.waiting.first_entry()
            && first.is_none_or(|first| *entry.key() < first)
        {
            free.push(entry.remove());
        }
        key.released = free.len();
        if free.is_empty() && key.awaited.is_empty() {
            self.keys.remove(name);
        }
        free.into_iter().rev().for_each(|delivery| self.ready.push_front(delivery));
    }

    /// Stops waiting for messages that should have come again by `now`.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.awaiting == 0 {
            return;
        }
        let overdue = |key: &Key| !key.awaited.is_empty() && key.until.is_some_and(|it| it <= now);
        let names: Vec<Bytes> = self
            .keys
            .iter()
            .filter(|(_, key)| overdue(key))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            if let Some(key) = self.keys.get_mut(&name) {
                key.awaited.clear();
                self.awaiting -= 1;
                self.release(&name);
            }
        }
    }

    /// Forgets what is gone, unless it runs.
    pub(super) fn forget(&mut self, gone: impl Fn(Position) -> bool) {
        let ready = std::mem::take(&mut self.ready);
        for delivery in ready {
            if !gone(delivery.position()) {
                self.ready.push_back(delivery);
            } else if let Some(key) = delivery.key.as_ref().and_then(|it| self.keys.get_mut(it)) {
                key.released = key.released.saturating_sub(1);
            }
        }
        for key in self.keys.values_mut() {
            key.waiting.retain(|position, _| !gone(*position));
            key.awaited.retain(|position| !gone(*position));
        }
        self.awaiting = self.keys.values().filter(|key| !key.awaited.is_empty()).count();
        let names: Vec<Bytes> = self.keys.keys().cloned().collect();
        names.iter().for_each(|name| self.release(name));
    }

    /// Forgets everything that does not run.
    pub(super) fn clear(&mut self) {
        self.forget(|_| true);
    }

    /// The tokens of all that is here.
    pub(super) fn tokens(&self) -> Vec<AckToken> {
        let waiting = self.keys.values().flat_map(|key| key.waiting.values());
        let running = self.running.iter().flatten().flat_map(|chunk| chunk.iter());
        self.ready.iter().chain(waiting).chain(running).map(|it| it.token().duplicate()).collect()
    }
}

/// A second set of the same deliveries.
pub(super) fn copies(chunk: &[Delivery]) -> Vec<Delivery> {
    chunk.iter().map(|delivery| Delivery::new(delivery.token().duplicate())).collect()
}
