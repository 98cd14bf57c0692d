//! The record of one prediction, and the headers by which messages are traced.
//!
//! A result is JSON. It names the exact bytes that made it: the model by the SHA-256 of its
//! file, the input by its place in its topic and by the SHA-256 of its payload.

use broker::Delivery;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The header that names a message for good: equal ids are the same item sent again.
pub const ID: &str = "id";
/// The header with the true label of an image, where its sender knows it.
pub const LABEL: &str = "label";
/// The header with the type of the payload.
pub const CONTENT_TYPE: &str = "content-type";
/// The longest id that is accepted, in bytes.
pub const ID_LENGTH_MAX: usize = 256;

/// A stored or published prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The id of the input; rows are unique by it and the model's name.
    pub id: String,
    /// The model that computed.
    pub model: ModelRef,
    /// The place of the input.
    pub source: Source,
    /// What is known of the input.
    pub input: Input,
    /// What the model gave.
    pub outputs: Outputs,
    /// How long it took.
    pub times: Times,
}

/// The model of a prediction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The SHA-256 of its file, as 64 hexadecimal digits.
    pub digest: String,
}

/// Where an input stands in its topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// The input of a prediction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The SHA-256 of its payload, as 64 hexadecimal digits.
    pub digest: String,
    /// The true label, where the sender gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it was published, in microseconds since the epoch.
    pub published_us: i64,
}

/// The outputs of a classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// The label of the likeliest class.
    pub label: String,
    /// The probability of that class.
    pub probability: f32,
    /// The probabilities of all classes in their order.
    pub probabilities: Vec<f32>,
}

/// Where the time went, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// From publication until a model took it up.
    pub queued_us: u64,
    /// Decoding, preprocessing and computing the batch that it was in.
    pub computing_us: u64,
    /// From publication until the result was there.
    pub total_us: u64,
}

/// The id of a delivery: its header, or for a foreign message its place, never a random one.
///
/// The error tells what is wrong with the header.
pub fn id_of(delivery: &Delivery) -> Result<String, String> {
    let Some(value) = delivery.headers.get(ID) else {
        let position = delivery.position();
        return Ok(format!("{}:{}:{}", delivery.topic(), position.partition(), position.offset()));
    };
    if value.is_empty() || value.len() > ID_LENGTH_MAX {
        let length = value.len();
        return Err(format!("the id header has {length} bytes, expected 1 to {ID_LENGTH_MAX}"));
    }
    let text = std::str::from_utf8(value);
    text.map(str::to_owned).map_err(|_| "the id header is not UTF-8".to_owned())
}

/// The SHA-256 of a payload as 64 hexadecimal digits.
pub fn digest_of(payload: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = Sha256::digest(payload);
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_lower_case_hexadecimal() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest_of(b"abc"), known);
    }
}
