//! Moves a consumer back, to process again what it has processed before.
//!
//! `cargo run -p broker --example replay [-- --config FILE]`

mod common;

use std::time::Duration;

use broker::{
    BrokerExt, Consumer, Group, Limit, Message, Outcome, Result, Seek, Start, Subscription,
    Timestamp, TopicSpec,
};

/// Receives and acknowledges so many messages.
async fn consume(consumer: &mut dyn Consumer, count: usize) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    while texts.len() < count {
        let deliveries = consumer.receive(Limit::new(100, Duration::from_secs(1))).await?;
        texts.extend(deliveries.iter().map(|it| String::from_utf8_lossy(&it.payload).into_owned()));
        let done = deliveries.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack));
        if let Some(unsettled) = consumer.settle(done.collect()).await.pop() {
            return Err(unsettled.error);
        }
    }
    Ok(texts)
}

#[tokio::main]
async fn main() -> Result<()> {
    let stage = common::connect().await?;
    let broker = &stage.broker;
    let topic = common::topic("events")?;
    broker.ensure_topic(&TopicSpec::new(&topic, 1)).await?;
    // Whole seconds of a recent time: Kafka keeps milliseconds, and lets old messages go.
    let hour_ago = Timestamp::now().as_micros() / 1_000_000 * 1_000_000 - 3_600_000_000;
    let time = |minute: i64| Timestamp::from_micros(hour_ago + minute * 60_000_000);
    let event = |minute: i64| Message {
        timestamp: Some(time(minute)),
        ..Message::new(format!("minute {minute}"))
    };
    broker.publish_all(&topic, (0..5).map(event).collect()).await?;

    let group = Group::new("watching")?;
    let mut consumer = broker.subscribe(Subscription::group(&topic, &group)).await?;
    println!("at first: {:?}", consume(&mut *consumer, 5).await?);
    let places = [
        ("from the beginning", Start::Earliest, 5),
        ("from offset 3", Start::Offset(3), 2),
        ("from the time of minute 2", Start::Time(time(2)), 3),
    ];
    for (name, to, count) in places {
        consumer.seek(Seek { partition: None, to }).await?;
        println!("{name}: {:?}", consume(&mut *consumer, count).await?);
    }
    stage.close().await
}
