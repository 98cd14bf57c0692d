//! The thread of a consumer: it makes all of its calls to Kafka.
//!
//! Each partition has a queue of its own inside librdkafka, which is polled only while its
//! window has room. So a full window holds up neither other partitions nor rebalances, and
//! nothing that was prefetched is thrown away.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::committer::{Committer, commit};
use super::context::{Change, Client, await_stop, give_back, is_cooperative, note};
use super::error::translate;
use super::orphans::Orphans;
use super::queue::{End, Queue};
use super::start::{self, Begin};
use super::state::{Commit, Commits, Link, is_fatal};
use super::transaction::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::name::Topic;
use crate::subscription::{Event, Seek, Start};

/// How long the thread sleeps at most; queues that fill and windows that drain wake it.
const IDLE: Duration = Duration::from_millis(50);
/// How long a partition that goes away waits for its deliveries to be settled.
const HANDOVER_MAX: Duration = Duration::from_secs(1);
/// How long to wait before a question is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The most that one batch takes from a partition.
const BATCH_MESSAGES_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// What the thread is told once.
pub(super) struct Plan {
    pub(super) topic: Topic,
    pub(super) start: Start,
    pub(super) is_reader: bool,
    /// A reader's partitions.
    pub(super) begins: Vec<Begin>,
    /// The ends of the partitions when a member subscribed that starts there.
    pub(super) latest: BTreeMap<u32, u64>,
    pub(super) commit_interval: Duration,
    pub(super) outage_max: Duration,
    /// Of a static member: its predecessor may have died within a transaction.
    pub(super) heritage: Option<Source>,
    /// Of a static member that does not leave assignments to the brokers.
    pub(super) orphans: Option<Orphans>,
}

/// Partitions that wait for their deliveries before they go to another member.
struct Handover {
    list: TopicPartitionList,
    numbers: Vec<u32>,
    until: Instant,
}

pub(super) struct Fetcher {
    consumer: Arc<Client>,
    queues: BTreeMap<u32, Queue>,
    link: Arc<Link>,
    plan: Plan,
    handover: Option<Handover>,
    committer: Option<Committer>,
    next_commit: Instant,
}

impl Fetcher {
    pub(super) fn new(consumer: Arc<Client>, link: Arc<Link>, plan: Plan) -> io::Result<Self> {
        let committer = if plan.is_reader {
            None
        } else {
            Some(Committer::start(consumer.clone(), link.clone(), plan.topic.clone())?)
        };
        let (queues, handover, next_commit) = (BTreeMap::new(), None, Instant::now());
        Ok(Self { consumer, queues, link, plan, handover, committer, next_commit })
    }

    /// Works until the consumer is closed.
    pub(super) fn run(mut self) {
        self.link.attach();
        self.consumer.context().attend(true);
        if self.plan.is_reader {
            let begins = std::mem::take(&mut self.plan.begins);
            self.assign(&begins);
        }
        while !self.is_closed() {
            self.serve_events();
            self.rebalance();
            self.serve_moves();
            let is_busy = self.fetch();
            self.commit_when_due();
            self.watch_outage();
            if !is_busy {
                thread::park_timeout(IDLE.min(self.plan.commit_interval));
            }
        }
        self.close();
    }

    fn is_closed(&self) -> bool {
        self.link.lock().is_closed()
    }

    /// Runs the callbacks and takes the errors that belong to no partition.
    fn serve_events(&mut self) {
        let consumer = self.consumer.clone();
        while let Some(event) = consumer.poll(Duration::ZERO) {
            match event {
                // It came before its partition had a queue: fetch it again, in its order.
                Ok(message) => self.restart(u32::try_from(message.partition()).unwrap_or(0)),
                Err(KafkaError::PartitionEOF(number)) => {
                    self.restart(u32::try_from(number).unwrap_or(0));
                }
                Err(error) => self.report(error),
            }
        }
    }

    /// Tells `receive` of what does not pass by itself.
    fn report(&self, error: KafkaError) {
        let code = error.rdkafka_error_code();
        let is_fatal =
            matches!(error, KafkaError::MessageConsumptionFatal(_)) || code.is_some_and(is_fatal);
        let error = translate("receive", error).with("topic", &self.plan.topic);
        if is_fatal || !error.is_retryable() {
            self.link.fail(error, is_fatal);
        }
    }

