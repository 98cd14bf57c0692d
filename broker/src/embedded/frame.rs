//! The stored form of a record batch: what one row of `batches` holds.
//!
//! Constraints: it is read by any process that shares the directory, so it changes only with
//! the store's format version; reading slices it without copying. Layout, little endian, for
//! each message: key length (u32, `u32::MAX` for no key), headers length (u32), payload
//! length (u32), time in microseconds (i64), key, headers block, payload. Since format 2 a key
//! length of `u32::MAX - 1` stands for messages that compaction removed: their count is in the
//! place of the headers length, and nothing follows the fixed part; those at the end of a row
//! leave no mark, since the row has its count. Recovery: SQLite's journal makes rows whole or
//! absent; a row that does not parse is `Corrupt`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};
use crate::message::{Headers, Message, Timestamp};

const FIXED: usize = 20;
const NO_KEY: u32 = u32::MAX;
const REMOVED: u32 = u32::MAX - 1;

/// Appends a message.
pub(super) fn encode(batch: &mut BytesMut, message: &Message, now: Timestamp) {
    let key = message.key.as_deref().unwrap_or_default();
    let headers = message.headers.as_block();
    batch.reserve(FIXED + key.len() + headers.len() + message.payload.len());
    batch.put_u32_le(message.key.as_ref().map_or(NO_KEY, |key| length(key)));
    batch.put_u32_le(length(headers));
    batch.put_u32_le(length(&message.payload));
    batch.put_i64_le(message.timestamp.unwrap_or(now).as_micros());
    batch.put_slice(key);
    batch.put_slice(headers);
    batch.put_slice(&message.payload);
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("the limit on a message's size is far below 4 GiB")
}

/// Notes that `count` messages stood here.
pub(super) fn encode_removed(batch: &mut BytesMut, count: u32) {
    batch.put_u32_le(REMOVED);
    batch.put_u32_le(count);
    batch.put_bytes(0, FIXED - 8);
}

/// The messages of a batch with their offsets, without those that compaction removed.
pub(super) struct Messages {
    offset: u64,
    batch: Bytes,
}

impl Messages {
    /// Reads a batch whose first message stood at `first`.
    pub(super) fn of(first: u64, batch: Bytes) -> Self {
        Self { offset: first, batch }
    }
}

impl Iterator for Messages {
    type Item = Result<(u64, Message)>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.batch.is_empty() {
            let offset = self.offset;
            match decode(&mut self.batch) {
                Ok(Entry::Message(message)) => {
                    self.offset += 1;
                    return Some(Ok((offset, message)));
                }
                Ok(Entry::Removed(count)) => self.offset += u64::from(count),
                Err(error) => {
                    self.batch.clear();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

enum Entry {
    Message(Message),
    /// So many messages that are gone.
    Removed(u32),
}

fn decode(batch: &mut Bytes) -> Result<Entry> {
    let cut = || Error::new(ErrorKind::Corrupt, "read batch", "a message is cut off");
    if batch.len() < FIXED {
        return Err(cut());
    }
    let (key, headers, payload) = (batch.get_u32_le(), batch.get_u32_le(), batch.get_u32_le());
    let timestamp = Some(Timestamp::from_micros(batch.get_i64_le()));
    if key == REMOVED {
        return Ok(Entry::Removed(headers));
    }
    let key_length = if key == NO_KEY { 0 } else { key as usize };
    if batch.len() < key_length + headers as usize + payload as usize {
        return Err(cut());
    }
    let key_bytes = batch.split_to(key_length);
    let headers = Headers::from_block(batch.split_to(headers as usize))?;
    let payload = batch.split_to(payload as usize);
    let key = (key != NO_KEY).then_some(key_bytes);
    Ok(Entry::Message(Message { key, payload, headers, timestamp }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> Vec<Message> {
        let time = Some(Timestamp::from_micros(7));
        let mut messages = vec![
            Message::new(""),
            Message::new("payload").with_key("key").with_header("a", "b"),
            Message::new(vec![0, 255]).with_key(""),
        ];
        messages.iter_mut().for_each(|message| message.timestamp = time);
        messages
    }

    #[test]
    fn messages_round_trip() {
        let mut batch = BytesMut::new();
        messages().iter().for_each(|m| encode(&mut batch, m, Timestamp::from_micros(1)));
        let read: Vec<_> = Messages::of(5, batch.freeze()).map(Result::unwrap).collect();
        assert_eq!(read, (5..).zip(messages()).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_removed_keeps_its_offsets() {
        let now = Timestamp::from_micros(7);
        let mut batch = BytesMut::new();
        encode_removed(&mut batch, 3);
        encode(&mut batch, &messages()[0], now);
        encode_removed(&mut batch, 1);
        encode(&mut batch, &messages()[1], now);
        let read = Messages::of(10, batch.freeze()).map(|read| read.unwrap().0);
        assert_eq!(read.collect::<Vec<_>>(), [13, 15]);
    }

    #[test]
    fn a_cut_batch_is_corrupt_at_every_byte() {
        let mut batch = BytesMut::new();
        encode(&mut batch, &messages()[1], Timestamp::from_micros(1));
        let batch = batch.freeze();
        for end in 1..batch.len() {
            let read: Vec<_> = Messages::of(0, batch.slice(..end)).collect();
            let [Err(error)] = &read[..] else { panic!("cut at {end}: {read:?}") };
            assert_eq!(error.kind(), ErrorKind::Corrupt, "cut at {end}");
        }
    }
}
