//! A topic's messages.

use std::collections::HashMap;

use bytes::Bytes;

use crate::contract::{PartitionDescription, TopicSpec};
use crate::delivery::{Position, Shared};
use crate::message::{Message, Timestamp};
use crate::subscription::Start;

/// A topic; one that is made anew gets another number.
pub(super) struct Log {
    pub(super) id: u64,
    pub(super) partitions: Vec<Partition>,
    pub(super) compacted: bool,
    /// Where each message stands, in the order of publishing.
    order: Vec<Position>,
    /// The partition of the next batch's messages without a key.
    spread: u32,
}

/// Messages by their offset; compaction leaves holes.
#[derive(Default)]
pub(super) struct Partition {
    entries: Vec<Option<Shared>>,
    /// The last message of each key, where the topic is compacted.
    last: HashMap<Bytes, u64>,
}

impl Log {
    pub(super) fn new(id: u64, spec: &TopicSpec) -> Self {
        let partitions = (0..spec.partitions).map(|_| Partition::default()).collect();
        Self { id, partitions, compacted: spec.compacted, order: Vec::new(), spread: 0 }
    }

    /// Appends a batch; messages without a time get `now`.
    pub(super) fn append(&mut self, mut batch: Vec<Message>, now: Timestamp) -> Vec<Position> {
        for message in &mut batch {
            message.timestamp.get_or_insert(now);
        }
        let count = self.partitions.len() as u32;
        let spread = self.spread % count;
        self.spread = self.spread.wrapping_add(1);
        let mut positions = Vec::with_capacity(batch.len());
        for message in Shared::all(batch) {
            let key = message.key.as_ref();
            let number = key.map_or(spread, |key| crate::partition_of(key, count));
            let offset = self.partitions[number as usize].append(message, self.compacted);
            positions.push(Position::new(number, offset));
        }
        self.order.extend(&positions);
        positions
    }

    pub(super) fn published(&self) -> Vec<Message> {
        let kept = self.order.iter().filter_map(|position| {
            self.partitions[position.partition() as usize].get(position.offset())
        });
        kept.map(|message| (**message).clone()).collect()
    }

    pub(super) fn describe(&self) -> Vec<PartitionDescription> {
        let describe = |(number, partition): (u32, &Partition)| PartitionDescription {
            partition: number,
            start: 0,
            end: partition.end(),
        };
        (0..).zip(&self.partitions).map(describe).collect()
    }
}

impl Partition {
    /// The offset that the next message gets.
    pub(super) fn end(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn get(&self, offset: u64) -> Option<&Shared> {
        self.entries.get(usize::try_from(offset).ok()?)?.as_ref()
    }

    fn append(&mut self, message: Shared, compacted: bool) -> u64 {
        let offset = self.end();
        if compacted
            && let Some(key) = message.key.clone()
            && let Some(before) = self.last.insert(key, offset)
        {
            self.entries[before as usize] = None;
        }
        self.entries.push(Some(message));
        offset
    }

    /// The offset that a start means.
    pub(super) fn resolve(&self, start: Start) -> u64 {
        match start {
            Start::Earliest => 0,
            Start::Latest => self.end(),
            Start::Offset(offset) => offset,
            Start::Time(time) => {
                let reached = |entry: &Option<Shared>| {
                    entry.as_ref().is_some_and(|message| message.timestamp >= Some(time))
                };
                let found = self.entries.iter().position(reached);
                found.map_or(self.end(), |index| index as u64)
            }
        }
    }
}