    fn rebalance(&mut self) {
        if let Some(handover) = self.handover.take_if(|handover| {
            Instant::now() >= handover.until
                || self.consumer.assignment_lost()
                || !self.link.lock().in_flight(&handover.numbers)
        }) {
            self.give_away(&handover);
        }
        while self.handover.is_none()
            && let Some(change) = self.consumer.context().next_change()
        {
            self.plan.orphans.iter_mut().for_each(Orphans::changed);
            match change {
                Change::Assign(list) => self.take_in(&list),
                Change::Revoke(list) => self.begin_handover(list),
            }
        }
        if self.handover.is_none()
            && let Some(orphans) = &mut self.plan.orphans
        {
            orphans.look(&self.consumer);
        }
    }

    fn take_in(&mut self, list: &TopicPartitionList) {
        let numbers = start::partitions(list);
        let begins = if numbers.is_empty() { Some(Vec::new()) } else { self.resolve(&numbers) };
        let Some(begins) = begins else {
            return note(give_back(&self.consumer, list, true), "refuse partitions");
        };
        self.assign(&begins);
        if !begins.is_empty() {
            self.link.tell(Event::Assigned(numbers));
        }
    }

    fn resolve(&self, numbers: &[u32]) -> Option<Vec<Begin>> {
        let Plan { topic, start, latest, .. } = &self.plan;
        self.insist(|client| start::resolve_member(client, topic.as_str(), numbers, *start, latest))
    }

    /// Asks until there is an answer; none where there can't be one, which ends the consumer.
    fn insist<T>(&self, ask: impl Fn(&Client) -> KafkaResult<T>) -> Option<T> {
        while !self.is_closed() {
            match ask(&self.consumer) {
                Ok(answer) => return Some(answer),
                Err(error) => {
                    self.end_predecessor(&error);
                    let error = translate("receive", error).with("topic", &self.plan.topic);
                    if !error.is_retryable() {
                        self.link.fail(error, true);
                        return None;
                    }
                    tracing::debug!(%error, "a question is asked again");
                }
            }
            self.watch_outage();
            thread::sleep(RETRY_PAUSE);
        }
        None
    }

    /// Ends the transaction that hides the group's position, where one of the same name left
    /// it: by itself it would end only after `transaction_timeout`.
    fn end_predecessor(&self, error: &KafkaError) {
        use RDKafkaErrorCode::{OperationTimedOut, UnstableOffsetCommit};
        // librdkafka asks again by itself, until time is up.
        let is_hidden =
            matches!(error.rdkafka_error_code(), Some(UnstableOffsetCommit | OperationTimedOut));
        if let Some(heritage) = self.plan.heritage.as_ref().filter(|_| is_hidden)
            && let Err(error) = heritage.connect()
        {
            tracing::debug!(?error, "a predecessor's transaction is left to end by itself");
        }
    }

    /// Begins to consume partitions.
    fn assign(&mut self, begins: &[Begin]) {
        begins.iter().for_each(|begin| self.open_queue(begin.partition));
        self.begin(begins);
        let fetch =
            begins.iter().map(|begin| (begin.partition, Offset::Offset(signed(begin.fetch))));
        let result = start::list(self.plan.topic.as_str(), fetch).and_then(|list| {
            if is_cooperative(&self.consumer) {
                self.consumer.incremental_assign(&list)
            } else {
                self.consumer.assign(&list)
            }
        });
        self.require(result);
    }

    fn begin(&self, begins: &[Begin]) {
        let mut state = self.link.lock();
        for begin in begins {
            state.begin(begin);
            if let Some(wanted) = begin.gone {
                let (partition, resumed) = (begin.partition, begin.deliver);
                state.tell(Event::OffsetOutOfRange { partition, wanted, resumed });
            }
        }
    }

    /// Ends the consumer where librdkafka refuses a call that must succeed.
    fn require(&self, result: KafkaResult<()>) {
        if let Err(error) = result {
            self.link.fail(translate("receive", error).with("topic", &self.plan.topic), true);
        }
    }

