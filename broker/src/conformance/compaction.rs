//! Topics that keep only the last message of each key.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::Harness;
use super::stage::{PATIENCE, QUIET, Stage, assert_kind, text, unique_group, unique_topic};
use crate::contract::{Published, TopicSpec};
use crate::delivery::Delivery;
use crate::error::ErrorKind;
use crate::message::Message;

const KEYS: [&str; 3] = ["a", "b", "c"];
const ROUNDS: usize = 40;

/// A stage on a compacted topic of one partition; nothing where the backend has none, after it
/// has said so.
async fn compacted(harness: &dyn Harness) -> Option<Stage> {
    let (broker, topic, group) = (harness.broker().await, unique_topic(), unique_group());
    let spec = TopicSpec::new(&topic, 1).compacted();
    let made = broker.admin().create_topic(&spec).await;
    if broker.capabilities().compaction {
        made.unwrap();
        return Some(Stage { broker, topic, group });
    }
    assert_kind(made, ErrorKind::Unsupported);
    None
}

/// Publishes all rounds; returns the offset of the last message of each key.
async fn publish_rounds(stage: &Stage) -> BTreeMap<String, u64> {
    let mut last = BTreeMap::new();
    for round in 0..ROUNDS {
        let batch = KEYS.map(|key| Message::new(format!("{key}{round}")).with_key(key));
        let positions = stage.publish(batch.to_vec()).await;
        let offsets = positions.iter().map(|position| position.offset());
        last.extend(KEYS.map(str::to_owned).into_iter().zip(offsets));
    }
    last
}

/// Asserts that messages stand where they were written, in order, with the last of each key.
fn assert_last_are_left(left: &[Delivery], last: &BTreeMap<String, u64>) {
    let offsets: Vec<u64> = left.iter().map(|delivery| delivery.position().offset()).collect();
    assert!(offsets.is_sorted_by(|one, next| one < next), "{offsets:?}");
    let mut seen = BTreeMap::new();
    for delivery in left {
        let key = String::from_utf8_lossy(delivery.key.as_deref().unwrap()).into_owned();
        seen.insert(key, (delivery.position().offset(), text(delivery)));
    }
    for key in KEYS {
        let expected = (last[key], format!("{key}{}", ROUNDS - 1));
        assert_eq!(seen.get(key), Some(&expected), "{key} of {left:?}");
    }
}

/// Whatever else is gone, the last message of each key is there, at the offset it had. Where a
/// small topic is compacted soon, all others go.
pub async fn the_last_message_of_each_key_is_kept_at_its_offset(harness: &dyn Harness) {
    let Some(stage) = compacted(harness).await else { return };
    let last = publish_rounds(&stage).await;
    let begun = Instant::now();
    loop {
        let left = stage.everything().await;
        assert_last_are_left(&left, &last);
        if !harness.compacts_soon() || left.len() == KEYS.len() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{} messages are left", left.len());
    }
    let end = stage.broker.admin().describe(&stage.topic).await.unwrap().partitions[0].end;
    assert!(end > *last.values().max().unwrap(), "{end}");
}

/// Gaps neither stop a group nor leave it behind.
pub async fn a_group_settles_a_compacted_topic_to_its_end(harness: &dyn Harness) {
    let Some(stage) = compacted(harness).await else { return };
    let last = publish_rounds(&stage).await;
    let begun = Instant::now();
    while harness.compacts_soon() && stage.everything().await.len() > KEYS.len() {
        assert!(begun.elapsed() < PATIENCE, "the topic is not compacted");
    }
    let end = *last.values().max().unwrap();
    let mut member = stage.member().await;
    loop {
        let delivery = member.next().await;
        let offset = delivery.position().offset();
        member.ack([delivery]).await;
        if offset == end {
            break;
        }
    }
    wait_until_at_the_end(&stage).await;
    drop(member);
    stage.publish(vec![Message::new("after").with_key("d")]).await;
    assert_eq!(text(&stage.member().await.next().await), "after");
}

/// Waits until the group's position is durable and nothing is before it.
async fn wait_until_at_the_end(stage: &Stage) {
    let begun = Instant::now();
    while stage.broker.lag(&stage.topic, &stage.group).await.unwrap()[0].behind > 0 {
        assert!(begun.elapsed() < PATIENCE, "the group stays behind");
        tokio::time::sleep(QUIET / 20).await;
    }
}

/// A message without a key could never go again, so it is not let in; others of its batch are.
pub async fn a_message_without_a_key_is_refused(harness: &dyn Harness) {
    let Some(stage) = compacted(harness).await else { return };
    let results = stage.broker.publish(&stage.topic, vec![Message::new("no key")]).await.unwrap();
    let [Published::NotWritten(error)] = &results[..] else { panic!("{results:?}") };
    assert!(!error.is_retryable(), "{error}");
    stage.publish(vec![Message::new("1").with_key("a")]).await;
    assert_eq!(stage.everything().await.len(), 1);
}

/// A tombstone is told from a message that is only empty, on every topic.
pub async fn a_tombstone_is_told_from_an_empty_message(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let batch = [Message::tombstone("key"), Message::new("").with_key("key")];
    stage.publish(batch.to_vec()).await;
    let received = stage.everything().await;
    let told: Vec<bool> = received.iter().map(|delivery| delivery.is_tombstone()).collect();
    assert_eq!(told, [true, false]);
    assert!(received.iter().all(|delivery| delivery.key.as_deref() == Some(b"key")));
}
