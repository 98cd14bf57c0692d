//! A broker in memory, for tests of code that uses this crate.
//!
//! It keeps the whole contract: partitions, groups, deadlines, transactions. It has no threads,
//! tasks or files, and all its time is tokio's, so that a test under a paused clock
//! (`#[tokio::test(start_paused = true)]`) plays deadlines, retries and back-off at once and in
//! the same order each time. It keeps all messages and is of no use outside tests.
//!
//! ```
//! use broker::testing::Memory;
//! use broker::{BrokerExt, Message, Policy, Topic, TopicSpec};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> broker::Result<()> {
//! let memory = Memory::new();
//! let broker = memory.connect(Policy::default());
//! let topic = Topic::new("orders")?;
//! broker.ensure_topic(&TopicSpec::new(&topic, 4)).await?;
//! broker.publish_one(&topic, Message::new("two apples").with_key("ada")).await?;
//! assert_eq!(memory.published(&topic)[0].payload, "two apples");
//! # Ok(())
//! # }
//! ```

mod admin;
mod broker;
mod consumer;
mod groups;
mod log;
mod store;
mod transaction;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use store::Store;

use crate::contract::Broker;
use crate::error::ErrorKind;
use crate::layers::Delivery;
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::policy::Policy;

/// Topics and groups in memory, to which any number of brokers connect.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    store: Arc<Store>,
}

/// A call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Broker::publish`](crate::Broker::publish): none of its messages is written.
    Publish,
    /// [`Broker::subscribe`](crate::Broker::subscribe).
    Subscribe,
    /// [`Consumer::receive`](crate::Consumer::receive).
    Receive,
    /// [`Consumer::settle`](crate::Consumer::settle): all its tokens are handed back.
    Settle,
}

impl Memory {
    /// Without any topic.
    pub fn new() -> Self {
        Self::default()
    }

    /// A broker as the factory makes it, whose `policy` serves subscriptions without one.
    pub fn connect(&self, policy: Policy) -> Arc<dyn Broker> {
        Delivery::wrap(self.connect_bare(), policy)
    }

    /// A broker without layers: what is rejected is only settled.
    pub fn connect_bare(&self) -> Arc<dyn Broker> {
        Arc::new(broker::Connection::new(self.store.clone()))
    }

    /// What a topic holds, in the order in which it was published; nothing where it is missing.
    pub fn published(&self, topic: &Topic) -> Vec<Message> {
        self.store.lock().topics.get(topic).map(log::Log::published).unwrap_or_default()
    }

    /// Makes the next call of this kind fail, on any connection. Several add up.
    pub fn fail_next(&self, call: Call, kind: ErrorKind) {
        self.store.lock().faults.push((call, kind));
    }

    /// Takes all members of a group for dead, as if their processes had crashed: what they hold
    /// comes again. One that lives joins anew when it receives.
    pub fn evict(&self, group: &Group) {
        if let Some(group) = self.store.lock().groups.get_mut(group) {
            group.evict();
        }
        self.store.tell();
    }
}
