//! What is measured: every name, with its help text, in one place.
//!
//! Unless it says otherwise, a metric has the labels `backend`, `topic` and `group`, the last one
//! empty for publishers and readers.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// Messages that were published and are known to be written.
pub const PUBLISHED_MESSAGES: &str = "forebay_published_messages_total";
/// Bytes of keys, payloads and headers that were handed to `publish`.
pub const PUBLISHED_BYTES: &str = "forebay_published_bytes_total";
/// Messages that are not known to be written; also labelled with the `result` (`not written` or
/// `unknown`) and the `kind` of the error.
pub const PUBLISH_FAILURES: &str = "forebay_publish_failures_total";
/// Messages of one published batch.
pub const PUBLISH_BATCH: &str = "forebay_publish_batch_messages";
/// Messages handed to `publish` and not yet answered.
pub const PUBLISH_IN_FLIGHT: &str = "forebay_publish_in_flight_messages";
/// Messages that were received, repeated deliveries among them.
pub const RECEIVED_MESSAGES: &str = "forebay_received_messages_total";
/// Bytes of keys, payloads and headers that were received.
pub const RECEIVED_BYTES: &str = "forebay_received_bytes_total";
/// Deliveries of one `receive` that returned any.
pub const RECEIVE_BATCH: &str = "forebay_receive_batch_messages";
/// Which attempt a delivery was, for those that were not the first.
pub const REDELIVERIES: &str = "forebay_redelivery_attempts";
/// Deliveries that are received and not settled.
pub const IN_FLIGHT: &str = "forebay_in_flight_messages";
/// Deliveries that were settled; also labelled with the `outcome` (`ack`, `retry`, `reject`).
pub const SETTLED_MESSAGES: &str = "forebay_settled_messages_total";
/// How long operations took, failed ones too; also labelled with the `operation` (`publish`,
/// `settle` or `commit`).
pub const OPERATION_SECONDS: &str = "forebay_operation_seconds";
/// Operations that failed as a whole, and settlements that were handed back; also labelled with
/// the `operation` and the `kind` of the error.
pub const ERRORS: &str = "forebay_errors_total";
/// Messages that a group has before it, as last asked for; also labelled with the `partition`.
pub const LAG: &str = "forebay_lag_messages";
/// Tries beyond the first; labelled with the `operation` alone.
pub const RETRIES: &str = "forebay_retries_total";
/// Messages that were given up, with or without a dead letter; labelled with the `topic` alone.
pub const DEAD_LETTERS: &str = "forebay_dead_letters_total";

/// Tells the installed recorder what each name means. Call it once, after installing one.
pub fn describe() {
    let counters = [
        (PUBLISHED_MESSAGES, "messages that were published and written"),
        (PUBLISHED_BYTES, "bytes of messages handed to publish"),
        (PUBLISH_FAILURES, "messages that are not known to be written"),
        (RECEIVED_MESSAGES, "messages that were received, repeated deliveries among them"),
        (RECEIVED_BYTES, "bytes of messages that were received"),
        (SETTLED_MESSAGES, "deliveries that were settled"),
        (ERRORS, "operations that failed as a whole, and settlements handed back"),
        (RETRIES, "tries beyond the first"),
        (DEAD_LETTERS, "messages that were given up"),
    ];
    for (name, text) in counters {
        describe_counter!(name, text);
    }
    let histograms = [
        (PUBLISH_BATCH, "messages of one published batch"),
        (RECEIVE_BATCH, "deliveries that came at once"),
        (REDELIVERIES, "which attempt a repeated delivery was"),
        (OPERATION_SECONDS, "how long operations took"),
    ];
    for (name, text) in histograms {
        describe_histogram!(name, text);
    }
    let gauges = [
        (PUBLISH_IN_FLIGHT, "messages handed to publish and not yet answered"),
        (IN_FLIGHT, "deliveries that are received and not settled"),
        (LAG, "messages that a group has before it, as last asked for"),
    ];
    for (name, text) in gauges {
        describe_gauge!(name, text);
    }
}

/// Bounds of the histograms' buckets, by the end of the metric's name: for exporters that keep
/// buckets.
pub const BUCKETS: [(&str, &[f64]); 3] = [
    ("_seconds", &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0]),
    ("_batch_messages", &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0]),
    ("_attempts", &[2.0, 3.0, 4.0, 5.0, 10.0, 20.0]),
];
