//! State follows its partition: after any kills and moves, state and output are those of a run
//! in which nothing happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::changelog::{Changelog, Spec};
use broker::{Broker, BrokerExt, Event, Limit, Message, Subscription, Topic, TopicSpec};

use super::child::{Process, Settings, connect, settings};
use super::counting::{PARTITIONS, Topics, next_trace};

/// How long to wait for what must come; only a broken backend or machine reaches it.
const PATIENCE: Duration = Duration::from_secs(120);
const WORDS: u64 = 40;
const MESSAGES: u64 = 2_000;
const BATCH: u64 = 50;
/// How many processes there may be at once.
const SLOTS: usize = 3;

/// How many times the usual load; set for soak runs.
fn scale() -> u64 {
    let scale = std::env::var("FOREBAY_SCALE").ok();
    scale.map_or(1, |scale| scale.parse().expect("FOREBAY_SCALE is a number"))
}

/// A new seed, or the one of a failed run.
fn seed() -> u64 {
    let seed = std::env::var("FOREBAY_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |s| s.parse().expect("a seed is a number"));
    eprintln!("FOREBAY_SEED={seed}");
    seed
}

fn word(number: u64) -> String {
    format!("word-{}", (number * number + number / 7) % WORDS)
}

/// Word by word all results in their order, as a run without a crash gives them.
fn expected(count: u64) -> BTreeMap<String, Vec<String>> {
    let mut results: BTreeMap<String, (u64, Vec<String>)> = BTreeMap::new();
    for number in 0..count {
        let (trace, results) = results.entry(word(number)).or_default();
        *trace = next_trace(*trace, number);
        results.push(format!("{} {trace}", results.len() + 1));
    }
    results.into_iter().map(|(word, (_, results))| (word, results)).collect()
}

/// A broker, and the processes that count on it.
struct Run {
    ini: String,
    broker: Arc<dyn Broker>,
    name: String,
    topics: Topics,
    /// Each slot's own, kept over restarts.
    caches: tempfile::TempDir,
    slots: [Option<Process>; SLOTS],
    kills: u32,
    moves: u32,
}

impl Run {
    async fn new(ini: &str, what: &str) -> Self {
        let broker = connect(ini).await;
        let name = format!("{what}-{:x}", broker::Timestamp::now().as_micros());
        let topics = Topics::of(&name);
        for topic in [&topics.input, &topics.output] {
            broker.admin().create_topic(&TopicSpec::new(topic, PARTITIONS)).await.unwrap();
        }
        let caches = tempfile::tempdir().unwrap();
        let (ini, slots) = (ini.to_owned(), std::array::from_fn(|_| None));
        Self { ini, broker, name, topics, caches, slots, kills: 0, moves: 0 }
    }

    fn cache(&self, slot: usize) -> String {
        self.caches.path().join(slot.to_string()).display().to_string()
    }

    fn start(&mut self, slot: usize) {
        let cache = self.cache(slot);
        let instance = format!("{}-{slot}", self.name);
        let settings: Settings = settings(&[
            ("ini", &self.ini),
            ("name", &self.name),
            ("cache", &cache),
            ("instance", &instance),
        ]);
        self.slots[slot] = Some(Process::start("counter", &settings));
    }

    /// Kills, stops or starts one of the processes.
    fn stir(&mut self, random: &mut fastrand::Rng) {
        let slot = random.usize(..SLOTS);
        match self.slots[slot].take() {
            Some(process) if random.u8(..4) > 0 => {
                self.kills += 1;
                process.kill();
            }
            Some(process) => {
                self.moves += 1;
                process.stop();
            }
            None => {
                self.moves += 1;
                self.start(slot);
            }
        }
    }

    async fn publish(&self, numbers: std::ops::Range<u64>) {
        let message = |number: u64| Message::new(number.to_string()).with_key(word(number));
        let batch = numbers.map(message).collect();
        self.broker.publish_all(&self.topics.input, batch).await.unwrap();
    }

    /// Word by word the results, partition by partition in their order.
    async fn results(&self) -> BTreeMap<String, Vec<String>> {
        let mut results: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for message in read(&self.broker, &self.topics.output).await {
            let word = String::from_utf8_lossy(message.key.as_deref().unwrap()).into_owned();
            let result = String::from_utf8_lossy(&message.payload).into_owned();
            results.entry(word).or_default().push(result);
        }
        results
    }

    async fn wait_for(&mut self, count: u64) {
        let begun = Instant::now();
        loop {
            let results = self.results().await;
            let came: usize = results.values().map(Vec::len).sum();
            if came as u64 >= count {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{came} of {count} results came");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Asks all processes to end.
    fn stop(&mut self) {
        for slot in &mut self.slots {
            slot.take().into_iter().for_each(Process::stop);
        }
    }

    /// The state of all partitions by a cache, brought up to date.
    async fn state(&self, cache: &str) -> BTreeMap<String, String> {
        let spec = Spec::new(&self.topics.state, PARTITIONS);
        let changelog = Changelog::open(self.broker.clone(), spec, cache.as_ref()).await.unwrap();
        let subscription = Subscription::group(&self.topics.input, &self.topics.group);
        let mut member = changelog.subscribe(subscription).await.unwrap();
        let begun = Instant::now();
        let mut state = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let view = loop {
                if let Some(view) = member.view(partition) {
                    break view;
                }
                assert!(begun.elapsed() < PATIENCE, "partition {partition} is not assigned");
                let again = member.receive(Limit::new(1, Duration::from_millis(100))).await;
                assert!(again.unwrap().is_empty(), "all was counted");
            };
            for row in view.prefix(b"") {
                let (key, value) = row.unwrap();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                state.insert(text(&key), text(&value));
            }
        }
        state
    }
}

async fn read(broker: &Arc<dyn Broker>, topic: &Topic) -> Vec<Message> {
    let mut reader = broker.subscribe(Subscription::reader(topic)).await.unwrap();
    let mut all = Vec::new();
    loop {
        let deliveries = reader.receive(Limit::new(1000, Duration::from_secs(1))).await.unwrap();
        all.extend(deliveries.iter().map(|delivery| delivery.message().clone()));
        if reader.events().contains(&Event::CaughtUp) {
            return all;
        }
    }
}

/// Publishes while processes are killed, stopped and started, then lets one finish the work.
async fn state_survives(ini: &str, pause: std::ops::Range<u64>) {
    let mut random = fastrand::Rng::with_seed(seed());
    let count = MESSAGES * scale();
    let mut run = Run::new(ini, "counting").await;
    if !run.broker.capabilities().transactions {
        eprintln!("not run: the {} broker has no transactions", run.broker.capabilities().backend);
        return;
    }
    run.start(0);
    for first in (0..count).step_by(BATCH as usize) {
        run.publish(first..(first + BATCH).min(count)).await;
        tokio::time::sleep(Duration::from_millis(random.u64(pause.clone()))).await;
        run.stir(&mut random);
    }
    if run.slots.iter().all(Option::is_none) {
        run.start(0);
    }
    run.wait_for(count).await;
    run.stop();
    eprintln!("{} kills, {} processes that joined or left", run.kills, run.moves);
    assert!(run.kills > 0 && run.moves > 0, "the seed stirs nothing");
    let expected = expected(count);
    assert_eq!(run.results().await, expected);
    let last = |(word, results): (&String, &Vec<String>)| {
        (word.clone(), results.last().cloned().unwrap_or_default())
    };
    let last: BTreeMap<String, String> = expected.iter().map(last).collect();
    // An empty cache shows what the log has; the others, what kills left of them.
    for cache in ["empty", "0", "1", "2"] {
        let cache = run.caches.path().join(cache).display().to_string();
        assert_eq!(run.state(&cache).await, last, "cache {cache}");
    }
}

/// What the others are compared to is what a process gives that nobody kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_a_crash_gives_what_is_expected() {
    let directory = tempfile::tempdir().unwrap();
    let mut run = Run::new(&embedded(directory.path()), "quiet").await;
    run.start(0);
    run.publish(0..200).await;
    run.wait_for(200).await;
    run.stop();
    assert_eq!(run.results().await, expected(200));
}

fn embedded(directory: &std::path::Path) -> String {
    let directory = directory.display();
    format!("[broker]\nkind = embedded\n[embedded]\ndirectory = {directory}\ndurability = normal\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_follows_its_partition_through_kills_and_moves_on_embedded() {
    let directory = tempfile::tempdir().unwrap();
    state_survives(&embedded(directory.path()), 20..250).await;
    // Kills in the midst of compaction leave the books right.
    let database = rusqlite::Connection::open(directory.path().join("forebay.db")).unwrap();
    let wrong = "SELECT COUNT(*) FROM partitions p WHERE bytes <> (
         SELECT COALESCE(SUM(length(data)), 0) FROM batches
         WHERE id >= p.id << 40 AND id < (p.id + 1) << 40)";
    let wrong: i64 = database.query_row(wrong, [], |row| row.get(0)).unwrap();
    assert_eq!(wrong, 0, "partitions count other bytes than they have");
}

/// The server that the environment names; without one the test can't run.
#[cfg(feature = "kafka")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_follows_its_partition_through_kills_and_moves_on_kafka() {
    let Ok(servers) = std::env::var("FOREBAY_TEST_KAFKA") else {
        let missing = "FOREBAY_TEST_KAFKA is not set: start a server with scripts/servers";
        assert!(std::env::var_os("FOREBAY_REQUIRE_SERVERS").is_none(), "{missing}");
        eprintln!("not run: {missing}");
        return;
    };
    let ini = format!(
        "[broker]\nkind = kafka\n[kafka]\nbootstrap.servers = {servers}\n\
         session.timeout.ms = 6000\nheartbeat.interval.ms = 500\n"
    );
    state_survives(&ini, 200..1500).await;
}
