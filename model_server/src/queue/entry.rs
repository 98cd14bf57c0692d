//! What stands in the queue: the messages of one settled batch, framed as protobuf.

use broker::{Error, ErrorKind, Headers, Message, Result, Timestamp};
use bytes::Bytes;
use prost::Message as _;

/// The bytes that framing adds to each message, rounded up.
const FRAME_BYTES: usize = 64;

/// Messages that are ready to be published, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// The messages.
    pub messages: Vec<Message>,
}

/// The largest message that fits into an entry, where a queue takes entries of `limit` bytes.
pub fn messages_max_bytes(limit: usize) -> usize {
    limit.saturating_sub(FRAME_BYTES)
}

#[derive(Clone, PartialEq, prost::Message)]
struct Frame {
    #[prost(message, repeated, tag = "1")]
    ready: Vec<Ready>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Ready {
    #[prost(bytes = "bytes", optional, tag = "1")]
    key: Option<Bytes>,
    #[prost(bytes = "bytes", tag = "2")]
    payload: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    headers: Bytes,
    #[prost(int64, optional, tag = "4")]
    timestamp: Option<i64>,
}

impl Entry {
    /// The messages of a batch as entries of at most `limit` bytes: one, but for large keys.
    pub fn pack(messages: Vec<Message>, limit: usize) -> Vec<Self> {
        let mut entries: Vec<Self> = Vec::new();
        let mut bytes = limit;
        for message in messages {
            let size = message.size() + header_bytes(&message) + FRAME_BYTES;
            if bytes + size > limit {
                entries.push(Self::default());
                bytes = 0;
            }
            bytes += size;
            if let Some(entry) = entries.last_mut() {
                entry.messages.push(message);
            }
        }
        entries
    }

    /// The bytes to store.
    pub fn encode(&self) -> Bytes {
        let ready = self.messages.iter().map(|message| Ready {
            key: message.key.clone(),
            payload: message.payload.clone(),
            headers: message.headers.as_block().clone(),
            timestamp: message.timestamp.map(Timestamp::as_micros),
        });
        Frame { ready: ready.collect() }.encode_to_vec().into()
    }

    /// The entry that [`Entry::encode`] stored; `Corrupt` where the bytes do not parse.
    pub fn decode(bytes: Bytes) -> Result<Self> {
        let frame = Frame::decode(bytes).map_err(|error| {
            let message = "an entry of the result queue does not parse";
            Error::new(ErrorKind::Corrupt, "take from queue", message).with_source(error)
        })?;
        let messages = frame.ready.into_iter().map(|ready| {
            Ok(Message {
                key: ready.key,
                payload: ready.payload,
                headers: Headers::from_block(ready.headers)?,
                timestamp: ready.timestamp.map(Timestamp::from_micros),
            })
        });
        Ok(Self { messages: messages.collect::<Result<_>>()? })
    }
}

/// What the block of headers takes beyond their names and values.
fn header_bytes(message: &Message) -> usize {
    message.headers.iter().count() * 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &str) -> Message {
        Message::new(payload.to_owned())
    }

    #[test]
    fn an_entry_round_trips() {
        let full = message("payload").with_key("key").with_header("id", "1").with_header("id", "2");
        let full = Message { timestamp: Some(Timestamp::from_micros(-5)), ..full };
        let entry = Entry { messages: vec![full, message(""), message("x").with_key("")] };
        assert_eq!(Entry::decode(entry.encode()).unwrap(), entry);
    }

    #[test]
    fn a_cut_entry_is_corrupt() {
        let bytes = Entry { messages: vec![message("payload")] }.encode();
        let error = Entry::decode(bytes.slice(..bytes.len() - 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_batch_is_one_entry_unless_it_is_too_large() {
        let batch = vec![message("a"), message("b"), message("c")];
        let one = Entry::pack(batch.clone(), 1000);
        assert_eq!(one, [Entry { messages: batch.clone() }]);
        let many = Entry::pack(batch.clone(), 2 * (1 + FRAME_BYTES));
        assert_eq!(many.len(), 2);
        assert_eq!(many.concat_messages(), batch);
        for entry in &many {
            assert!(entry.encode().len() <= 2 * (1 + FRAME_BYTES));
        }
    }

    trait Concat {
        fn concat_messages(&self) -> Vec<Message>;
    }

    impl Concat for Vec<Entry> {
        fn concat_messages(&self) -> Vec<Message> {
            self.iter().flat_map(|entry| entry.messages.clone()).collect()
        }
    }
}
