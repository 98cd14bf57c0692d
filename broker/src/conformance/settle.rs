//! What becomes of a delivery once its consumer has spoken, or has not.

use std::time::Duration;

use tokio::time::Instant;

use super::Harness;
use super::stage::{QUIET, Stage, Tap, assert_kind, numbers, text, texts};
use crate::delivery::{Delivery, Outcome};
use crate::error::ErrorKind;
use crate::message::Message;
use crate::subscription::{Seek, Start, Subscription};

/// Short, so that rules about silence are quick; long enough to settle within it under load.
const DEADLINE: Duration = Duration::from_secs(1);

async fn impatient_member(stage: &Stage) -> Tap {
    stage.subscribe(stage.subscription().with_ack_deadline(DEADLINE)).await
}

/// The next member of the group starts behind it.
pub async fn an_acknowledged_message_does_not_come_again(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(5)).await;
    let mut member = impatient_member(&stage).await;
    let deliveries = member.take(5).await;
    member.ack(deliveries).await;
    member.assert_quiet(DEADLINE + QUIET).await;
    stage.wait_committed(5).await;
    drop(member);
    stage.assert_all_settled().await;
}

/// The delay is a lower bound, and the attempt tells the consumer how often it tried.
pub async fn a_retry_comes_again_after_its_delay_with_a_higher_attempt(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(["body"]).await;
    let mut member = stage.member().await;
    let mut delivery = member.next().await;
    for attempt in 1..=3 {
        assert_eq!((delivery.attempt(), text(&delivery)), (attempt, "body".to_owned()));
        let (asked, after) = (Instant::now(), QUIET * attempt);
        member.settle([delivery], Outcome::Retry { after }).await;
        delivery = member.next().await;
        assert!(asked.elapsed() >= after, "{:?} instead of {after:?}", asked.elapsed());
    }
    member.ack([delivery]).await;
    stage.wait_committed(1).await;
}

/// A failing message stops its key, for order's sake, and nothing else.
pub async fn a_retry_holds_back_its_key_and_no_other(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let bodies = ["a1", "a2", "b1", "a3", "b2"];
    stage.publish(bodies.map(|body| Message::new(body).with_key(&body[..1])).to_vec()).await;
    let mut member = stage.member().await;
    let mut others = Vec::new();
    let mut first = member.next().await;
    // Without partitions the other key may come first.
    while !stage.broker.capabilities().partitions && text(&first) != "a1" {
        others.push(std::mem::replace(&mut first, member.next().await));
    }
    assert_eq!(text(&first), "a1");
    member.settle([first], Outcome::Retry { after: DEADLINE }).await;
    others.extend(member.take(2 - others.len()).await);
    assert_eq!(texts(&others), ["b1", "b2"]);
    member.ack(others).await;
    let held = member.take(3).await;
    assert_eq!(texts(&held), ["a1", "a2", "a3"]);
    assert_eq!(held.iter().map(Delivery::attempt).collect::<Vec<_>>(), [2, 1, 1]);
    member.ack(held).await;
    stage.wait_committed(5).await;
}

/// A consumer that hangs does not stop the message for ever.
pub async fn silence_brings_a_message_again_after_the_deadline(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(["body"]).await;
    let mut member = impatient_member(&stage).await;
    let silent = member.next().await;
    let out = Instant::now();
    let again = member.next().await;
    assert_eq!((again.position(), again.attempt()), (silent.position(), 2));
    assert!(out.elapsed() + Duration::from_millis(50) >= DEADLINE, "{:?}", out.elapsed());
    member.ack([again]).await;
    member.assert_quiet(DEADLINE + QUIET).await;
}

/// What came again is settled by the token of its last delivery alone.
pub async fn a_late_acknowledgement_does_nothing_and_is_no_failure(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(["body"]).await;
    let mut member = impatient_member(&stage).await;
    let late = member.next().await;
    let current = member.next().await;
    assert_eq!(current.attempt(), 2);
    member.ack([late]).await;
    let third = member.next().await;
    assert_eq!((third.attempt(), third.position()), (3, current.position()));
    member.ack([third]).await;
    member.ack([current]).await;
    stage.wait_committed(1).await;
    drop(member);
    stage.assert_all_settled().await;
}

/// The new deadline counts from the call; of two deliveries only the one named is extended.
pub async fn an_extended_delivery_stays_out_longer(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(["long", "short"]).await;
    let mut member = impatient_member(&stage).await;
    let mut deliveries = member.take(2).await;
    let (short, long) = (deliveries.remove(1), deliveries.remove(0).into_token());
    let by = DEADLINE * 3;
    let asked = Instant::now();
    member.consumer.extend(&[&long], by).await.unwrap();
    let again = member.next().await;
    assert_eq!((again.position(), again.attempt()), (short.position(), 2));
    member.ack([again]).await;
    let overdue = member.next().await;
    assert_eq!((overdue.position(), overdue.attempt()), (long.position(), 2));
    assert!(asked.elapsed() >= by, "{:?}", asked.elapsed());
    // A token that is too late is passed over.
    member.consumer.extend(&[&long], by).await.unwrap();
    member.ack([overdue]).await;
    stage.wait_committed(2).await;
}

