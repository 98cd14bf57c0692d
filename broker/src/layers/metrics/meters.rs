//! The handles of a topic or a consumer: looked up once, then only counted with.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, SharedString, counter, gauge, histogram};

use super::names;
use crate::contract::{PartitionLag, Published};
use crate::delivery::{Delivery, Outcome, Position};
use crate::error::Error;
use crate::message::Message;
use crate::subscription::Event;

/// The most deliveries that are known to be in flight. Only a consumer that never takes its
/// events comes near: then the count begins anew.
const IN_FLIGHT_MAX: usize = 1 << 20;

/// What is measured: the labels that most metrics have.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) backend: &'static str,
    pub(super) topic: SharedString,
    /// Empty for publishers and readers.
    pub(super) group: SharedString,
}

impl Place {
    fn labels(&self, more: &[(&'static str, &str)]) -> Vec<Label> {
        let mut labels = vec![
            Label::from_static_parts("backend", self.backend),
            Label::new("topic", self.topic.clone()),
            Label::new("group", self.group.clone()),
        ];
        labels.extend(more.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())));
        labels
    }

    pub(super) fn seconds(&self, operation: &'static str) -> Histogram {
        histogram!(names::OPERATION_SECONDS, self.labels(&[("operation", operation)]))
    }

    /// Counts an operation that failed as a whole, or a settlement that was handed back.
    pub(super) fn failed(&self, operation: &'static str, error: &Error) {
        let labels = [("operation", operation), ("kind", error.kind().as_str())];
        counter!(names::ERRORS, self.labels(&labels)).increment(1);
    }

    pub(super) fn lag(&self, lag: &[PartitionLag]) {
        for partition in lag {
            let number = partition.partition.to_string();
            let labels = self.labels(&[("partition", &number)]);
            gauge!(names::LAG, labels).set(partition.behind as f64);
        }
    }
}

/// The size of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    messages: usize,
    bytes: usize,
}

impl Batch {
    pub(super) fn of(batch: &[Message]) -> Self {
        Self { messages: batch.len(), bytes: batch.iter().map(Message::size).sum() }
    }
}

/// The handles of a topic that is published to.
pub(super) struct Publishing {
    place: Place,
    messages: Counter,
    bytes: Counter,
    batch: Histogram,
    in_flight: Gauge,
    seconds: Histogram,
}

impl Publishing {
    pub(super) fn new(place: Place) -> Self {
        let labels = || place.labels(&[]);
        Self {
            messages: counter!(names::PUBLISHED_MESSAGES, labels()),
            bytes: counter!(names::PUBLISHED_BYTES, labels()),
            batch: histogram!(names::PUBLISH_BATCH, labels()),
            in_flight: gauge!(names::PUBLISH_IN_FLIGHT, labels()),
            seconds: place.seconds("publish"),
            place,
        }
    }

    /// Counts a batch that is handed on; it is in flight until what is returned is dropped.
    pub(super) fn begin(&self, batch: Batch) -> Flight {
        self.handed(batch);
        self.in_flight.increment(batch.messages as f64);
        Flight { gauge: self.in_flight.clone(), messages: batch.messages }
    }

    fn handed(&self, batch: Batch) {
        self.bytes.increment(batch.bytes as u64);
        self.batch.record(batch.messages as f64);
    }

    /// Counts a batch that was published by a transaction.
    pub(super) fn committed(&self, batch: Batch) {
        self.handed(batch);
        self.messages.increment(batch.messages as u64);
    }

    pub(super) fn answered(&self, time: Duration, answer: &Result<Vec<Published>, Error>) {
        self.seconds.record(time);
        match answer {
            Ok(results) => self.messages.increment(self.written(results)),
            Err(error) => self.place.failed("publish", error),
        }
    }

    fn written(&self, results: &[Published]) -> u64 {
        let mut written = 0;
        for result in results {
            match result {
                Published::Written(_) => written += 1,
                Published::NotWritten(error) => self.lost("not written", error),
                Published::Unknown(error) => self.lost("unknown", error),
            }
        }
        written
    }

