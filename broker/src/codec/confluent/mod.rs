//! Confluent's wire format: each payload names the schema that it was written with, which a
//! schema registry keeps. What Confluent's own serializers write is read here, and the other
//! way round.
//!
//! [`Registry`] is a client of our own. `schema_registry_converter` was looked at and left: its
//! TLS is aws-lc-rs or native-tls, its caches have no bound and remember failures, its errors
//! do not tell a missing schema from a refused one, and it does not resolve the schema of the
//! writer to that of the reader.

mod avro;
mod cache;
mod config;
mod error;
mod http;
mod json;
mod protobuf;
mod registry;
mod schema;
mod wire;
mod writer;

pub use avro::Avro;
pub use config::{Config, Credentials, Subjects};
pub use json::Json;
pub use protobuf::Protobuf;
pub use registry::Registry;
pub use schema::{Kind, Reference, Registered, Schema};
pub use wire::{Frame, read_indexes};
