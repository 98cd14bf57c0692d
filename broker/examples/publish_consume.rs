//! Publishes a batch, and consumes it as a member of a group.
//!
//! `cargo run -p broker --example publish_consume [-- --config FILE]`

mod common;

use std::time::Duration;

use broker::{BrokerExt, Group, Limit, Message, Outcome, Result, Subscription, TopicSpec};

#[tokio::main]
async fn main() -> Result<()> {
    let stage = common::connect().await?;
    let broker = &stage.broker;
    let topic = common::topic("orders")?;
    broker.ensure_topic(&TopicSpec::new(&topic, 4)).await?;

    // Messages of equal keys share a partition and keep their order.
    let order = |number: u32| {
        Message::new(format!("order {number}")).with_key(format!("customer {}", number % 3))
    };
    let positions = broker.publish_all(&topic, (0..9).map(order).collect()).await?;
    println!("published {} messages", positions.len());

    let group = Group::new("accounting")?;
    let mut consumer = broker.subscribe(Subscription::group(&topic, &group)).await?;
    let mut count = 0;
    while count < positions.len() {
        let deliveries = consumer.receive(Limit::new(100, Duration::from_secs(1))).await?;
        for delivery in &deliveries {
            println!("{} {}", delivery.position(), String::from_utf8_lossy(&delivery.payload));
        }
        count += deliveries.len();
        let done = deliveries.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack));
        if let Some(unsettled) = consumer.settle(done.collect()).await.pop() {
            return Err(unsettled.error);
        }
    }
    stage.close().await
}
