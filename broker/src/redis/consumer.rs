//! A member of a group, or a reader.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::try_join_all;
use redis::Cmd;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::assigned::Assigned;
use super::broker::Inner;
use super::fetch::{Fetcher, Got, Mode, Want};
use super::groups;
use super::keys::{self, TopicKeys};
use super::membership::{Claimed, Member};
use super::position::EntryId;
use super::scripts;
use super::transaction::RedisTransaction;
use crate::contract::{Consumer, Transaction};
use crate::delivery::{AckToken, Delivery, Outcome, Unsettled};
use crate::error::{Error, ErrorKind, Result};
use crate::name::Group;
use crate::subscription::{Event, Limit, Seek, Start, Subscription};
use crate::window::{Bounds, Lender, Window, in_turn};

/// How long one call waits for entries on the server, and with it the next look at the group.
const IDLE: Duration = Duration::from_millis(100);
/// How long a look at the group may take at least.
const LOOK_TIME_MAX: Duration = Duration::from_secs(1);
/// The most events that are kept for a caller who does not take them.
const EVENTS_MAX: usize = 1024;

pub(super) struct Membership {
    pub(super) member: Arc<Member>,
    pub(super) next_view: Instant,
}

/// Where a partition begins for a group without a position, or for a reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin {
    pub(super) behind: EntryId,
    offset: u64,
    end: u64,
}

/// In a mutex that nobody locks, for a future alone can't be shared.
type Fetching = Mutex<Pin<Box<dyn Future<Output = Vec<Got>> + Send>>>;

pub(super) struct RedisConsumer {
    pub(super) inner: Arc<Inner>,
    pub(super) subscription: Subscription,
    pub(super) topic: Arc<TopicKeys>,
    pub(super) membership: Option<Membership>,
    pub(super) partitions: BTreeMap<u32, Assigned>,
    pub(super) begins: Vec<Begin>,
    fetcher: Fetcher,
    /// A fetch outlives a dropped `receive`, so that what it brings is not lost.
    fetching: Option<Fetching>,
    /// Deliveries whose count is not durable yet.
    pub(super) uncounted: Vec<Delivery>,
    events: Vec<Event>,
    /// An event came that no `receive` has returned for.
    news: bool,
    caught_up: bool,
    /// The partition that delivers first, in turn, so that a full one starves no other.
    turn: usize,
}

/// Where the partitions begin now.
async fn begins(inner: &Inner, topic: &TopicKeys, start: Start) -> Result<Vec<Begin>> {
    let link = &inner.link;
    let asked = topic.streams.iter().map(|stream| async move {
        let end = groups::bounds(link, "subscribe", stream).await?.last;
        let behind = match start {
            Start::Latest => end,
            start => groups::behind(link, "subscribe", stream, start).await?,
        };
        let offset = groups::offset_of(start, behind)?;
        Ok(Begin { behind, offset, end: end.end()? })
    });
    try_join_all(asked).await
}

/// Opens a consumer; a missing topic is `NotFound`.
pub(super) async fn subscribe(
    inner: Arc<Inner>,
    subscription: Subscription,
) -> Result<RedisConsumer> {
    let topic = inner.look_up("subscribe", &subscription.topic).await?;
    let begins = begins(&inner, &topic, subscription.start).await;
    let begins = begins.map_err(|error| error.with("topic", &subscription.topic))?;
    let is_cluster = inner.server.is_cluster();
    let link = if is_cluster { inner.link.clone() } else { Arc::new(inner.server.link()) };
    link.connect("subscribe").await?;
    let lease = inner.config.session_timeout;
    let membership = subscription.group.as_ref().map(|group| {
        let member = Arc::new(Member::new(group, topic.clone(), lease));
        Membership { member, next_view: Instant::now() }
    });
    let member = membership.as_ref().map_or_else(String::new, |m| m.member.name.clone());
    let group = subscription.group.clone();
    let watch = Arc::default();
    let fetcher = Fetcher { link, group, member, waits: !is_cluster, watch };
    let mut consumer = RedisConsumer {
        inner,
        subscription,
        topic,
        membership,
        partitions: BTreeMap::new(),
        begins,
        fetcher,
        fetching: None,
        uncounted: Vec::new(),
        events: Vec::new(),
        news: false,
        caught_up: false,
        turn: 0,
    };
    // From here on dropping the consumer makes its member leave.
    consumer.begin().await?;
    Ok(consumer)
}

