//! The first half of the model server: consume, predict, queue (or publish, in a transaction).
//!
//! One task owns the consumer. It hands batches to worker threads, each with a copy of the
//! model, and takes their results back in the order in which the batches were handed out; what
//! is ready by then goes to the queue as one step with the settlement of its input. So the
//! queue has the order of the partitions, and at most a bounded number of batches is out.

mod classifier;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use broker::{AckToken, Broker, Consumer, Error, ErrorKind, Limit, Outcome, Subscription};
use futures::FutureExt;
use futures::stream::{FuturesOrdered, StreamExt};

pub use classifier::{Classified, Classifier, Images};
pub use workers::{Done, Workers};

use crate::process::{self, Failure, Meter, Patience, Reason, Shutdown};
use crate::queue::{Entry, Inlet};
use crate::settings::Settings;

/// How long one `receive` waits; the loop is woken earlier by results and by shutdown.
const RECEIVE_WAIT: Duration = Duration::from_secs(1);
/// The most batches that are pushed and settled as one step.
const STEP_BATCHES_MAX: usize = 16;

/// Runs until it is asked to end, then drains what is in flight.
pub async fn run(settings: &Settings, shutdown: Shutdown) -> Result<(), Failure> {
    let broker = settings.connect().await?;
    let inlet = settings.inlet(&broker).await?;
    // Loaded before joining the group, so that no partition waits for it.
    let workers = Workers::start(settings, entry_limit(&broker, inlet.as_ref())).await?;
    tracing::info!(model = %workers.model(), broker = settings.broker.kind(), "ready");
    let subscription = Subscription::group(&settings.topics.images, &settings.model.group);
    let consumer = broker.subscribe(subscription.clone()).await?;
    shutdown.ready(&broker, &[(&subscription.topic, &settings.model.group)]);
    let mut subscriber = Subscriber {
        consumer,
        broker: broker.clone(),
        subscription,
        inlet,
        workers,
        meter: Meter::new("images predicted", None),
        patience: Patience::default(),
        shutdown,
        out: FuturesOrdered::new(),
    };
    let ended = subscriber.serve().await;
    subscriber.meter.finish();
    drop(subscriber);
    broker.shutdown().await?;
    ended
}

/// The largest message that fits everything it passes through.
fn entry_limit(broker: &Arc<dyn Broker>, inlet: &dyn Inlet) -> usize {
    let entry = crate::queue::messages_max_bytes(inlet.entry_bytes_max());
    broker.capabilities().message_bytes_max.min(entry)
}

type Pending = std::pin::Pin<Box<dyn Future<Output = Result<Done, Failure>> + Send>>;

struct Subscriber {
    broker: Arc<dyn Broker>,
    subscription: Subscription,
    consumer: Box<dyn Consumer>,
    inlet: Box<dyn Inlet>,
    workers: Workers,
    meter: Meter,
    patience: Patience,
    shutdown: Shutdown,
    /// Batches with the workers, in the order in which they were received.
    out: FuturesOrdered<Pending>,
}

impl Subscriber {
    async fn serve(&mut self) -> Result<(), Failure> {
        while !self.shutdown.is_wanted() {
            self.step().await?;
        }
        while let Some(done) = self.out.next().await {
            self.push(done?).await?;
        }
        Ok(())
    }

    /// Waits for whatever comes first: a result, new images, or the wish to end.
    async fn step(&mut self) -> Result<(), Failure> {
        let limit = Limit::new(self.workers.batch_max(), RECEIVE_WAIT);
        let has_room = self.out.len() < self.workers.depth_max();
        tokio::select! {
            biased;
            Some(done) = self.out.next() => self.push(done?).await,
            () = self.shutdown.wanted() => Ok(()),
            received = self.consumer.receive(limit), if has_room => {
                match received {
                    Ok(deliveries) => {
                        process::note(self.consumer.events());
                        if !deliveries.is_empty() {
                            self.out.push_back(self.workers.submit(deliveries).boxed());
                        }
                        Ok(())
                    }
                    Err(error) => self.patience.bear(error, &self.shutdown).await,
                }
            }
        }
    }

    /// Pushes a result, with those behind it that are ready too, and settles their input.
    async fn push(&mut self, first: Done) -> Result<(), Failure> {
        let mut entries = Vec::new();
        let mut outcomes: Vec<(AckToken, Outcome)> = Vec::new();
        let mut next = Some(first);
        for _ in 0..STEP_BATCHES_MAX {
            let Some(done) = next else { break };
            entries.extend(Entry::pack(done.ready, self.inlet.entry_bytes_max()));
            outcomes.extend(done.outcomes);
            next = self.out.next().now_or_never().flatten().transpose()?;
        }
        let count = outcomes.len() as u64;
        if let Err(error) = self.inlet.push(&entries, self.consumer.as_mut(), outcomes).await {
            return self.recover(error).await;
        }
        self.meter.add(count);
        self.patience.reset();
        match next {
            // What was taken beyond the bound is pushed at once: its place is here.
            Some(done) => Box::pin(self.push(done)).await,
            None => Ok(()),
        }
    }

    /// Begins anew behind what is settled, after a step that failed. What was computed beyond
    /// it is dropped, since queueing it first would break the order.
    async fn recover(&mut self, error: Error) -> Result<(), Failure> {
        while self.out.next().await.is_some() {}
        // A partition that moved away is its new owner's to predict.
        if error.kind() == ErrorKind::Fenced {
            tracing::warn!(?error, "results of a partition that moved away are dropped");
        } else {
            self.patience.bear(error, &self.shutdown).await?;
        }
        match self.broker.subscribe(self.subscription.clone()).await {
            Ok(consumer) => {
                self.consumer = consumer;
                Ok(())
            }
            Err(error) => Box::pin(self.recover(error)).await,
        }
    }
}

/// A failure of the model or its worker.
fn worker_failed(message: impl Into<String>) -> Failure {
    Failure::new(Reason::Unexpected, message)
}
