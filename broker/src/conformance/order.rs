//! Order, partitions, and where consumption starts.

use std::collections::HashMap;

use super::Harness;
use super::stage::{Stage, assert_kind, numbers, settle_in, text, texts};
use crate::delivery::Delivery;
use crate::error::ErrorKind;
use crate::message::{Message, Timestamp};
use crate::subscription::{Limit, Start, Subscription};

const KEYS: usize = 9;

/// Asserts that each key's numbers ascend without a gap, and returns how many came in all.
fn count_ordered(deliveries: &[Delivery]) -> usize {
    let mut next: HashMap<Vec<u8>, usize> = HashMap::new();
    for delivery in deliveries {
        let expected = next.entry(delivery.key.as_ref().unwrap().to_vec()).or_default();
        assert_eq!(text(delivery), expected.to_string(), "out of order at {delivery:?}");
        *expected += 1;
    }
    deliveries.len()
}

/// Publish order is delivery order within a key, for readers and members alike.
pub async fn a_key_keeps_its_order_over_batches_and_partitions(harness: &dyn Harness) {
    let stage = Stage::new(harness, 4).await;
    let (batches, per_batch) = (20, 3);
    for batch in 0..batches {
        let numbers = batch * per_batch..(batch + 1) * per_batch;
        let messages = numbers.flat_map(|number| {
            (0..KEYS)
                .map(move |key| Message::new(number.to_string()).with_key(format!("key-{key}")))
        });
        stage.publish(messages.collect()).await;
    }
    let total = batches * per_batch * KEYS;
    assert_eq!(count_ordered(&stage.everything().await), total);
    assert_eq!(count_ordered(&stage.member().await.take(total).await), total);
}

/// The hashes are those of Kafka's own tests of its Java client, so that topics are shared
/// with foreign publishers and are partitioned alike on every backend.
pub async fn equal_keys_share_the_partition_that_java_clients_choose(harness: &dyn Harness) {
    const PARTITIONS: u32 = 7;
    let hashes: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];
    let stage = Stage::new(harness, PARTITIONS).await;
    let batch = || hashes.iter().map(|(key, _)| Message::new("body").with_key(*key)).collect();
    let (once, again) = (stage.publish(batch()).await, stage.publish(batch()).await);
    for (index, (key, hash)) in hashes.iter().enumerate() {
        let chosen = (hash & i32::MAX).cast_unsigned() % PARTITIONS;
        let expected = if stage.broker.capabilities().partitions { chosen } else { 0 };
        assert_eq!(once[index].partition(), expected, "{key}");
        assert_eq!(again[index].partition(), expected, "{key}");
    }
}

/// The default of groups and readers.
pub async fn a_start_at_the_earliest_sees_everything(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(5)).await;
    assert_eq!(stage.in_order(&stage.member().await.take(5).await), numbers(5));
    assert_eq!(stage.in_order(&stage.everything().await), numbers(5));
}

/// What is there already is passed over; what comes once `subscribe` returned is not.
pub async fn a_start_at_the_latest_sees_only_what_comes_after(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(["old"]).await;
    let reader = Subscription::reader(&stage.topic).starting(Start::Latest);
    let mut reader = stage.subscribe(reader).await;
    stage.publish_texts(["new"]).await;
    assert_eq!(text(&reader.next().await), "new");
    let member = stage.subscription().starting(Start::Latest);
    let mut members = [stage.subscribe(member).await];
    settle_in(&mut members, |members| members[0].owned.len() == 1).await;
    stage.publish_texts(["newest"]).await;
    assert_eq!(text(&members[0].next().await), "newest");
}

async fn assert_first(stage: &Stage, start: Start, expected: &str) {
    let reader = Subscription::reader(&stage.topic).starting(start);
    assert_eq!(text(&stage.subscribe(reader).await.next().await), expected, "a reader");
    let member = stage.subscription().starting(start);
    assert_eq!(text(&stage.subscribe(member).await.next().await), expected, "a member");
}

/// Asserts that a start that needs offsets is refused at subscribing or at the first receive.
async fn assert_start_unsupported(stage: &Stage, start: Start) {
    let subscribed = stage.broker.subscribe(stage.subscription().starting(start)).await;
    let received = match subscribed {
        Ok(mut consumer) => consumer.receive(Limit::new(1, super::stage::QUIET)).await.map(drop),
        Err(error) => Err(error),
    };
    assert_kind(received, ErrorKind::Unsupported);
}

