//! Messages of Kafka as ours, and the other way round.

use bytes::{Bytes, BytesMut};
use rdkafka::message::{Header, OwnedHeaders};

use crate::error::{Error, ErrorKind, Result};
use crate::message::{Headers, Message, TOMBSTONE, Timestamp};

/// The most bytes that messages share an allocation for: few allocations for large ones, and a
/// message that is held for long pins no more than this.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// A message in librdkafka's memory.
pub(super) struct Fetched<'a> {
    pub(super) offset: u64,
    pub(super) key: Option<&'a [u8]>,
    /// None of a tombstone.
    pub(super) payload: Option<&'a [u8]>,
    pub(super) millis: Option<i64>,
}

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
    /// Copies a message behind those already there; its headers are copied by the caller.
    pub(super) fn push(
        &mut self,
        message: &Fetched<'_>,
        headers: impl FnOnce(&mut BytesMut) -> Headers,
    ) {
        let lengths = message.key.map_or(0, <[u8]>::len) + message.payload.map_or(0, <[u8]>::len);
        self.reserve(lengths);
        self.offsets.push(message.offset);
        let mut copy = Message {
            key: message.key.map(|key| self.put(key)),
            payload: message.payload.map(|payload| self.put(payload)).unwrap_or_default(),
            headers: headers(&mut self.blocks),
            timestamp: message.millis.map(from_millis),
        };
        if message.payload.is_none() && !copy.is_tombstone() {
            copy.headers.push(TOMBSTONE, &[]);
        }
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

/// Fails with `Unsupported` for a name with a NUL, which librdkafka's readers would cut off.
pub(super) fn check_headers(headers: &Headers) -> Result<()> {
    match headers.iter().find(|(name, _)| name.contains('\0')) {
        Some((name, _)) => {
            let problem = "kafka takes no header name that holds a NUL";
            let error = Error::new(ErrorKind::Unsupported, "publish", problem);
            Err(error.with("header", format!("{name:?}")))
        }
        None => Ok(()),
    }
}

/// The headers as librdkafka takes them; none where there are none.
pub(super) fn to_headers(headers: &Headers) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let owned = OwnedHeaders::new_with_capacity(headers.iter().count());
    let insert =
        |owned: OwnedHeaders, (name, value)| owned.insert(Header { key: name, value: Some(value) });
    Some(headers.iter().fold(owned, insert))
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
    use rdkafka::message::Headers as _;

    use super::*;

    #[test]
    fn headers_keep_their_order_and_bytes() {
        let headers: Headers =
            [("a", &b"1"[..]), ("b", &[0, 255][..]), ("a", &b""[..])].into_iter().collect();
        let owned = to_headers(&headers).unwrap();
        let back: Vec<_> = owned.iter().map(|header| (header.key, header.value.unwrap())).collect();
        assert_eq!(back, headers.iter().collect::<Vec<_>>());
        assert!(to_headers(&Headers::default()).is_none());
    }

    #[test]
    fn a_header_name_with_a_nul_is_unsupported() {
        let headers: Headers = [("a\0b", &b"1"[..])].into_iter().collect();
        assert_eq!(check_headers(&headers).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn times_are_cut_to_milliseconds() {
        for (micros, millis) in [(1_999, 1), (2_000, 2), (0, 0), (-1, -1)] {
            assert_eq!(to_millis(Timestamp::from_micros(micros)), millis);
        }
        assert_eq!(from_millis(3), Timestamp::from_micros(3_000));
    }
}