    /// Gives a partition a queue of its own; this must come before the partition is assigned.
    fn open_queue(&mut self, number: u32) {
        // Dropping the old one silences the queue, so that it must go first.
        self.queues.remove(&number);
        let topic = self.plan.topic.as_str();
        let partition = i32::try_from(number).unwrap_or(i32::MAX);
        let link = self.link.clone();
        match Queue::open(&self.consumer, topic, partition, move || link.wake()) {
            Some(queue) => drop(self.queues.insert(number, queue)),
            None => {
                let problem = format!("partition {number} has no queue");
                self.link.fail(Error::new(ErrorKind::Unexpected, "receive", problem), true);
            }
        }
    }

    fn begin_handover(&mut self, list: TopicPartitionList) {
        let numbers = start::partitions(&list);
        let is_out = {
            let mut state = self.link.lock();
            state.leave(&numbers);
            state.in_flight(&numbers)
        };
        let handover = Handover { list, numbers, until: Instant::now() + HANDOVER_MAX };
        if is_out && !self.consumer.assignment_lost() {
            self.handover = Some(handover);
        } else {
            self.give_away(&handover);
        }
    }

    /// Commits what is settled of the partitions and lets them go.
    fn give_away(&mut self, handover: &Handover) {
        let commits = {
            let mut state = self.link.lock();
            let commits = state.commits(Commits::Leaving(&handover.numbers));
            state.remove(&handover.numbers);
            commits
        };
        if !self.consumer.assignment_lost() {
            self.commit_now(&commits);
        }
        handover.numbers.iter().for_each(|number| drop(self.queues.remove(number)));
        self.require(give_back(&self.consumer, &handover.list, false));
        if !handover.numbers.is_empty() {
            self.link.tell(Event::Revoked(handover.numbers.clone()));
        }
    }

    fn serve_moves(&mut self) {
        loop {
            let next = self.link.lock().moves.pop_front();
            let Some(wish) = next else { return };
            // Whoever asked may have gone.
            let _ = wish.reply.send(self.seek(&wish.seek));
        }
    }

    fn seek(&mut self, seek: &Seek) -> Result<()> {
        let numbers = self.link.lock().sought(seek)?;
        let topic = self.plan.topic.clone();
        let begins = start::resolve(&self.consumer, topic.as_str(), &numbers, seek.to);
        let begins = begins.map_err(|error| translate("seek", error).with("topic", &topic))?;
        self.begin(&begins);
        let moved = begins.iter().map(|begin| (begin.partition, begin.fetch)).collect();
        self.fetch_from(&moved).map_err(|error| translate("seek", error).with("topic", &topic))
    }

    /// Fetches a partition again from where it stands.
    fn restart(&mut self, number: u32) {
        let position = self.link.lock().positions().get(&number).copied();
        if let Some(position) = position {
            let result = self.fetch_from(&BTreeMap::from([(number, position)]));
            self.require(result);
        }
    }

    /// Moves partitions. Assigning them anew, unlike seeking, also works after an error.
    fn fetch_from(&mut self, moved: &BTreeMap<u32, u64>) -> KafkaResult<()> {
        let topic = self.plan.topic.clone();
        let offsets = |all: &BTreeMap<u32, u64>| {
            let offsets = all.iter().map(|(number, at)| (*number, Offset::Offset(signed(*at))));
            start::list(topic.as_str(), offsets)
        };
        if is_cooperative(&self.consumer) {
            let list = offsets(moved)?;
            self.consumer.incremental_unassign(&list)?;
            await_stop(&self.consumer);
            moved.keys().for_each(|number| self.open_queue(*number));
            return self.consumer.incremental_assign(&list);
        }
        let mut all = self.link.lock().positions();
        all.extend(moved);
        all.keys().for_each(|number| self.open_queue(*number));
        self.consumer.assign(&offsets(&all)?)?;
        await_stop(&self.consumer);
        Ok(())
    }

    /// Fills the windows that have room; whether there was anything to take.
    fn fetch(&mut self) -> bool {
        let mut is_busy = false;
        let mut ended = Vec::new();
        for (number, queue) in &mut self.queues {
            let room = self.link.lock().room(*number);
            if room == 0 {
                continue;
            }
            let (batch, end) = queue.take(room.min(BATCH_MESSAGES_MAX), BATCH_BYTES_MAX);
            if !batch.messages.is_empty() {
                is_busy = true;
                self.link.arrive(*number, &batch.offsets, batch.messages);
            } else if end.is_none()
                && !self.plan.is_reader
                && let Some(at) = queue.position()
            {
                self.link.lock().reached_end(*number, at);
            }
            ended.extend(end.map(|end| (*number, end)));
        }
        is_busy |= !ended.is_empty();
        for (number, end) in ended {
            match end {
                End::Reached(at) => {
                    self.link.lock().reached_end(number, at);
                    self.link.arrived.notify_one();
                }
                End::Failed(error) => self.fetch_failed(number, error),
            }
        }
        is_busy
    }

