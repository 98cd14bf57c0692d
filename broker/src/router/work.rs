//! What each worker does: take a chunk, run the handler, note what became of it.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, OptionFuture, poll_immediate};
use tokio::time::Instant;

use super::board::{Begun, Board, Chunk, Inlined, Job};
use super::handler::{BatchHandler, Handler};
use super::queue::{Share, copies};
use crate::delivery::{Delivery, Outcome};
use crate::policy::{Failure, Policy};

/// The most messages that a worker takes at once.
const CHUNK_MAX: usize = 64;
/// A chunk that takes longer is too large: the rest is left to others.
const CHUNK_TIME_MAX: Duration = Duration::from_millis(1);
/// A full chunk that takes less shows that handlers cost less than handing them around.
const SWIFT_TIME_MAX: Duration = Duration::from_micros(200);
/// How long deliveries are run where they are received, before workers take over.
const INLINE_TIME_MAX: Duration = Duration::from_millis(4);
/// After how many deliveries there the clock is looked at.
const CLOCK_EVERY: usize = 16;

/// A worker's place.
pub(super) struct Lane {
    pub(super) board: Arc<Board>,
    pub(super) worker: usize,
    pub(super) policy: Policy,
}

impl Lane {
    fn outcome(&self, delivery: &Delivery, result: Result<(), Failure>) -> Outcome {
        outcome(&self.policy, delivery, result)
    }
}

/// What a delivery is settled with.
fn outcome(policy: &Policy, delivery: &Delivery, result: Result<(), Failure>) -> Outcome {
    let Err(failure) = result else { return Outcome::Ack };
    let (topic, position, attempt) = (delivery.topic(), delivery.position(), delivery.attempt());
    let outcome = policy.outcome(attempt, failure.clone());
    let reason = failure.reason();
    match &outcome {
        Outcome::Retry { after } => {
            tracing::debug!(%topic, %position, attempt, ?after, reason, "a handler failed");
        }
        _ => tracing::warn!(%topic, %position, attempt, reason, "a message is rejected"),
    }
    outcome
}

/// How a route's handler is run.
pub(super) trait Serve: Send + Sync {
    /// Runs it as a worker, until the board is closed.
    fn work(&self, lane: Lane) -> BoxFuture<'static, ()>;

    /// Runs it on the spot, as far as it goes.
    fn inline(&self, policy: &Policy, deliveries: Vec<Delivery>) -> Inlined;
}

/// A handler of single deliveries.
pub(super) struct Singles<H>(pub(super) Arc<H>);

/// A handler of batches, and the largest that it takes.
pub(super) struct Batches<H>(pub(super) Arc<H>, pub(super) usize);

impl<H: Handler> Serve for Singles<H> {
    fn work(&self, lane: Lane) -> BoxFuture<'static, ()> {
        singles(lane, self.0.clone()).boxed()
    }

    fn inline(&self, policy: &Policy, deliveries: Vec<Delivery>) -> Inlined {
        inline(policy, self.0.clone(), deliveries)
    }
}

impl<H: BatchHandler> Serve for Batches<H> {
    fn work(&self, lane: Lane) -> BoxFuture<'static, ()> {
        batches(lane, self.0.clone(), self.1).boxed()
    }

    fn inline(&self, _: &Policy, deliveries: Vec<Delivery>) -> Inlined {
        Inlined { rest: deliveries, ..Inlined::default() }
    }
}

/// Whether what follows of the key has to wait for the message to come again.
fn holds(delivery: &Delivery, outcome: &Outcome) -> bool {
    delivery.key.is_some() && matches!(outcome, Outcome::Retry { .. })
}

