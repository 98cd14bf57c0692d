//! Restarts, stalls, and what is told of them.

use super::Harness;
use super::stage::{QUIET, Stage, Tap, assert_kind, numbers, outcomes, texts, unique};
use crate::delivery::{Delivery, Outcome};
use crate::error::ErrorKind;
use crate::subscription::Subscription;

/// Ends the stage's connection, restarts the server where that can be, and connects anew.
async fn restart(harness: &dyn Harness, stage: Stage) -> Stage {
    let Stage { broker, topic, group } = stage;
    drop(broker);
    harness.restart_server().await;
    Stage { broker: harness.broker().await, topic, group }
}

/// What was settled stays settled, what was open comes again.
pub async fn a_restart_resumes_from_the_committed_point(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(10)).await;
    let mut member = stage.member().await;
    let mut deliveries = member.take(8).await;
    let open = deliveries.split_off(4);
    member.ack(deliveries).await;
    stage.wait_committed(4).await;
    drop((open, member));
    let stage = restart(harness, stage).await;
    let again = stage.member().await.take(6).await;
    assert_eq!(stage.in_order(&again), ["4", "5", "6", "7", "8", "9"]);
}

/// `Written` is a promise.
pub async fn a_restart_keeps_what_was_written(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(100)).await;
    let stage = restart(harness, stage).await;
    assert_eq!(stage.in_order(&stage.everything().await), numbers(100));
    stage.publish_texts(["100"]).await;
    assert_eq!(stage.in_order(&stage.everything().await), numbers(101));
}

/// Its tokens are too late, which is no failure, and do not move the group's position.
pub async fn a_member_taken_for_dead_settles_nothing(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(4)).await;
    let instance = Some(unique("instance"));
    let subscription = Subscription { instance, ..stage.subscription() };
    let mut stalled = stage.subscribe(subscription.clone()).await;
    let stale = stalled.take(4).await;
    let mut usurper = Tap::new(harness.usurp(&subscription).await);
    if !stage.broker.capabilities().partitions {
        return assert_undisturbed(stalled, stale, usurper).await;
    }
    let mut current = usurper.take(4).await;
    assert_eq!(texts(&current), numbers(4));
    let unsettled = stalled.consumer.settle(outcomes(stale, &Outcome::Ack)).await;
    assert!(unsettled.is_empty(), "{unsettled:?}");
    drop(stalled);
    let open = current.split_off(2);
    usurper.ack(current).await;
    stage.wait_committed(2).await;
    drop((open, usurper));
    assert_eq!(texts(&stage.member().await.take(2).await), ["2", "3"]);
}

/// Where members share single messages and not partitions, nothing changes hands while its
/// holder lives: another member gets none of it, and what is settled then is settled.
async fn assert_undisturbed(mut holder: Tap, held: Vec<Delivery>, mut other: Tap) {
    other.assert_quiet(QUIET).await;
    holder.ack(held).await;
    drop(holder);
    other.assert_quiet(QUIET).await;
}

/// The answer is the broker's, not a guess.
pub async fn health_tells_whether_the_broker_answers(harness: &dyn Harness) {
    let broker = harness.broker().await;
    broker.health().await.unwrap();
    broker.shutdown().await.unwrap();
    assert_kind(broker.health().await, ErrorKind::Closed);
    harness.broker().await.health().await.unwrap();
}
