//! The async side of a consumer: it delivers from the window that the task fills.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use google_cloud_pubsub::subscriber::handler::Handler;
use tokio::time::{Instant, timeout, timeout_at};

use super::broker::Inner;
use super::error::unacknowledged;
use super::feeder::Feeder;
use super::seat;
use super::state::{Link, Unconfirmed};
use crate::contract::{Consumer, Transaction};
use crate::delivery::{AckToken, Delivery, Outcome, Unsettled};
use crate::error::{Error, ErrorKind, Result};
use crate::subscription::{Event, Limit, Seek, Subscription};

pub(super) struct PubsubConsumer {
    link: Arc<Link>,
    inner: Arc<Inner>,
}

/// Opens a consumer; a topic that is missing is `NotFound`.
pub(super) async fn subscribe(inner: Arc<Inner>, wish: Subscription) -> Result<PubsubConsumer> {
    let client = inner.clients.subscriber().await?;
    let seat = seat::take(&inner, &wish).await?;
    let link = Arc::new(Link::new(wish, seat.since, inner.config.caught_up_after));
    inner.enrol(&link)?;
    tokio::spawn(Feeder::new(inner.clone(), link.clone(), seat, client).run());
    Ok(PubsubConsumer { link, inner })
}

impl PubsubConsumer {
    async fn confirm(&self, unconfirmed: Unconfirmed) -> Option<Unsettled> {
        let Unconfirmed { token, outcome, handler } = unconfirmed;
        let Handler::ExactlyOnce(handler) = handler else {
            handler.ack();
            return None;
        };
        let max = self.inner.config.request_timeout;
        let error = match timeout(max, handler.confirmed_ack()).await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => unacknowledged(error),
            Err(_) => {
                let problem = "the acknowledgement was not confirmed in time";
                Error::new(ErrorKind::Timeout, "settle", problem).with_retryable(false)
            }
        };
        Some(Unsettled { token, outcome, error })
    }

    fn unsupported(&self, operation: &'static str, feature: &'static str) -> Error {
        let problem = format!("the pubsub broker has no {feature}");
        Error::new(ErrorKind::Unsupported, operation, problem)
    }
}

#[async_trait]
impl Consumer for PubsubConsumer {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        let until = Instant::now() + limit.wait;
        let topic = &self.link.wish.topic;
        loop {
            let (taken, wake) = {
                let mut state = self.link.lock();
                (state.take(topic, limit.messages), state.next_wake())
            };
            if let Some(taken) = taken {
                self.link.room.notify_one();
                return taken;
            }
            if Instant::now() >= until {
                return Ok(Vec::new());
            }
            let wake = wake.map_or(until, |wake| wake.min(until));
            // Running out of time is answered by looking again.
            let _ = timeout_at(wake, self.link.arrived.notified()).await;
        }
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        if self.link.wish.group.is_none() {
            return Vec::new();
        }
        let unconfirmed = {
            let mut state = self.link.lock();
            if let Err(error) = state.check_open("settle") {
                let give =
                    |(token, outcome)| Unsettled { token, outcome, error: error.duplicate() };
                return outcomes.into_iter().map(give).collect();
            }
            state.settle(outcomes)
        };
        self.link.room.notify_one();
        // One by one each would wait for a request of its own.
        let confirmed = join_all(unconfirmed.into_iter().map(|ack| self.confirm(ack))).await;
        confirmed.into_iter().flatten().collect()
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        let mut state = self.link.lock();
        state.check_open("extend")?;
        state.extend(tokens, Instant::now() + by);
        Ok(())
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        self.link.lock().check_open("seek")?;
        Err(self.unsupported("seek", "offsets to seek to").with("to", format!("{:?}", seek.to)))
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        self.link.lock().check_open("transaction")?;
        Err(self.unsupported("transaction", "transactions"))
    }

    fn events(&mut self) -> Vec<Event> {
        self.link.lock().take_events()
    }
}

impl fmt::Debug for PubsubConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wish = &self.link.wish;
        let consumer = &mut f.debug_struct("PubsubConsumer");
        consumer.field("topic", &wish.topic).field("group", &wish.group).finish_non_exhaustive()
    }
}

impl Drop for PubsubConsumer {
    /// The task gives back what is open and ends.
    fn drop(&mut self) {
        self.link.end(Error::new(ErrorKind::Closed, "receive", "the consumer was dropped"));
    }
}
