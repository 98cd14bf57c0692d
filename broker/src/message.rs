//! What travels: a key, a payload, headers and a time.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};

/// Microseconds since the Unix epoch. Kafka keeps whole milliseconds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The wall clock's time.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }
}

/// A message: what publishers give and consumers get.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Messages of equal keys share a partition and keep their order.
    pub key: Option<Bytes>,
    /// The body; any bytes, also none.
    pub payload: Bytes,
    /// Names and values, in the order they were added.
    pub headers: Headers,
    /// When the message was made; the backend fills it in where it is absent.
    pub timestamp: Option<Timestamp>,
}

impl Message {
    /// A message with a payload and nothing else.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), ..Self::default() }
    }

    /// A message that lets its key go from a compacted topic: without a payload, and marked by
    /// a header. On Kafka it is a message whose value is null, and each such message is one.
    pub fn tombstone(key: impl Into<Bytes>) -> Self {
        Self::new(Bytes::new()).with_key(key).with_header(TOMBSTONE, [])
    }

    /// Whether this message lets its key go.
    pub fn is_tombstone(&self) -> bool {
        self.payload.is_empty() && self.headers.get(TOMBSTONE).is_some()
    }

    /// Sets the key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header behind those already there.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push(name, value.as_ref());
        self
    }

    /// The bytes that count against a size limit. Headers which a dead letter adds do not
    /// count, so that a message which fitted once still fits as a dead letter.
    pub fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .filter(|(name, _)| !name.starts_with(DEAD_LETTER_PREFIX))
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.payload.len() + headers
    }
}

/// The header that marks a tombstone.
pub(crate) const TOMBSTONE: &str = "tombstone";

/// What the names of the headers begin with that a dead letter adds.
pub(crate) const DEAD_LETTER_PREFIX: &str = "dead-letter-";

impl fmt::Debug for Message {
    /// Payloads may be large or private: only their length is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("key", &self.key)
            .field("payload_bytes", &self.payload.len())
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

/// Ordered headers, kept encoded in one block so that a batch can share one allocation.
///
/// The block repeats: name length (u32, little endian), value length (u32), name (UTF-8), value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Bytes);

const LENGTHS: usize = 8;

impl Headers {
    /// Reads a block that [`Headers::as_block`] gave; fails with `Corrupt` where it does not parse.
    pub fn from_block(block: Bytes) -> Result<Self> {
        let mut rest: &[u8] = &block;
        while !rest.is_empty() {
            let Some((name, _, tail)) = split_entry(rest) else {
                return Err(corrupt("a header is cut off"));
            };
            std::str::from_utf8(name).map_err(|_| corrupt("a header's name is not UTF-8"))?;
            rest = tail;
        }
        Ok(Self(block))
    }

    /// The encoded block.
    pub fn as_block(&self) -> &Bytes {
        &self.0
    }

    /// Adds a header behind those already there; equal names may repeat.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let mut block = match std::mem::take(&mut self.0).try_into_mut() {
            Ok(owned) => owned,
            Err(shared) => BytesMut::from(&shared[..]),
        };
        Self::encode(&mut block, name, value);
        self.0 = block.freeze();
    }

    /// Appends one header to a block under construction.
    pub(crate) fn encode(block: &mut BytesMut, name: &str, value: &[u8]) {
        block.reserve(LENGTHS + name.len() + value.len());
        block.put_u32_le(u32::try_from(name.len()).unwrap_or(u32::MAX));
        block.put_u32_le(u32::try_from(value.len()).unwrap_or(u32::MAX));
        block.put_slice(name.as_bytes());
        block.put_slice(value);
    }

    /// The value of the first header called `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The value of the first header called `name`, where it is text.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All headers in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (name, value, tail) = split_entry(rest)?;
            rest = tail;
            Some((std::str::from_utf8(name).unwrap_or_default(), value))
        })
    }

    /// Whether there is no header.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn split_entry(block: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name_len, rest) = block.split_first_chunk::<4>()?;
    let (value_len, rest) = rest.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*name_len) as usize)?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
    Some((name, value, rest))
}

fn corrupt(message: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "read headers", message)
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(n, v)| (n, String::from_utf8_lossy(v)))).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a [u8])> for Headers {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a [u8])>>(headers: T) -> Self {
        let mut block = BytesMut::new();
        for (name, value) in headers {
            Self::encode(&mut block, name, value);
        }
        Self(block.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_order_bytes_and_repeats() {
        let mut headers = Headers::default();
        headers.push("a", b"1");
        headers.push("b", &[0, 255]);
        headers.push("a", b"");
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(all, [("a", &b"1"[..]), ("b", &[0, 255][..]), ("a", &b""[..])]);
        assert_eq!(headers.get("a"), Some(&b"1"[..]));
        assert_eq!(Headers::from_block(headers.as_block().clone()).unwrap(), headers);
    }

    #[test]
    fn a_cut_or_foreign_block_is_corrupt() {
        let headers: Headers = [("name", &b"value"[..])].into_iter().collect();
        let block = headers.as_block();
        for end in 1..block.len() {
            let error = Headers::from_block(block.slice(..end)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "cut at {end}");
        }
        let error = Headers::from_block(Bytes::from_static(b"\x01\0\0\0\0\0\0\0\xff")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_dead_letters_own_headers_do_not_count() {
        let message = Message::new("four").with_header("id", "7");
        let dead = message.clone().with_header("dead-letter-reason", "x".repeat(1000));
        assert_eq!(message.size(), 7);
        assert_eq!(dead.size(), message.size());
    }
}
