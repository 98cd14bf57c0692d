//! What is special about this backend; the rules of all are in the conformance suite.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::error::Result;
use crate::ext::BrokerExt;
use crate::subscription::{Limit, Subscription};
use crate::{Consumer, Delivery as Loan, Outcome, TopicSpec};

const HOUR: Duration = Duration::from_secs(3600);

async fn stage() -> (Memory, Arc<dyn Broker>, Topic, Group) {
    let memory = Memory::new();
    let broker = memory.connect_bare();
    let topic = Topic::new("topic").unwrap();
    broker.ensure_topic(&TopicSpec::new(&topic, 2)).await.unwrap();
    (memory, broker, topic, Group::new("group").unwrap())
}

async fn receive(consumer: &mut dyn Consumer) -> Result<Vec<Loan>> {
    loop {
        let deliveries = consumer.receive(Limit::new(10, HOUR)).await?;
        if !deliveries.is_empty() {
            return Ok(deliveries);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hours_pass_at_once_under_a_paused_clock() {
    let (_, broker, topic, group) = stage().await;
    let begun = (Instant::now(), std::time::Instant::now());
    broker.publish_one(&topic, Message::new("body")).await.unwrap();
    let subscription = Subscription::group(&topic, &group).with_ack_deadline(HOUR);
    let mut member = broker.subscribe(subscription).await.unwrap();
    let silent = receive(&mut *member).await.unwrap();
    let again = receive(&mut *member).await.unwrap();
    assert_eq!((silent[0].attempt(), again[0].attempt()), (1, 2));
    let token = again.into_iter().next().unwrap().into_token();
    assert!(member.settle(vec![(token, Outcome::Retry { after: HOUR })]).await.is_empty());
    assert_eq!(receive(&mut *member).await.unwrap()[0].attempt(), 3);
    assert!(begun.0.elapsed() >= 2 * HOUR);
    assert!(begun.1.elapsed() < HOUR / 60, "no time passed in truth");
    broker.publish_one(&topic, Message::new("late")).await.unwrap();
    let mut reader = broker.subscribe(Subscription::reader(&topic)).await.unwrap();
    let times: Vec<_> =
        receive(&mut *reader).await.unwrap().iter().map(|it| it.timestamp.unwrap()).collect();
    let apart = (times[1].as_micros() - times[0].as_micros()).unsigned_abs();
    assert!(u128::from(apart) >= 2 * HOUR.as_micros(), "{apart}");
}

#[tokio::test]
async fn calls_fail_as_often_as_the_test_asks() {
    let (memory, broker, topic, _) = stage().await;
    memory.fail_next(Call::Publish, ErrorKind::Unavailable);
    memory.fail_next(Call::Publish, ErrorKind::Throttled);
    for kind in [ErrorKind::Unavailable, ErrorKind::Throttled] {
        let error = broker.publish_one(&topic, Message::new("lost")).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (kind, true));
    }
    broker.publish_one(&topic, Message::new("kept")).await.unwrap();
    let published = memory.published(&topic);
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].payload, "kept");
}

#[tokio::test]
async fn what_was_published_is_told_in_its_order_over_partitions() {
    let (memory, broker, topic, _) = stage().await;
    for number in 0..20 {
        let message = Message::new(number.to_string()).with_key(number.to_string());
        broker.publish_one(&topic, message).await.unwrap();
    }
    let published = memory.published(&topic);
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert!(published.iter().map(|it| &it.payload[..]).eq(expected.iter().map(String::as_bytes)));
    assert!(memory.published(&Topic::new("missing").unwrap()).is_empty());
}

#[tokio::test]
async fn a_message_that_kills_its_consumers_is_counted() {
    let (memory, broker, topic, group) = stage().await;
    broker.publish_one(&topic, Message::new("deadly").with_key("key")).await.unwrap();
    let mut zombies = Vec::new();
    for attempt in 1..5 {
        let subscription = Subscription::group(&topic, &group);
        let mut member = broker.subscribe(subscription).await.unwrap();
        assert_eq!(receive(&mut *member).await.unwrap()[0].attempt(), attempt);
        memory.evict(&group);
        zombies.push(member);
    }
}

#[tokio::test]
async fn a_compacted_topic_keeps_the_last_message_of_each_key() {
    let (memory, broker, _, _) = stage().await;
    let topic = Topic::new("compacted").unwrap();
    broker.ensure_topic(&TopicSpec::new(&topic, 1).compacted()).await.unwrap();
    for (key, body) in [("a", "1"), ("b", "2"), ("a", "3")] {
        broker.publish_one(&topic, Message::new(body).with_key(key)).await.unwrap();
    }
    let bodies: Vec<_> = memory.published(&topic).into_iter().map(|it| it.payload).collect();
    assert_eq!(bodies, ["2", "3"]);
    let mut reader = broker.subscribe(Subscription::reader(&topic)).await.unwrap();
    let offsets: Vec<u64> =
        receive(&mut *reader).await.unwrap().iter().map(|it| it.position().offset()).collect();
    assert_eq!(offsets, [1, 2]);
}
