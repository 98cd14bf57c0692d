//! A member of a group, or a reader.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Call;
use super::broker::Link;
use super::groups::Place;
use super::store::State;
use super::transaction::MemoryTransaction;
use crate::contract::{Consumer, Transaction};
use crate::delivery::{AckToken, Delivery, Outcome, Unsettled};
use crate::error::{Error, ErrorKind, Result};
use crate::name::Group;
use crate::subscription::{Event, Limit, Seek, Start, Subscription};
use crate::window::{Bounds, Lender, Window, in_turn};

/// The most events that are kept for a caller who does not take them.
const EVENTS_MAX: usize = 1024;

/// A partition that this consumer reads.
struct Assigned {
    window: Window,
    committed: u64,
    /// Tells this assignment's tokens from those of another.
    assignment: u64,
    giving_back: bool,
    /// Its first delivery was counted.
    started: bool,
    /// For a reader: where the partition ended when it subscribed.
    end: u64,
}

pub(super) struct MemoryConsumer {
    pub(super) link: Arc<Link>,
    subscription: Subscription,
    topic: u64,
    member: Option<(Group, u64)>,
    partitions: BTreeMap<u32, Assigned>,
    changes: watch::Receiver<()>,
    events: Vec<Event>,
    /// An event came that no `receive` has returned for.
    news: bool,
    caught_up: bool,
    /// The partition that delivers first, in turn, so that a full one starves no other.
    turn: usize,
}

impl MemoryConsumer {
    /// Joins the group, or begins to read.
    pub(super) fn open(link: Arc<Link>, subscription: Subscription) -> Result<Self> {
        let (topic, member) = {
            let mut state = link.store.lock();
            state.fault(Call::Subscribe, "subscribe")?;
            let topic = state.log(&subscription.topic, "subscribe")?.id;
            (topic, subscription.group.clone().map(|group| (group, state.next_id())))
        };
        let mut consumer = Self {
            changes: link.store.changes(),
            link: link.clone(),
            subscription,
            topic,
            member,
            partitions: BTreeMap::new(),
            events: Vec::new(),
            news: false,
            caught_up: false,
            turn: 0,
        };
        let mut state = link.store.lock();
        if consumer.member.is_some() {
            consumer.share(&mut state)?;
        } else {
            consumer.read_all(&mut state)?;
        }
        drop(state);
        Ok(consumer)
    }

    fn read_all(&mut self, state: &mut State) -> Result<()> {
        let start = self.subscription.start;
        let log = state.log(&self.subscription.topic, "subscribe")?;
        let bounds: Vec<(u64, u64)> =
            log.partitions.iter().map(|it| (it.resolve(start), it.end())).collect();
        for (number, (from, end)) in (0..).zip(bounds) {
            let assignment = state.next_id();
            self.assign(number, from, 0, assignment, end);
        }
        Ok(())
    }

    fn assign(&mut self, number: u32, committed: u64, starts: u32, assignment: u64, end: u64) {
        let window = Window::new(Bounds::from(&self.subscription), committed, starts);
        let (giving_back, started) = (false, false);
        let assigned = Assigned { window, committed, assignment, giving_back, started, end };
        self.partitions.insert(number, assigned);
    }