    fn fetch_failed(&mut self, number: u32, error: KafkaError) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.step_over_hole(number);
            }
            _ => {
                self.report(error);
                // An error that is taken from a queue moves librdkafka's own position by one.
                if !self.plan.is_reader {
                    self.restart(number);
                }
            }
        }
    }

    /// Goes on at the oldest message where retention overtook the consumer.
    fn step_over_hole(&mut self, number: u32) {
        let topic = self.plan.topic.clone();
        let bounds = self.insist(|client| start::bounds(client, topic.as_str(), &[number]));
        let Some(bounds) = bounds.and_then(|bounds| bounds.get(&number).copied()) else { return };
        let wanted = self.link.lock().positions().get(&number).copied();
        let Some(wanted) = wanted else { return };
        if !(bounds.low..=bounds.high).contains(&wanted) {
            let mut state = self.link.lock();
            state.skip_to(number, bounds.low);
            state.tell(Event::OffsetOutOfRange { partition: number, wanted, resumed: bounds.low });
        }
        self.link.arrived.notify_one();
        self.restart(number);
    }

    fn commit_when_due(&mut self) {
        let Some(committer) = &self.committer else { return };
        let mut state = self.link.lock();
        // One at a time, so that commits don't pile up while the coordinator is away.
        if state.committing || !state.urgent && Instant::now() < self.next_commit {
            return;
        }
        state.urgent = false;
        self.next_commit = Instant::now() + self.plan.commit_interval;
        let commits = state.commits(Commits::Current);
        state.committing = !commits.is_empty();
        drop(state);
        if !commits.is_empty() {
            committer.commit(commits);
        }
    }

    /// Commits and waits; a failure only means that messages come again.
    fn commit_now(&self, commits: &[Commit]) {
        if !commits.is_empty() {
            let result = commit(&self.consumer, &self.plan.topic, commits);
            note(result, "commit before giving partitions back");
        }
    }

    /// Says `Unavailable` where brokers stay away for long.
    fn watch_outage(&self) {
        let context = self.consumer.context();
        let Some(since) = context.down_since() else { return };
        if since.elapsed() < self.plan.outage_max {
            return;
        }
        let topic = self.plan.topic.as_str();
        match self.consumer.fetch_metadata(Some(topic), Duration::from_secs(1)) {
            Ok(_) => context.set_down(None),
            Err(error) => {
                let problem = format!("no broker answered for {:?}", self.plan.outage_max);
                let error = Error::new(ErrorKind::Unavailable, "receive", problem)
                    .with("topic", topic)
                    .with_source(error);
                self.link.fail(error, false);
                context.set_down(Some(Instant::now()));
            }
        }
    }

    fn close(&mut self) {
        // A transaction that is being committed comes to its end before the member leaves.
        drop(self.link.transactor().take());
        self.committer = None;
        let commits = self.link.lock().commits(Commits::Last);
        self.commit_now(&commits);
        let context = self.consumer.context().clone();
        context.attend(false);
        self.queues.clear();
        let handover = self.handover.take().map(|handover| Change::Revoke(handover.list));
        for change in handover.into_iter().chain(std::iter::from_fn(|| context.next_change())) {
            let (list, is_assign) = match &change {
                Change::Assign(list) => (list, true),
                Change::Revoke(list) => (list, false),
            };
            note(give_back(&self.consumer, list, is_assign), "give partitions back");
        }
        if self.plan.is_reader {
            note(self.consumer.unassign(), "end a reader");
        }
    }
}

impl Drop for Fetcher {
    /// Also after a panic: nobody may wait for a thread that is gone.
    fn drop(&mut self) {
        self.consumer.context().attend(false);
        self.link.close();
        self.link.lock().moves.clear();
    }
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
