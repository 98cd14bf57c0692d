//! Google Cloud Pub/Sub, through Google's own client.
//!
//! | ours | Pub/Sub's |
//! |---|---|
//! | topic `images` | topic `projects/PROJECT/topics/images`, which retains its messages |
//! | group `workers` of it | subscription `images~workers`, ordered, which never expires |
//! | reader | a subscription `images~~…` of its own, deleted when the reader is dropped |
//! | key | ordering key; base64 with a marking attribute where it is no text |
//! | headers, timestamp | attributes |
//! | position | partition 0 and the message id, which grows without being dense |
//!
//! There are no partitions: members share single messages, and only messages of one key have
//! an order. A consumer holds what it was sent in a window, as on every other backend: the ack
//! deadline, `Retry { after }` and `extend` are kept there, while Google's client extends the
//! leases. An acknowledgement is sent within 100 ms, each for itself. With exactly-once delivery
//! that of the settled prefix is confirmed before `settle` returns, since Pub/Sub wants them in
//! order. A process that dies gives its messages back after `lease`.
//!
//! What Pub/Sub cannot tell is `Unsupported`: lag, offsets and seeking. Members are known only
//! where they share this connection. A reader cannot know where its topic ends: it is told that
//! it caught up once nothing came for `caught_up_after`. While Pub/Sub is out of reach the client
//! opens its stream anew for as long as it takes, and `receive` just waits; publishing fails.

mod admin;
mod broker;
mod clients;
mod config;
mod consumer;
mod convert;
mod error;
mod feeder;
mod headers;
mod names;
mod publisher;
mod seat;
mod state;

use std::sync::Arc;

pub use config::Config;

use crate::contract::Broker;
use crate::error::Result;

/// Connects to Pub/Sub, or to an emulator.
///
/// Fails with `ConfigInvalid` where there are no credentials, with `PermissionDenied` where
/// they are refused, and with `Unavailable` or `Timeout` where nobody answers within
/// `request_timeout`.
pub async fn connect(config: Config) -> Result<Arc<dyn Broker>> {
    Ok(Arc::new(broker::PubsubBroker::connect(config).await?))
}
