//! A program with state: it counts words, and tells of each which one it was.

use std::sync::atomic::Ordering;
use std::time::Duration;

use broker::changelog::{Changelog, Member, Spec};
use broker::{Delivery, ErrorKind, Group, Limit, Message, Outcome, Result, Subscription, Topic};

use super::child::{Settings, connect, stop_signal};

/// How many partitions input and state have.
pub(crate) const PARTITIONS: u32 = 4;
const BATCH: usize = 20;
const WAIT: Duration = Duration::from_millis(100);

pub(crate) struct Topics {
    pub(crate) input: Topic,
    pub(crate) output: Topic,
    pub(crate) state: Topic,
    pub(crate) group: Group,
}

impl Topics {
    pub(crate) fn of(name: &str) -> Self {
        let topic = |what: &str| Topic::new(&format!("{name}-{what}")).unwrap();
        let group = Group::new(name).unwrap();
        Self { input: topic("input"), output: topic("output"), state: topic("state"), group }
    }
}

/// Counts until the process is asked to end.
pub(crate) async fn run(settings: &Settings) {
    let stop = stop_signal();
    let broker = connect(&settings["ini"]).await;
    let topics = Topics::of(&settings["name"]);
    let spec = Spec::new(&topics.state, PARTITIONS);
    let cache = settings["cache"].as_ref();
    let changelog = Changelog::open(broker.clone(), spec, cache).await.unwrap();
    while !stop.load(Ordering::Acquire) {
        let mut subscription = Subscription::group(&topics.input, &topics.group);
        subscription.instance = settings.get("instance").cloned();
        let counted = match changelog.subscribe(subscription).await {
            Ok(mut member) => {
                let mut counted = Ok(());
                while counted.is_ok() && !stop.load(Ordering::Acquire) {
                    counted = count(&mut member, &topics.output).await;
                }
                counted
            }
            Err(error) => Err(error),
        };
        // The partition went elsewhere in the middle of a step, or the server is busy with that.
        let Err(error) = counted else { continue };
        let passes = error.kind() == ErrorKind::Fenced || error.is_retryable();
        assert!(passes, "{error:?}");
        tokio::time::sleep(WAIT).await;
    }
    broker.shutdown().await.unwrap();
}

/// One step: the counts of some words.
async fn count(member: &mut Member, output: &Topic) -> Result<()> {
    let deliveries = member.receive(Limit::new(BATCH, WAIT)).await?;
    member.events();
    if deliveries.is_empty() {
        return Ok(());
    }
    let mut step = member.step().await?;
    let mut outcomes = Vec::new();
    for delivery in deliveries {
        let word = delivery.key.clone().unwrap();
        let mut state = step.state(delivery.position().partition())?;
        let counted = follow(state.get(&word)?.as_deref(), &delivery);
        state.put(word.clone(), counted.clone())?;
        step.publish(output, vec![Message::new(counted).with_key(word)]).await?;
        outcomes.push((delivery.into_token(), Outcome::Ack));
    }
    step.settle(outcomes).await?;
    step.commit().await
}

/// The word's count, and a number that depends on all that was counted and in which order.
fn follow(before: Option<&[u8]>, delivery: &Delivery) -> String {
    let (count, trace) = before.map_or((0, 0), parse);
    let number: u64 = std::str::from_utf8(&delivery.payload).unwrap().parse().unwrap();
    format!("{} {}", count + 1, next_trace(trace, number))
}

pub(crate) fn next_trace(trace: u64, number: u64) -> u64 {
    trace.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number + 1)
}

fn parse(state: &[u8]) -> (u64, u64) {
    let (count, trace) = std::str::from_utf8(state).unwrap().split_once(' ').unwrap();
    (count.parse().unwrap(), trace.parse().unwrap())
}
