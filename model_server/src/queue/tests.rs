//! The queue in the embedded store, shared with the broker and apart from it.

use std::path::Path;
use std::sync::Arc;

use broker::embedded::{self, Durability};
use broker::{
    BrokerExt, Delivery, ErrorKind, Event, Group, Limit, Message, Subscription, TopicSpec,
};

use super::*;

const WAIT: Duration = Duration::from_secs(20);

struct Stage {
    directory: tempfile::TempDir,
    broker: Arc<dyn Broker>,
    config: Config,
    consumer: Box<dyn Consumer>,
}

fn store(directory: &Path, name: &str) -> embedded::Config {
    let durability = Durability::Normal;
    embedded::Config { durability, ..embedded::Config::new(directory.join(name)) }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// A broker with five inputs, and a queue in its store or beside it.
async fn stage(is_shared: bool) -> Stage {
    let directory = tempfile::tempdir().unwrap();
    let broker = embedded::open(store(directory.path(), "broker")).await.unwrap();
    let images = topic("images");
    broker.ensure_topic(&TopicSpec::new(&images, 1)).await.unwrap();
    let inputs = (0..5).map(|number| Message::new(number.to_string())).collect();
    broker.publish_all(&images, inputs).await.unwrap();
    let kind = match is_shared {
        true => Kind::Broker,
        false => Kind::Embedded(store(directory.path(), "queue")),
    };
    let config = Config { name: topic("queue"), kind };
    let consumer = broker.subscribe(Subscription::group(&images, &group())).await.unwrap();
    Stage { directory, broker, config, consumer }
}

fn group() -> Group {
    Group::new("group").unwrap()
}

impl Stage {
    async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let mut taken: Vec<Delivery> = Vec::new();
        while taken.len() < count {
            let limit = Limit::new(count - taken.len(), WAIT);
            taken.extend(self.consumer.receive(limit).await.unwrap());
        }
        taken
    }

    /// Takes so many inputs and pushes them as one entry.
    async fn push(&mut self, count: usize) -> Result<()> {
        let mut inlet = self.config.inlet(&self.broker).await.unwrap();
        let taken = self.take(count).await;
        let messages = taken.iter().map(|delivery| delivery.message().clone()).collect();
        let outcomes = taken.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
        inlet.push(&[Entry { messages }], self.consumer.as_mut(), outcomes).await
    }

    async fn forward(&self, outlet: &mut dyn Outlet) -> Result<usize> {
        loop {
            let count = outlet.forward(self.broker.as_ref(), &topic("results"), WAIT).await?;
            if count > 0 {
                return Ok(count);
            }
        }
    }

    async fn make_results(&self) {
        self.broker.ensure_topic(&TopicSpec::new(&topic("results"), 1)).await.unwrap();
    }

    /// Everything that was published, in its order.
    async fn results(&self) -> Vec<String> {
        let mut reader =
            self.broker.subscribe(Subscription::reader(&topic("results"))).await.unwrap();
        let mut all = Vec::new();
        loop {
            let some = reader.receive(Limit::new(100, WAIT)).await.unwrap();
            all.extend(some.iter().map(|d| String::from_utf8(d.payload.to_vec()).unwrap()));
            if reader.events().contains(&Event::CaughtUp) {
                return all;
            }
        }
    }

    async fn committed(&self) -> Option<u64> {
        self.broker.lag(&topic("images"), &group()).await.unwrap()[0].committed
    }
}

async fn entries_leave_in_the_order_in_which_they_came(is_shared: bool) {
    let mut stage = stage(is_shared).await;
    stage.make_results().await;
    stage.push(2).await.unwrap();
    stage.push(3).await.unwrap();
    assert_eq!(stage.committed().await, Some(5), "the input is settled");
    let mut outlet = stage.config.outlet(&stage.broker).await.unwrap();
    assert_eq!(stage.forward(outlet.as_mut()).await.unwrap(), 5);
    assert_eq!(stage.results().await, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_shared_store_keeps_the_order() {
    entries_leave_in_the_order_in_which_they_came(true).await;
}

#[tokio::test]
async fn a_store_apart_keeps_the_order() {
    entries_leave_in_the_order_in_which_they_came(false).await;
}

async fn what_cannot_be_published_stays_first(is_shared: bool) {
    let mut stage = stage(is_shared).await;
    stage.push(2).await.unwrap();
    let mut outlet = stage.config.outlet(&stage.broker).await.unwrap();
    let error = stage.forward(outlet.as_mut()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    stage.push(3).await.unwrap();
    stage.make_results().await;
    let mut sent = 0;
    while sent < 5 {
        sent += stage.forward(outlet.as_mut()).await.unwrap();
    }
    assert_eq!(stage.results().await, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_shared_store_keeps_what_cannot_be_published() {
    what_cannot_be_published_stays_first(true).await;
}

#[tokio::test]
async fn a_store_apart_keeps_what_cannot_be_published() {
    what_cannot_be_published_stays_first(false).await;
}

#[tokio::test]
async fn in_a_shared_store_nothing_is_pushed_unless_its_input_is_settled() {
    let mut stage = stage(true).await;
    stage.make_results().await;
    let skipped = stage.take(1).await;
    let error = stage.push(2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "input 0 is open: {error}");
    drop(skipped);
    assert_eq!(stage.committed().await, Some(0));
    let mut outlet = stage.config.outlet(&stage.broker).await.unwrap();
    let wait = Duration::from_millis(300);
    let forwarded = outlet.forward(stage.broker.as_ref(), &topic("results"), wait).await;
    assert_eq!(forwarded.unwrap(), 0, "in {}", stage.directory.path().display());
}

#[tokio::test]
async fn one_publisher_works_and_another_takes_over() {
    let mut stage = stage(true).await;
    stage.make_results().await;
    let mut first = stage.config.outlet(&stage.broker).await.unwrap();
    let mut second = stage.config.outlet(&stage.broker).await.unwrap();
    stage.push(2).await.unwrap();
    assert_eq!(stage.forward(first.as_mut()).await.unwrap(), 2);
    stage.push(3).await.unwrap();
    let wait = Duration::from_millis(300);
    let idle = second.forward(stage.broker.as_ref(), &topic("results"), wait).await.unwrap();
    assert_eq!(idle, 0, "the first publisher has the queue");
    drop(first);
    assert_eq!(stage.forward(second.as_mut()).await.unwrap(), 3);
    assert_eq!(stage.results().await, ["0", "1", "2", "3", "4"]);
}
