//! State on the embedded broker, in one process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::embedded::{self, Durability};
use crate::{
    AckToken, Broker, BrokerExt, Delivery, Group, Limit, Message, Outcome, Subscription, Topic,
    TopicSpec,
};

const PARTITIONS: u32 = 2;
const LIMIT: Limit = Limit::new(100, Duration::from_secs(1));

/// A broker with an input topic, and what counts its words.
struct Stage {
    directory: tempfile::TempDir,
    broker: Arc<dyn Broker>,
    input: Topic,
    group: Group,
}

async fn open_broker(directory: &Path) -> Arc<dyn Broker> {
    let config =
        embedded::Config { durability: Durability::Normal, ..embedded::Config::new(directory) };
    embedded::open(config).await.unwrap()
}

fn state_topic() -> Topic {
    Topic::new("state").unwrap()
}

impl Stage {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let broker = open_broker(&directory.path().join("store")).await;
        let (input, group) = (Topic::new("words").unwrap(), Group::new("count").unwrap());
        broker.admin().create_topic(&TopicSpec::new(&input, PARTITIONS)).await.unwrap();
        Self { directory, broker, input, group }
    }

    async fn publish(&self, words: &[&'static str]) {
        let message = |word: &&'static str| Message::new(*word).with_key(*word);
        self.broker.publish_all(&self.input, words.iter().map(message).collect()).await.unwrap();
    }

    async fn changelog(&self, cache: &str) -> Result<Changelog> {
        let spec = Spec::new(&state_topic(), PARTITIONS);
        Changelog::open(self.broker.clone(), spec, &self.directory.path().join(cache)).await
    }

    async fn member(&self, cache: &str) -> Member {
        let changelog = self.changelog(cache).await.unwrap();
        changelog.subscribe(Subscription::group(&self.input, &self.group)).await.unwrap()
    }

    /// What the log says.
    async fn truth(&self) -> BTreeMap<String, String> {
        let reader = Subscription::reader(&state_topic());
        let mut reader = self.broker.subscribe(reader).await.unwrap();
        let mut state = BTreeMap::new();
        loop {
            for delivery in reader.receive(LIMIT).await.unwrap() {
                if let record::Record::State(key, value) = record::Record::read(&delivery) {
                    match value {
                        Some(value) => state.insert(text(&key), text(&value)),
                        None => state.remove(&text(&key)),
                    };
                }
            }
            if reader.events().contains(&crate::Event::CaughtUp) {
                return state;
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ack(deliveries: Vec<Delivery>) -> Vec<(AckToken, Outcome)> {
    deliveries.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack)).collect()
}

async fn take(member: &mut Member, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let limit = Limit { messages: count - all.len(), ..LIMIT };
        all.extend(member.receive(limit).await.unwrap());
    }
    all
}

fn count(step: &mut Step<'_>, delivery: &Delivery) {
    let mut state = step.state(delivery.position().partition()).unwrap();
    let before = state.get(&delivery.payload).unwrap();
    let before: u32 = before.map_or(0, |count| text(&count).parse().unwrap());
    state.put(delivery.payload.clone(), (before + 1).to_string()).unwrap();
}

/// Counts so many words in one step.
async fn run(member: &mut Member, words: usize) {
    let deliveries = take(member, words).await;
    let mut step = member.step().await.unwrap();
    deliveries.iter().for_each(|delivery| count(&mut step, delivery));
    step.settle(ack(deliveries)).await.unwrap();
    step.commit().await.unwrap();
}

/// The committed state of all partitions that the member owns, once it owns all.
async fn state(member: &mut Member) -> BTreeMap<String, String> {
    while (0..PARTITIONS).any(|partition| member.view(partition).is_none()) {
        assert!(member.receive(LIMIT).await.unwrap().is_empty());
    }
    let mut all = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for row in member.view(partition).unwrap().prefix(b"") {
            let (key, value) = row.unwrap();
            all.insert(text(&key), text(&value));
        }
    }
    all
}

