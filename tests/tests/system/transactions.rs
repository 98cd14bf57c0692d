//! Numbered messages are copied from topic to topic in transactions while the broker and the
//! copiers die again and again: readers see each number once, in order.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use broker::{Limit, Message, Subscription, Topic, TopicSpec};
use forebay_tests::{
    HANG, Ini, Running, Stage, Turn, cannot_run, kafka, repository, scale, unique, wait_until,
};
use model_server::settings::Settings;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// 100,000 at the scale of `make soak`.
const NUMBERS: usize = 14_286;
const PUBLISH_BATCH: usize = 1000;
const KEYS: usize = 16;
const PARTITIONS: u32 = 4;
const COPIERS: usize = 2;
/// Of the copiers together.
const KILLS: usize = 4;
/// Of the broker.
const BOUNCES: usize = 1;
const READERS: usize = 2;

/// A reader on a thread of its own, with a connection of its own.
struct Reader {
    seen: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<(String, usize)>>,
}

impl Reader {
    /// Reads `count` messages from the beginning: their keys and numbers.
    fn start(settings: &Settings, topic: &Topic, count: usize) -> Self {
        let seen = Arc::new(AtomicUsize::new(0));
        let (settings, topic, progress) = (settings.clone(), topic.clone(), seen.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(read(&settings, &topic, count, &progress))
        });
        Self { seen, thread }
    }
}

async fn read(
    settings: &Settings,
    topic: &Topic,
    count: usize,
    progress: &AtomicUsize,
) -> Vec<(String, usize)> {
    let broker = settings.connect().await.unwrap();
    let mut reader = broker.subscribe(Subscription::reader(topic)).await.unwrap();
    let mut all = Vec::new();
    let mut moved = Instant::now();
    while all.len() < count {
        match reader.receive(Limit::new(10_000, Duration::from_millis(250))).await {
            Ok(deliveries) if !deliveries.is_empty() => {
                moved = Instant::now();
                all.extend(deliveries.iter().map(|delivery| number_of(delivery)));
                progress.store(all.len(), Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        assert!(moved.elapsed() < HANG, "only {} of {count} numbers came", all.len());
    }
    // More than all would be a repeat.
    let rest = reader.receive(Limit::new(1, Duration::from_secs(2))).await.unwrap();
    assert!(rest.is_empty(), "{rest:?} came behind all {count}");
    all
}

fn number_of(message: &Message) -> (String, usize) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let key = text(message.key.as_ref().unwrap());
    (key, text(&message.payload).parse().unwrap())
}

/// Each number once, and each key's in order.
fn check(numbers: &[(String, usize)], count: usize) {
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, number) in numbers {
        if let Some(before) = last.insert(key, *number) {
            assert!(before < *number, "key {key}: {number} comes behind {before}");
        }
    }
    let mut sorted: Vec<usize> = numbers.iter().map(|(_, number)| *number).collect();
    sorted.sort_unstable();
    assert!(sorted.iter().copied().eq(0..count), "some numbers are missing or come twice");
}

/// A stage with two topics, the first of which is full of numbers.
struct Copying<'a> {
    stage: &'a Stage,
    count: usize,
    source: Topic,
    target: Topic,
    group: String,
    copiers: Vec<Running>,
    random: StdRng,
}

impl<'a> Copying<'a> {
    fn new(stage: &'a Stage, seed: u64) -> Self {
        let [source, target] = ["numbers", "copies"].map(|name| Topic::new(&unique(name)).unwrap());
        for topic in [&source, &target] {
            stage.create(&TopicSpec::new(topic, PARTITIONS));
        }
        let count = NUMBERS * scale();
        for start in (0..count).step_by(PUBLISH_BATCH) {
            let batch = (start..count.min(start + PUBLISH_BATCH)).map(|number| {
                Message::new(number.to_string()).with_key(format!("key-{}", number % KEYS))
            });
            stage.publish_to(&source, batch.collect());
        }
        let random = StdRng::seed_from_u64(seed);
        let (group, copiers) = (unique("copiers"), Vec::new());
        let mut copying = Self { stage, count, source, target, group, copiers, random };
        copying.copiers = (0..COPIERS).map(|index| copying.start(index)).collect();
        copying
    }

