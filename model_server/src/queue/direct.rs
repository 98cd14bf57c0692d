//! No queue at all: predictions are published, and their input settled, in one transaction of
//! the broker. So each input has its prediction exactly once, whatever crashes.

use async_trait::async_trait;
use broker::{AckToken, Broker, Consumer, Outcome, Result, Topic};

use super::{Entry, Inlet};

/// The way straight to the predictions topic.
pub(super) struct Direct {
    topic: Topic,
    message_bytes_max: usize,
}

impl Direct {
    /// `Unsupported` where the broker has no transactions.
    pub(super) fn open(broker: &dyn Broker, topic: &Topic) -> Result<Self> {
        let has = broker.capabilities();
        has.require(has.transactions, "transactions, which [model] exactly_once = true needs")?;
        Ok(Self { topic: topic.clone(), message_bytes_max: has.message_bytes_max })
    }
}

#[async_trait]
impl Inlet for Direct {
    fn entry_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    async fn push(
        &mut self,
        entries: &[Entry],
        consumer: &mut dyn Consumer,
        outcomes: Vec<(AckToken, Outcome)>,
    ) -> Result<()> {
        let messages = entries.iter().flat_map(|entry| entry.messages.iter().cloned()).collect();
        let mut step = consumer.transaction().await?;
        step.publish(&self.topic, messages).await?;
        step.settle(outcomes).await?;
        step.commit().await
    }
}
