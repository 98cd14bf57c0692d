//! What layers count of their own, where the metrics layer cannot see it. Nothing without the
//! feature `metrics`.

#[cfg(feature = "metrics")]
use super::metrics::names;
use crate::name::Topic;

/// Another try begins.
#[cfg(feature = "metrics")]
pub(super) fn retry(operation: &'static str) {
    metrics::counter!(names::RETRIES, "operation" => operation).increment(1);
}

/// Messages of a topic are given up.
#[cfg(feature = "metrics")]
pub(super) fn dead_letters(topic: &Topic, count: usize) {
    metrics::counter!(names::DEAD_LETTERS, "topic" => topic.to_string()).increment(count as u64);
}

#[cfg(not(feature = "metrics"))]
pub(super) fn retry(_operation: &'static str) {}

#[cfg(not(feature = "metrics"))]
pub(super) fn dead_letters(_topic: &Topic, _count: usize) {}
