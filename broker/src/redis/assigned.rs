//! A partition that a consumer reads, from fetching to acknowledging.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fetch::{Batch, Mode};
use super::position::EntryId;
use crate::delivery::Shared;
use crate::error::Result;
use crate::message::Message;
use crate::window::Window;

/// The most messages that one fetch takes from a partition.
const FETCH_MESSAGES_MAX: usize = 1000;
/// The most bytes that one fetch should take from a partition; it goes by what came before.
const FETCH_BYTES_MAX: usize = 4 << 20;
/// How large messages are taken to be before any came.
const MESSAGE_BYTES_GUESS: usize = 16 << 10;
/// After so many deliveries that ended with a dead owner, the culprit is looked for one by one.
const CRASHES_MAX: u32 = 2;

/// A partition that this consumer reads.
pub(super) struct Assigned {
    pub(super) window: Window,
    pub(super) generation: u64,
    /// Tells this assignment's tokens from those of another.
    pub(super) assignment: u64,
    pub(super) giving_back: bool,
    /// What was given to the group and is not acknowledged on the server, in order.
    pub(super) pending: VecDeque<u64>,
    pub(super) mode: Mode,
    /// The owner before went without leaving, and nothing of it was taken over yet.
    pub(super) crashed: bool,
    /// The last entry known, behind which new ones come.
    pub(super) after: EntryId,
    /// For a reader: where the partition ended when it subscribed.
    pub(super) end: u64,
    /// Bytes of the largest message of late.
    heaviest: usize,
}

