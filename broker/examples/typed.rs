//! Publishes and consumes values as JSON; what is no such value is rejected with its cause.
//!
//! `cargo run -p broker --example typed [-- --config FILE]`

mod common;

use std::sync::Arc;

use broker::codec::Json;
use broker::router::{Handler, Router};
use broker::{BrokerExt, Delivery, Failure, Group, Message, Result, Subscription, TopicSpec};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    item: String,
    count: u32,
}

struct Packing {
    packed: Arc<Semaphore>,
}

impl Handler for Packing {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        let order: Order = delivery.decode(&Json).await?;
        println!("packing {} of {:?}", order.count, order.item);
        self.packed.add_permits(1);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let stage = common::connect().await?;
    let topic = common::topic("orders")?;
    stage.broker.ensure_topic(&TopicSpec::new(&topic, 1)).await?;
    for (item, count) in [("apple", 3), ("pear", 5)] {
        let order = Order { item: item.to_owned(), count };
        stage.broker.publish_json(&topic, &order).await?;
        stage.broker.publish_one(&topic, Message::new("this is no order")).await?;
    }
    let packed = Arc::new(Semaphore::new(0));
    let packing = Packing { packed: packed.clone() };
    let subscription = Subscription::group(&topic, &Group::new("packing")?);
    let router = Router::new(stage.broker.clone()).handle(subscription, packing);
    router.run_until(packed.acquire_many(2)).await?;
    stage.close().await
}
