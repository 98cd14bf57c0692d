//! What all connections share: the state behind one lock, the word that it changed, and time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::Call;
use super::groups::Members;
use super::log::Log;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Timestamp;
use crate::name::{Group, Topic};

/// Everything there is.
#[derive(Default)]
pub(super) struct State {
    pub(super) topics: BTreeMap<Topic, Log>,
    pub(super) groups: BTreeMap<Group, Members>,
    pub(super) faults: Vec<(Call, ErrorKind)>,
    last_id: u64,
}

impl State {
    /// A number that was not given before: for topics, members and assignments.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Fails where a test asked for it.
    pub(super) fn fault(&mut self, call: Call, operation: &'static str) -> Result<()> {
        let Some(index) = self.faults.iter().position(|(wanted, _)| *wanted == call) else {
            return Ok(());
        };
        let (_, kind) = self.faults.remove(index);
        Err(Error::new(kind, operation, "the test asked for this failure"))
    }

    /// `NotFound` for a missing topic.
    pub(super) fn log(&mut self, topic: &Topic, operation: &'static str) -> Result<&mut Log> {
        let missing = || Error::new(ErrorKind::NotFound, operation, "the topic does not exist");
        self.topics.get_mut(topic).ok_or_else(|| missing().with("topic", topic))
    }
}

pub(super) struct Store {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// When the store was made, on both clocks.
    epoch: (Instant, Timestamp),
}

impl Default for Store {
    fn default() -> Self {
        let (changed, _) = watch::channel(());
        let epoch = (Instant::now(), Timestamp::now());
        Self { state: Mutex::default(), changed, epoch }
    }
}

impl Store {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes every consumer to look again.
    pub(super) fn tell(&self) {
        self.changed.send_replace(());
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The wall clock's time, which stands still while tokio's clock is paused.
    pub(super) fn now(&self) -> Timestamp {
        let (instant, timestamp) = self.epoch;
        let since = i64::try_from(instant.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(timestamp.as_micros().saturating_add(since))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}
