//! Requests that are answered over topics.
//!
//! A [`Requester`] has a topic of its own for the answers. A request names it in the header
//! `reply-to`, beside a `correlation-id` that the answer repeats. Whoever handles requests
//! answers by [`Reply`].
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use broker::request::{Options, Reply, Requester};
//! use broker::router::{Handler, Router};
//! use broker::{Broker, Delivery, Failure, Group, Message, Subscription, Topic};
//!
//! struct Shout(Arc<dyn Broker>);
//!
//! impl Handler for Shout {
//!     async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
//!         let reply = Reply::to(delivery)?;
//!         let answer = Message::new(delivery.payload.to_ascii_uppercase());
//!         Ok(reply.send(&*self.0, answer).await?)
//!     }
//! }
//!
//! async fn answer(broker: Arc<dyn Broker>, topic: &Topic) -> broker::Result<()> {
//!     let subscription = Subscription::group(topic, &Group::new("shouters")?);
//!     Router::new(broker.clone()).handle(subscription, Shout(broker)).run().await
//! }
//!
//! async fn ask(broker: Arc<dyn Broker>, topic: &Topic) -> broker::Result<()> {
//!     let requester = Requester::open(broker, Options::default()).await?;
//!     let answer = requester.request(topic, Message::new("hello")).await?;
//!     assert_eq!(answer.payload, "HELLO");
//!     requester.close().await
//! }
//! ```

mod reply;
mod requester;

#[cfg(test)]
mod tests;

pub use reply::Reply;
pub use requester::{Options, Requester};

/// The header that names the topic for the answer.
pub const REPLY_TO: &str = "reply-to";
/// The header that an answer repeats from its request.
pub const CORRELATION_ID: &str = "correlation-id";
