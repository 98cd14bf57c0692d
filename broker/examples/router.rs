//! Runs a function over a subscription: eight messages at once, keys in their order.
//!
//! `cargo run -p broker --example router [-- --config FILE]`

mod common;

use std::sync::Arc;
use std::time::Duration;

use broker::router::{Handler, Router};
use broker::{
    BrokerExt, Delivery, Failure, Group, Message, Policy, Result, Subscription, TopicSpec,
};
use tokio::sync::Semaphore;

const ORDERS: u32 = 20;

/// What a handler needs is a field of it.
struct Accounting {
    done: Arc<Semaphore>,
}

impl Handler for Accounting {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        let order = std::str::from_utf8(&delivery.payload)?;
        // The first try of each fifth order fails; those behind it of its key wait for it.
        if order.ends_with('5') && delivery.attempt() == 1 {
            return Err(Failure::retry("the database is busy"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        println!("{order}, attempt {}", delivery.attempt());
        self.done.add_permits(1);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let stage = common::connect().await?;
    let topic = common::topic("orders")?;
    stage.broker.ensure_topic(&TopicSpec::new(&topic, 4)).await?;
    let order = |number: u32| {
        Message::new(format!("order {number}")).with_key(format!("customer {}", number % 5))
    };
    stage.broker.publish_all(&topic, (0..ORDERS).map(order).collect()).await?;

    let done = Arc::new(Semaphore::new(0));
    let accounting = Accounting { done: done.clone() };
    let subscription = Subscription::group(&topic, &Group::new("accounting")?);
    Router::new(stage.broker.clone())
        .concurrency(8)
        .policy(Policy::default().with_attempts(3))
        .handle(subscription, accounting)
        // A service waits for its signal to stop here.
        .run_until(done.acquire_many(ORDERS))
        .await?;
    stage.close().await
}
