//! Attempts survive the death of whole processes.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use broker::conformance::Harness;
use broker::{Broker, BrokerExt, Group, Limit, Message, Outcome, Policy, Subscription, Topic};

use super::{Kafka, make_topic, outcomes, receive, unique};

/// What names the topics of a test to the processes that it starts.
const VICTIM: &str = "FOREBAY_TEST_KAFKA_VICTIM";
/// The message on which a process dies.
const POISON: &str = "poison";
const LAST: &str = "last";
const ATTEMPTS_MAX: u32 = 3;

/// A static member, whose successor need not wait for its session to end.
fn subscription(topic: &Topic, dead_letters: &Topic) -> Subscription {
    let group = Group::new(topic.as_str()).unwrap();
    let policy = Policy::default().with_attempts(ATTEMPTS_MAX).with_dead_letters(dead_letters);
    let instance = Some("one".to_owned());
    Subscription { instance, ..Subscription::group(topic, &group) }.with_policy(policy)
}

/// Not a test of its own: a process that another test starts, and that dies of a message.
#[tokio::test]
async fn a_victim_of_another_test() {
    let Ok(names) = std::env::var(VICTIM) else { return };
    let (topic, dead_letters) = names.split_once(' ').unwrap();
    let (topic, dead_letters) = (topic.parse().unwrap(), dead_letters.parse().unwrap());
    let kafka = Kafka::found().unwrap();
    let broker = kafka.delivery_layer(Policy::default()).await;
    let mut member = broker.subscribe(subscription(&topic, &dead_letters)).await.unwrap();
    loop {
        for delivery in receive(&mut *member, &mut Vec::new()).await {
            if delivery.payload == POISON {
                std::process::abort();
            }
            let is_last = delivery.payload == LAST;
            assert!(member.settle(outcomes(vec![delivery])).await.is_empty());
            if is_last {
                drop(member);
                return broker.shutdown().await.unwrap();
            }
        }
    }
}

/// Starts a process that consumes, and says whether it came to the last message.
fn run_victim(topic: &Topic, dead_letters: &Topic) -> bool {
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "kafka::attempts::a_victim_of_another_test"]);
    victim.env(VICTIM, format!("{topic} {dead_letters}"));
    victim.stdout(Stdio::null()).stderr(Stdio::null());
    victim.status().unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kills_each_process_reaches_the_dead_letters() {
    let Some(kafka) = Kafka::found() else { return };
    let broker = kafka.broker().await;
    let topic = make_topic(&broker, "deadly", 1).await;
    let dead_letters = make_topic(&broker, "dead", 1).await;
    let bodies = ["first", "second", POISON, "third", LAST];
    broker.publish_all(&topic, bodies.map(Message::new).to_vec()).await.unwrap();
    let mut deaths = 0;
    while !run_victim(&topic, &dead_letters) {
        deaths += 1;
        // Two deaths may be put down to the batch, and the others are the message's own.
        assert!(deaths <= 2 + ATTEMPTS_MAX, "{deaths} processes died");
    }
    assert!(deaths >= ATTEMPTS_MAX, "{deaths} processes died");
    assert_eq!(read(&broker, &dead_letters).await, [POISON]);
    let group = Group::new(topic.as_str()).unwrap();
    let lag = broker.lag(&topic, &group).await.unwrap();
    assert_eq!(lag[0].behind, 0, "{lag:?}");
}

/// All messages of a topic, of which there is one at least: where it was written in a
/// transaction it shows a moment after the commit.
async fn read(broker: &Arc<dyn Broker>, topic: &Topic) -> Vec<String> {
    let mut reader = broker.subscribe(Subscription::reader(topic)).await.unwrap();
    let mut all = receive(&mut *reader, &mut Vec::new()).await;
    all.extend(reader.receive(Limit::new(10, Duration::from_secs(1))).await.unwrap());
    all.iter().map(|d| String::from_utf8(d.payload.to_vec()).unwrap()).collect()
}

/// The attempt that a new member of the group sees first.
async fn next_attempt(kafka: &Kafka, subscription: &Subscription) -> u32 {
    let broker = kafka.broker().await;
    let mut member = broker.subscribe(subscription.clone()).await.unwrap();
    let deliveries = receive(&mut *member, &mut Vec::new()).await;
    // It goes without a word, so that it does not count as one that left in order.
    let attempt = deliveries[0].attempt();
    std::mem::forget(member);
    attempt
}

#[tokio::test]
async fn a_member_that_vanishes_is_counted_and_one_that_leaves_is_not() {
    let Some(kafka) = Kafka::found() else { return };
    let broker = kafka.broker().await;
    let topic = make_topic(&broker, "vanish", 1).await;
    broker.publish_one(&topic, Message::new("body")).await.unwrap();
    let group = Group::new(&unique("vanish")).unwrap();
    let instance = Some("one".to_owned());
    let subscription = Subscription { instance, ..Subscription::group(&topic, &group) };
    assert_eq!(next_attempt(&kafka, &subscription).await, 1);
    assert_eq!(next_attempt(&kafka, &subscription).await, 2);
    let other = kafka.broker().await;
    let mut orderly = other.subscribe(subscription.clone()).await.unwrap();
    let third = receive(&mut *orderly, &mut Vec::new()).await;
    assert_eq!(third[0].attempt(), 3);
    other.shutdown().await.unwrap();
    assert_eq!(next_attempt(&kafka, &subscription).await, 1);
    let retry = third.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
    assert_eq!(orderly.settle(retry).await.len(), 1, "it is closed");
}