fn next_assignment() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Assigned {
    pub(super) fn new(window: Window, generation: u64, mode: Mode, after: EntryId) -> Self {
        Self {
            window,
            generation,
            assignment: next_assignment(),
            giving_back: false,
            pending: VecDeque::new(),
            mode,
            crashed: false,
            after,
            end: 0,
            heaviest: MESSAGE_BYTES_GUESS,
        }
    }

    /// How many messages to fetch, by the room and by how large messages were of late.
    pub(super) fn fetch_count(&self) -> usize {
        let room = self.window.room();
        let bytes = self.window.room_bytes().min(FETCH_BYTES_MAX);
        room.min(FETCH_MESSAGES_MAX).min((bytes / self.heaviest.max(1)).max(1))
    }

    pub(super) fn take_in(&mut self, batch: Batch) -> Result<()> {
        let is_inherited = matches!(self.mode, Mode::Inherit { .. });
        let mut fetched = Vec::with_capacity(batch.entries.len());
        for entry in batch.entries {
            fetched.push((entry.id.offset()?, entry.attempts, entry.message));
            self.after = self.after.max(entry.id);
        }
        if let Some(heaviest) = fetched.iter().map(|(_, _, m)| m.payload.len().max(64)).max() {
            // A large one is heeded at once and forgotten slowly.
            self.heaviest = heaviest.max(self.heaviest / 2);
        }
        if is_inherited {
            self.inherit(fetched, batch.cursor)
        } else {
            self.add(fetched);
            Ok(())
        }
    }

    fn add(&mut self, fetched: Vec<(u64, u32, Message)>) {
        let is_group = !matches!(self.mode, Mode::Plain);
        // A reader that finds nothing is at the end, also where the last entries were deleted.
        if fetched.is_empty() {
            self.end = self.end.min(self.window.next());
            return;
        }
        let next = fetched.last().map_or(0, |(offset, ..)| offset + 1);
        let offsets: Vec<u64> = fetched.iter().map(|(offset, ..)| *offset).collect();
        if is_group {
            self.pending.extend(&offsets);
        }
        let messages = fetched.into_iter().map(|(_, _, message)| message).collect();
        let next = next.max(self.window.next());
        self.window.extend(offsets.into_iter().zip(Shared::all(messages)), next);
    }

    /// Adds what the owner before had out. The first of it counts as delivered where that owner
    /// died, the others where they were counted themselves. Where deliveries have killed more
    /// than one owner they go out with caution, so that only the one to blame is counted further.
    fn inherit(
        &mut self,
        mut fetched: Vec<(u64, u32, Message)>,
        cursor: Option<EntryId>,
    ) -> Result<()> {
        let is_first = |mode| matches!(mode, Mode::Inherit { cursor: EntryId::ZERO, .. });
        let mut is_head = is_first(self.mode);
        let mut is_deadly = false;
        for (_, attempts, _) in &mut fetched {
            let counts = *attempts > 1 || (is_head && self.crashed);
            is_deadly |= self.crashed && *attempts >= CRASHES_MAX;
            *attempts = if counts { *attempts } else { 0 };
            is_head = false;
        }
        let next = fetched.last().map_or(self.window.next(), |(offset, ..)| offset + 1);
        if is_deadly {
            self.window.suspect(next);
        }
        let heads: Vec<(u64, u32)> =
            fetched.iter().map(|(o, attempts, _)| (*o, *attempts)).collect();
        self.pending.extend(heads.iter().map(|(offset, _)| *offset));
        let messages = fetched.into_iter().map(|(_, _, message)| message).collect();
        let inherited = heads.into_iter().zip(Shared::all(messages));
        self.window.inherit(inherited.map(|((offset, n), message)| (offset, n, message)), next);
        self.mode = match (self.mode, cursor) {
            (Mode::Inherit { generation, .. }, Some(cursor)) => {
                Mode::Inherit { generation, cursor }
            }
            (Mode::Inherit { generation, .. }, None) => {
                // What is next is not below what the group was given already.
                self.window.extend([], self.after.end()?.max(next));
                Mode::New { generation }
            }
            (mode, _) => mode,
        };
        Ok(())
    }

    /// Looks for what the server gave out though its answer did not arrive.
    pub(super) fn look_again(&mut self) {
        if let Mode::New { generation } = self.mode {
            self.mode = Mode::Inherit { generation, cursor: self.after.next() };
        }
    }

    /// What is settled without a gap and not acknowledged yet.
    pub(super) fn acknowledgeable(&self) -> Vec<u64> {
        let settled = self.window.settled();
        self.pending.iter().copied().take_while(|offset| *offset < settled).collect()
    }

    /// Takes note that the first `count` are acknowledged.
    pub(super) fn acknowledged(&mut self, count: usize) {
        self.pending.drain(..count.min(self.pending.len()));
        self.window.advance();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::fetch::Entry;
    use super::*;
    use crate::window::Bounds;

    const INHERIT: Mode = Mode::Inherit { generation: 1, cursor: EntryId::ZERO };

    fn assigned(crashed: bool) -> Assigned {
        let ack_deadline = Duration::from_secs(60);
        let bounds = Bounds { ack_deadline, messages_max: 100, bytes_max: 1 << 20 };
        let after = EntryId::of(3);
        let assigned = Assigned::new(Window::new(bounds, 0, 0), 1, INHERIT, after);
        Assigned { crashed, ..assigned }
    }

    /// Entries at the offsets 1, 2, … with so many deliveries before.
    fn batch(counts: &[u32]) -> Batch {
        let entry = |(offset, attempts): (u64, &u32)| {
            let message = Message::new(offset.to_string());
            Entry { id: EntryId::of(offset), attempts: *attempts, message }
        };
        Batch { entries: (1..).zip(counts).map(entry).collect(), cursor: None }
    }

    /// Offsets and attempts of what is delivered now.
    fn deliver(assigned: &mut Assigned) -> Vec<(u64, u32)> {
        let mut out = Vec::new();
        assigned.window.deliver(Instant::now(), 10, |offset, n, _| out.push((offset, n)));
        out
    }

    #[test]
    fn of_what_a_dead_owner_had_out_the_first_counts_as_delivered() {
        for (crashed, first) in [(true, 2), (false, 1)] {
            let mut assigned = assigned(crashed);
            assigned.take_in(batch(&[1, 1, 1])).unwrap();
            assert_eq!(deliver(&mut assigned), [(1, first), (2, 1), (3, 1)]);
        }
    }

    #[test]
    fn what_killed_several_owners_goes_out_alone() {
        let mut assigned = assigned(true);
        assigned.take_in(batch(&[2, 1, 1])).unwrap();
        assert_eq!(deliver(&mut assigned), [(1, 3)]);
        assert!(deliver(&mut assigned).is_empty());
        assigned.window.ack(1, 3);
        assert_eq!(deliver(&mut assigned), [(2, 1)]);
    }

    #[test]
    fn new_entries_follow_what_was_taken_over() {
        let mut assigned = assigned(false);
        assigned.take_in(batch(&[1])).unwrap();
        assert!(matches!(assigned.mode, Mode::New { generation: 1 }));
        assert_eq!(assigned.window.next(), 4, "the group was given all up to 3");
        let mut more = batch(&[0, 0, 0, 0, 0]);
        more.entries.drain(..3);
        assigned.take_in(more).unwrap();
        assert_eq!(deliver(&mut assigned), [(1, 1), (4, 1), (5, 1)]);
    }

    #[test]
    fn a_lost_answer_is_looked_for_behind_what_is_known() {
        let mut assigned = assigned(false);
        assigned.take_in(batch(&[1, 1])).unwrap();
        assigned.look_again();
        let Mode::Inherit { cursor, .. } = assigned.mode else { panic!("{:?}", assigned.mode) };
        assert_eq!(cursor, EntryId::of(4));
    }

    #[test]
    fn only_the_settled_prefix_is_acknowledged() {
        let mut assigned = assigned(false);
        assigned.take_in(batch(&[1, 1, 1])).unwrap();
        deliver(&mut assigned);
        assigned.window.ack(2, 1);
        assert!(assigned.acknowledgeable().is_empty());
        assigned.window.ack(1, 1);
        assert_eq!(assigned.acknowledgeable(), [1, 2]);
        assigned.acknowledged(2);
        assert!(assigned.acknowledgeable().is_empty());
    }
}
