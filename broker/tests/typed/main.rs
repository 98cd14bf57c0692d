//! Typed messages against a real schema registry, and against Confluent's own serializers.
//!
//! The registry is found by `FOREBAY_TEST_REGISTRY`, a Python that has the serializers by
//! `FOREBAY_TEST_SERIALIZERS`. Where one is unset its tests say so and pass; with
//! `FOREBAY_REQUIRE_SERVERS` set, as `make test` does, they fail.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up fails")]

use std::sync::atomic::{AtomicU64, Ordering};

use broker::codec::confluent::{Config, Registry};
use broker::{Timestamp, Topic};
use serde::{Deserialize, Serialize};

mod interop;
mod outage;
mod proxy;
mod registry;

/// What a variable names that a script sets.
fn found(variable: &str, script: &str) -> Option<String> {
    let Ok(value) = std::env::var(variable) else {
        let missing = format!("{variable} is not set: see {script}");
        assert!(std::env::var_os("FOREBAY_REQUIRE_SERVERS").is_none(), "{missing}");
        eprintln!("not run: {missing}");
        return None;
    };
    Some(value)
}

fn registry_url() -> Option<String> {
    found("FOREBAY_TEST_REGISTRY", "scripts/servers")
}

fn registry(url: &str) -> Registry {
    Registry::new(Config::new(url)).unwrap()
}

/// A topic whose subjects no other test or run uses.
fn topic(name: &str) -> Topic {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Topic::new(&format!("{name}-{:x}-{count}", Timestamp::now().as_micros())).unwrap()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: i32,
    note: Option<String>,
    prices: Vec<f64>,
}

fn order() -> Order {
    Order { id: 7, note: Some("Grüße".into()), prices: vec![1.5, -2.0] }
}

const ORDER_AVRO: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "int"},
    {"name": "note", "type": ["null", "string"], "default": null},
    {"name": "prices", "type": {"type": "array", "items": "double"}}]}"#;

const ORDER_JSON: &str = r#"{"$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Order", "type": "object", "required": ["id"], "properties": {
    "id": {"type": "integer"}, "note": {"type": ["string", "null"]},
    "prices": {"type": "array", "items": {"type": "number"}}}}"#;

const SHOP_PROTO: &str = r#"syntax = "proto3";
package shop;
message Refund { int32 order = 1; }
message Order {
  message Line { string item = 1; }
  int32 id = 1;
  string note = 2;
  repeated double prices = 3;
}
"#;

mod shop {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Order {
        #[prost(int32, tag = "1")]
        pub(super) id: i32,
        #[prost(string, tag = "2")]
        pub(super) note: String,
        #[prost(double, repeated, tag = "3")]
        pub(super) prices: Vec<f64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Refund {
        #[prost(int32, tag = "1")]
        pub(super) order: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Line {
        #[prost(string, tag = "1")]
        pub(super) item: String,
    }

    pub(super) fn order() -> Order {
        Order { id: 7, note: "Grüße".into(), prices: vec![1.5, -2.0] }
    }
}
