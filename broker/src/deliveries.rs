//! A subscription as a stream.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;

use crate::contract::Consumer;
use crate::delivery::{AckToken, Delivery, Outcome, Unsettled};
use crate::error::{Error, Result};
use crate::subscription::Limit;

/// The most deliveries that are received at once.
const BATCH_MAX: usize = 500;
/// How long one `receive` waits; the stream then asks again.
const RECEIVE_WAIT: Duration = Duration::from_secs(10);

/// What one round with the consumer gives; it comes back with it.
type Round = BoxFuture<'static, (Box<dyn Consumer>, Vec<Unsettled>, Result<Vec<Delivery>>)>;

enum State {
    Idle(Box<dyn Consumer>),
    Busy(Round),
    Ended,
}

/// The deliveries of a subscription, one after the other; made by
/// [`BrokerExt::deliveries`](crate::BrokerExt::deliveries).
///
/// Deliveries are received in batches, and settled in batches too: what was noted by
/// [`settle`](Self::settle) is settled before the stream asks for the next batch, and by
/// [`close`](Self::close). A delivery that takes longer than the subscription's deadline comes
/// again; [`Router`](crate::router::Router) looks after that and more. Errors are items: after
/// one that is retryable the stream goes on, after any other it ends. Dropping the stream gives
/// back what was not settled.
pub struct Deliveries {
    state: State,
    ready: VecDeque<Delivery>,
    errors: VecDeque<Error>,
    settled: Vec<(AckToken, Outcome)>,
}

impl Deliveries {
    pub(crate) fn new(consumer: Box<dyn Consumer>) -> Self {
        let (ready, errors, settled) = (VecDeque::new(), VecDeque::new(), Vec::new());
        Self { state: State::Idle(consumer), ready, errors, settled }
    }

    /// Notes that a delivery is done.
    pub fn ack(&mut self, delivery: Delivery) {
        self.settle(delivery, Outcome::Ack);
    }

    /// Notes what became of a delivery.
    pub fn settle(&mut self, delivery: Delivery, outcome: Outcome) {
        self.settled.push((delivery.into_token(), outcome));
    }

    /// Settles what was noted and ends; returns what could not be settled.
    pub async fn close(self) -> Vec<Unsettled> {
        let mut consumer = match self.state {
            State::Idle(consumer) => consumer,
            // What this round receives is given back.
            State::Busy(round) => match round.await {
                (consumer, unsettled, _) if unsettled.is_empty() => consumer,
                (_, unsettled, _) => return unsettled,
            },
            State::Ended => return Vec::new(),
        };
        consumer.settle(self.settled).await
    }

    fn begin(&mut self, mut consumer: Box<dyn Consumer>) -> Round {
        let settled = std::mem::take(&mut self.settled);
        Box::pin(async move {
            let unsettled = match settled.is_empty() {
                true => Vec::new(),
                false => consumer.settle(settled).await,
            };
            let received = consumer.receive(Limit::new(BATCH_MAX, RECEIVE_WAIT)).await;
            (consumer, unsettled, received)
        })
    }

    /// Takes in what a round gave.
    fn end(
        &mut self,
        consumer: Box<dyn Consumer>,
        unsettled: Vec<Unsettled>,
        received: Result<Vec<Delivery>>,
    ) {
        self.state = State::Idle(consumer);
        let failed = unsettled.into_iter().map(|unsettled| {
            if unsettled.error.is_retryable() {
                self.settled.push((unsettled.token, unsettled.outcome));
            }
            unsettled.error
        });
        // One failure mostly is that of all.
        self.errors.extend(failed.reduce(|first, _| first));
        match received {
            Ok(deliveries) => self.ready.extend(deliveries),
            Err(error) => {
                if !error.is_retryable() {
                    self.state = State::Ended;
                }
                self.errors.push_back(error);
            }
        }
    }
}

impl Stream for Deliveries {
    type Item = Result<Delivery>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(error) = this.errors.pop_front() {
                return Poll::Ready(Some(Err(error)));
            }
            if let Some(delivery) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(delivery)));
            }
            this.state = match std::mem::replace(&mut this.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Idle(consumer) => State::Busy(this.begin(consumer)),
                State::Busy(mut round) => match round.as_mut().poll(cx) {
                    Poll::Pending => {
                        this.state = State::Busy(round);
                        return Poll::Pending;
                    }
                    Poll::Ready((consumer, unsettled, received)) => {
                        this.end(consumer, unsettled, received);
                        continue;
                    }
                },
            };
        }
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::StreamExt;

    use super::*;
    use crate::error::ErrorKind;
    use crate::testing::{Call, Memory};
    use crate::{
        Broker, BrokerExt, Group, Message, Policy, Subscription, Topic, TopicSpec, testing,
    };

    async fn stage(count: usize) -> (testing::Memory, Arc<dyn Broker>, Subscription) {
        let memory = Memory::new();
        let broker = memory.connect(Policy::default());
        let (topic, group) = (Topic::new("topic").unwrap(), Group::new("group").unwrap());
        broker.ensure_topic(&TopicSpec::new(&topic, 1)).await.unwrap();
        let batch = (0..count).map(|number| Message::new(number.to_string())).collect();
        broker.publish_all(&topic, batch).await.unwrap();
        (memory, broker, Subscription::group(&topic, &group))
    }

    async fn behind(broker: &Arc<dyn Broker>, subscription: &Subscription) -> u64 {
        let group = subscription.group.as_ref().unwrap();
        broker.lag(&subscription.topic, group).await.unwrap()[0].behind
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_gives_everything_and_settles_in_batches() {
        let (_, broker, subscription) = stage(1200).await;
        let mut stream = broker.deliveries(subscription.clone()).await.unwrap();
        for number in 0..1100 {
            let delivery = stream.next().await.unwrap().unwrap();
            assert_eq!(delivery.payload, number.to_string());
            stream.ack(delivery);
        }
        assert_eq!(behind(&broker, &subscription).await, 200);
        assert!(stream.close().await.is_empty());
        assert_eq!(behind(&broker, &subscription).await, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_noted_is_settled_also_while_the_stream_waits() {
        let (_, broker, subscription) = stage(1).await;
        let mut stream = broker.deliveries(subscription.clone()).await.unwrap();
        let delivery = stream.next().await.unwrap().unwrap();
        stream.settle(delivery, Outcome::Ack);
        assert!(futures::poll!(stream.next()).is_pending());
        assert_eq!(behind(&broker, &subscription).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_items_and_only_hopeless_ones_end_the_stream() {
        let (memory, broker, subscription) = stage(2).await;
        memory.fail_next(Call::Receive, ErrorKind::Unavailable);
        let mut stream = broker.deliveries(subscription.clone()).await.unwrap();
        let kind = |item: Option<Result<Delivery>>| item.unwrap().unwrap_err().kind();
        assert_eq!(kind(stream.next().await), ErrorKind::Unavailable);
        for _ in 0..2 {
            let delivery = stream.next().await.unwrap().unwrap();
            stream.ack(delivery);
        }
        memory.fail_next(Call::Settle, ErrorKind::Throttled);
        memory.fail_next(Call::Receive, ErrorKind::PermissionDenied);
        assert_eq!(kind(stream.next().await), ErrorKind::Throttled);
        assert_eq!(kind(stream.next().await), ErrorKind::PermissionDenied);
        assert!(stream.next().await.is_none());
    }
}
