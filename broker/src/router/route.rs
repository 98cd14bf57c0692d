//! One subscription of a router: the task that owns the consumer.
//!
//! It receives, settles and keeps the deadlines; the workers only run handlers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::board::Board;
use super::work::{Lane, Serve};
use crate::contract::{Broker, Consumer};
use crate::delivery::{AckToken, Delivery, Outcome, Unsettled};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{Backoff, Policy};
use crate::subscription::{Event, Limit, Subscription};

/// How long one `receive` waits; the loop is woken earlier by results and by shutdown.
const RECEIVE_WAIT: Duration = Duration::from_secs(10);
/// How often a consumer is asked for more while there is no room, so that it keeps its share.
const FULL_WAIT: Duration = Duration::from_secs(1);
/// How often the deadline is moved in the time that it leaves.
const EXTENSIONS: u32 = 3;
/// After so many failures in a row the consumer is given up for a new one.
const FAILURES_MAX: u32 = 3;

/// What to run on what.
pub(super) struct Route {
    pub(super) subscription: Subscription,
    pub(super) serve: Box<dyn Serve>,
}

/// How all routes of a router run.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) concurrency: usize,
    pub(super) policy: Option<Policy>,
    pub(super) grace: Duration,
}

/// Why a consumer is not used any more.
enum Broken {
    /// Another one may do better.
    Consumer(Error),
    /// No other would.
    Route(Error),
}

/// What comes first.
enum Step {
    Shutdown,
    Results,
    Deadlines,
    Received(Result<Vec<Delivery>>),
}

struct Driver {
    broker: Arc<dyn Broker>,
    subscription: Subscription,
    policy: Policy,
    serve: Box<dyn Serve>,
    board: Arc<Board>,
    workers: JoinSet<()>,
    stop: watch::Receiver<bool>,
    grace: Duration,
    failures: u32,
    next_extension: Instant,
    /// When the consumer is asked next though there is no room.
    next_look: Instant,
}

impl Route {
    /// Runs until it is asked to stop, or until an error that no retry helps.
    pub(super) async fn run(self, terms: Terms, stop: watch::Receiver<bool>) -> Result<()> {
        let Self { mut subscription, serve } = self;
        if subscription.group.is_none() {
            let problem = "a reader settles nothing; give the subscription a group";
            let error = Error::new(ErrorKind::Unsupported, "route", problem);
            return Err(error.with("topic", &subscription.topic));
        }
        subscription.policy = subscription.policy.or(terms.policy);
        let policy = subscription.policy.clone().unwrap_or_default();
        let board = Arc::new(Board::new(terms.concurrency, &subscription));
        let mut workers = JoinSet::new();
        for worker in 0..terms.concurrency {
            let lane = Lane { board: board.clone(), worker, policy: policy.clone() };
            workers.spawn(serve.work(lane));
        }
        let (next_extension, next_look) = (Instant::now(), Instant::now());
        let (broker, grace, failures) = (terms.broker, terms.grace, 0);
        let driver = Driver {
            broker,
            subscription,
            policy,
            serve,
            board,
            workers,
            stop,
            grace,
            failures,
            next_extension,
            next_look,
        };
        driver.run().await
    }
}

impl Driver {
    async fn run(mut self) -> Result<()> {
        loop {
            let Some(mut consumer) = self.subscribe().await? else { return Ok(()) };
            let broken = match self.consume(consumer.as_mut()).await {
                Ok(()) => {
                    self.drain(consumer.as_mut()).await;
                    return Ok(());
                }
                Err(broken) => broken,
            };
            match broken {
                Broken::Consumer(error) => {
                    let topic = &self.subscription.topic;
                    tracing::warn!(%topic, ?error, "the consumer is replaced");
                    self.board.clear();
                }
                Broken::Route(error) => {
                    self.drain(consumer.as_mut()).await;
                    return Err(error);
                }
            }
        }
    }