impl RedisConsumer {
    /// Joins the group, or takes all partitions as a reader.
    async fn begin(&mut self) -> Result<()> {
        if let Some(membership) = &self.membership {
            membership.member.attend(&self.inner.link, true).await?;
            self.inner.enrol(&membership.member);
            return self.create_groups(&membership.member.group).await;
        }
        for number in 0..self.topic.streams.len() as u32 {
            let Begin { behind, offset, end } = self.begins[number as usize];
            self.assign(number, 0, Mode::Plain, behind, offset);
            self.partitions.entry(number).and_modify(|assigned| assigned.end = end);
        }
        Ok(())
    }

    /// Fixes where a new group begins before anything else is published.
    async fn create_groups(&self, group: &Group) -> Result<()> {
        let created = self.topic.numbered().map(|(number, stream)| async move {
            let behind = self.begins[number as usize].behind.to_string();
            let mut command = redis::cmd("XGROUP");
            command.arg("CREATE").arg(&**stream).arg(group.as_str()).arg(behind);
            match self.inner.link.query("subscribe", &command).await {
                // The group has a position already.
                Err(error) if error.to_string().contains("BUSYGROUP") => Ok(()),
                other => other.map(drop),
            }
        });
        try_join_all(created).await.map(drop)
    }

    /// Notes an event; the oldest go where nobody ever takes them.
    pub(super) fn tell(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.events.remove(0);
        }
        self.events.push(event);
        self.news = true;
    }

    fn assign(&mut self, number: u32, generation: u64, mode: Mode, after: EntryId, offset: u64) {
        let window = Window::new(Bounds::from(&self.subscription), offset, 0);
        self.partitions.insert(number, Assigned::new(window, generation, mode, after));
    }

    /// Begins with what the owner before had out.
    pub(super) fn take_over(&mut self, claimed: &Claimed) {
        let Claimed { number, generation, crashed, last } = *claimed;
        let mode = Mode::Inherit { generation, cursor: EntryId::ZERO };
        self.assign(number, generation, mode, last, 0);
        self.partitions.entry(number).and_modify(|assigned| assigned.crashed = crashed);
    }

    fn deliver(&mut self, limit: usize) -> Vec<Delivery> {
        let now = Instant::now();
        let mut all = Vec::new();
        for number in in_turn(&self.partitions, self.turn) {
            let Some(assigned) = self.partitions.get_mut(&number) else { continue };
            if assigned.giving_back || all.len() >= limit {
                continue;
            }
            let (topic, assignment) = (&self.subscription.topic, assigned.assignment);
            let lender = Lender { topic, partition: number, assignment };
            assigned.window.lend(now, limit - all.len(), &lender, &mut all);
        }
        self.turn = self.turn.wrapping_add(1);
        if self.membership.is_none() {
            self.forget(&all);
        }
        all
    }

    /// A reader settles nothing, so what it delivered is done.
    fn forget(&mut self, deliveries: &[Delivery]) {
        for delivery in deliveries {
            let position = delivery.position();
            if let Some(assigned) = self.partitions.get_mut(&position.partition()) {
                assigned.window.ack(position.offset(), delivery.attempt());
            }
        }
        self.partitions.values_mut().for_each(|assigned| assigned.window.advance());
    }

    fn note_caught_up(&mut self) {
        if self.membership.is_some() || self.caught_up {
            return;
        }
        self.caught_up = self.partitions.values().all(|a| a.window.settled() >= a.end);
        if self.caught_up {
            self.tell(Event::CaughtUp);
        }
    }

    /// What to deliver now. A first delivery was counted when its entry was read; any other is
    /// counted on the server before anyone sees it, who might die of it.
    async fn next_deliveries(&mut self, limit: usize) -> Result<Vec<Delivery>> {
        if self.uncounted.is_empty() {
            let deliveries = self.deliver(limit);
            let is_first = deliveries.iter().all(|delivery| delivery.attempt() == 1);
            if self.membership.is_none() || is_first {
                return Ok(deliveries);
            }
            self.uncounted = deliveries;
        }
        self.count().await?;
        let mut counted = std::mem::take(&mut self.uncounted);
        counted.retain(|delivery| self.is_current(delivery));
        Ok(counted)
    }

    pub(super) fn is_current(&self, delivery: &Delivery) -> bool {
        let assigned = self.partitions.get(&delivery.position().partition());
        assigned.is_some_and(|assigned| assigned.assignment == delivery.token().assignment)
    }

    fn wants(&self) -> Vec<Want> {
        let open = self.partitions.iter().filter(|(_, assigned)| !assigned.giving_back);
        let wants = open.map(|(number, assigned)| {
            let stream = self.topic.streams[*number as usize].clone();
            let lease = self.subscription.group.as_ref();
            let lease = lease.map_or_else(String::new, |group| keys::lease(&stream, group));
            let (mode, after) = (assigned.mode, assigned.after);
            let (number, assignment) = (*number, assigned.assignment);
            let count = assigned.fetch_count();
            Want { number, assignment, stream, lease, mode, after, count }
        });
        wants.filter(|want| want.count > 0).collect()
    }

    /// Fetches until something came, an error did, or the time is over.
    async fn fetch(&mut self, until: Instant) -> Result<()> {
        if self.fetching.is_none() {
            let wants = self.wants();
            if wants.is_empty() {
                sleep_until(until).await;
                return Ok(());
            }
            let idle = until.saturating_duration_since(Instant::now()).min(IDLE);
            let fetch = self.fetcher.clone().fetch(wants, idle);
            self.fetching = Some(Mutex::new(Box::pin(fetch)));
        }
        let Some(fetching) = &mut self.fetching else { return Ok(()) };
        let fetching = fetching.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Ok(got) = timeout_at(until, fetching).await else { return Ok(()) };
        self.fetching = None;
        self.take_in(got)
    }

    /// Asks for more while the caller works, where the next call would have too little.
    fn fetch_ahead(&mut self, enough: usize) {
        let ready: usize = self.partitions.values().map(|assigned| assigned.window.ready()).sum();
        if self.fetching.is_some() || ready >= enough {
            return;
        }
        let wants = self.wants();
        if wants.is_empty() {
            return;
        }
        let mut fetch: Pin<Box<dyn Future<Output = Vec<Got>> + Send>> =
            Box::pin(self.fetcher.clone().fetch(wants, Duration::ZERO));
        // The first look sends the question; the connection's own task takes the answer.
        let fetch = match (&mut fetch).now_or_never() {
            Some(got) => Box::pin(std::future::ready(got)),
            None => fetch,
        };
        self.fetching = Some(Mutex::new(fetch));
    }

    /// Takes what was asked for ahead, where it is there.
    fn take_arrived(&mut self) -> Result<()> {
        let Some(fetching) = &mut self.fetching else { return Ok(()) };
        let fetching = fetching.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(got) = fetching.now_or_never() else { return Ok(()) };
        self.fetching = None;
        self.take_in(got)
    }

    fn take_in(&mut self, got: Vec<Got>) -> Result<()> {
        let mut results = Vec::with_capacity(got.len());
        for Got { number, assignment, batch } in got {
            let assigned = self.partitions.get_mut(&number);
            let Some(assigned) = assigned.filter(|a| a.assignment == assignment) else { continue };
            let taken = match batch {
                Ok(batch) => assigned.take_in(batch),
                Err(error) => {
                    assigned.look_again();
                    Err(error)
                }
            };
            results.push((number, taken));
        }
        let topic = self.subscription.topic.clone();
        self.lose_fenced(results.into_iter()).map_err(|error| error.with("topic", topic))
    }

    /// Lets a fetch that is under way end: what it reads belongs to what was before.
    pub(super) async fn finish_fetching(&mut self) -> Result<()> {
        let Some(fetching) = &mut self.fetching else { return Ok(()) };
        let got = fetching.get_mut().unwrap_or_else(PoisonError::into_inner).await;
        self.fetching = None;
        self.take_in(got)
    }

    fn next_wake(&self, until: Instant) -> Instant {
        let view = self.membership.as_ref().map(|membership| membership.next_view);
        let windows = self.partitions.values().filter_map(|assigned| assigned.window.next_wake());
        windows.chain(view).fold(until, Instant::min)
    }

    /// The partition of a token, unless it is of another assignment.
    pub(super) fn assigned(&mut self, token: &AckToken) -> Option<&mut Assigned> {
        let assigned = self.partitions.get_mut(&token.position.partition())?;
        (assigned.assignment == token.assignment).then_some(assigned)
    }

    /// Moves one partition.
    async fn seek_partition(&mut self, number: u32, to: Start) -> Result<()> {
        let stream = self.topic.streams[number as usize].clone();
        let behind = groups::behind(&self.inner.link, "seek", &stream, to).await?;
        let offset = groups::offset_of(to, behind)?;
        let arguments = |command: &mut Cmd| {
            command.arg(behind.to_string());
        };
        let moved = self.run("seek", &scripts::SEEK, number, &arguments).await;
        if moved.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced) {
            self.lose(&[number]);
        }
        moved.map_err(|error| error.with("partition", number))?;
        let Some(assigned) = self.partitions.get(&number) else { return Ok(()) };
        let (generation, end) = (assigned.generation, assigned.end);
        let mode = match self.membership {
            Some(_) => Mode::New { generation },
            None => Mode::Plain,
        };
        self.assign(number, generation, mode, behind, offset);
        self.partitions.entry(number).and_modify(|assigned| assigned.end = end);
        Ok(())
    }
}

