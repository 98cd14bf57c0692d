//! Which positions are committed, and the counts of starts that go with them.

use super::{Link, Partition, State};
use crate::kafka::start::Place;

/// A position on its way to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) struct Commit {
    pub(in crate::kafka) number: u32,
    /// The assignment that it is of.
    pub(super) assignment: u64,
    pub(in crate::kafka) place: Place,
    /// The place counts this owner's start.
    pub(super) counts: bool,
}

/// Which positions are to be committed.
#[derive(Debug, Clone, Copy)]
pub(in crate::kafka) enum Commits<'a> {
    /// Of all partitions, which stay.
    Current,
    /// Of these partitions, which go in order.
    Leaving(&'a [u32]),
    /// Of all partitions at the consumer's end.
    Last,
}

impl Partition {
    /// Whether a consumer that dies of the next delivery will have been counted. Where earlier
    /// ones died the position must be the message's own, so that no other message is blamed.
    pub(super) fn is_counted(&self) -> bool {
        let settled = self.counted.is_some() && self.window.is_suspect();
        if settled { self.counted == Some(self.window.settled()) } else { self.counted.is_some() }
    }

    /// The position to be committed. An owner that goes in order leaves no crash to be counted.
    pub(super) fn place(&self, goes: bool) -> Place {
        let offset = self.window.settled();
        let (first, earlier) = self.window.first();
        let before = if offset == first { earlier } else { 0 };
        let starts = match (self.started, goes) {
            (true, true) => 0,
            (true, false) => before.saturating_add(1),
            (false, _) => before,
        };
        Place { offset, starts }
    }
}

impl Link {
    /// Takes note of how a commit ended, which both sides may have waited for.
    pub(in crate::kafka) fn committed(&self, commits: &[Commit], is_durable: bool) {
        let mut state = self.lock();
        state.committing = false;
        if is_durable {
            state.committed(commits);
        } else {
            state.uncommit(commits);
        }
        let is_urgent = state.urgent;
        drop(state);
        self.idle.notify_all();
        // What failed is tried again in its turn, and not as fast as it fails.
        if is_durable {
            self.arrived.notify_one();
        }
        if is_urgent {
            self.wake();
        }
    }
}

impl State {
    /// The positions that moved since they were committed; they count as committed now.
    pub(in crate::kafka) fn commits(&mut self, which: Commits<'_>) -> Vec<Commit> {
        let mut commits = Vec::new();
        if self.is_reader || self.transacting {
            return commits;
        }
        let goes = !matches!(which, Commits::Current) && !self.panicked;
        for partition in &mut self.partitions {
            if matches!(which, Commits::Leaving(only) if !only.contains(&partition.number)) {
                continue;
            }
            let place = partition.place(goes);
            if partition.committed != Some(place) {
                partition.committed = Some(place);
                let Partition { number, assignment, started: counts, .. } = *partition;
                commits.push(Commit { number, assignment, place, counts });
            }
        }
        commits
    }

    /// Takes note that positions are durable, and with them the counts of starts.
    pub(in crate::kafka) fn committed(&mut self, commits: &[Commit]) {
        for commit in commits.iter().filter(|commit| commit.counts) {
            if let Some(partition) = self.assigned(commit.number, commit.assignment) {
                partition.counted = Some(commit.place.offset);
            }
        }
    }

    /// Takes note that a commit failed: these positions are committed again.
    pub(in crate::kafka) fn uncommit(&mut self, commits: &[Commit]) {
        for commit in commits {
            if let Some(partition) = self.assigned(commit.number, commit.assignment) {
                partition.committed = None;
            }
        }
    }
}