    fn lost(&self, result: &str, error: &Error) {
        let labels = [("result", result), ("kind", error.kind().as_str())];
        counter!(names::PUBLISH_FAILURES, self.place.labels(&labels)).increment(1);
    }
}

impl fmt::Debug for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publishing").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Messages that are being published; also a future that is dropped ends them.
pub(super) struct Flight {
    gauge: Gauge,
    messages: usize,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.gauge.decrement(self.messages as f64);
    }
}

/// The place of each outcome in [`Consuming::settled`].
pub(super) const OUTCOMES: [&str; 3] = ["ack", "retry", "reject"];

pub(super) fn outcome_index(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Ack => 0,
        Outcome::Retry { .. } => 1,
        Outcome::Reject { .. } => 2,
    }
}

/// The handles of one consumer.
pub(super) struct Consuming {
    pub(super) place: Place,
    messages: Counter,
    bytes: Counter,
    batch: Histogram,
    redeliveries: Histogram,
    in_flight: Gauge,
    settled: [Counter; 3],
    pub(super) settle_seconds: Histogram,
    pub(super) commit_seconds: Histogram,
    /// What is received and not settled, so that a delivery which comes again counts once.
    out: HashSet<Position>,
}

impl Consuming {
    pub(super) fn new(place: Place) -> Self {
        let labels = || place.labels(&[]);
        let settled =
            |outcome| counter!(names::SETTLED_MESSAGES, place.labels(&[("outcome", outcome)]));
        Self {
            messages: counter!(names::RECEIVED_MESSAGES, labels()),
            bytes: counter!(names::RECEIVED_BYTES, labels()),
            batch: histogram!(names::RECEIVE_BATCH, labels()),
            redeliveries: histogram!(names::REDELIVERIES, labels()),
            in_flight: gauge!(names::IN_FLIGHT, labels()),
            settled: OUTCOMES.map(settled),
            settle_seconds: place.seconds("settle"),
            commit_seconds: place.seconds("commit"),
            place,
            out: HashSet::new(),
        }
    }

    pub(super) fn received(&mut self, deliveries: &[Delivery]) {
        if deliveries.is_empty() {
            return;
        }
        self.messages.increment(deliveries.len() as u64);
        self.batch.record(deliveries.len() as f64);
        self.bytes.increment(deliveries.iter().map(|d| d.size()).sum::<usize>() as u64);
        for again in deliveries.iter().filter(|delivery| delivery.attempt() > 1) {
            self.redeliveries.record(f64::from(again.attempt()));
        }
        // A reader settles nothing.
        if !self.place.group.is_empty() {
            self.track(|out| {
                if out.len() > IN_FLIGHT_MAX {
                    out.clear();
                }
                out.extend(deliveries.iter().map(Delivery::position));
            });
        }
    }

    /// Changes what is in flight, and the gauge by the difference.
    fn track(&mut self, change: impl FnOnce(&mut HashSet<Position>)) {
        let before = self.out.len();
        change(&mut self.out);
        self.in_flight.increment(self.out.len() as f64 - before as f64);
    }

    /// Counts settlements by the place of their outcome in [`OUTCOMES`].
    pub(super) fn settled(&mut self, outcomes: &[(Position, usize)]) {
        let mut counts = [0; OUTCOMES.len()];
        outcomes.iter().for_each(|(_, outcome)| counts[*outcome] += 1);
        for (counter, count) in self.settled.iter().zip(counts) {
            if count > 0 {
                counter.increment(count);
            }
        }
        self.track(|out| {
            for (position, _) in outcomes {
                out.remove(position);
            }
        });
    }

    pub(super) fn note(&mut self, events: &[Event]) {
        for event in events {
            if let Event::Revoked(lost) = event {
                self.track(|out| out.retain(|position| !lost.contains(&position.partition())));
            }
        }
    }
}

impl Drop for Consuming {
    fn drop(&mut self) {
        self.track(HashSet::clear);
    }
}

impl fmt::Debug for Consuming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consuming").field("place", &self.place).finish_non_exhaustive()
    }
}