#[async_trait]
impl Consumer for RedisConsumer {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        let until = Instant::now() + limit.wait;
        loop {
            self.inner.check_open("receive")?;
            // A silent server is waited for no longer than the caller wants to wait.
            let patience = until.max(Instant::now() + LOOK_TIME_MAX);
            let Ok(looked) = timeout_at(patience, self.look_at_group()).await else {
                return Ok(Vec::new());
            };
            looked?;
            self.take_arrived()?;
            let deliveries = self.next_deliveries(limit.messages).await?;
            self.note_caught_up();
            let news = std::mem::take(&mut self.news);
            if !deliveries.is_empty() || news || Instant::now() >= until {
                self.fetch_ahead(limit.messages);
                return Ok(deliveries);
            }
            self.fetch(self.next_wake(until)).await?;
        }
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        let Some(membership) = &self.membership else { return Vec::new() };
        membership.member.polled();
        if let Err(error) = self.inner.check_open("settle") {
            let unsettled = |(token, outcome)| {
                let error = error.duplicate();
                Unsettled { token, outcome, error }
            };
            return outcomes.into_iter().map(unsettled).collect();
        }
        outcomes.iter().for_each(|(token, outcome)| self.apply(token, outcome));
        let failed = self.acknowledge().await;
        let mut unsettled = Vec::new();
        for (token, outcome) in outcomes {
            if let Some(error) = failed.get(&token.position.partition()) {
                self.restore(&token);
                unsettled.push(Unsettled { token, outcome, error: error.duplicate() });
            } else if let Some(assigned) = self.assigned(&token) {
                assigned.window.release(token.position.offset());
            }
        }
        unsettled
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        self.inner.check_open("extend")?;
        let until = Instant::now() + by;
        for token in tokens {
            if let Some(assigned) = self.assigned(token) {
                assigned.window.postpone(token.position.offset(), token.attempt, until);
            }
        }
        Ok(())
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        self.inner.check_open("seek")?;
        self.finish_fetching().await?;
        let numbers = match seek.partition {
            None => self.partitions.keys().copied().collect(),
            Some(number) if self.partitions.contains_key(&number) => vec![number],
            Some(number) => {
                let problem = "the partition is not assigned";
                let error = Error::new(ErrorKind::NotFound, "seek", problem);
                return Err(error.with("partition", number));
            }
        };
        for number in numbers {
            self.seek_partition(number, seek.to).await?;
        }
        Ok(())
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        self.inner.check_open("transaction")?;
        if self.membership.is_none() {
            let problem = "a reader settles nothing, so it has no transactions";
            return Err(Error::new(ErrorKind::Unsupported, "transaction", problem));
        }
        Ok(Box::new(RedisTransaction::new(self)))
    }

    fn events(&mut self) -> Vec<Event> {
        self.news = false;
        std::mem::take(&mut self.events)
    }
}

impl Drop for RedisConsumer {
    fn drop(&mut self) {
        if let Some(membership) = self.membership.take() {
            self.inner.depart(membership.member);
        }
    }
}

impl fmt::Debug for RedisConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConsumer")
            .field("topic", &self.subscription.topic)
            .field("group", &self.subscription.group)
            .field("partitions", &self.partitions.keys())
            .finish_non_exhaustive()
    }
}
