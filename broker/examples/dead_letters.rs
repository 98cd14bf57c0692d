//! What can't be processed is put aside with its cause, and the stream goes on.
//!
//! `cargo run -p broker --example dead_letters [-- --config FILE]`

mod common;

use broker::router::Router;
use broker::{
    BrokerExt, Delivery, Failure, Group, Message, Policy, Result, Subscription, TopicSpec,
};
use futures::StreamExt;

/// A number is fine; anything else never will be.
async fn add_up(delivery: &Delivery) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(&delivery.payload);
    let number: i64 =
        text.parse().map_err(|_| Failure::reject(format!("{text:?} is no number")))?;
    println!("got {number}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let stage = common::connect().await?;
    let broker = &stage.broker;
    let (numbers, dead) = (common::topic("numbers")?, common::topic("dead")?);
    for topic in [&numbers, &dead] {
        broker.ensure_topic(&TopicSpec::new(topic, 1)).await?;
    }
    let batch = ["1", "two", "3"].map(Message::new).to_vec();
    broker.publish_all(&numbers, batch).await?;

    let policy = Policy::default().with_attempts(3).with_dead_letters(&dead);
    let subscription = Subscription::group(&numbers, &Group::new("adding")?);
    let mut letters = broker.deliveries(Subscription::reader(&dead)).await?;
    Router::new(broker.clone())
        .policy(policy)
        .handle(subscription, add_up)
        .run_until(async {
            // A dead letter is the message as it was, with headers that tell why and whence.
            if let Some(Ok(letter)) = letters.next().await {
                println!("put aside: {}", String::from_utf8_lossy(&letter.payload));
                for (name, value) in letter.headers.iter() {
                    println!("  {name}: {}", String::from_utf8_lossy(value));
                }
            }
        })
        .await?;
    stage.close().await
}
