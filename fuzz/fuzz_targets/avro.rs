//! Any bytes are an Avro value or corrupt. The schema holds one type of each kind, and itself.
#![no_main]

use std::collections::HashMap;
use std::sync::LazyLock;

use broker::Message;
use broker::codec::{Avro, Codec};
use futures::FutureExt;
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize};

const SCHEMA: &str = r#"{"type": "record", "name": "Everything", "fields": [
    {"name": "flag", "type": "boolean"},
    {"name": "number", "type": "long"},
    {"name": "ratio", "type": "double"},
    {"name": "text", "type": "string"},
    {"name": "maybe", "type": ["null", "string"]},
    {"name": "list", "type": {"type": "array", "items": "int"}},
    {"name": "map", "type": {"type": "map", "values": "long"}},
    {"name": "nothing", "type": {"type": "array", "items": "null"}},
    {"name": "next", "type": ["null", "Everything"]}
]}"#;

#[derive(Serialize, Deserialize)]
struct Everything {
    flag: bool,
    number: i64,
    ratio: f64,
    text: String,
    maybe: Option<String>,
    list: Vec<i32>,
    map: HashMap<String, i64>,
    nothing: Vec<()>,
    next: Option<Box<Self>>,
}

static CODEC: LazyLock<Avro> = LazyLock::new(|| Avro::new(SCHEMA).expect("the schema is valid"));

fuzz_target!(|payload: Vec<u8>| {
    let message = Message::new(payload);
    let decoding = <Avro as Codec<Everything>>::decode(&CODEC, &message);
    let decoded = decoding.now_or_never().expect("the codec waits for nobody");
    if let Err(error) = decoded {
        assert_eq!(error.kind(), broker::ErrorKind::Corrupt);
    }
});
