//! The bytes before a value.
//!
//! Constraints: Confluent's serializers read and write the same. Layout: a zero, the schema's
//! id (u32, big endian), for protobuf the message's place in its file, the value. The place is
//! a list: the index among the messages of the file, then among those nested in it, and so on.
//! It is written as its length and then its items, all as zigzag numbers; the list `[0]`, which
//! is by far the commonest, is written as a single zero. Recovery: a payload that does not parse
//! is `Corrupt`.

use bytes::{Buf, BufMut, Bytes};

use crate::codec::corrupt;
use crate::error::Result;

const MAGIC: u8 = 0;
/// How deep a message may be nested in others.
const INDEXES_MAX: usize = 64;

/// A payload, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The id of the schema that it was written with.
    pub schema: u32,
    /// What follows: the value, for protobuf behind the message's place in its file.
    pub body: Bytes,
}

impl Frame {
    /// Takes a payload apart; `Corrupt` where it is not in this format.
    pub fn read(payload: &Bytes) -> Result<Self> {
        let mut body = payload.clone();
        if body.len() < 5 {
            return Err(corrupt(format!("{} bytes are too few to name a schema", body.len())));
        }
        match body.get_u8() {
            MAGIC => Ok(Self { schema: body.get_u32(), body }),
            other => Err(corrupt(format!("the payload names no schema: it begins with {other}"))),
        }
    }
}

/// The beginning of a payload, to which the value is to be appended.
pub(super) fn begin(schema: u32) -> Vec<u8> {
    let mut payload = vec![MAGIC];
    payload.put_u32(schema);
    payload
}

/// Appends a message's place in its file.
pub(super) fn write_indexes(payload: &mut Vec<u8>, indexes: &[u32]) {
    if indexes == [0] {
        return payload.push(0);
    }
    let length = u32::try_from(indexes.len()).expect("messages are nested a few levels deep");
    write_number(payload, length);
    indexes.iter().for_each(|index| write_number(payload, *index));
}

/// Takes a message's place in its file off the front of a frame's body.
pub fn read_indexes(body: &mut Bytes) -> Result<Vec<u32>> {
    let length = read_number(body)? as usize;
    match length {
        0 => Ok(vec![0]),
        1..=INDEXES_MAX => (0..length).map(|_| read_number(body)).collect(),
        _ => Err(corrupt(format!("a message is nested {length} deep, not {INDEXES_MAX} at most"))),
    }
}

/// A number that is not negative, zigzag encoded.
fn write_number(payload: &mut Vec<u8>, number: u32) {
    let mut rest = u64::from(number) << 1;
    while rest >= 0x80 {
        payload.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    payload.push(rest as u8);
}

fn read_number(body: &mut Bytes) -> Result<u32> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let byte = body.try_get_u8().map_err(|_| corrupt("a message's place is cut off"))?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let is_negative = number & 1 == 1;
            let index = u32::try_from(number >> 1).ok().filter(|_| !is_negative);
            return index.ok_or_else(|| corrupt("a message's place is out of range"));
        }
    }
    Err(corrupt("a message's place is a number that is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_frame_is_the_bytes_that_confluent_documents() {
        let mut payload = begin(0x0102_0304);
        payload.extend(b"value");
        assert_eq!(payload, b"\0\x01\x02\x03\x04value");
        let frame = Frame::read(&payload.into()).unwrap();
        assert_eq!(frame, Frame { schema: 0x0102_0304, body: Bytes::from_static(b"value") });
    }

    #[test]
    fn the_place_of_a_message_is_the_bytes_that_confluent_documents() {
        let cases: [(&[u32], &[u8]); 5] = [
            (&[0], &[0]),
            (&[1], &[2, 2]),
            (&[0, 0], &[4, 0, 0]),
            (&[1, 0], &[4, 2, 0]),
            (&[70, 300], &[4, 0x8c, 1, 0xd8, 4]),
        ];
        for (indexes, bytes) in cases {
            let mut written = Vec::new();
            write_indexes(&mut written, indexes);
            assert_eq!(written, bytes, "{indexes:?}");
            let mut body = Bytes::from([&written[..], b"value"].concat());
            assert_eq!(read_indexes(&mut body).unwrap(), indexes);
            assert_eq!(&body[..], b"value");
        }
    }

    #[test]
    fn what_is_no_frame_is_corrupt_and_says_why() {
        let cases: [(&[u8], &str); 3] =
            [(b"", "0 bytes"), (b"\0\0\0\x01", "4 bytes"), (b"{\"a\": 1}", "begins with 123")];
        for (payload, problem) in cases {
            let error = Frame::read(&Bytes::from_static(payload)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(problem), "{error}");
        }
    }

    #[test]
    fn what_is_no_place_is_corrupt_and_says_why() {
        let cases: [(&[u8], &str); 6] = [
            (b"", "cut off"),
            (&[4, 0], "cut off"),
            (&[1], "out of range"),
            (&[2, 1], "out of range"),
            (&[0xff; 6], "too long"),
            (&[0x82, 1], "nested 65 deep"),
        ];
        for (body, problem) in cases {
            let error = read_indexes(&mut Bytes::from_static(body)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(problem), "{body:?}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_frame_and_a_place_or_corrupt(payload: Vec<u8>) {
            let place = |mut frame: Frame| read_indexes(&mut frame.body);
            if let Err(error) = Frame::read(&payload.into()).and_then(place) {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
            }
        }

        #[test]
        fn any_place_round_trips(
            indexes in proptest::collection::vec(0..=i32::MAX as u32, 1..=INDEXES_MAX),
        ) {
            let mut written = Vec::new();
            write_indexes(&mut written, &indexes);
            assert_eq!(read_indexes(&mut written.into()).unwrap(), indexes);
        }
    }
}
