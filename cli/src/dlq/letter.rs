//! A dead letter, as its headers tell of it.

use broker::{Delivery, Headers, Message};
use model_server::prediction;
use serde::Serialize;

use crate::calendar::Moment;
use crate::escape;

/// What the names of the headers begin with that tell of a death.
const PREFIX: &str = "dead-letter-";
/// The header with the topic that a dead letter came from.
const SOURCE: &str = "dead-letter-topic";
/// How many bytes of a payload a list shows.
const SHOWN_BYTES_MAX: usize = 48;

/// A dead letter as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Letter {
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) id: Option<String>,
    reason: Option<String>,
    source_topic: Option<String>,
    source_partition: Option<u32>,
    source_offset: Option<u64>,
    attempts: Option<u32>,
    time_us: Option<i64>,
    payload_bytes: usize,
    payload_start: String,
}

impl Letter {
    pub(super) fn of(delivery: &Delivery) -> Self {
        let text = |name| delivery.headers.get_str(name).map(escape::text);
        Self {
            partition: delivery.position().partition(),
            offset: delivery.position().offset(),
            id: text(prediction::ID),
            reason: text("dead-letter-reason"),
            source_topic: text(SOURCE),
            source_partition: text("dead-letter-partition").and_then(|text| text.parse().ok()),
            source_offset: text("dead-letter-offset").and_then(|text| text.parse().ok()),
            attempts: text("dead-letter-attempts").and_then(|text| text.parse().ok()),
            time_us: text("dead-letter-time").and_then(|text| text.parse().ok()),
            payload_bytes: delivery.payload.len(),
            payload_start: escape::bytes(&delivery.payload, SHOWN_BYTES_MAX),
        }
    }

    /// Its place and cause, where it came from, and the beginning of its payload.
    pub(super) fn describe(&self) -> String {
        let (bytes, start) = (self.payload_bytes, &self.payload_start);
        format!("{}{:8} {bytes} bytes: {start}\n", self.describe_death(), "")
    }

    /// Its place and cause, and where it came from.
    pub(super) fn describe_death(&self) -> String {
        let unknown = "unknown";
        let number = |number: Option<u64>| number.map_or("?".into(), |number| number.to_string());
        let moment = |micros| Moment::from_micros(micros).readable();
        format!(
            "{:<8} {}\n{:8} from {} {}:{}, attempts {}, {}, id {}\n",
            format!("{}:{}", self.partition, self.offset),
            self.reason.as_deref().unwrap_or(unknown),
            "",
            self.source_topic.as_deref().unwrap_or(unknown),
            number(self.source_partition.map(u64::from)),
            number(self.source_offset),
            number(self.attempts.map(u64::from)),
            self.time_us.map_or("time unknown".into(), moment),
            self.id.as_deref().unwrap_or("none"),
        )
    }
}

/// The topic that a dead letter came from, as its header says.
pub(super) fn source(message: &Message) -> Option<&str> {
    message.headers.get_str(SOURCE)
}

/// The message as it was before it died.
pub(super) fn revived(message: &Message) -> Message {
    let own = message.headers.iter().filter(|(name, _)| !name.starts_with(PREFIX));
    let headers: Headers = own.collect();
    Message { headers, ..message.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revived_letter_is_the_message_that_died() {
        let message = Message::new("body").with_key("k").with_header("id", "7");
        let letter = message
            .clone()
            .with_header("dead-letter-topic", "images")
            .with_header("dead-letter-reason", "no image");
        assert_eq!(source(&letter), Some("images"));
        assert_eq!(revived(&letter), message);
        assert_eq!(source(&message), None);
    }
}
