#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

mod capabilities;
#[cfg(feature = "changelog")]
pub mod changelog;
pub mod cloudevents;
pub mod codec;
pub mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod deliveries;
mod delivery;
pub mod embedded;
mod error;
mod ext;
pub mod factory;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod layers;
mod message;
mod name;
mod partition;
mod policy;
#[cfg(feature = "pubsub")]
pub mod pubsub;
#[cfg(feature = "redis")]
pub mod redis;
pub mod request;
pub mod router;
mod subscription;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod window;

pub use capabilities::{Attempts, Capabilities, Durability};
pub use contract::{
    Admin, Broker, Consumer, GroupDescription, MemberDescription, PartitionDescription,
    PartitionLag, Published, TopicDescription, TopicSpec, Transaction,
};
pub use deliveries::Deliveries;
pub use delivery::{AckToken, Delivery, Outcome, Position, Unsettled};
pub use error::{Error, ErrorKind, Result};
pub use ext::BrokerExt;
pub use message::{Headers, Message, Timestamp};
pub use name::{Group, NAME_LENGTH_MAX, Topic};
pub use partition::partition_of;
pub use policy::{Backoff, Failure, Policy, Retryable};
pub use subscription::{Event, Limit, Seek, Start, Subscription};
