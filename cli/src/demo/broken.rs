//! Inputs that no model can take, to show what becomes of them.

use broker::{Broker, BrokerExt, Message, Topic};
use model_server::prediction::{CONTENT_TYPE, ID};
use model_server::process::Failure;
use modelling::samples;

/// A content type and a payload.
type Input = (&'static str, Vec<u8>);

/// The kinds of broken input, taken in turns.
const KINDS: [fn() -> Input; 6] = [text, truncated_png, empty, huge_png, object_array, nan_pixels];

/// Publishes `count` broken inputs.
pub(super) async fn publish(
    broker: &dyn Broker,
    topic: &Topic,
    run: &str,
    count: u64,
) -> Result<(), Failure> {
    let messages = (0..count).zip(KINDS.iter().cycle()).map(|(index, kind)| {
        let (content_type, payload) = kind();
        let message = Message::new(payload).with_header(ID, format!("{run}:broken:{index}"));
        message.with_header(CONTENT_TYPE, content_type)
    });
    broker.publish_all(topic, messages.collect()).await?;
    Ok(())
}

fn text() -> Input {
    ("text/plain", b"This is no image.\n".to_vec())
}

fn truncated_png() -> Input {
    let png = (0..).map(|index| samples::draw(1, index));
    let png = png.into_iter().find(|sample| sample.content_type == "image/png");
    let mut bytes = png.map(|sample| sample.bytes).unwrap_or_default();
    bytes.truncate(bytes.len() / 2);
    ("image/png", bytes)
}

fn empty() -> Input {
    ("image/png", Vec::new())
}

/// A header that claims 100,000 x 100,000 pixels, in a file that is otherwise right.
fn huge_png() -> Input {
    let side = 100_000_u32.to_be_bytes();
    let header = [&side[..], &side, &[8, 0, 0, 0, 0]].concat();
    let chunks = [png_chunk(b"IHDR", &header), png_chunk(b"IDAT", &[]), png_chunk(b"IEND", &[])];
    ("image/png", [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat())
}

/// Length, name, content, and the checksum of the latter two.
fn png_chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let checked = [name, content].concat();
    [&length.to_be_bytes()[..], &checked, &crc32(&checked).to_be_bytes()].concat()
}

fn object_array() -> Input {
    ("application/x-npy", npy("|O", &[0x80, 0x04, b'.']))
}

fn nan_pixels() -> Input {
    let pixels: Vec<u8> = (0..28 * 28).flat_map(|_| f32::NAN.to_le_bytes()).collect();
    ("application/x-npy", npy("<f4", &pixels))
}

/// A NumPy file of 28x28 elements.
fn npy(datatype: &str, elements: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{datatype}', 'fortran_order': False, 'shape': (28, 28), }}");
    // The elements begin at a multiple of 64.
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(elements);
    bytes
}

/// The checksum that PNG uses.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1));
    let add = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), step);
    !bytes.iter().fold(u32::MAX, add)
}

#[cfg(test)]
mod tests {
    use modelling::preprocess::{self, Limits, PIXELS};

    use super::*;

    #[test]
    fn every_kind_is_refused_for_a_reason_of_its_own() {
        let mut reasons = std::collections::BTreeSet::new();
        for kind in KINDS {
            let (content_type, payload) = kind();
            let mut pixels = [0.0; PIXELS];
            let refused = preprocess::preprocess(
                &payload,
                Some(content_type),
                &Limits::default(),
                &mut pixels,
            );
            reasons.insert(refused.unwrap_err().to_string());
        }
        assert_eq!(reasons.len(), KINDS.len(), "{reasons:#?}");
    }

    #[test]
    fn the_checksum_is_that_of_png() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b"IEND"), 0xae42_6082);
    }
}