    /// Notes an event; the oldest go where nobody ever takes them.
    fn tell(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.events.remove(0);
        }
        self.events.push(event);
        self.news = true;
    }

    /// Keeps to the member's share: lets go what is another's, gives back what should be, and
    /// claims what is its own and free.
    fn share(&mut self, state: &mut State) -> Result<()> {
        let Some((group, member)) = self.member.clone() else { return Ok(()) };
        let count = state.log(&self.subscription.topic, "receive")?.partitions.len() as u32;
        let members = state.groups.entry(group.clone()).or_default();
        let joined = members.join(member, self.topic);
        let share = members.share(member, self.topic, count);
        let revoked = self.give_back(&mut members.places, &share);
        let claimed = self.claim(state, &group, member, &share)?;
        if joined || !revoked.is_empty() {
            self.link.store.tell();
        }
        if !revoked.is_empty() {
            self.tell(Event::Revoked(revoked));
        }
        if !claimed.is_empty() {
            self.tell(Event::Assigned(claimed));
        }
        Ok(())
    }

    /// Drops what is not its own any more, and what should not be once nothing of it is out.
    fn give_back(&mut self, places: &mut BTreeMap<(u64, u32), Place>, share: &[u32]) -> Vec<u32> {
        let mut revoked = Vec::new();
        for (number, assigned) in &mut self.partitions {
            let place = places.get_mut(&(self.topic, *number));
            let Some(place) = place.filter(|place| place.is_owned(assigned.assignment)) else {
                revoked.push(*number);
                continue;
            };
            assigned.giving_back = !share.contains(number);
            if assigned.giving_back && !assigned.window.in_flight() {
                place.give_back();
                revoked.push(*number);
            }
        }
        self.partitions.retain(|number, _| !revoked.contains(number));
        revoked
    }

    fn claim(
        &mut self,
        state: &mut State,
        group: &Group,
        member: u64,
        share: &[u32],
    ) -> Result<Vec<u32>> {
        let mut claimed = Vec::new();
        for number in share.iter().copied() {
            if self.partitions.contains_key(&number) {
                continue;
            }
            let assignment = state.next_id();
            let log = state.log(&self.subscription.topic, "receive")?;
            let start = log.partitions[number as usize].resolve(self.subscription.start);
            let members = state.groups.entry(group.clone()).or_default();
            let place = members.places.entry((self.topic, number));
            let place = place.or_insert_with(|| Place::at(start));
            if place.is_free() {
                place.claim(member, assignment);
                let (committed, starts) = (place.committed, place.starts);
                self.assign(number, committed, starts, assignment, 0);
                claimed.push(number);
            }
        }
        Ok(claimed)
    }

    /// What there is to deliver now, without waiting.
    fn look(&mut self, limit: usize) -> Result<Vec<Delivery>> {
        let link = self.link.clone();
        link.check_open("receive")?;
        let mut state = link.store.lock();
        let topic = state.log(&self.subscription.topic, "receive")?.id;
        if topic != self.topic {
            let problem = "the topic was deleted and made anew";
            let error = Error::new(ErrorKind::NotFound, "receive", problem);
            return Err(error.with("topic", &self.subscription.topic));
        }
        self.share(&mut state)?;
        self.fetch(&mut state)?;
        let deliveries = self.deliver(&mut state, limit);
        drop(state);
        self.note_caught_up();
        Ok(deliveries)
    }

    fn fetch(&mut self, state: &mut State) -> Result<()> {
        let log = state.log(&self.subscription.topic, "receive")?;
        for (number, assigned) in &mut self.partitions {
            let (window, partition) = (&mut assigned.window, &log.partitions[*number as usize]);
            if assigned.giving_back {
                continue;
            }
            let (mut next, mut fetched) = (window.next(), Vec::new());
            let (mut room, mut bytes) = (window.room(), window.room_bytes());
            while room > 0 && bytes > 0 && next < partition.end() {
                if let Some(message) = partition.get(next) {
                    bytes = bytes.saturating_sub(message.payload.len());
                    room -= 1;
                    fetched.push((next, message.clone()));
                }
                next += 1;
            }
            window.extend(fetched, next);
        }
        Ok(())
    }

    fn deliver(&mut self, state: &mut State, limit: usize) -> Vec<Delivery> {
        let now = Instant::now();
        let mut all = Vec::new();
        for number in in_turn(&self.partitions, self.turn) {
            let Some(assigned) = self.partitions.get_mut(&number) else { continue };
            if assigned.giving_back || all.len() >= limit {
                continue;
            }
            let (topic, assignment) = (&self.subscription.topic, assigned.assignment);
            let lender = Lender { topic, partition: number, assignment };
            let given = assigned.window.lend(now, limit - all.len(), &lender, &mut all);
            // Owners that die before they deliver count for nothing.
            if given > 0 && !assigned.started {
                assigned.started = true;
                let place = place(state, self.member.as_ref(), self.topic, number);
                place.into_iter().for_each(|place| place.starts += 1);
            }
        }
        self.turn = self.turn.wrapping_add(1);
        if self.member.is_none() {
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
        if self.member.is_some() || self.caught_up {
            return;
        }
        self.caught_up = self.partitions.values().all(|it| it.window.settled() >= it.end);
        if self.caught_up {
            self.tell(Event::CaughtUp);
        }
    }

    fn assigned(&mut self, token: &AckToken) -> Option<&mut Assigned> {
        let assigned = self.partitions.get_mut(&token.position.partition());
        assigned.filter(|assigned| assigned.assignment == token.assignment)
    }

    /// Applies an outcome to its window; a stale one is passed over.
    pub(super) fn apply(&mut self, token: &AckToken, outcome: &Outcome) {
        let Some(assigned) = self.assigned(token) else { return };
        let offset = token.position.offset();
        match outcome {
            // The delivery layer has stored the dead letter before it settles a rejection.
            Outcome::Ack | Outcome::Reject { .. } => {
                assigned.window.ack(offset, token.attempt);
            }
            Outcome::Retry { after } => {
                assigned.window.retry(offset, token.attempt, Instant::now() + *after);
            }
        }
    }

    /// Moves the group's positions to where everything before them is settled.
    pub(super) fn commit(&mut self, state: &mut State) {
        let mut fenced = Vec::new();
        for (number, assigned) in &mut self.partitions {
            let settled = assigned.window.settled();
            if settled == assigned.committed {
                continue;
            }
            let place = place(state, self.member.as_ref(), self.topic, *number);
            match place.filter(|place| place.is_owned(assigned.assignment)) {
                Some(place) => {
                    place.commit(settled);
                    assigned.committed = settled;
                    assigned.window.advance();
                }
                None => fenced.push(*number),
            }
        }
        if !fenced.is_empty() {
            self.partitions.retain(|number, _| !fenced.contains(number));
            self.tell(Event::Revoked(fenced));
        }
    }

    /// Whether the token's assignment is this consumer's still.
    pub(super) fn owns(&self, state: &State, token: &AckToken) -> bool {
        let Some((group, _)) = &self.member else { return false };
        let number = token.position.partition();
        let held = self.partitions.get(&number).is_some_and(|it| it.assignment == token.assignment);
        let place = state.groups.get(group).and_then(|it| it.places.get(&(self.topic, number)));
        held && place.is_some_and(|place| place.is_owned(token.assignment))
    }

    /// Up to where the token's partition is settled.
    pub(super) fn settled(&self, token: &AckToken) -> u64 {
        let assigned = self.partitions.get(&token.position.partition());
        assigned.map_or(0, |assigned| assigned.window.settled())
    }

    /// Takes an outcome back: the delivery comes again.
    pub(super) fn reopen(&mut self, token: &AckToken) {
        if let Some(assigned) = self.assigned(token) {
            assigned.window.reopen(token.position.offset(), token.attempt);
        }
    }

    fn seek_partition(&mut self, state: &mut State, number: u32, to: Start) -> Result<()> {
        let Some(end) = self.partitions.get(&number).map(|assigned| assigned.end) else {
            let problem = "the partition is not assigned to this consumer";
            let error = Error::new(ErrorKind::NotFound, "seek", problem);
            return Err(error.with("partition", number));
        };
        let log = state.log(&self.subscription.topic, "seek")?;
        let committed = log.partitions[number as usize].resolve(to);
        let assignment = state.next_id();
        if let Some((_, member)) = &self.member
            && let Some(place) = place(state, self.member.as_ref(), self.topic, number)
        {
            place.move_to(committed);
            place.claim(*member, assignment);
        }
        self.assign(number, committed, 0, assignment, end);
        Ok(())
    }
}