    fn start(&self, index: usize) -> Running {
        let (source, target, instance) =
            (self.source.to_string(), self.target.to_string(), format!("copier-{index}"));
        let arguments = ["--source", &source, "--target", &target, "--group", &self.group];
        let arguments = [&arguments[..], &["--instance", &instance]].concat();
        self.stage.start_with("forebay_copier", &arguments)
    }

    /// Kills copiers and bounces the broker at random moments, spread over the work.
    fn disturb(&mut self, readers: &[Reader], bounce: Option<fn(bool)>) {
        let kills = KILLS * scale();
        let bounces = if bounce.is_some() { BOUNCES * scale() } else { 0 };
        let mut events: Vec<bool> = [vec![true; bounces], vec![false; kills]].concat();
        let total = events.len();
        while !events.is_empty() {
            let is_bounce = events.swap_remove(self.random.random_range(0..events.len()));
            let done = total - events.len();
            let far = self.count * done / (total + 2);
            let seen = || readers.iter().map(|reader| reader.seen.load(Ordering::Relaxed)).min();
            wait_until(&format!("{far} copies"), || (seen() >= Some(far)).then_some(()));
            thread::sleep(self.random.random_range(Duration::ZERO..Duration::from_millis(100)));
            match bounce.filter(|_| is_bounce) {
                Some(bounce) => bounce(self.random.random_bool(0.5)),
                None => self.kill_one(),
            }
        }
    }

    fn kill_one(&mut self) {
        let index = self.random.random_range(0..self.copiers.len());
        assert!(self.copiers[index].kill(), "copier {index} had ended by itself");
        self.copiers[index] = self.start(index);
    }
}

/// Copiers are killed over and over with the same messages in hand, which is not the messages'
/// fault: none of them is to be given up.
fn endlessly(ini: &mut Ini) {
    ini.set("delivery", "attempts", 1_000_000);
}

fn copy(name: &str, stage: &Stage, bounce: Option<fn(bool)>) {
    let seed = broker::Timestamp::now().as_micros() as u64;
    println!("transactions on {name}: seed {seed}");
    let begun = Instant::now();
    let mut copying = Copying::new(stage, seed);
    let count = copying.count;
    let start = |_| Reader::start(&stage.settings, &copying.target, count);
    let readers: Vec<Reader> = (0..READERS).map(start).collect();
    copying.disturb(&readers, bounce);
    for reader in readers {
        check(&reader.thread.join().unwrap(), count);
    }
    for mut copier in copying.copiers {
        let status = copier.terminate();
        assert!(status.success(), "a copier ended with {status}");
    }
    println!(
        "transactions on {name}: seed {seed}, {count} numbers seen once and in order by {READERS} \
         readers; {} kills, {} bounces; {:.1} s",
        KILLS * scale(),
        bounce.map_or(0, |_| BOUNCES * scale()),
        begun.elapsed().as_secs_f64(),
    );
}

#[test]
fn copies_are_seen_once_and_in_order_on_embedded() {
    let _turn = Turn::take();
    copy("embedded", &Stage::embedded(endlessly), None);
}

#[test]
fn copies_are_seen_once_and_in_order_on_kafka() {
    let Some(servers) = kafka() else { return };
    if std::env::var_os("FOREBAY_SERVERS_STATE").is_none() {
        return cannot_run(
            "FOREBAY_SERVERS_STATE is not set: scripts/servers tells where Kafka is",
        );
    }
    let _turn = Turn::take();
    copy("kafka", &Stage::kafka(&servers, endlessly), Some(bounce_kafka));
}

/// Ends Kafka, in order or by a kill, and starts it again on the same data.
fn bounce_kafka(orderly: bool) {
    let state = std::env::var("FOREBAY_SERVERS_STATE").unwrap();
    if !orderly {
        let pid = std::fs::read_to_string(format!("{state}/kafka/pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    let mut restart = Command::new(repository().join("scripts/servers"));
    let output = restart.args(["restart", "kafka"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
