//! Any bytes are a structured event or corrupt, and an event that was read is written and read
//! again as the same.
#![no_main]

use broker::cloudevents::Mode;
use broker::codec::Codec;
use broker::{Message, Topic};
use futures::FutureExt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: Vec<u8>| {
    let read = |message: &Message| {
        let decoded = Mode::Structured.decode(message).now_or_never();
        decoded.expect("the codec waits for nobody")
    };
    let message = Message::new(payload);
    match read(&message.with_header("content-type", "application/cloudevents+json")) {
        Err(error) => assert_eq!(error.kind(), broker::ErrorKind::Corrupt),
        Ok(event) => {
            let topic = Topic::new("events").expect("the name is valid");
            let written = Mode::Structured.encode(&topic, &event).now_or_never();
            let written = written.expect("the codec waits for nobody");
            let again = read(&written.expect("what was read is valid"));
            assert_eq!(again.expect("what was written is an event"), event);
        }
    }
});
