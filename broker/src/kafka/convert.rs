//! Messages of Kafka as ours, and the other way round.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};

use crate::error::{Error, ErrorKind, Result};
use crate::message::{Headers, Message, Timestamp};

/// The most bytes that messages share an allocation for: few allocations for large ones, and a
/// message that is held for long pins no more than this.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Fetched messages, copied out of librdkafka's memory one by one.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) offsets: Vec<u64>,
    pub(super) messages: Vec<Message>,
    /// How many bytes were copied.
    pub(super) bytes: usize,
    chunk: BytesMut,
    chunk_bytes: usize,
    blocks: BytesMut,
}

impl Batch {
    /// Copies a message behind those already there.
    pub(super) fn push(&mut self, message: &BorrowedMessage<'_>) {
        self.reserve(message.key_len() + message.payload_len());
        self.offsets.push(u64::try_from(message.offset()).unwrap_or_default());
        let copy = Message {
            key: message.key().map(|key| self.put(key)),
            payload: message.payload().map(|payload| self.put(payload)).unwrap_or_default(),
            headers: copy_headers(message, &mut self.blocks),
            timestamp: message.timestamp().to_millis().map(from_millis),
        };
        self.messages.push(copy);
    }

    /// Makes room in one chunk. A lone message gets just what it needs, the chunks of a long
    /// batch double in size.
    fn reserve(&mut self, bytes: usize) {
        self.bytes += bytes;
        if bytes > self.chunk.capacity() {
            self.chunk_bytes = bytes.max((self.chunk_bytes * 2).min(CHUNK_BYTES_MAX));
            self.chunk = BytesMut::with_capacity(self.chunk_bytes);
        }
    }

    fn put(&mut self, part: &[u8]) -> Bytes {
        if part.is_empty() {
            return Bytes::new();
        }
        self.chunk.extend_from_slice(part);
        self.chunk.split().freeze()
    }
}

fn copy_headers(message: &BorrowedMessage<'_>, blocks: &mut BytesMut) -> Headers {
    let Some(headers) = message.headers() else { return Headers::default() };
    for index in 0..headers.count() {
        // The wrapper panics where a foreign producer's header name is not UTF-8.
        match catch_unwind(AssertUnwindSafe(|| headers.try_get(index))) {
            Ok(Some(header)) => {
                Headers::encode(blocks, header.key, header.value.unwrap_or_default());
            }
            Ok(None) => {}
            Err(_) => tracing::warn!(
                partition = message.partition(),
                offset = message.offset(),
                "a header is left out because its name is not UTF-8"
            ),
        }
    }
    Headers::from_block(blocks.split().freeze()).unwrap_or_default()
}

/// The headers as librdkafka takes them; none where there are none.
///
/// Fails with `Unsupported` for a name with a NUL, which librdkafka's readers would cut off.
pub(super) fn to_headers(headers: &Headers) -> Result<Option<OwnedHeaders>> {
    if headers.is_empty() {
        return Ok(None);
    }
    let mut owned = OwnedHeaders::new_with_capacity(headers.iter().count());
    for (name, value) in headers.iter() {
        if name.contains('\0') {
            let problem = "kafka takes no header name that holds a NUL";
            let error = Error::new(ErrorKind::Unsupported, "publish", problem);
            return Err(error.with("header", format!("{name:?}")));
        }
        owned = owned.insert(Header { key: name, value: Some(value) });
    }
    Ok(Some(owned))
}

/// Whole milliseconds, as Kafka keeps them.
pub(super) fn to_millis(timestamp: Timestamp) -> i64 {
    timestamp.as_micros().div_euclid(1000)
}

fn from_millis(millis: i64) -> Timestamp {
    Timestamp::from_micros(millis.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_their_order_and_bytes() {
        let headers: Headers =
            [("a", &b"1"[..]), ("b", &[0, 255][..]), ("a", &b""[..])].into_iter().collect();
        let owned = to_headers(&headers).unwrap().unwrap();
        let back: Vec<_> = owned.iter().map(|header| (header.key, header.value.unwrap())).collect();
        assert_eq!(back, headers.iter().collect::<Vec<_>>());
        assert!(to_headers(&Headers::default()).unwrap().is_none());
    }

    #[test]
    fn a_header_name_with_a_nul_is_unsupported() {
        let headers: Headers = [("a\0b", &b"1"[..])].into_iter().collect();
        assert_eq!(to_headers(&headers).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn times_are_cut_to_milliseconds() {
        for (micros, millis) in [(1_999, 1), (2_000, 2), (0, 0), (-1, -1)] {
            assert_eq!(to_millis(Timestamp::from_micros(micros)), millis);
        }
        assert_eq!(from_millis(3), Timestamp::from_micros(3_000));
    }
}
