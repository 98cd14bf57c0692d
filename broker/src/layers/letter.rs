//! A dead letter: the message as it was, with headers that tell why and whence.

use crate::delivery::AckToken;
use crate::message::{DEAD_LETTER_PREFIX, Headers, Message, Timestamp};

/// The longest cause that is kept, in bytes: limits reserve room for so much.
const REASON_LENGTH_MAX: usize = 16 << 10;

/// The dead letter of a delivery after `attempts` of them. Headers of an earlier death give
/// way, so that they tell of the last one.
pub(super) fn of(token: &AckToken, attempts: u32, reason: &str) -> Message {
    let source = token.message();
    let own = source.headers.iter().filter(|(name, _)| !name.starts_with(DEAD_LETTER_PREFIX));
    let mut headers: Headers = own.collect();
    let position = token.position();
    let told = [
        ("dead-letter-reason", cut(reason).to_owned()),
        ("dead-letter-topic", token.topic().to_string()),
        ("dead-letter-partition", position.partition().to_string()),
        ("dead-letter-offset", position.offset().to_string()),
        ("dead-letter-attempts", attempts.to_string()),
        ("dead-letter-time", Timestamp::now().as_micros().to_string()),
    ];
    for (name, value) in told {
        headers.push(name, value.as_bytes());
    }
    let (key, payload) = (source.key.clone(), source.payload.clone());
    Message { key, payload, headers, timestamp: source.timestamp }
}

/// The longest beginning that fits and ends between two characters.
fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_LENGTH_MAX)]
}
