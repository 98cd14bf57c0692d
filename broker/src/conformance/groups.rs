//! Groups share a topic's messages among their members.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::Harness;
use super::stage::{PATIENCE, Stage, Tap, numbers, settle_in, text, texts, unique_group};
use crate::delivery::Delivery;
use crate::message::Message;
use crate::subscription::Subscription;

const PARTITIONS: u32 = 4;

/// Messages whose keys spread them over all partitions.
fn keyed(from: usize, to: usize) -> Vec<Message> {
    (from..to).map(|n| Message::new(n.to_string()).with_key(format!("key-{n}"))).collect()
}

/// Whether every partition has one owner and every member owns one at least.
fn shared_out(members: &[Tap], partitions: usize) -> bool {
    let owned: usize = members.iter().map(|member| member.owned.len()).sum();
    let distinct: BTreeSet<u32> = members.iter().flat_map(|member| member.owned.clone()).collect();
    let idle = members.iter().any(|member| member.owned.is_empty());
    !idle && owned == partitions && distinct.len() == partitions
}

fn partitions_of(stage: &Stage) -> usize {
    if stage.broker.capabilities().partitions { PARTITIONS as usize } else { 1 }
}

/// Receives on all members in turn and acknowledges, until `count` came in all.
async fn drain(members: &mut [Tap], count: usize) -> Vec<String> {
    let start = Instant::now();
    let mut all = Vec::new();
    while all.len() < count {
        assert!(start.elapsed() < PATIENCE, "{} of {count} came: {all:?}", all.len());
        for member in &mut *members {
            let deliveries = member.glance(10).await;
            all.extend(texts(&deliveries));
            member.ack(deliveries).await;
        }
    }
    all.sort_by_key(|text| text.parse::<usize>().unwrap());
    all
}

/// Groups know nothing of each other.
pub async fn each_group_sees_everything(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(10)).await;
    let mut first = stage.member().await;
    let mut second = stage.subscribe(Subscription::group(&stage.topic, &unique_group())).await;
    let deliveries = first.take(10).await;
    assert_eq!(texts(&deliveries), numbers(10));
    first.ack(deliveries).await;
    assert_eq!(texts(&second.take(10).await), numbers(10));
}

/// Two members, also of two processes, split the partitions and with them the messages.
pub async fn members_share_without_overlap_and_own_every_partition(harness: &dyn Harness) {
    let stage = Stage::new(harness, PARTITIONS).await;
    let other = stage.reconnected(harness).await;
    let mut members = [stage.member().await, other.member().await];
    let partitions = partitions_of(&stage);
    if partitions > 1 {
        settle_in(&mut members, |members| shared_out(members, partitions)).await;
    }
    stage.publish(keyed(0, 100)).await;
    assert_eq!(drain(&mut members, 100).await, numbers(100));
    for member in &mut members {
        member.assert_quiet(super::stage::QUIET).await;
    }
}

/// Dropping a consumer is enough: no deadline must pass before others go on.
pub async fn a_member_that_leaves_frees_its_partitions_and_what_it_held(harness: &dyn Harness) {
    let stage = Stage::new(harness, PARTITIONS).await;
    let mut members = vec![stage.member().await, stage.member().await];
    let partitions = partitions_of(&stage);
    if partitions > 1 {
        settle_in(&mut members, |members| shared_out(members, partitions)).await;
    }
    let mut count = 40;
    stage.publish(keyed(0, count)).await;
    let held = if stage.broker.capabilities().partitions {
        members[1].take(1).await
    } else {
        until_shared(&stage, &mut members[1], &mut count).await
    };
    drop(members.pop());
    let came = drain(&mut members, count).await;
    assert_eq!(came, numbers(count), "{} was held", text(&held[0]));
    assert_eq!(members[0].owned.len(), partitions);
}

/// Publishes until this member has its share: without partitions another may have taken all
/// that was there before.
async fn until_shared(stage: &Stage, member: &mut Tap, count: &mut usize) -> Vec<Delivery> {
    let start = Instant::now();
    loop {
        let held = member.glance(1).await;
        if !held.is_empty() {
            return held;
        }
        assert!(start.elapsed() < PATIENCE, "nothing of {count} came");
        stage.publish(keyed(*count, *count + 10)).await;
        *count += 10;
    }
}

/// A partition changes hands only between deliveries, so a hand-over repeats nothing.
pub async fn a_joining_member_takes_its_share_and_nothing_comes_twice(harness: &dyn Harness) {
    let stage = Stage::new(harness, PARTITIONS).await;
    let mut members = vec![stage.member().await];
    stage.publish(keyed(0, 40)).await;
    let held = members[0].take(40).await;
    members.push(stage.member().await);
    let early = members[1].glance(1).await;
    assert!(early.is_empty(), "{early:?} is out with the first member");
    let mut all = texts(&held);
    members[0].ack(held).await;
    let partitions = partitions_of(&stage);
    if partitions > 1 {
        settle_in(&mut members, |members| shared_out(members, partitions)).await;
    }
    stage.publish(keyed(40, 80)).await;
    all.extend(drain(&mut members, 40).await);
    all.sort_by_key(|text| text.parse::<usize>().unwrap());
    assert_eq!(all, numbers(80));
}

/// A member without a share stands by and steps in.
pub async fn more_members_than_partitions_do_no_harm(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let mut members = vec![stage.member().await, stage.member().await];
    if stage.broker.capabilities().partitions {
        let one = |members: &[Tap]| members.iter().map(|m| m.owned.len()).sum::<usize>() == 1;
        settle_in(&mut members, one).await;
    }
    stage.publish_texts(numbers(10)).await;
    assert_eq!(drain(&mut members, 10).await, numbers(10));
    let busy = members.iter().position(|member| !member.owned.is_empty()).unwrap_or(0);
    stage.wait_committed(10).await;
    drop(members.remove(busy));
    stage.publish_texts(["10"]).await;
    assert_eq!(drain(&mut members, 1).await, ["10"]);
}

/// Members of one group need not want the same topic.
pub async fn a_group_consumes_several_topics(harness: &dyn Harness) {
    let stage = Stage::new(harness, 2).await;
    let other = Stage::new(harness, 2).await;
    let other = Stage { group: stage.group.clone(), ..other };
    let mut members = [[stage.member().await], [other.member().await]];
    stage.publish(keyed(0, 20)).await;
    other.publish(keyed(20, 40)).await;
    assert_eq!(drain(&mut members[0], 20).await, numbers(20));
    assert_eq!(drain(&mut members[1], 20).await, numbers(40)[20..]);
}
