//! What is told about topics and groups.

use super::Harness;
use super::stage::{Stage, assert_kind, make_topic, numbers, unique_group};
use crate::contract::{PartitionDescription, PartitionLag};
use crate::error::ErrorKind;
use crate::message::Message;

/// The end is the offset that the next message gets.
pub async fn describe_tells_the_bounds_of_each_partition(harness: &dyn Harness) {
    let stage = Stage::new(harness, 3).await;
    let batch = (0..30).map(|n| Message::new("body").with_key(n.to_string())).collect();
    let written = stage.publish(batch).await;
    let description = stage.reconnected(harness).await;
    let description = description.broker.admin().describe(&stage.topic).await.unwrap();
    assert_eq!(description.topic, stage.topic);
    let count = if stage.broker.capabilities().partitions { 3 } else { 1 };
    let expected = (0..count).map(|partition| PartitionDescription {
        partition,
        start: 0,
        end: written.iter().filter(|position| position.partition() == partition).count() as u64,
    });
    assert_eq!(description.partitions, expected.collect::<Vec<_>>());
}

/// All topics, of which others may be at work on some.
pub async fn topics_are_listed_by_name(harness: &dyn Harness) {
    let broker = harness.broker().await;
    let made = [make_topic(&broker, 1).await, make_topic(&broker, 2).await];
    let listed = harness.broker().await.admin().list().await.unwrap();
    assert!(made.iter().all(|topic| listed.contains(topic)), "{made:?} in {listed:?}");
    assert!(listed.is_sorted(), "{listed:?}");
}

/// A group is known while it has members, and after that by its position.
pub async fn groups_are_listed_by_name(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(["body"]).await;
    let mut member = stage.member().await;
    let delivery = member.next().await;
    let groups = stage.broker.admin().groups().await.unwrap();
    assert!(groups.contains(&stage.group), "{} has a member: {groups:?}", stage.group);
    member.ack([delivery]).await;
    stage.wait_committed(1).await;
    drop(member);
    let groups = stage.broker.admin().groups().await.unwrap();
    assert!(groups.contains(&stage.group), "{} has a position: {groups:?}", stage.group);
    assert!(groups.is_sorted(), "{groups:?}");
    let unknown = unique_group();
    assert!(!groups.contains(&unknown), "{unknown} has neither");
}

/// Lag counts from the settled prefix; a group that settled nothing is behind by everything.
pub async fn lag_counts_what_a_group_has_before_it(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    if !stage.broker.capabilities().lag {
        let lag = stage.broker.lag(&stage.topic, &stage.group).await;
        return assert_kind(lag, ErrorKind::Unsupported);
    }
    stage.publish_texts(numbers(10)).await;
    let lag = stage.broker.lag(&stage.topic, &stage.group).await.unwrap();
    assert_eq!(lag, [PartitionLag { partition: 0, committed: None, end: 10, behind: 10 }]);
    let mut member = stage.member().await;
    let mut deliveries = member.take(10).await;
    deliveries.remove(3);
    member.ack(deliveries).await;
    stage.wait_committed(3).await;
    let lag = stage.broker.lag(&stage.topic, &stage.group).await.unwrap();
    assert_eq!(lag, [PartitionLag { partition: 0, committed: Some(3), end: 10, behind: 7 }]);
    let wide = make_topic(&stage.broker, 3).await;
    let lag = stage.broker.lag(&wide, &stage.group).await.unwrap();
    let numbers: Vec<u32> = lag.iter().map(|partition| partition.partition).collect();
    assert!(numbers == [0, 1, 2] || !stage.broker.capabilities().partitions, "{numbers:?}");
    assert!(lag.iter().all(|lag| lag.committed.is_none() && lag.behind == 0), "{lag:?}");
}
