//! Redis Streams, also on Valkey: one server, a master behind sentinels, or a cluster.
//!
//! Each partition is a stream; equal keys share one by murmur2. A group's position is the
//! stream's own consumer group, so that other tools see it. Each partition is owned by one
//! member of a group, under a lease with a generation that every script checks: what a member
//! says that was taken for dead does nothing. Keys, with the prefix `forebay:`:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `forebay:topics` | set | the names of all topics |
//! | `forebay:{TOPIC}` | hash | `format`, `partitions`, `retention.ms`, `retention.bytes` |
//! | `forebay:{TOPIC}:members` | hash | `GROUP/MEMBER`: end and length of its lease (ms) |
//! | `forebay:{TOPIC/N}` | stream | partition N |
//! | `forebay:{TOPIC/N}:GROUP` | hash | the partition's `owner` in a group, and a `generation` |
//!
//! The hash tag spreads a topic's partitions over the nodes of a cluster. A prefix that holds
//! a tag itself, such as `{forebay}:`, puts everything into one slot: transactions over several
//! partitions then work on a cluster too.
//!
//! An entry has the fields `payload` and, where the message has them, `key`, `headers` (a block
//! as in [`Headers`](crate::Headers)) and `timestamp` (microseconds). Entries that other clients
//! add are delivered as well: further fields beside a `payload` are headers; without one, a
//! single field's value is the payload, and several fields become a JSON object. A message
//! without a time of its own has that of its entry's id.
//!
//! The offset of an entry with the id `ms-seq` is `ms << 20 | seq`, so offsets ascend and have
//! gaps. A start at a time finds messages whose own time is no more than an hour ahead of the
//! server's clock.
//!
//! Retention is rough, since Redis deletes whole nodes of a stream, and never deletes what a
//! group has not settled: a group that is needed no more must be deleted. `Written` means what
//! the server is set to, which is logged when connecting; `durability` in the configuration
//! demands more. Valkey has the same commands; the tests run on Redis.

mod admin;
mod assigned;
mod broker;
mod config;
mod connection;
mod consumer;
mod convert;
mod error;
mod fetch;
mod groups;
mod keys;
mod membership;
mod position;
mod producer;
mod retention;
mod scripts;
mod server;
mod settle;
mod share;
mod transaction;
mod watch;

use std::sync::Arc;

pub use config::{Config, Durability};

use crate::contract::Broker;
use crate::error::Result;

/// Connects to Redis and checks that it keeps what it is given.
///
/// Fails with `Unavailable` where it does not answer, with `PermissionDenied` where it refuses
/// the user, and with `ConfigInvalid` where it may evict entries, is less durable than
/// `durability` asks for, or is older than 7.0.
pub async fn connect(config: Config) -> Result<Arc<dyn Broker>> {
    Ok(Arc::new(broker::RedisBroker::connect(config).await?))
}
