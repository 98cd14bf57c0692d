//! Publishing and settling as one step.

use std::sync::Arc;

use super::Harness;
use super::stage::{
    QUIET, Stage, Tap, assert_kind, make_topic, numbers, outcomes, text, texts, unique_topic,
};
use crate::contract::Broker;
use crate::delivery::{Delivery, Outcome};
use crate::error::{ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;
use crate::subscription::Subscription;

/// A source with `count` messages, its group's member, and an empty topic for the results.
struct Chain {
    stage: Stage,
    member: Tap,
    results: Topic,
}

impl Chain {
    /// Nothing where the backend has no transactions, after it has said so.
    async fn new(harness: &dyn Harness, count: usize) -> Option<Self> {
        let stage = Stage::new(harness, 1).await;
        stage.publish_texts(numbers(count)).await;
        let results = make_topic(&stage.broker, 1).await;
        let mut member = stage.subscribe(named(&stage)).await;
        if stage.broker.capabilities().transactions {
            return Some(Self { stage, member, results });
        }
        assert_kind(member.consumer.transaction().await, ErrorKind::Unsupported);
        None
    }

    async fn results(&self) -> Vec<String> {
        texts(&read(&self.stage.broker, &self.results).await)
    }
}

/// A member with a name of its own, of which some backends derive who may fence it.
fn named(stage: &Stage) -> Subscription {
    let instance = Some(super::stage::unique("instance"));
    Subscription { instance, ..stage.subscription() }
}

async fn read(broker: &Arc<dyn Broker>, topic: &Topic) -> Vec<Delivery> {
    let reader = broker.subscribe(Subscription::reader(topic)).await.unwrap();
    Tap::new(reader).until_caught_up().await
}

fn results_of(deliveries: &[Delivery]) -> Vec<Message> {
    deliveries.iter().map(|delivery| Message::new(format!("result {}", text(delivery)))).collect()
}

fn expected(count: usize) -> Vec<String> {
    numbers(count).iter().map(|number| format!("result {number}")).collect()
}

/// Publishes the results of deliveries and settles these in one transaction.
async fn process(member: &mut Tap, results: &Topic, deliveries: Vec<Delivery>) -> Result<()> {
    let mut transaction = member.consumer.transaction().await?;
    transaction.publish(results, results_of(&deliveries)).await?;
    transaction.settle(outcomes(deliveries, &Outcome::Ack)).await?;
    transaction.commit().await
}

/// After the commit both are durable: the results are there and the input is gone.
pub async fn a_commit_publishes_and_settles_as_one(harness: &dyn Harness) {
    let Some(mut chain) = Chain::new(harness, 5).await else { return };
    let deliveries = chain.member.take(5).await;
    process(&mut chain.member, &chain.results, deliveries).await.unwrap();
    let other = chain.stage.reconnected(harness).await;
    assert_eq!(texts(&read(&other.broker, &chain.results).await), expected(5));
    drop(chain.member);
    other.assert_all_settled().await;
}

/// Readers see nothing of an open transaction, and nobody else gets its deliveries.
pub async fn nothing_is_visible_before_the_commit(harness: &dyn Harness) {
    let Some(mut chain) = Chain::new(harness, 3).await else { return };
    let reader = Subscription::reader(&chain.results);
    let mut reader = Tap::new(harness.broker().await.subscribe(reader).await.unwrap());
    let deliveries = chain.member.take(3).await;
    let mut transaction = chain.member.consumer.transaction().await.unwrap();
    transaction.publish(&chain.results, results_of(&deliveries)).await.unwrap();
    transaction.settle(outcomes(deliveries, &Outcome::Ack)).await.unwrap();
    reader.assert_quiet(QUIET).await;
    transaction.commit().await.unwrap();
    assert_eq!(texts(&reader.take(3).await), expected(3));
}

/// An abort undoes the settlements too.
pub async fn an_abort_leaves_nothing_and_the_deliveries_come_again(harness: &dyn Harness) {
    let Some(mut chain) = Chain::new(harness, 3).await else { return };
    let deliveries = chain.member.take(3).await;
    let mut transaction = chain.member.consumer.transaction().await.unwrap();
    transaction.publish(&chain.results, results_of(&deliveries)).await.unwrap();
    transaction.settle(outcomes(deliveries, &Outcome::Ack)).await.unwrap();
    transaction.abort().await.unwrap();
    let again = chain.member.take(3).await;
    assert_eq!(texts(&again), numbers(3));
    assert!(again.iter().all(|delivery| delivery.attempt() == 2), "{again:?}");
    assert!(chain.results().await.is_empty());
    process(&mut chain.member, &chain.results, again).await.unwrap();
    assert_eq!(chain.results().await, expected(3));
}

/// A transaction that goes out of scope, as by an early return, is an abort.
pub async fn a_dropped_transaction_is_aborted(harness: &dyn Harness) {
    let Some(mut chain) = Chain::new(harness, 3).await else { return };
    let deliveries = chain.member.take(3).await;
    let mut transaction = chain.member.consumer.transaction().await.unwrap();
    transaction.publish(&chain.results, results_of(&deliveries)).await.unwrap();
    transaction.settle(outcomes(deliveries, &Outcome::Ack)).await.unwrap();
    drop(transaction);
    let again = chain.member.take(3).await;
    assert_eq!(texts(&again), numbers(3));
    process(&mut chain.member, &chain.results, again).await.unwrap();
    assert_eq!(chain.results().await, expected(3));
}

/// Deliveries of a member that left are not its successor's to settle.
pub async fn tokens_of_another_assignment_are_fenced(harness: &dyn Harness) {
    let Some(mut chain) = Chain::new(harness, 3).await else { return };
    let stale = chain.member.take(3).await;
    let (stage, results) = (chain.stage, chain.results);
    drop(chain.member);
    let mut successor = stage.member().await;
    let current = successor.take(3).await;
    assert_kind(process(&mut successor, &results, stale).await, ErrorKind::Fenced);
    assert!(read(&stage.broker, &results).await.is_empty());
    process(&mut successor, &results, current).await.unwrap();
    assert_eq!(texts(&read(&stage.broker, &results).await), expected(3));
}

/// A process that stalled while others took over publishes nothing.
pub async fn a_commit_after_the_partition_was_lost_is_fenced(harness: &dyn Harness) {
    let Some(chain) = Chain::new(harness, 3).await else { return };
    let (stage, results) = (chain.stage, chain.results);
    drop(chain.member);
    let subscription = named(&stage);
    let mut member = stage.subscribe(subscription.clone()).await;
    let deliveries = member.take(3).await;
    let mut transaction = member.consumer.transaction().await.unwrap();
    transaction.publish(&results, results_of(&deliveries)).await.unwrap();
    transaction.settle(outcomes(deliveries, &Outcome::Ack)).await.unwrap();
    let mut usurper = Tap::new(harness.usurp(&subscription).await);
    let again = usurper.take(3).await;
    assert_eq!(texts(&again), numbers(3));
    assert_kind(transaction.commit().await, ErrorKind::Fenced);
    assert!(read(&stage.broker, &results).await.is_empty());
    process(&mut usurper, &results, again).await.unwrap();
    assert_eq!(texts(&read(&stage.broker, &results).await), expected(3));
}

/// Unlike `publish`, a transaction is all or nothing.
pub async fn a_refused_message_fails_the_whole_transaction(harness: &dyn Harness) {
    let Some(mut chain) = Chain::new(harness, 1).await else { return };
    let large = Message::new(vec![7; chain.stage.broker.capabilities().message_bytes_max + 1]);
    let refused = [
        (chain.results.clone(), large, ErrorKind::TooLarge),
        (unique_topic(), Message::new("body"), ErrorKind::NotFound),
    ];
    for (topic, message, kind) in refused {
        let delivery = chain.member.next().await;
        let mut transaction = chain.member.consumer.transaction().await.unwrap();
        transaction.publish(&chain.results, results_of(&[])).await.unwrap();
        transaction.publish(&chain.results, vec![Message::new("good")]).await.unwrap();
        transaction.settle(outcomes([delivery], &Outcome::Ack)).await.unwrap();
        match transaction.publish(&topic, vec![message]).await {
            Ok(()) => assert_kind(transaction.commit().await, kind),
            refused => {
                assert_kind(refused, kind);
                transaction.abort().await.unwrap();
            }
        }
        assert!(chain.results().await.is_empty(), "{kind:?}");
    }
    let delivery = chain.member.next().await;
    process(&mut chain.member, &chain.results, vec![delivery]).await.unwrap();
    assert_eq!(chain.results().await, expected(1));
}

/// Exactly once, through commits, aborts and a change of member.
pub async fn a_chain_of_transactions_gives_each_result_once(harness: &dyn Harness) {
    const COUNT: usize = 60;
    let Some(mut chain) = Chain::new(harness, COUNT).await else { return };
    let (mut done, mut round) = (0, 0);
    while done < COUNT {
        round += 1;
        let deliveries = chain.member.take(5).await;
        if round % 5 == 0 {
            chain.member = chain.stage.member().await;
        } else if round % 3 == 0 {
            let mut transaction = chain.member.consumer.transaction().await.unwrap();
            transaction.publish(&chain.results, results_of(&deliveries)).await.unwrap();
            transaction.abort().await.unwrap();
            let after = std::time::Duration::ZERO;
            chain.member.settle(deliveries, Outcome::Retry { after }).await;
        } else {
            done += deliveries.len();
            process(&mut chain.member, &chain.results, deliveries).await.unwrap();
        }
    }
    assert_eq!(chain.results().await, expected(COUNT));
}

/// Without a group there is nothing to settle.
pub async fn a_reader_has_no_transactions(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let mut reader = stage.reader().await;
    assert_kind(reader.consumer.transaction().await, ErrorKind::Unsupported);
}