/// Offsets are positions that publishing returned.
pub async fn a_start_at_an_offset_sees_it_first(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(3)).await;
    let third = stage.publish(vec![Message::new("3")]).await[0].offset();
    stage.publish_texts(["4"]).await;
    if stage.broker.capabilities().offset_seek {
        assert_first(&stage, Start::Offset(third), "3").await;
    } else {
        assert_start_unsupported(&stage, Start::Offset(third)).await;
    }
}

/// An offset that is not written yet is waited for, whatever comes before it.
pub async fn a_start_beyond_the_end_waits_for_that_offset(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let positions = stage.publish(numbers(3).into_iter().map(Message::new).collect()).await;
    let wanted = positions[2].offset() + 3;
    let start = Start::Offset(wanted);
    if !stage.broker.capabilities().offset_seek {
        return assert_start_unsupported(&stage, start).await;
    }
    let reader = Subscription::reader(&stage.topic).starting(start);
    let mut reader = stage.subscribe(reader).await;
    let mut members = [stage.subscribe(stage.subscription().starting(start)).await];
    settle_in(&mut members, |members| members[0].owned.len() == 1).await;
    let mut expected = Vec::new();
    for number in numbers(7).split_off(3) {
        let position = stage.publish(vec![Message::new(number.clone())]).await[0];
        expected.extend((position.offset() >= wanted).then_some(number));
    }
    // Where offsets have no gaps, the first two of the four are passed over.
    assert!(expected.ends_with(&["5".to_owned(), "6".to_owned()]), "{expected:?}");
    let dense = positions[2].offset() == 2;
    assert!(!dense || expected.len() == 2, "{expected:?}");
    assert_eq!(texts(&reader.take(expected.len()).await), expected);
    assert_eq!(texts(&members[0].take(expected.len()).await), expected);
}

/// The time is the message's own, and a message of just that time is included.
pub async fn a_start_at_a_time_sees_the_first_message_of_then(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let hour_ago = Timestamp::now().as_micros() / 1_000_000 * 1_000_000 - 3_600_000_000;
    let time = |second: i64| Timestamp::from_micros(hour_ago + second * 1_000_000);
    let message =
        |second: i64| Message { timestamp: Some(time(second)), ..Message::new(second.to_string()) };
    stage.publish([0, 2, 4, 6].map(message).to_vec()).await;
    if !stage.broker.capabilities().offset_seek {
        return assert_start_unsupported(&stage, Start::Time(time(4))).await;
    }
    assert_first(&stage, Start::Time(time(4)), "4").await;
    let between = Subscription::reader(&stage.topic).starting(Start::Time(time(3)));
    assert_eq!(text(&stage.subscribe(between).await.next().await), "4");
    let after = Subscription::reader(&stage.topic).starting(Start::Time(time(7)));
    let mut after = stage.subscribe(after).await;
    assert!(after.until_caught_up().await.is_empty());
}

/// The start serves only a group's first member; then the position goes on.
pub async fn a_group_that_has_a_position_ignores_the_start(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(5)).await;
    let mut first = stage.member().await;
    let deliveries = first.take(2).await;
    first.ack(deliveries).await;
    stage.wait_committed(2).await;
    drop(first);
    for start in [Start::Latest, Start::Earliest] {
        let mut next = stage.subscribe(stage.subscription().starting(start)).await;
        assert_eq!(stage.in_order(&next.take(3).await), ["2", "3", "4"], "{start:?}");
    }
}

/// Its place is the end of when it began, also where it settled nothing before it left.
pub async fn a_group_that_started_at_the_latest_keeps_its_place(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(["old"]).await;
    let subscription = stage.subscription().starting(Start::Latest);
    let mut members = [stage.subscribe(subscription.clone()).await];
    settle_in(&mut members, |members| members[0].owned.len() == 1).await;
    stage.wait_committed(1).await;
    drop(members);
    stage.publish_texts(["between"]).await;
    assert_eq!(text(&stage.subscribe(subscription).await.next().await), "between");
}
