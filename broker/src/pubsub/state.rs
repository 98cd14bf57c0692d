//! What a consumer and the task that feeds it share.
//!
//! Deliveries are counted in the window by a number of our own, in the order in which they
//! came. Invariants: each open entry of the window has its lease in `leases`, and the position
//! of each lease leads to it in `numbers`; a lease that is dropped gives its message back.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use google_cloud_pubsub::model::Message as PubsubMessage;
use google_cloud_pubsub::subscriber::handler::Handler;
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, Instant};

use super::convert;
use crate::delivery::{AckToken, Delivery, Outcome, Position, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::name::Topic;
use crate::subscription::{Event, Subscription};
use crate::window::{Bounds, Window};

/// The partition that all deliveries tell.
const PARTITION: u32 = 0;

/// A consumer as its task and its broker know it.
pub(super) struct Link {
    state: Mutex<State>,
    pub(super) wish: Subscription,
    /// Something came, or ended.
    pub(super) arrived: Notify,
    /// There is room for more.
    pub(super) room: Notify,
    /// The consumer is dropped or shut down.
    pub(super) stop: watch::Sender<bool>,
    /// The task is over.
    pub(super) ended: watch::Sender<bool>,
}

impl Link {
    pub(super) fn new(wish: Subscription, since: Option<i64>, caught_up_after: Duration) -> Self {
        let state = Mutex::new(State::new(&wish, since, caught_up_after));
        let (stop, ended) = (watch::Sender::new(false), watch::Sender::new(false));
        Self { state, wish, arrived: Notify::new(), room: Notify::new(), stop, ended }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the consumer: from now on it answers with `error`.
    pub(super) fn end(&self, error: Error) {
        self.lock().error.get_or_insert(error);
        self.stop.send_replace(true);
        self.arrived.notify_one();
    }
}

/// A message that Pub/Sub lent, with what gives it back.
struct Lease {
    position: Position,
    attempt: u32,
    handler: Handler,
    /// Leases of the same message that came while it was open: only the last one may count.
    earlier: Vec<Handler>,
}

/// An acknowledgement that waits for its confirmation.
pub(super) struct Unconfirmed {
    pub(super) token: AckToken,
    pub(super) outcome: Outcome,
    pub(super) handler: Handler,
}

pub(super) struct State {
    window: Window,
    leases: HashMap<u64, Lease>,
    numbers: HashMap<u64, u64>,
    /// Acknowledged with exactly-once delivery, and not sent while something before is open.
    done: BTreeMap<u64, (AckToken, Outcome)>,
    /// Tells this consumer's tokens from those of another.
    assignment: u64,
    error: Option<Error>,
    is_reader: bool,
    since: Option<i64>,
    /// When a reader has caught up unless something comes before; `None` once it was told.
    caught_up_at: Option<Instant>,
    caught_up_after: Duration,
    events: Vec<Event>,
    /// An event came that no `receive` has returned for.
    news: bool,
}

fn next_assignment() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl State {
    fn new(wish: &Subscription, since: Option<i64>, caught_up_after: Duration) -> Self {
        let is_reader = wish.group.is_none();
        let events = if is_reader { vec![] } else { vec![Event::Assigned(vec![PARTITION])] };
        Self {
            window: Window::new(Bounds::from(wish), 0, 0),
            leases: HashMap::new(),
            numbers: HashMap::new(),
            done: BTreeMap::new(),
            assignment: next_assignment(),
            error: None,
            is_reader,
            since,
            caught_up_at: is_reader.then(|| Instant::now() + caught_up_after),
            caught_up_after,
            news: !events.is_empty(),
            events,
        }
    }

    /// How many more messages may come.
    pub(super) fn room(&self) -> usize {
        self.window.room()
    }

    /// Takes in what Pub/Sub sent.
    pub(super) fn put(&mut self, came: Vec<(PubsubMessage, Handler)>) {
        let from = self.window.next();
        let mut messages = Vec::with_capacity(came.len());
        for (message, handler) in came {
            if self.is_before_start(&message) {
                handler.ack();
                continue;
            }
            let offset = convert::offset(&message.message_id);
            let known = self.numbers.get(&offset).and_then(|number| self.leases.get_mut(number));
            if let Some(lease) = known {
                lease.earlier.push(std::mem::replace(&mut lease.handler, handler));
                continue;
            }
            let number = from + messages.len() as u64;
            let (position, earlier) = (Position::new(PARTITION, offset), Vec::new());
            self.numbers.insert(offset, number);
            self.leases.insert(number, Lease { position, attempt: 0, handler, earlier });
            messages.push(convert::from_pubsub(message));
        }
        let next = from + messages.len() as u64;
        self.window.extend((from..).zip(Shared::all(messages)), next);
        if self.caught_up_at.is_some() {
            self.caught_up_at = Some(Instant::now() + self.caught_up_after);
        }
    }

    /// Deliveries, or none at once for the sake of an event; `None` where there is neither.
    pub(super) fn take(&mut self, topic: &Topic, limit: usize) -> Option<Result<Vec<Delivery>>> {
        if let Err(error) = self.check_open("receive") {
            return Some(Err(error));
        }
        let now = Instant::now();
        self.note_caught_up(now);
        if std::mem::take(&mut self.news) {
            return Some(Ok(Vec::new()));
        }
        let mut all = Vec::new();
        let (leases, assignment) = (&mut self.leases, self.assignment);
        self.window.deliver(now, limit, |number, attempt, message| {
            let Some(lease) = leases.get_mut(&number) else { return };
            lease.attempt = attempt;
            let (topic, position) = (topic.clone(), lease.position);
            all.push(Delivery::new(AckToken { topic, position, attempt, assignment, message }));
        });
        if self.is_reader {
            self.forget(&all);
        }
        (!all.is_empty()).then_some(Ok(all))
    }

    /// When `take` may have something by itself.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.window.next_wake().into_iter().chain(self.caught_up_at).min()
    }

    /// Applies outcomes; returns the acknowledgements that are to be confirmed.
    pub(super) fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unconfirmed> {
        for (token, outcome) in outcomes {
            let Some(number) = self.open(&token) else { continue };
            if let Outcome::Retry { after } = outcome {
                self.window.retry(number, token.attempt, Instant::now() + after);
                continue;
            }
            // The delivery layer has stored the dead letter before it settles a rejection.
            self.window.ack(number, token.attempt);
            self.window.release(number);
            if self.is_exactly_once(number) {
                self.done.insert(number, (token, outcome));
            } else if let Some(handler) = self.remove(number) {
                handler.ack();
            }
        }
        let unconfirmed = self.confirmable();
        self.window.advance();
        unconfirmed
    }

    fn is_exactly_once(&self, number: u64) -> bool {
        let lease = self.leases.get(&number);
        lease.is_some_and(|lease| matches!(lease.handler, Handler::ExactlyOnce(_)))
    }

    /// What is done and follows nothing open. With exactly-once delivery Pub/Sub refuses an
    /// acknowledgement while an earlier message of its key is open.
    fn confirmable(&mut self) -> Vec<Unconfirmed> {
        let waiting = self.done.split_off(&self.window.settled());
        let done = std::mem::replace(&mut self.done, waiting);
        let unconfirmed = done.into_iter().filter_map(|(number, (token, outcome))| {
            Some(Unconfirmed { token, outcome, handler: self.remove(number)? })
        });
        unconfirmed.collect()
    }

    pub(super) fn extend(&mut self, tokens: &[&AckToken], until: Instant) {
        for token in tokens {
            if let Some(number) = self.open(token) {
                self.window.postpone(number, token.attempt, until);
            }
        }
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        match &self.error {
            None => Ok(()),
            Some(error) if error.kind() == ErrorKind::Closed => {
                Err(Error::new(ErrorKind::Closed, operation, "the consumer was shut down"))
            }
            Some(error) => Err(error.duplicate()),
        }
    }

    /// Gives everything back that is open, in the order in which it came.
    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        let mut leases: Vec<(u64, Lease)> = self.leases.drain().collect();
        leases.sort_unstable_by_key(|(number, _)| *number);
        leases.into_iter().for_each(drop);
    }

    fn is_before_start(&self, message: &PubsubMessage) -> bool {
        let Some((since, time)) = self.since.zip(message.publish_time.as_ref()) else {
            return false;
        };
        convert::to_micros(time) / 1000 <= since
    }

    /// The number of a delivery that its token may still settle.
    fn open(&self, token: &AckToken) -> Option<u64> {
        let number = *self.numbers.get(&token.position.offset())?;
        let lease = self.leases.get(&number)?;
        (token.assignment == self.assignment && lease.attempt == token.attempt).then_some(number)
    }

    /// Ends a lease; the handler that counts is left to settle.
    fn remove(&mut self, number: u64) -> Option<Handler> {
        let Lease { position, handler, earlier, .. } = self.leases.remove(&number)?;
        self.numbers.remove(&position.offset());
        earlier.into_iter().for_each(Handler::ack);
        Some(handler)
    }

    /// A reader settles nothing, so what it delivered is done.
    fn forget(&mut self, deliveries: &[Delivery]) {
        for delivery in deliveries {
            let Some(number) = self.numbers.get(&delivery.position().offset()).copied() else {
                continue;
            };
            self.window.ack(number, delivery.attempt());
            if let Some(handler) = self.remove(number) {
                handler.ack();
            }
        }
        self.window.advance();
    }

    fn note_caught_up(&mut self, now: Instant) {
        if self.caught_up_at.is_some_and(|at| at <= now) && self.window.ready() == 0 {
            self.caught_up_at = None;
            self.events.push(Event::CaughtUp);
            self.news = true;
        }
    }
}
