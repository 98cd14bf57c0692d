//! The embedded broker: a directory with a SQLite database in WAL mode, shared by any number
//! of processes on one machine, with no server. It is the reference for the contract.
//!
//! Record batches are rows, so a commit costs little for each message. All writes of a
//! process go through one thread, which commits what is queued as one group behind a lock
//! file; offsets are given inside that transaction, so readers see no gaps. One more thread
//! polls for all consumers of the process.

mod admin;
mod broker;
mod compaction;
mod config;
mod consumer;
mod error;
mod frame;
mod groups;
mod log;
mod membership;
mod schema;
mod share;
mod store;
mod transaction;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use config::{Config, Durability};

use crate::contract::Broker;
use crate::error::Result;

/// Opens the store in `config.directory`, making it where it is missing. `ConfigInvalid`
/// where the directory is a file, on a network or of a newer format; `StorageFull` and
/// `PermissionDenied` as the file system says.
pub async fn open(config: Config) -> Result<Arc<dyn Broker>> {
    Ok(Arc::new(broker::open(config).await?))
}
