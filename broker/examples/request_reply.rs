//! Asks over a topic and waits for the answers.
//!
//! `cargo run -p broker --example request_reply [-- --config FILE]`

mod common;

use std::sync::Arc;

use broker::request::{Options, Reply, Requester};
use broker::router::{Handler, Router};
use broker::{
    Broker, BrokerExt, Delivery, Failure, Group, Message, Result, Subscription, TopicSpec,
};
use tokio::sync::oneshot;

/// Answers each question with its letters in capitals.
struct Shout(Arc<dyn Broker>);

impl Handler for Shout {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        let reply = Reply::to(delivery)?;
        let answer = Message::new(delivery.payload.to_ascii_uppercase());
        Ok(reply.send(&*self.0, answer).await?)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let stage = common::connect().await?;
    let broker = &stage.broker;
    let topic = common::topic("questions")?;
    broker.ensure_topic(&TopicSpec::new(&topic, 4)).await?;

    // The answering side, mostly another process.
    let (stop, stopped) = oneshot::channel::<()>();
    let subscription = Subscription::group(&topic, &Group::new("shouters")?);
    let router = Router::new(broker.clone()).handle(subscription, Shout(broker.clone()));
    let answering = tokio::spawn(router.run_until(stopped));

    let requester = Requester::open(broker.clone(), Options::default()).await?;
    for question in ["hello", "is anybody there"] {
        let answer = requester.request(&topic, Message::new(question)).await?;
        println!("{question} -> {}", String::from_utf8_lossy(&answer.payload));
    }
    requester.close().await?;
    drop(stop);
    answering.await.map_err(common::ended)??;
    stage.close().await
}