/// A gap keeps all that follows it uncommitted, so that a crash loses nothing.
pub async fn acknowledgements_out_of_order_commit_only_the_prefix(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(6)).await;
    let mut member = stage.member().await;
    let mut deliveries = member.take(6).await;
    let open = deliveries.remove(2);
    deliveries.reverse();
    member.ack(deliveries).await;
    stage.wait_committed(2).await;
    member.assert_quiet(QUIET).await;
    drop((open, member));
    let mut next = stage.member().await;
    if !stage.broker.capabilities().partitions {
        return assert_open_comes(&stage, next).await;
    }
    let deliveries = next.take(4).await;
    assert_eq!(texts(&deliveries), ["2", "3", "4", "5"]);
    next.ack(deliveries).await;
    stage.wait_committed(6).await;
    drop(next);
    stage.assert_all_settled().await;
}

/// Where each message is settled for itself, what was open comes again for sure, and what
/// followed it may.
async fn assert_open_comes(stage: &Stage, mut member: Tap) {
    let mut came = member.take(1).await;
    while !texts(&came).contains(&"2".to_owned()) {
        came.extend(member.take(1).await);
    }
    came.extend(member.glance(6).await);
    let known = |came: &String| ["2", "3", "4", "5"].contains(&came.as_str());
    assert!(texts(&came).iter().all(known), "{came:?}");
    member.ack(came).await;
    stage.wait_committed(6).await;
    member.assert_quiet(QUIET).await;
}

/// Seeks and tells whether the backend can; one that can't must say so.
async fn seek(stage: &Stage, member: &mut Tap, to: Start) -> bool {
    let result = member.consumer.seek(Seek { partition: None, to }).await;
    if stage.broker.capabilities().offset_seek {
        result.unwrap();
        return true;
    }
    assert_kind(result, ErrorKind::Unsupported);
    false
}

/// Old messages come again, and tokens of before the seek are stale.
pub async fn seeking_back_replays(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let positions = stage.publish(numbers(6).into_iter().map(Message::new).collect()).await;
    let mut member = stage.member().await;
    let mut deliveries = member.take(6).await;
    let open = deliveries.split_off(3);
    member.ack(deliveries).await;
    if !seek(&stage, &mut member, Start::Offset(positions[1].offset())).await {
        return;
    }
    let replayed = member.take(5).await;
    assert_eq!(texts(&replayed), ["1", "2", "3", "4", "5"]);
    member.ack(open).await;
    member.ack(replayed).await;
    stage.wait_committed(6).await;
    assert!(seek(&stage, &mut member, Start::Earliest).await);
    assert_eq!(texts(&member.take(6).await), numbers(6));
    let mut reader = stage.reader().await;
    reader.take(6).await;
    assert!(seek(&stage, &mut reader, Start::Offset(positions[4].offset())).await);
    assert_eq!(texts(&reader.take(2).await), ["4", "5"]);
}

/// What is skipped stays skipped for the group.
pub async fn seeking_forward_skips(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let positions = stage.publish(numbers(6).into_iter().map(Message::new).collect()).await;
    let mut member = stage.member().await;
    let first = member.next().await;
    if !seek(&stage, &mut member, Start::Offset(positions[4].offset())).await {
        return;
    }
    let deliveries = member.take(2).await;
    assert_eq!(texts(&deliveries), ["4", "5"]);
    member.ack(deliveries).await;
    member.ack([first]).await;
    stage.wait_committed(6).await;
    stage.publish_texts(["skipped"]).await;
    assert!(seek(&stage, &mut member, Start::Latest).await);
    stage.publish_texts(["last"]).await;
    let last = member.next().await;
    assert_eq!(text(&last), "last");
    member.ack([last]).await;
    stage.wait_committed(8).await;
    drop(member);
    stage.assert_all_settled().await;
}

/// A consumer moves only what is its own.
pub async fn seeking_a_partition_of_others_is_not_found(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(["body"]).await;
    let reader = Subscription::reader(&stage.topic);
    for mut tap in [stage.member().await, stage.subscribe(reader).await] {
        tap.next().await;
        let result = tap.consumer.seek(Seek { partition: Some(7), to: Start::Earliest }).await;
        let supported = stage.broker.capabilities().offset_seek;
        let kind = if supported { ErrorKind::NotFound } else { ErrorKind::Unsupported };
        assert_kind(result, kind);
    }
}