fn expected(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
    rows.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

#[tokio::test]
async fn a_step_reads_its_own_writes_and_a_commit_shows_them() {
    let stage = Stage::new().await;
    stage.publish(&["a", "b", "a", "c", "a"]).await;
    let mut member = stage.member("one").await;
    run(&mut member, 5).await;
    let counts = expected(&[("a", "3"), ("b", "1"), ("c", "1")]);
    assert_eq!(state(&mut member).await, counts);
    assert_eq!(stage.truth().await, counts);
    drop(member);
    assert_eq!(state(&mut stage.member("one").await).await, counts);
    assert_eq!(state(&mut stage.member("two").await).await, counts);
}

#[tokio::test]
async fn an_abort_a_drop_and_a_failed_commit_leave_no_state() {
    let stage = Stage::new().await;
    stage.publish(&["a"]).await;
    let mut member = stage.member("one").await;
    let missing = Topic::new("missing").unwrap();
    for round in 0..3 {
        let deliveries = take(&mut member, 1).await;
        let mut step = member.step().await.unwrap();
        count(&mut step, &deliveries[0]);
        step.settle(ack(deliveries)).await.unwrap();
        match round {
            0 => step.abort().await.unwrap(),
            1 => drop(step),
            _ => {
                step.publish(&missing, vec![Message::new("x")]).await.unwrap();
                assert_eq!(step.commit().await.unwrap_err().kind(), ErrorKind::NotFound);
            }
        }
        assert_eq!(stage.truth().await, expected(&[]));
    }
    run(&mut member, 1).await;
    assert_eq!(state(&mut member).await, expected(&[("a", "1")]));
}

#[tokio::test]
async fn a_cache_that_is_behind_catches_up() {
    let stage = Stage::new().await;
    stage.publish(&["a", "b"]).await;
    let mut first = stage.member("one").await;
    run(&mut first, 2).await;
    drop(first);
    stage.publish(&["a", "c"]).await;
    let mut second = stage.member("two").await;
    run(&mut second, 2).await;
    drop(second);
    stage.publish(&["a"]).await;
    let mut third = stage.member("one").await;
    run(&mut third, 1).await;
    let counts = expected(&[("a", "3"), ("b", "1"), ("c", "1")]);
    assert_eq!(state(&mut third).await, counts);
    assert_eq!(stage.truth().await, counts);
}

#[tokio::test]
async fn a_deleted_key_stays_deleted_whichever_cache_is_asked() {
    let stage = Stage::new().await;
    stage.publish(&["a", "a"]).await;
    let mut member = stage.member("one").await;
    run(&mut member, 1).await;
    let deliveries = take(&mut member, 1).await;
    let mut step = member.step().await.unwrap();
    let mut state_of_a = step.state(deliveries[0].position().partition()).unwrap();
    state_of_a.delete("a");
    assert_eq!(state_of_a.get(b"a").unwrap(), None);
    step.settle(ack(deliveries)).await.unwrap();
    step.commit().await.unwrap();
    assert_eq!(state(&mut member).await, expected(&[]));
    drop(member);
    assert_eq!(state(&mut stage.member("two").await).await, expected(&[]));
}

/// Changes what the cache `one` says of itself in each partition.
async fn doctor(stage: &Stage, change: impl Fn(&mut cache::Standing)) {
    let changelog = stage.changelog("one").await.unwrap();
    for partition in 0..PARTITIONS {
        let mut table = changelog.0.cache.table(partition, "boot").unwrap();
        let mut standing = table.standing.clone();
        change(&mut standing);
        // What only the cache has shows whether the cache was trusted.
        let ghost = cache::Writes::from([(Bytes::from("ghost"), Some(Bytes::from("1")))]);
        table.apply(&ghost, standing).unwrap();
    }
}

#[tokio::test]
async fn a_cache_is_trusted_only_where_nothing_speaks_against_it() {
    let stage = Stage::new().await;
    stage.publish(&["a", "b"]).await;
    let mut member = stage.member("one").await;
    run(&mut member, 2).await;
    drop(member);
    doctor(&stage, |_| {}).await;
    let trusted = state(&mut stage.member("one").await).await;
    assert_eq!(trusted, expected(&[("a", "1"), ("b", "1"), ("ghost", "1")]));
    let doubts: [fn(&mut cache::Standing); 6] = [
        |standing| standing.reach = 1_000_000,
        |standing| standing.boot = "another boot".into(),
        |standing| standing.complete = standing.complete.map(|seconds| seconds - 13 * 3600),
        |standing| standing.complete = None,
        |standing| standing.incarnation = None,
        |standing| standing.incarnation = standing.incarnation.map(|(at, _)| (at, [7; 16])),
    ];
    for (number, doubt) in doubts.into_iter().enumerate() {
        doctor(&stage, doubt).await;
        let rebuilt = state(&mut stage.member("one").await).await;
        assert_eq!(rebuilt, expected(&[("a", "1"), ("b", "1")]), "doubt {number}");
        // What was built anew is trusted again.
        doctor(&stage, |_| {}).await;
        assert_eq!(state(&mut stage.member("one").await).await, trusted, "after doubt {number}");
    }
}

#[tokio::test]
async fn a_cache_of_a_log_that_was_made_anew_is_dropped() {
    let stage = Stage::new().await;
    stage.publish(&["a", "b"]).await;
    let mut member = stage.member("one").await;
    run(&mut member, 2).await;
    drop(member);
    stage.broker.admin().delete_topic(&state_topic()).await.unwrap();
    // The new log gets longer than the cache's.
    let mut other = stage.member("two").await;
    stage.publish(&["c"; 40]).await;
    for _ in 0..40 {
        run(&mut other, 1).await;
    }
    drop(other);
    assert_eq!(state(&mut stage.member("one").await).await, expected(&[("c", "40")]));
}

#[tokio::test]
async fn a_corrupt_cache_is_built_anew() {
    let stage = Stage::new().await;
    stage.publish(&["a", "b"]).await;
    let mut member = stage.member("one").await;
    run(&mut member, 2).await;
    drop(member);
    let cache = stage.directory.path().join("one").join("state.cache");
    for ending in ["jnl", "version", "sfa", "current", "v0", ""] {
        let mut harmed = 0;
        let mut open = vec![cache.clone()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if path.to_string_lossy().ends_with(ending) {
                    std::fs::write(path, b"not what was there").unwrap();
                    harmed += 1;
                }
            }
        }
        let rebuilt = state(&mut stage.member("one").await).await;
        assert_eq!(rebuilt, expected(&[("a", "1"), ("b", "1")]), "{harmed} of *{ending}");
        assert!(harmed > 0 || !ending.is_empty());
    }
}

