//! Every backend against the rules of `broker::conformance`, and the delivery layer too.
//!
//! A backend with a server finds it by its environment variable. Where that is unset its
//! tests say so and pass; with `FOREBAY_REQUIRE_SERVERS` set, as `make test` does, they fail.
#![allow(clippy::unwrap_used, reason = "a harness that can't be set up fails its test")]

mod embedded;
#[cfg(feature = "kafka")]
mod kafka;
mod layered;
mod layers;
#[cfg(feature = "testing")]
mod memory;
#[cfg(feature = "pubsub")]
mod pubsub;
#[cfg(feature = "redis")]
mod redis;
