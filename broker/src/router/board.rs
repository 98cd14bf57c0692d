//! What was received and is not done, between the task that owns the consumer and the workers.
//!
//! Workers take chunks, so that a lock is taken and a task woken once for many messages.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::queue::{Queue, Share};
use crate::delivery::{AckToken, Delivery, Outcome};
use crate::policy::Failure;
use crate::subscription::Subscription;

/// The most deliveries that one `receive` asks for; results are settled in batches as large.
const BATCH_MAX: usize = 1000;
/// How long a result waits for others to be settled with it, while there is work.
const LINGER: Duration = Duration::from_millis(5);
/// The same once all work is done. Settling interrupts a `receive`, whose fetch would be in vain
/// just before it brings more.
const LINGER_IDLE: Duration = Duration::from_millis(2);

/// Deliveries that one worker runs, one after the other.
pub(super) type Chunk = Arc<Vec<Delivery>>;
/// A handler at work on the only delivery of a chunk.
pub(super) type Begun = (Chunk, BoxFuture<'static, Result<(), Failure>>);

/// What a worker is to do.
pub(super) enum Job {
    Run(Chunk),
    Resume(Begun),
}

/// What came of running deliveries without any worker.
#[derive(Default)]
pub(super) struct Inlined {
    pub(super) done: Vec<(AckToken, Outcome)>,
    /// The one behind them, if it takes longer.
    pub(super) begun: Option<Begun>,
    /// Those that were not begun.
    pub(super) rest: Vec<Delivery>,
}

struct State {
    queue: Queue,
    /// Results that wait to be settled, and since when.
    done: Vec<(AckToken, Outcome)>,
    since: Option<Instant>,
    is_open: bool,
    /// A handler that waits for a worker to go on.
    begun: Option<Begun>,
    /// Handlers have been so quick that waking a worker costs more than they do.
    is_swift: bool,
    /// How many unsettled deliveries may keep more from coming.
    in_flight_max: usize,
}

impl State {
    fn is_idle(&self) -> bool {
        self.queue.is_idle() && self.begun.is_none()
    }

    /// When it is worth settling; never while there is nothing to settle. At once where nothing
    /// is being received, or nothing more may come before something is settled.
    fn settle_at(&self, receiving: bool) -> Option<Instant> {
        let since = self.since.or_else(|| self.is_over().then(Instant::now))?;
        let idle = self.is_idle();
        let enough = self.done.len() >= if receiving { self.in_flight_max } else { BATCH_MAX };
        if !self.is_open || enough || (idle && !receiving) {
            return Some(since);
        }
        Some(since + if idle { LINGER_IDLE } else { LINGER })
    }

    fn is_over(&self) -> bool {
        !self.is_open && self.is_idle()
    }
}

pub(super) struct Board {
    state: Mutex<State>,
    /// There is work.
    work: Notify,
    /// There are results.
    results: Notify,
    /// How many deliveries may be queued or at work.
    capacity: usize,
}

impl Board {
    /// A board for so many workers.
    pub(super) fn new(workers: usize, subscription: &Subscription) -> Self {
        let queue = Queue::new(workers, subscription.ack_deadline);
        let in_flight_max = subscription.in_flight_max;
        let state = State {
            queue,
            done: Vec::new(),
            since: None,
            is_open: true,
            begun: None,
            is_swift: false,
            in_flight_max,
        };
        Self {
            state: Mutex::new(state),
            work: Notify::new(),
            results: Notify::new(),
            capacity: BATCH_MAX.max(workers) * 2,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many deliveries to ask for; zero until it is worth asking.
    pub(super) fn room(&self) -> usize {
        let room = self.capacity.saturating_sub(self.lock().queue.len());
        if room < BATCH_MAX / 2 { 0 } else { room.min(BATCH_MAX) }
    }

    /// Adds what was received.
    pub(super) fn push(&self, deliveries: Vec<Delivery>) {
        if !deliveries.is_empty() {
            self.lock().queue.push(deliveries);
            self.work.notify_one();
        }
    }

    /// Whether deliveries are best run where they are received: handlers are quick, and nothing
    /// is here that they would have to wait for.
    pub(super) fn is_swift(&self) -> bool {
        let state = self.lock();
        state.is_swift && state.begun.is_none() && state.queue.is_untouched()
    }

    /// Notes what came of running deliveries right away; workers go on with what is left.
    pub(super) fn inlined(&self, Inlined { done, begun, rest }: Inlined) {
        let mut state = self.lock();
        state.is_swift = begun.is_none() && rest.is_empty();
        done.iter().for_each(|(token, outcome)| state.queue.note(token, outcome));
        state.begun = begun;
        state.queue.push(rest);
        self.note(&mut state, done);
    }

    /// Waits for work; nothing comes once the board is closed.
    pub(super) async fn take(&self, worker: usize, share: Share) -> Option<Job> {
        loop {
            let mut notified = pin!(self.work.notified());
            notified.as_mut().enable();
            {
                let mut state = self.lock();
                if let Some(begun) = state.begun.take() {
                    state.queue.resume(worker, &begun.0);
                    self.wake_worker(&state);
                    return Some(Job::Resume(begun));
                }
                if !state.is_open {
                    return None;
                }
                if let Some(chunk) = state.queue.take(worker, share) {
                    self.wake_worker(&state);
                    return Some(Job::Run(chunk));
                }
            }
            notified.await;
        }
    }

    /// One wakes the next, so that little work wakes few.
    fn wake_worker(&self, state: &State) {
        if state.queue.has_work() || state.begun.is_some() {
            self.work.notify_one();
        }
    }

    /// Notes what became of the first deliveries of a chunk; the others go back.
    pub(super) fn finish(&self, worker: usize, chunk: Chunk, outcomes: Vec<Outcome>) {
        let mut state = self.lock();
        let done = state.queue.finish(worker, chunk, outcomes);
        self.note(&mut state, done);
    }

    /// Like `finish` while the delivery behind those that are done is still at work: it is the
    /// worker's whole chunk from now on.
    pub(super) fn keep(&self, worker: usize, chunk: &Chunk, outcomes: Vec<Outcome>) -> Chunk {
        let mut state = self.lock();
        let (kept, done) = state.queue.keep(worker, chunk, outcomes);
        self.note(&mut state, done);
        kept
    }

    /// Tells that a large chunk went through at once.
    pub(super) fn praise(&self) {
        self.lock().is_swift = true;
    }

    fn note(&self, state: &mut State, done: Vec<(AckToken, Outcome)>) {
        if !state.is_open {
            state.queue.clear();
        }
        let first = state.done.is_empty() && !done.is_empty();
        state.since = if first { Some(Instant::now()) } else { state.since };
        if first {
            state.done = done;
        } else {
            state.done.extend(done);
        }
        if first || state.is_idle() || state.done.len() >= BATCH_MAX.min(state.in_flight_max) {
            self.results.notify_one();
        }
        self.wake_worker(state);
    }

    /// Waits until there are results worth settling, which are more while something is being
    /// received, or until the board is closed and all is done.
    pub(super) async fn results(&self, receiving: bool) {
        loop {
            let mut notified = pin!(self.results.notified());
            notified.as_mut().enable();
            let at = self.lock().settle_at(receiving);
            match at {
                Some(at) if at <= Instant::now() => return,
                // Running out of time is answered by looking again.
                Some(at) => drop(timeout_at(at, notified).await),
                None => notified.await,
            }
        }
    }

    /// Whether there are as many results as are settled at once.
    pub(super) fn has_batch(&self) -> bool {
        self.lock().done.len() >= BATCH_MAX
    }

    /// Takes the results, to settle them.
    pub(super) fn take_results(&self) -> Vec<(AckToken, Outcome)> {
        let mut state = self.lock();
        state.since = None;
        std::mem::take(&mut state.done)
    }

    /// Takes results back that could not be settled yet.
    pub(super) fn put_back(&self, mut results: Vec<(AckToken, Outcome)>) {
        let mut state = self.lock();
        results.append(&mut state.done);
        state.done = results;
        state.since.get_or_insert_with(Instant::now);
    }

    /// The tokens of all that is queued or at work.
    pub(super) fn lent(&self) -> Vec<AckToken> {
        let state = self.lock();
        let begun = state.begun.iter().flat_map(|(chunk, _)| chunk.iter());
        let mut tokens = state.queue.tokens();
        tokens.extend(begun.map(|delivery| delivery.token().duplicate()));
        tokens
    }

    /// Stops waiting for messages that should have come again by now.
    pub(super) fn expire(&self) {
        let mut state = self.lock();
        state.queue.expire(Instant::now());
        self.wake_worker(&state);
    }

    /// Forgets what is queued of partitions that went to others.
    pub(super) fn forget(&self, partitions: &[u32]) {
        let mut state = self.lock();
        state.queue.forget(|position| partitions.contains(&position.partition()));
        self.wake_worker(&state);
    }

    /// Forgets what is queued, and results that were not settled.
    pub(super) fn clear(&self) {
        let mut state = self.lock();
        state.queue.clear();
        (state.done, state.since) = (Vec::new(), None);
    }

    /// Lets the workers end once they have done what they run.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_open = false;
        state.queue.clear();
        drop(state);
        self.work.notify_waiters();
        self.results.notify_one();
    }

    /// Whether nothing is queued or at work.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().is_idle()
    }
}
