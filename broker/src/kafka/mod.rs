//! Apache Kafka, through librdkafka.
//!
//! One producer and one control client serve a broker; each consumer has a client and a
//! thread of its own, which makes every call to Kafka and fills the windows that the async
//! side delivers from. Equal keys share a partition by murmur2, as Java clients do. Only the
//! settled prefix of a partition is ever committed. A rejected delivery is settled like an
//! acknowledged one: the delivery layer has written the dead letter before.

mod admin;
mod broker;
mod committer;
mod config;
mod consumer;
mod context;
mod control;
mod convert;
mod error;
mod fetcher;
mod lag;
mod log;
mod producer;
mod start;
mod state;
mod status;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use config::Config;

use crate::contract::Broker;
use crate::error::Result;

/// Connects to a Kafka cluster.
///
/// Fails with `Unavailable`, naming the servers, when none answers within `connect_timeout`,
/// and with `ConfigInvalid` when librdkafka refuses the configuration.
pub async fn connect(config: Config) -> Result<Arc<dyn Broker>> {
    Ok(Arc::new(broker::KafkaBroker::connect(config).await?))
}
