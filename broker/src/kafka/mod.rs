//! Apache Kafka, through librdkafka.
//!
//! One producer and one control client serve a broker; each consumer has a client and a
//! thread of its own, which makes every call to Kafka and fills the windows that the async
//! side delivers from. Equal keys share a partition by murmur2, as Java clients do. Only the
//! settled prefix of a partition is ever committed. A rejected delivery is settled like an
//! acknowledged one: the delivery layer has written the dead letter before.
//!
//! A position is committed with a note: how many owners began to deliver there. It is durable
//! before the first delivery, and one that leaves in order takes its count back, so that what
//! remains are deaths. From the third on messages go out singly, each behind a commit of its
//! own, until the one that kills is out of attempts.
//!
//! A transaction gathers what is published and settled, and happens as a whole at its commit,
//! by a producer of the consumer's own. Its name is made of group and instance, so that with
//! an instance a successor fences its predecessor. Steps that may pass are tried again for
//! `transaction_timeout` and `outage_max` together; `Unavailable` says that nothing happened.
//! Where even the outcome stays unknown the consumer ends with an error that says so, and a
//! new one goes on behind what was committed.

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
mod groups;
mod lag;
mod log;
mod native;
mod oauth;
mod orphans;
mod producer;
mod queue;
mod start;
mod state;
mod transaction;
mod transactor;

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