/// Where the member's group stands in a partition.
fn place<'a>(
    state: &'a mut State,
    member: Option<&(Group, u64)>,
    topic: u64,
    number: u32,
) -> Option<&'a mut Place> {
    let (group, _) = member?;
    state.groups.get_mut(group)?.places.get_mut(&(topic, number))
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        // Nothing here waits for anything else, so a busy consumer makes way by itself.
        tokio::task::consume_budget().await;
        self.link.store.lock().fault(Call::Receive, "receive")?;
        let until = Instant::now() + limit.wait;
        loop {
            self.changes.mark_unchanged();
            let deliveries = self.look(limit.messages)?;
            let news = std::mem::take(&mut self.news);
            if !deliveries.is_empty() || news || Instant::now() >= until {
                return Ok(deliveries);
            }
            let windows = self.partitions.values().filter_map(|it| it.window.next_wake());
            let wake = windows.fold(until, Instant::min);
            // Running out of time is answered by looking again.
            let _ = timeout_at(wake, self.changes.changed()).await;
        }
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        tokio::task::consume_budget().await;
        if self.member.is_none() {
            return Vec::new();
        }
        let link = self.link.clone();
        let mut state = link.store.lock();
        let refused = link.check_open("settle").and_then(|()| state.fault(Call::Settle, "settle"));
        if let Err(error) = refused {
            let back = outcomes.into_iter();
            return back
                .map(|(token, outcome)| Unsettled { token, outcome, error: error.duplicate() })
                .collect();
        }
        for (token, outcome) in &outcomes {
            self.apply(token, outcome);
        }
        self.commit(&mut state);
        for (token, _) in &outcomes {
            if let Some(assigned) = self.assigned(token) {
                assigned.window.release(token.position.offset());
            }
        }
        Vec::new()
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        self.link.check_open("extend")?;
        let until = Instant::now() + by;
        for token in tokens {
            if let Some(assigned) = self.assigned(token) {
                assigned.window.postpone(token.position.offset(), token.attempt, until);
            }
        }
        Ok(())
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        let link = self.link.clone();
        link.check_open("seek")?;
        let mut state = link.store.lock();
        self.share(&mut state)?;
        let numbers: Vec<u32> = match seek.partition {
            Some(number) => vec![number],
            None => self.partitions.keys().copied().collect(),
        };
        numbers.into_iter().try_for_each(|number| self.seek_partition(&mut state, number, seek.to))
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        if self.member.is_none() {
            let problem = "a reader without a group settles nothing and has no transactions";
            return Err(Error::new(ErrorKind::Unsupported, "transaction", problem));
        }
        Ok(Box::new(MemoryTransaction::new(self)))
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        if let Some((group, member)) = &self.member
            && let Some(members) = self.link.store.lock().groups.get_mut(group)
        {
            members.leave(*member);
        }
        self.link.store.tell();
    }
}

impl fmt::Debug for MemoryConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConsumer")
            .field("topic", &self.subscription.topic)
            .field("group", &self.subscription.group)
            .field("partitions", &self.partitions.keys())
            .finish_non_exhaustive()
    }
}
