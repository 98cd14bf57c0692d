//! Any bytes are a block of headers or corrupt; those that are read are written as they were.
#![no_main]

use broker::Headers;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|block: Vec<u8>| {
    let block = Bytes::from(block);
    match Headers::from_block(block.clone()) {
        Err(error) => assert_eq!(error.kind(), broker::ErrorKind::Corrupt),
        Ok(headers) => {
            let written: Headers = headers.iter().collect();
            assert_eq!(written.as_block(), &block);
        }
    }
});
