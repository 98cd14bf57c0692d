//! Where the consumption of a partition begins.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::convert::to_millis;
use super::native;
use crate::subscription::Start;

/// How long one question to the broker may take.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// What the broker keeps of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) low: u64,
    pub(super) high: u64,
}

/// A group's position in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    /// How many owners delivered from here on without getting any further. It is committed
    /// along with the offset, so that it survives their deaths.
    pub(super) starts: u32,
}

/// What the note of a commit begins with that counts starts; without a note there was none.
const STARTS: &str = "starts=";

impl Place {
    /// The note to commit the offset with.
    pub(super) fn note(self) -> Option<String> {
        (self.starts > 0).then(|| format!("{STARTS}{}", self.starts))
    }

    fn read(offset: u64, note: &[u8]) -> Self {
        let text = std::str::from_utf8(note).unwrap_or_default();
        let starts = text.strip_prefix(STARTS).and_then(|count| count.parse().ok());
        Self { offset, starts: starts.unwrap_or(0) }
    }
}

/// Where a partition begins, and what that means for its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) partition: u32,
    /// The offset to fetch from.
    pub(super) fetch: u64,
    /// The first offset to deliver; beyond `fetch` where the wanted one is not written yet.
    pub(super) deliver: u64,
    /// The wanted offset, where retention had deleted it.
    pub(super) gone: Option<u64>,
    /// What the group's position is known to be; none where it must be committed anew.
    pub(super) committed: Option<Place>,
    /// The partition's end when this was asked.
    pub(super) end: u64,
}

impl Begin {
    /// How many owners before this one delivered the first message and died.
    pub(super) fn starts(&self) -> u32 {
        self.committed.filter(|place| place.offset == self.deliver).map_or(0, |place| place.starts)
    }
}

/// The offset that a start stands for in one partition; `at` is the first message of the
/// wanted time.
fn wanted(start: Start, bounds: Bounds, at: Option<u64>) -> u64 {
    match start {
        Start::Earliest => bounds.low,
        Start::Latest => bounds.high,
        Start::Offset(offset) => offset,
        Start::Time(_) => at.unwrap_or(bounds.high),
    }
}

/// Begins at `offset`, or at the nearest one that is kept or will be written.
fn begin(partition: u32, offset: u64, bounds: Bounds) -> Begin {
    Begin {
        partition,
        fetch: offset.clamp(bounds.low, bounds.high),
        deliver: offset.max(bounds.low),
        gone: (offset < bounds.low).then_some(offset),
        committed: None,
        end: bounds.high,
    }
}

/// Goes on at a group's position.
fn resume(partition: u32, committed: Place, bounds: Bounds) -> Begin {
    // An offset beyond the end was lost with the messages before it.
    let is_kept = (bounds.low..=bounds.high).contains(&committed.offset);
    let at = if is_kept { committed.offset } else { bounds.low };
    let gone = (!is_kept).then_some(committed.offset);
    Begin { gone, committed: Some(committed), ..begin(partition, at, bounds) }
}

/// Begins where a group without a position starts; `latest` is the end when it subscribed.
fn fresh(
    partition: u32,
    start: Start,
    latest: Option<u64>,
    bounds: Bounds,
    at: Option<u64>,
) -> Begin {
    match (start, latest) {
        // The end moves on: unless this is committed, the next owner would begin further on.
        (Start::Latest, Some(end)) => Begin { committed: None, ..begin(partition, end, bounds) },
        _ => {
            let begin = begin(partition, wanted(start, bounds, at), bounds);
            let place = Place { offset: begin.deliver, starts: 0 };
            Begin { committed: Some(place), ..begin }
        }
    }
}

/// Where to begin in partitions without regard to what a group committed.
pub(super) fn resolve<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[u32],
    start: Start,
) -> KafkaResult<Vec<Begin>> {
    let bounds = bounds(consumer, topic, partitions)?;
    let at = at(consumer, topic, partitions, start)?;
    let begins = bounds.into_iter().map(|(partition, bounds)| {
        let at = at.get(&partition).copied().flatten();
        begin(partition, wanted(start, bounds, at), bounds)
    });
    Ok(begins.collect())
}

/// Where a member goes on: at the group's position, else where the subscription starts.
///
/// `latest` holds the ends when the member subscribed, where it starts there.
pub(super) fn resolve_member<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[u32],
    start: Start,
    latest: &BTreeMap<u32, u64>,
) -> KafkaResult<Vec<Begin>> {
    let committed = committed(consumer, topic, partitions)?;
    let bounds = bounds(consumer, topic, partitions)?;
    let at = at(consumer, topic, partitions, start)?;
    let begins = bounds.into_iter().map(|(partition, bounds)| {
        let at = at.get(&partition).copied().flatten();
        let latest = latest.get(&partition).copied();
        match committed.get(&partition).copied().flatten() {
            Some(place) => resume(partition, place, bounds),
            None => fresh(partition, start, latest, bounds, at),
        }
    });
    Ok(begins.collect())
}