#[tokio::test]
async fn the_caches_directory_and_the_changelog_have_one_user_at_a_time() {
    let stage = Stage::new().await;
    let changelog = stage.changelog("one").await.unwrap();
    assert_eq!(stage.changelog("one").await.unwrap_err().kind(), ErrorKind::InUse);
    let subscription = || Subscription::group(&stage.input, &stage.group);
    let member = changelog.subscribe(subscription()).await.unwrap();
    assert_eq!(changelog.subscribe(subscription()).await.unwrap_err().kind(), ErrorKind::InUse);
    drop(member);
    changelog.subscribe(subscription()).await.unwrap();
}

#[tokio::test]
async fn partitions_must_match_and_a_reader_owns_nothing() {
    let stage = Stage::new().await;
    let changelog = stage.changelog("one").await.unwrap();
    let reader = changelog.subscribe(Subscription::reader(&stage.input)).await;
    assert_eq!(reader.unwrap_err().kind(), ErrorKind::Unsupported);
    let wide = Topic::new("wide").unwrap();
    stage.broker.admin().create_topic(&TopicSpec::new(&wide, 3)).await.unwrap();
    let other = changelog.subscribe(Subscription::group(&wide, &stage.group)).await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::ConfigInvalid);
    drop(changelog);
    let spec = Spec::new(&state_topic(), 3);
    let opened = Changelog::open(stage.broker.clone(), spec, stage.directory.path()).await;
    assert!(opened.unwrap_err().to_string().contains("2 partitions where the state has 3"));
}

