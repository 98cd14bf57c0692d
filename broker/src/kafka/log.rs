//! librdkafka's log lines as `tracing` events.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use tracing::Level;

const TARGET: &str = "librdkafka";

/// A context that does nothing but log.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogContext;

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        record(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        record_error(&error, reason);
    }
}

/// The lowest level that anybody listens to, so that librdkafka makes no lines in vain.
pub(super) fn level() -> RDKafkaLogLevel {
    if tracing::enabled!(target: TARGET, Level::DEBUG) {
        RDKafkaLogLevel::Debug
    } else if tracing::enabled!(target: TARGET, Level::INFO) {
        RDKafkaLogLevel::Info
    } else if tracing::enabled!(target: TARGET, Level::WARN) {
        RDKafkaLogLevel::Warning
    } else {
        RDKafkaLogLevel::Error
    }
}

pub(super) fn record(level: RDKafkaLogLevel, facility: &str, line: &str) {
    use RDKafkaLogLevel as L;
    match level {
        // A key meant for the other kind of client: every section has some.
        _ if facility == "CONFWARN" => tracing::debug!(target: TARGET, facility, "{line}"),
        // librdkafka reconnects by itself, so that even its errors need nobody to act.
        L::Emerg | L::Alert | L::Critical | L::Error | L::Warning => {
            tracing::warn!(target: TARGET, facility, "{line}");
        }
        L::Notice | L::Info => tracing::info!(target: TARGET, facility, "{line}"),
        L::Debug => tracing::debug!(target: TARGET, facility, "{line}"),
    }
}

pub(super) fn record_error(error: &KafkaError, reason: &str) {
    tracing::warn!(target: TARGET, error = %error, "{reason}");
}
