//! How partitions change hands: static members keep theirs over a restart, and a cooperative
//! group stops only what moves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::conformance::Harness;
use broker::{
    Broker, BrokerExt, Consumer, Event, Group, Limit, Message, Outcome, Subscription, Topic,
};

use super::{Kafka, make_topic, receive};

const PARTITIONS: u32 = 4;

/// A member with all that happened to its share.
struct Member {
    consumer: Box<dyn Consumer>,
    owned: BTreeSet<u32>,
    events: Vec<Event>,
}

impl Member {
    async fn join(broker: &Arc<dyn Broker>, topic: &Topic, instance: Option<&str>) -> Self {
        let group = Group::new(topic.as_str()).unwrap();
        let instance = instance.map(str::to_owned);
        let subscription = Subscription { instance, ..Subscription::group(topic, &group) };
        let consumer = broker.subscribe(subscription).await.unwrap();
        Self { consumer, owned: BTreeSet::new(), events: Vec::new() }
    }

    /// Receives for a moment and settles what came.
    async fn look(&mut self) -> usize {
        let limit = Limit::new(100, Duration::from_millis(50));
        let deliveries = self.consumer.receive(limit).await.unwrap();
        let count = deliveries.len();
        let outcomes = deliveries.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
        assert!(self.consumer.settle(outcomes).await.is_empty());
        for event in self.consumer.events() {
            match &event {
                Event::Assigned(numbers) => self.owned.extend(numbers),
                Event::Revoked(numbers) => self.owned.retain(|number| !numbers.contains(number)),
                other => unreachable!("{other:?} is not of a member"),
            }
            self.events.push(event);
        }
        count
    }
}

/// Looks at the members in turn until each owns so many partitions.
async fn come_to_rest(members: &mut [&mut Member], shares: &[usize]) {
    let until = Instant::now() + Duration::from_secs(60);
    while members.iter().zip(shares).any(|(member, share)| member.owned.len() != *share) {
        let owned: Vec<_> = members.iter().map(|member| &member.owned).collect();
        assert!(Instant::now() < until, "the group does not come to rest: {owned:?}");
        for member in &mut *members {
            member.look().await;
        }
    }
}

#[tokio::test]
async fn a_static_member_that_restarts_gets_its_partitions_and_disturbs_nobody() {
    let Some(kafka) = Kafka::found() else { return };
    let broker = kafka.broker().await;
    let topic = make_topic(&broker, "static", PARTITIONS).await;
    let mut one = Member::join(&broker, &topic, Some("one")).await;
    let mut two = Member::join(&broker, &topic, Some("two")).await;
    come_to_rest(&mut [&mut one, &mut two], &[2, 2]).await;
    let before = std::mem::take(&mut two.owned);
    drop(two);
    one.events.clear();
    let mut again = Member::join(&broker, &topic, Some("two")).await;
    come_to_rest(&mut [&mut one, &mut again], &[2, 2]).await;
    assert_eq!(again.owned, before);
    assert_eq!(one.events, [], "the other member was disturbed");
}

/// Kafka hands a restarted member what it had, and starts no new assignment for it.
#[tokio::test]
async fn partitions_that_a_static_member_had_to_give_up_when_it_died_find_an_owner() {
    let Some(kafka) = Kafka::found() else { return };
    let broker = kafka.broker().await;
    let topic = make_topic(&broker, "orphans", PARTITIONS).await;
    let mut one = Member::join(&broker, &topic, Some("one")).await;
    come_to_rest(&mut [&mut one], &[PARTITIONS as usize]).await;
    // While these are out the member gives nothing up.
    let batch = (0..100).map(|n| Message::new("body").with_key(n.to_string())).collect();
    broker.publish_all(&topic, batch).await.unwrap();
    let lent = receive(one.consumer.as_mut(), &mut one.events).await;
    let mut two = Member::join(&broker, &topic, Some("two")).await;
    let group = Group::new(topic.as_str()).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let shown = broker.admin().describe_group(&group).await.unwrap();
        let shares: Vec<usize> = shown.members.iter().map(|m| m.partitions.len()).collect();
        if shares.len() == 2 && shares.iter().sum::<usize>() == 2 {
            break;
        }
        assert!(Instant::now() < until, "{shares:?}");
    }
    let mut again = Member::join(&broker, &topic, Some("one")).await;
    drop((one, lent));
    come_to_rest(&mut [&mut again, &mut two], &[2, 2]).await;
}

async fn only_what_moves_is_stopped(kafka: Kafka) {
    let broker = kafka.broker().await;
    let topic = make_topic(&broker, "cooperative", PARTITIONS).await;
    let mut first = Member::join(&broker, &topic, None).await;
    come_to_rest(&mut [&mut first], &[4]).await;
    first.events.clear();
    let mut second = Member::join(&broker, &topic, None).await;
    come_to_rest(&mut [&mut first, &mut second], &[2, 2]).await;
    let moved: Vec<Event> = vec![Event::Revoked(second.owned.iter().copied().collect())];
    assert_eq!(first.events, moved, "only what went to {:?} was stopped", second.owned);
    let batch = (0..100).map(|n| Message::new("body").with_key(n.to_string())).collect();
    broker.publish_all(&topic, batch).await.unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let mut count = 0;
    while count < 100 {
        assert!(Instant::now() < until, "{count} of 100 came");
        count += first.look().await + second.look().await;
    }
}

#[tokio::test]
async fn a_newcomer_stops_only_the_partitions_that_it_takes() {
    let Some(kafka) = Kafka::found() else { return };
    only_what_moves_is_stopped(kafka).await;
}

#[tokio::test]
async fn a_newcomer_of_the_new_protocol_stops_only_the_partitions_that_it_takes() {
    let Some(kafka) = Kafka::new_protocol() else { return };
    only_what_moves_is_stopped(kafka).await;
}