#[tokio::test]
async fn state_of_a_partition_of_which_nothing_is_settled_is_refused() {
    let stage = Stage::new().await;
    stage.publish(&["a"]).await;
    let mut member = stage.member("one").await;
    state_is_owned(&mut member).await;
    let mut step = member.step().await.unwrap();
    step.state(0).unwrap().put("x", "1").unwrap();
    assert_eq!(step.commit().await.unwrap_err().kind(), ErrorKind::Unsupported);
    let mut step = member.step().await.unwrap();
    assert_eq!(step.state(PARTITIONS).unwrap_err().kind(), ErrorKind::Fenced);
    let long = vec![0; cache::KEY_BYTES_MAX + 1];
    assert_eq!(step.state(0).unwrap().put(long, "1").unwrap_err().kind(), ErrorKind::TooLarge);
}

async fn state_is_owned(member: &mut Member) {
    while (0..PARTITIONS).any(|partition| member.view(partition).is_none()) {
        drop(member.receive(LIMIT).await.unwrap());
    }
}

#[tokio::test]
async fn a_prefix_merges_what_is_stored_with_what_is_written() {
    let stage = Stage::new().await;
    stage.publish(&["w", "w"]).await;
    let mut member = stage.member("one").await;
    for round in 0..2 {
        let deliveries = take(&mut member, 1).await;
        let mut step = member.step().await.unwrap();
        let mut state = step.state(deliveries[0].position().partition()).unwrap();
        if round == 0 {
            for key in ["a1", "b", "b1", "b3", "b5", "c"] {
                state.put(key, "old").unwrap();
            }
        } else {
            state.put("b2", "new").unwrap();
            state.put("b3", "new").unwrap();
            state.put("b9", "new").unwrap();
            state.delete("b1");
            state.delete("b7");
        }
        let rows: Vec<String> = state
            .prefix(b"b")
            .map(|row| row.unwrap())
            .map(|(key, value)| format!("{}={}", text(&key), text(&value)))
            .collect();
        let wanted: &[&str] = match round {
            0 => &["b=old", "b1=old", "b3=old", "b5=old"],
            _ => &["b=old", "b2=new", "b3=new", "b5=old", "b9=new"],
        };
        assert_eq!(rows, wanted);
        step.settle(ack(deliveries)).await.unwrap();
        step.commit().await.unwrap();
    }
}

#[tokio::test]
async fn the_cache_notes_where_it_stands_so_that_little_is_read_again() {
    let stage = Stage::new().await;
    stage.publish(&["a"; 4]).await;
    let mut member = stage.member("one").await;
    for round in 0..4_u32 {
        let deliveries = take(&mut member, 1).await;
        let mut step = member.step().await.unwrap();
        let mut state = step.state(deliveries[0].position().partition()).unwrap();
        for key in 0..6_000_u32 {
            state.put((key + 6_000 * round).to_be_bytes().to_vec(), "x").unwrap();
        }
        step.settle(ack(deliveries)).await.unwrap();
        step.commit().await.unwrap();
    }
    drop(member);
    let changelog = stage.changelog("one").await.unwrap();
    let standings = (0..PARTITIONS)
        .map(|partition| changelog.0.cache.table(partition, "boot").unwrap().standing);
    let furthest = standings.max_by_key(|standing| standing.reach).unwrap();
    assert!(furthest.next >= 12_000 && furthest.reach >= 24_000, "{furthest:?}");
}

#[test]
fn without_compaction_the_topic_keeps_everything() {
    let spec = Spec::new(&state_topic(), PARTITIONS);
    let plain = topic_spec(&spec, false);
    assert!(!plain.compacted && plain.retention == Some(RETENTION), "{plain:?}");
    assert!(plain.retention_bytes > Some(1 << 60), "{plain:?}");
    assert!(topic_spec(&spec, true).compacted);
}
