//! What the changelog's messages look like.
//!
//! State goes into the partition of its input, while brokers choose a partition by the key. So a
//! record's key begins with a number (u32, big endian): the first for which the key hashes to the
//! wanted partition. One byte follows that tells what the record is, then the key of the state.
//! Equal keys of one partition give equal record keys, which is what compaction needs.

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::Message;
use crate::partition::partition_of;

const STATE: u8 = 0;
const MARKER: u8 = 1;
const INCARNATION: u8 = 2;
const PREFIX: usize = 5;

/// How many bytes tell one incarnation of a log from another.
const ID_BYTES: usize = 16;
pub(super) type Id = [u8; ID_BYTES];

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A key has a value, or none any more.
    State(Bytes, Option<Bytes>),
    /// An owner took the partition over; nothing of the owners before comes behind it.
    Marker,
    /// The log's identity, written once: a topic made anew has another.
    Incarnation(Id),
    /// Something that a later version wrote, or not a record at all.
    Unknown,
}

/// Where a record must go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) partition: u32,
    pub(super) partitions: u32,
}

impl Place {
    /// The record of a key's new value, or of its end.
    pub(super) fn state(self, key: &[u8], value: Option<Bytes>) -> Message {
        let key = self.key(STATE, key);
        match value {
            Some(value) => Message::new(value).with_key(key),
            None => Message::tombstone(key),
        }
    }

    pub(super) fn marker(self) -> Message {
        Message::new("owned").with_key(self.key(MARKER, &[]))
    }

    pub(super) fn incarnation(self, id: Id) -> Message {
        Message::new(id.to_vec()).with_key(self.key(INCARNATION, &[]))
    }

    fn key(self, kind: u8, key: &[u8]) -> Bytes {
        let mut whole = BytesMut::with_capacity(PREFIX + key.len());
        whole.put_u32(0);
        whole.put_u8(kind);
        whole.put_slice(key);
        for number in 0..=u32::MAX {
            whole[..4].copy_from_slice(&number.to_be_bytes());
            if partition_of(&whole, self.partitions) == self.partition {
                break;
            }
        }
        whole.freeze()
    }
}

impl Record {
    pub(super) fn read(message: &Message) -> Self {
        let Some(key) = message.key.as_ref().filter(|key| key.len() >= PREFIX) else {
            return Self::Unknown;
        };
        match key[PREFIX - 1] {
            STATE => {
                let value = (!message.is_tombstone()).then(|| message.payload.clone());
                Self::State(key.slice(PREFIX..), value)
            }
            MARKER => Self::Marker,
            INCARNATION => message.payload[..].try_into().map_or(Self::Unknown, Self::Incarnation),
            _ => Self::Unknown,
        }
    }
}

/// A new identity.
pub(super) fn new_id() -> Id {
    std::array::from_fn(|_| fastrand::u8(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_hash_to_their_partition() {
        for partition in 0..50 {
            let place = Place { partition, partitions: 50 };
            let id = new_id();
            let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b""));
            let rows = [
                (place.state(&key, Some(value.clone())), Record::State(key.clone(), Some(value))),
                (place.state(&key, None), Record::State(key.clone(), None)),
                (place.state(&[], None), Record::State(Bytes::new(), None)),
                (place.marker(), Record::Marker),
                (place.incarnation(id), Record::Incarnation(id)),
            ];
            for (message, record) in rows {
                assert_eq!(partition_of(message.key.as_ref().unwrap(), 50), partition);
                assert_eq!(Record::read(&message), record);
            }
        }
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        let rows = [
            Message::new("no key"),
            Message::new("").with_key("abcd"),
            Message::new("").with_key(vec![0, 0, 0, 0, 99]),
            Message::new("not sixteen bytes").with_key(vec![0, 0, 0, 0, INCARNATION]),
        ];
        for message in rows {
            assert_eq!(Record::read(&message), Record::Unknown, "{message:?}");
        }
    }
}
