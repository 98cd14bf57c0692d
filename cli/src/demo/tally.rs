//! Counts a topic's messages by reading them, for brokers that cannot tell.

use std::time::Duration;

use broker::{Broker, Consumer, Limit, Subscription, Topic};
use model_server::process::Failure;

/// How many messages one `receive` takes.
const BATCH: usize = 1000;

pub(super) struct Tally {
    reader: Box<dyn Consumer>,
    count: u64,
}

impl Tally {
    pub(super) async fn of(broker: &dyn Broker, topic: &Topic) -> Result<Self, Failure> {
        let reader = broker.subscribe(Subscription::reader(topic)).await?;
        Ok(Self { reader, count: 0 })
    }

    /// How many came so far; waits for none.
    pub(super) async fn count(&mut self) -> Result<u64, Failure> {
        loop {
            let came = self.reader.receive(Limit::new(BATCH, Duration::ZERO)).await?.len();
            // An event is told by none at once, behind which there may be more.
            if came == 0 && self.reader.events().is_empty() {
                return Ok(self.count);
            }
            self.count += came as u64;
        }
    }
}
