//! Consumes, transforms and publishes as one step, so that each input has one output even where
//! the process dies in between.
//!
//! `cargo run -p broker --example transactions [-- --config FILE]`

mod common;

use std::time::Duration;

use broker::{
    BrokerExt, Delivery, Event, Group, Limit, Message, Outcome, Result, Subscription, TopicSpec,
};

fn square(delivery: &Delivery) -> Message {
    let number: u64 = String::from_utf8_lossy(&delivery.payload).parse().unwrap_or_default();
    Message::new((number * number).to_string())
}

#[tokio::main]
async fn main() -> Result<()> {
    let stage = common::connect().await?;
    let broker = &stage.broker;
    let (numbers, squares) = (common::topic("numbers")?, common::topic("squares")?);
    for topic in [&numbers, &squares] {
        broker.ensure_topic(&TopicSpec::new(topic, 1)).await?;
    }
    let batch = (0..10).map(|number| Message::new(number.to_string())).collect();
    broker.publish_all(&numbers, batch).await?;

    let group = Group::new("squaring")?;
    // The name of the instance fences a process of before that hangs.
    let instance = Some("squaring-1".to_owned());
    let subscription = Subscription { instance, ..Subscription::group(&numbers, &group) };
    let mut consumer = broker.subscribe(subscription).await?;
    let mut done = 0;
    while done < 10 {
        let deliveries = consumer.receive(Limit::new(4, Duration::from_secs(1))).await?;
        if deliveries.is_empty() {
            continue;
        }
        done += deliveries.len();
        let results = deliveries.iter().map(square).collect();
        let settled = deliveries.into_iter().map(|it| (it.into_token(), Outcome::Ack)).collect();
        let mut transaction = consumer.transaction().await?;
        transaction.publish(&squares, results).await?;
        transaction.settle(settled).await?;
        transaction.commit().await?;
    }

    let mut reader = broker.subscribe(Subscription::reader(&squares)).await?;
    let mut caught_up = false;
    while !caught_up {
        for delivery in reader.receive(Limit::new(100, Duration::from_secs(1))).await? {
            println!("{}", String::from_utf8_lossy(&delivery.payload));
        }
        caught_up = reader.events().contains(&Event::CaughtUp);
    }
    stage.close().await
}
