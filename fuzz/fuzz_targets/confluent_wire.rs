//! Any bytes are a frame of Confluent's wire format or corrupt.
#![no_main]

use broker::codec::confluent::{Frame, read_indexes};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: Vec<u8>| {
    match Frame::read(&Bytes::from(payload)) {
        Err(error) => assert_eq!(error.kind(), broker::ErrorKind::Corrupt),
        Ok(Frame { mut body, .. }) => match read_indexes(&mut body) {
            Err(error) => assert_eq!(error.kind(), broker::ErrorKind::Corrupt),
            Ok(indexes) => assert!(!indexes.is_empty()),
        },
    }
});