/// The positions of the consumer's group.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[u32],
) -> KafkaResult<BTreeMap<u32, Option<Place>>> {
    let unknown = list(topic, partitions.iter().map(|partition| (*partition, Offset::Invalid)))?;
    let mut all = BTreeMap::new();
    for element in native::elements(&consumer.committed_offsets(unknown, ASK_TIMEOUT)?) {
        if let Some(code) = element.error {
            return Err(KafkaError::OffsetFetch(code));
        }
        let place = element.offset.map(|offset| Place::read(offset, &element.metadata));
        all.insert(element.partition, place);
    }
    Ok(all)
}

fn at<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[u32],
    start: Start,
) -> KafkaResult<BTreeMap<u32, Option<u64>>> {
    let Start::Time(time) = start else { return Ok(BTreeMap::new()) };
    offsets(consumer, topic, partitions, Offset::Offset(to_millis(time).max(0)))
}

/// What the broker keeps of partitions.
pub(super) fn bounds<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[u32],
) -> KafkaResult<BTreeMap<u32, Bounds>> {
    let low = offsets(consumer, topic, partitions, Offset::Beginning)?;
    let high = offsets(consumer, topic, partitions, Offset::End)?;
    let pairs = low.into_iter().map(|(partition, low)| {
        let missing = KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset);
        let (low, high) = low.zip(high.get(&partition).copied().flatten()).ok_or(missing)?;
        Ok((partition, Bounds { low, high }))
    });
    pairs.collect()
}

/// The offsets of a time in one request; the protocol has negative times for both ends.
fn offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[u32],
    time: Offset,
) -> KafkaResult<BTreeMap<u32, Option<u64>>> {
    let times = list(topic, partitions.iter().map(|partition| (*partition, time)))?;
    read(&consumer.offsets_for_times(times, ASK_TIMEOUT)?)
}

/// A list of offsets of one topic.
pub(super) fn list(
    topic: &str,
    offsets: impl IntoIterator<Item = (u32, Offset)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, i32::try_from(partition).unwrap_or(i32::MAX), offset)?;
    }
    Ok(list)
}

/// A list of positions to be committed, each with its note.
pub(super) fn places(
    topic: &str,
    places: impl IntoIterator<Item = (u32, Place)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, place) in places {
        let mut element = list.add_partition(topic, i32::try_from(partition).unwrap_or(i32::MAX));
        element.set_offset(Offset::Offset(i64::try_from(place.offset).unwrap_or(i64::MAX)))?;
        if let Some(note) = place.note() {
            element.set_metadata(note);
        }
    }
    Ok(list)
}

/// The partitions of a list that came from librdkafka.
pub(super) fn partitions(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect()
}

fn read(list: &TopicPartitionList) -> KafkaResult<BTreeMap<u32, Option<u64>>> {
    let mut all = BTreeMap::new();
    for element in list.elements() {
        element.error()?;
        let offset = match element.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        };
        all.extend(u32::try_from(element.partition()).ok().map(|number| (number, offset)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Timestamp;

    const KEPT: Bounds = Bounds { low: 10, high: 20 };

    #[test]
    fn a_start_stands_for_an_offset() {
        let time = Start::Time(Timestamp::from_micros(5));
        for (start, at, offset) in [
            (Start::Earliest, None, 10),
            (Start::Latest, None, 20),
            (Start::Offset(15), None, 15),
            (time, Some(12), 12),
            (time, None, 20),
        ] {
            assert_eq!(wanted(start, KEPT, at), offset, "{start:?}");
        }
    }

    #[test]
    fn an_offset_outside_of_what_is_kept_moves_to_it() {
        let check = |offset, fetch, deliver, gone| {
            let begin = begin(0, offset, KEPT);
            assert_eq!((begin.fetch, begin.deliver, begin.gone), (fetch, deliver, gone));
        };
        check(15, 15, 15, None);
        check(3, 10, 10, Some(3));
        check(25, 20, 25, None);
    }

    #[test]
    fn a_member_goes_on_where_its_group_was() {
        let check = |committed, fetch, gone| {
            let place = Place { offset: committed, starts: 1 };
            let begin = resume(0, place, KEPT);
            assert_eq!((begin.fetch, begin.gone), (fetch, gone), "{committed}");
            assert_eq!(begin.committed, Some(place));
        };
        check(12, 12, None);
        check(20, 20, None);
        check(9, 10, Some(9));
        check(21, 10, Some(21));
    }

    #[test]
    fn only_a_start_at_the_end_is_committed_before_anything_is_settled() {
        let latest = fresh(0, Start::Latest, Some(18), KEPT, None);
        assert_eq!((latest.fetch, latest.committed), (18, None));
        let earliest = fresh(0, Start::Earliest, None, KEPT, None);
        let place = Place { offset: 10, starts: 0 };
        assert_eq!((earliest.fetch, earliest.committed), (10, Some(place)));
    }

    #[test]
    fn a_note_keeps_the_count_and_foreign_notes_count_nothing() {
        for starts in [0, 1, 7] {
            let note = Place { offset: 3, starts }.note().unwrap_or_default();
            assert_eq!(Place::read(3, note.as_bytes()), Place { offset: 3, starts });
        }
        for note in [&b""[..], b"starts=", b"starts=-1", b"foreign", &[0xff, 0]] {
            assert_eq!(Place::read(3, note).starts, 0, "{note:?}");
        }
    }
}
