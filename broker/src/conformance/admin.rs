//! What is told about topics and groups.

use std::time::Duration;

use tokio::time::Instant;

use super::Harness;
use super::stage::{
    PATIENCE, Stage, assert_kind, make_topic, numbers, texts, unique_group, unique_topic,
};
use crate::contract::{PartitionDescription, PartitionLag};
use crate::error::{ErrorKind, Result};
use crate::message::Message;
use crate::subscription::Start;

/// The end is the offset that the next message gets. Without partitions there is no end.
pub async fn describe_tells_the_bounds_of_each_partition(harness: &dyn Harness) {
    let stage = Stage::new(harness, 3).await;
    let batch = (0..30).map(|n| Message::new("body").with_key(n.to_string())).collect();
    let written = stage.publish(batch).await;
    let description = stage.reconnected(harness).await;
    let description = description.broker.admin().describe(&stage.topic).await.unwrap();
    assert_eq!(description.topic, stage.topic);
    let count = if stage.broker.capabilities().partitions { 3 } else { 0 };
    let expected = (0..count).map(|partition| {
        let mine = written.iter().filter(|position| position.partition() == partition);
        let offsets: Vec<u64> = mine.map(|position| position.offset()).collect();
        let (start, end) = (offsets.first().copied(), offsets.last().map(|last| last + 1));
        let (start, end) = (start.unwrap_or(0), end.unwrap_or(0));
        PartitionDescription { partition, start, end }
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
    let positions = stage.publish(numbers(10).into_iter().map(Message::new).collect()).await;
    let end = positions[9].offset() + 1;
    let lag = stage.broker.lag(&stage.topic, &stage.group).await.unwrap();
    assert_eq!(lag, [PartitionLag { partition: 0, committed: None, end, behind: 10 }]);
    let mut member = stage.member().await;
    let mut deliveries = member.take(10).await;
    deliveries.remove(3);
    member.ack(deliveries).await;
    stage.wait_committed(3).await;
    let lag = stage.broker.lag(&stage.topic, &stage.group).await.unwrap();
    let committed = Some(positions[3].offset());
    assert_eq!(lag, [PartitionLag { partition: 0, committed, end, behind: 7 }]);
    let wide = make_topic(&stage.broker, 3).await;
    let lag = stage.broker.lag(&wide, &stage.group).await.unwrap();
    let numbers: Vec<u32> = lag.iter().map(|partition| partition.partition).collect();
    assert!(numbers == [0, 1, 2] || !stage.broker.capabilities().partitions, "{numbers:?}");
    assert!(lag.iter().all(|lag| lag.committed.is_none() && lag.behind == 0), "{lag:?}");
}

/// A group shows its members with their partitions, and the topics it has positions in.
pub async fn a_group_is_described_with_its_members(harness: &dyn Harness) {
    let stage = Stage::new(harness, 2).await;
    let nobody = stage.broker.admin().describe_group(&stage.group).await;
    assert_kind(nobody, ErrorKind::NotFound);
    stage.publish_texts(numbers(4)).await;
    let mut member = stage.member().await;
    let deliveries = member.take(4).await;
    member.ack(deliveries).await;
    let shown = stage.broker.admin().describe_group(&stage.group).await.unwrap();
    assert_eq!(shown.group, stage.group);
    assert_eq!(shown.members.len(), 1, "{shown:?}");
    if stage.broker.capabilities().partitions {
        let expected = [(stage.topic.clone(), 0), (stage.topic.clone(), 1)];
        assert_eq!(shown.members[0].partitions, expected);
    }
    assert_eq!(shown.topics, std::slice::from_ref(&stage.topic));
}

/// Each start stands for an offset, and asking changes nothing.
pub async fn starts_are_resolved_to_offsets(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let positions = stage.publish(numbers(5).into_iter().map(Message::new).collect()).await;
    let admin = stage.broker.admin();
    if !stage.broker.capabilities().offset_seek {
        return assert_kind(
            admin.resolve(&stage.topic, Start::Earliest).await,
            ErrorKind::Unsupported,
        );
    }
    let first = admin.resolve(&stage.topic, Start::Earliest).await.unwrap();
    assert_eq!(first.len(), 1);
    assert!(first[0] <= positions[0], "{first:?} is behind {positions:?}");
    let last = admin.resolve(&stage.topic, Start::Latest).await.unwrap();
    assert!(last[0] > positions[4], "{last:?} is before {positions:?}");
    let third = admin.resolve(&stage.topic, Start::Offset(positions[2].offset())).await.unwrap();
    assert_eq!(third, [positions[2]]);
    let gone = admin.resolve(&unique_topic(), Start::Earliest).await;
    assert_kind(gone, ErrorKind::NotFound);
}

/// A group is moved only while it is stopped, and goes on at the new place.
pub async fn a_stopped_group_is_reset(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let positions = stage.publish(numbers(5).into_iter().map(Message::new).collect()).await;
    let admin = stage.broker.admin();
    let third = [positions[2]];
    if !stage.broker.capabilities().offset_seek {
        let reset = admin.reset_group(&stage.group, &stage.topic, &third).await;
        return assert_kind(reset, ErrorKind::Unsupported);
    }
    let mut member = stage.member().await;
    let deliveries = member.take(5).await;
    member.ack(deliveries).await;
    let running = admin.reset_group(&stage.group, &stage.topic, &third).await;
    assert_kind(running, ErrorKind::InUse);
    drop(member);
    until_stopped(|| admin.reset_group(&stage.group, &stage.topic, &third)).await;
    let again = stage.member().await.take(3).await;
    assert_eq!(texts(&again), ["2", "3", "4"]);
}

/// A group that is deleted is gone, and one that comes later starts anew.
pub async fn a_stopped_group_is_deleted(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(3)).await;
    let admin = stage.broker.admin();
    assert_kind(admin.delete_group(&stage.group).await, ErrorKind::NotFound);
    let mut member = stage.member().await;
    let deliveries = member.take(3).await;
    assert_kind(admin.delete_group(&stage.group).await, ErrorKind::InUse);
    member.ack(deliveries).await;
    drop(member);
    until_stopped(|| admin.delete_group(&stage.group)).await;
    let groups = admin.groups().await.unwrap();
    assert!(!groups.contains(&stage.group), "{groups:?}");
    let again = stage.member().await.take(3).await;
    assert_eq!(texts(&again), ["0", "1", "2"]);
}

/// A group has stopped a little after its last member was dropped.
async fn until_stopped<'a, F>(mut change: impl FnMut() -> F)
where
    F: Future<Output = Result<()>> + 'a,
{
    let start = Instant::now();
    loop {
        match change().await {
            Err(error) if error.kind() == ErrorKind::InUse && start.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return other.unwrap(),
        }
    }
}