    /// A consumer, or nothing where it is time to stop.
    async fn subscribe(&mut self) -> Result<Option<Box<dyn Consumer>>> {
        while !*self.stop.borrow() {
            match self.broker.subscribe(self.subscription.clone()).await {
                Ok(consumer) => return Ok(Some(consumer)),
                Err(error) if error.is_retryable() || error.kind() == ErrorKind::Fenced => {
                    let topic = &self.subscription.topic;
                    tracing::warn!(%topic, ?error, "subscribing failed and is tried again");
                    self.pause().await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Waits longer after each failure in a row, but not beyond the wish to stop.
    async fn pause(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let until = Instant::now() + Backoff::default().pause(self.failures);
        // Running out of time is what is waited for; a sender that is gone stops the route too.
        let _ = timeout_at(until, self.stop.wait_for(|stop| *stop)).await;
    }

    /// Receives and settles until it is time to stop.
    async fn consume(&mut self, consumer: &mut dyn Consumer) -> Result<(), Broken> {
        self.next_extension = Instant::now() + self.extension_interval();
        loop {
            match self.step(consumer).await {
                Step::Shutdown => return Ok(()),
                Step::Results => self.settle(consumer).await?,
                Step::Deadlines => self.extend(consumer).await?,
                Step::Received(Ok(deliveries)) => {
                    self.failures = 0;
                    self.next_look = Instant::now() + FULL_WAIT;
                    self.note(consumer.events());
                    self.dispatch(consumer, deliveries).await?;
                }
                Step::Received(Err(error)) => self.bear(error).await?,
            }
        }
    }

    async fn step(&mut self, consumer: &mut dyn Consumer) -> Step {
        if self.board.has_batch() {
            return Step::Results;
        }
        let room = self.board.room();
        let mut stop = pin!(self.stop.wait_for(|stop| *stop).map(drop).fuse());
        let mut results = pin!(self.board.results(room > 0).fuse());
        let mut deadlines = pin!(sleep_until(self.next_extension).fuse());
        let mut received = pin!(receive(consumer, room, self.next_look).fuse());
        futures::select_biased! {
            () = stop => Step::Shutdown,
            () = results => Step::Results,
            () = deadlines => Step::Deadlines,
            received = received => Step::Received(received),
        }
    }

    /// Runs what was received, by the workers or right here.
    async fn dispatch(
        &mut self,
        consumer: &mut dyn Consumer,
        deliveries: Vec<Delivery>,
    ) -> Result<(), Broken> {
        if deliveries.is_empty() || !self.board.is_swift() {
            self.board.push(deliveries);
            return Ok(());
        }
        self.board.inlined(self.serve.inline(&self.policy, deliveries));
        // Nothing was waited for, so that others may be waiting for this thread by now.
        tokio::task::yield_now().await;
        self.settle(consumer).await
    }

    fn note(&self, events: Vec<Event>) {
        let topic = &self.subscription.topic;
        for event in events {
            tracing::debug!(%topic, ?event, "the assignment changed");
            if let Event::Revoked(partitions) = event {
                self.board.forget(&partitions);
            }
        }
    }

    fn extension_interval(&self) -> Duration {
        (self.subscription.ack_deadline / EXTENSIONS).max(Duration::from_millis(1))
    }

    /// Keeps what is queued or at work from coming again.
    async fn extend(&mut self, consumer: &mut dyn Consumer) -> Result<(), Broken> {
        self.next_extension = Instant::now() + self.extension_interval();
        self.board.expire();
        let tokens = self.board.lent();
        let tokens: Vec<&AckToken> = tokens.iter().collect();
        if tokens.is_empty() {
            return Ok(());
        }
        match consumer.extend(&tokens, self.subscription.ack_deadline).await {
            Ok(()) => Ok(()),
            Err(error) => self.bear(error).await,
        }
    }

    /// Settles the results. Rejections go last and by themselves, since a dead letter that is
    /// refused fails all that is settled with it.
    async fn settle(&mut self, consumer: &mut dyn Consumer) -> Result<(), Broken> {
        let results = self.board.take_results();
        if results.is_empty() {
            return Ok(());
        }
        let is_rejection =
            |(_, outcome): &(AckToken, Outcome)| matches!(outcome, Outcome::Reject { .. });
        if !results.iter().any(is_rejection) {
            let unsettled = consumer.settle(results).await;
            return self.try_again(unsettled).await;
        }
        let (rejected, settled) = results.into_iter().partition(is_rejection);
        let unsettled = consumer.settle(settled).await;
        let refused = consumer.settle(rejected).await;
        let again: Vec<_> = refused.into_iter().map(|refused| self.resume(refused)).collect();
        // What fails here too is brought back by its deadline.
        let _ = consumer.settle(again).await;
        self.try_again(unsettled).await
    }

    /// A message whose dead letter is refused comes again, and its dead letter is tried again.
    fn resume(&self, Unsettled { token, error, .. }: Unsettled) -> (AckToken, Outcome) {
        let (topic, position) = (token.topic(), token.position());
        tracing::error!(%topic, %position, ?error, "a dead letter is refused; its source stays");
        let after = self.policy.backoff.pause(token.attempt());
        (token, Outcome::Retry { after })
    }

    async fn try_again(&mut self, unsettled: Vec<Unsettled>) -> Result<(), Broken> {
        let mut error = None;
        let mut results = Vec::with_capacity(unsettled.len());
        for unsettled in unsettled {
            results.push((unsettled.token, unsettled.outcome));
            error.get_or_insert(unsettled.error);
        }
        let Some(error) = error else { return Ok(()) };
        self.board.put_back(results);
        self.bear(error).await
    }

    /// Pauses after an error that passes.
    async fn bear(&mut self, error: Error) -> Result<(), Broken> {
        if !error.is_retryable() && error.kind() != ErrorKind::Fenced {
            return Err(Broken::Route(error));
        }
        let topic = &self.subscription.topic;
        tracing::warn!(%topic, ?error, "the consumer failed and is tried again");
        self.pause().await;
        if error.kind() == ErrorKind::Fenced || self.failures >= FAILURES_MAX {
            return Err(Broken::Consumer(error));
        }
        Ok(())
    }

    /// Lets the workers end within the grace period, and settles what they did.
    async fn drain(&mut self, consumer: &mut dyn Consumer) {
        self.board.close();
        let until = Instant::now() + self.grace;
        while !self.board.is_idle() && Instant::now() < until {
            self.drain_some(consumer, until).await;
        }
        let count = self.board.lent().len();
        if count > 0 {
            let topic = &self.subscription.topic;
            tracing::warn!(%topic, count, "handlers outlasted the grace period");
        }
        self.workers.shutdown().await;
        self.settle_last(consumer).await;
    }

    async fn drain_some(&mut self, consumer: &mut dyn Consumer, until: Instant) {
        let wake = self.next_extension.min(until);
        if timeout_at(wake, self.board.results(false)).await.is_ok() {
            self.settle_last(consumer).await;
        } else if let Err(Broken::Consumer(error) | Broken::Route(error)) =
            self.extend(consumer).await
        {
            tracing::warn!(?error, "deadlines are not kept any more");
        }
    }

    /// What can't be settled comes again to others.
    async fn settle_last(&mut self, consumer: &mut dyn Consumer) {
        if let Err(Broken::Consumer(error) | Broken::Route(error)) = self.settle(consumer).await {
            tracing::warn!(?error, "results are lost; their messages come again");
            self.board.clear();
        }
    }
}

/// Asks for as much as there is room for; without room only now and then, for a single message,
/// which keeps the consumer to its share of the group.
async fn receive(
    consumer: &mut dyn Consumer,
    room: usize,
    next_look: Instant,
) -> Result<Vec<Delivery>> {
    if room > 0 {
        return consumer.receive(Limit::new(room, RECEIVE_WAIT)).await;
    }
    sleep_until(next_look).await;
    consumer.receive(Limit::new(1, Duration::ZERO)).await
}