/// A panic is a failure like others.
async fn guarded(handling: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let caught = AssertUnwindSafe(handling).catch_unwind().await;
    caught.unwrap_or_else(|panic| Err(Failure::retry(format!("panicked: {}", message(&*panic)))))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Runs deliveries one by one until the board is closed.
///
/// A handler that does not wait for anything costs no more than its call: such are run in ever
/// larger chunks. One that waits gives the rest of its chunk back first, so that nothing stands
/// behind it while another worker is free.
async fn singles<H: Handler>(lane: Lane, handler: Arc<H>) {
    let mut size = 1;
    while let Some(job) = lane.board.take(lane.worker, Share::Fair(size)).await {
        let swift = match job {
            Job::Run(chunk) => single(&lane, &*handler, chunk).await,
            Job::Resume(begun) => {
                resume(&lane, begun).await;
                false
            }
        };
        size = if swift { (size * 2).min(CHUNK_MAX) } else { 1 };
    }
}

async fn resume(lane: &Lane, (chunk, handling): Begun) {
    let result = handling.await;
    let outcomes = chunk.iter().map(|delivery| lane.outcome(delivery, result.clone())).collect();
    lane.board.finish(lane.worker, chunk, outcomes);
}

/// Runs a chunk, or its beginning; tells whether it went through at once.
async fn single<H: Handler>(lane: &Lane, handler: &H, chunk: Chunk) -> bool {
    let begun = Instant::now();
    let mut outcomes = Vec::with_capacity(chunk.len());
    for delivery in chunk.iter() {
        // The call itself may panic, before there is a future.
        let mut handling = pin!(guarded(async { handler.handle(delivery).await }));
        let Some(result) = poll_immediate(&mut handling).await else {
            let kept = lane.board.keep(lane.worker, &chunk, outcomes);
            let outcome = lane.outcome(delivery, handling.await);
            lane.board.finish(lane.worker, kept, vec![outcome]);
            return false;
        };
        outcomes.push(lane.outcome(delivery, result));
        let held = outcomes.last().is_some_and(|outcome| holds(delivery, outcome));
        if held || begun.elapsed() > CHUNK_TIME_MAX {
            break;
        }
    }
    let swift = outcomes.len() == chunk.len();
    if swift && outcomes.len() == CHUNK_MAX && begun.elapsed() < SWIFT_TIME_MAX {
        lane.board.praise();
    }
    lane.board.finish(lane.worker, chunk, outcomes);
    swift
}

/// Runs batches until the board is closed.
async fn batches<H: BatchHandler>(lane: Lane, handler: Arc<H>, size: usize) {
    while let Some(job) = lane.board.take(lane.worker, Share::All(size)).await {
        let chunk = match job {
            Job::Run(chunk) => chunk,
            // Batches are never begun elsewhere.
            Job::Resume(begun) => {
                resume(&lane, begun).await;
                continue;
            }
        };
        let outcomes = batch(&lane, &*handler, &chunk).await;
        lane.board.finish(lane.worker, chunk, outcomes);
    }
}

/// What became of a batch's first deliveries, which mostly are all.
async fn batch<H: BatchHandler>(lane: &Lane, handler: &H, chunk: &[Delivery]) -> Vec<Outcome> {
    let run = |batch| guarded(async move { handler.handle(batch).await });
    let result = run(chunk).await;
    let Err(failure) = &result else { return vec![Outcome::Ack; chunk.len()] };
    let policy = &lane.policy;
    let rejects = chunk.iter().any(|delivery| {
        matches!(policy.outcome(delivery.attempt(), failure.clone()), Outcome::Reject { .. })
    });
    if !rejects || chunk.len() == 1 {
        return chunk.iter().map(|delivery| lane.outcome(delivery, result.clone())).collect();
    }
    let mut outcomes = Vec::with_capacity(chunk.len());
    for delivery in chunk {
        let result = run(std::slice::from_ref(delivery)).await;
        outcomes.push(lane.outcome(delivery, result));
        if outcomes.last().is_some_and(|outcome| holds(delivery, outcome)) {
            break;
        }
    }
    outcomes
}

/// Runs deliveries where they were received, while nothing else is at work: for handlers that
/// take less time than it takes to wake a worker. One that waits is handed to a worker as it is,
/// since a handler is never begun twice for one delivery.
fn inline<H: Handler>(policy: &Policy, handler: Arc<H>, deliveries: Vec<Delivery>) -> Inlined {
    let run = |batch: Arc<(Arc<H>, Vec<Delivery>)>, index: usize| {
        guarded(async move { batch.0.handle(&batch.1[index]).await })
    };
    let begun = Instant::now();
    let mut outcomes = Vec::with_capacity(deliveries.len());
    let batch = Arc::new((handler, deliveries));
    // One allocation serves all that do not wait.
    let mut handling = Box::pin(OptionFuture::from(None));
    for (index, delivery) in batch.1.iter().enumerate() {
        handling.set(Some(run(batch.clone(), index)).into());
        let polled = handling.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(result)) = polled else {
            let handling = handling.map(|result| result.unwrap_or(Ok(())));
            return hand_over(split(copies(&batch.1), outcomes), handling.boxed());
        };
        outcomes.push(outcome(policy, delivery, result));
        let held = outcomes.last().is_some_and(|outcome| holds(delivery, outcome));
        if held || (index % CLOCK_EVERY == 0 && begun.elapsed() > INLINE_TIME_MAX) {
            break;
        }
    }
    drop(handling);
    let deliveries = Arc::into_inner(batch).map(|(_, deliveries)| deliveries);
    split(deliveries.unwrap_or_default(), outcomes)
}

/// Parts what is done from what was not begun.
fn split(mut deliveries: Vec<Delivery>, outcomes: Vec<Outcome>) -> Inlined {
    let rest = deliveries.split_off(outcomes.len());
    let done = deliveries.into_iter().map(Delivery::into_token).zip(outcomes).collect();
    Inlined { done, begun: None, rest }
}

/// Leaves the first of the rest to a worker, with the handler that is at work on it.
fn hand_over(mut inlined: Inlined, handling: BoxFuture<'static, Result<(), Failure>>) -> Inlined {
    let first = inlined.rest.remove(0);
    inlined.begun = Some((Arc::new(vec![first]), handling));
    inlined
}
