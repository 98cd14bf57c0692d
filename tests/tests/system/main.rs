//! The whole of Forebay, as its users run it: the real programs as processes.
//!
//! Tests that need a server find it by its environment variable. Where that is unset they say
//! so and pass; with `FOREBAY_REQUIRE_SERVERS` set, as `make test` does, they fail.
//! `FOREBAY_SCALE` is how many times the usual load they put on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a harness that cannot be set up fails its test"
)]

mod accounts;
mod bad_input;
mod configs;
mod crash;
mod demo;
mod disk_full;
mod drain;
mod house_rules;
mod observability;
mod outage;
mod redis_queue;
mod scale_out;
mod start_failures;
mod tools;
mod tools_check;
mod tools_dlq;
mod transactions;
