//! The router over the broker in memory, under a paused clock: what takes hours takes no time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::time::{Instant, sleep};

use super::*;
use crate::delivery::Delivery;
use crate::error::ErrorKind;
use crate::ext::BrokerExt;
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::policy::{Backoff, Failure};
use crate::testing::{Call, Memory};
use crate::{TopicSpec, subscription};

const SECOND: Duration = Duration::from_secs(1);
/// Far more than anything here takes, on a clock that costs nothing.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// What handlers note, in the order in which they do.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until there are so many.
    async fn reach(self, count: usize) {
        let start = Instant::now();
        while self.all().len() < count {
            assert!(start.elapsed() < PATIENCE, "of {count} came {:?}", self.all());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Stage {
    memory: Memory,
    broker: Arc<dyn Broker>,
    topic: Topic,
    dead: Topic,
    group: Group,
}

impl Stage {
    async fn new(partitions: u32) -> Self {
        let memory = Memory::new();
        let broker = memory.connect(Policy::default());
        let (topic, dead) = (Topic::new("orders").unwrap(), Topic::new("dead").unwrap());
        broker.ensure_topic(&TopicSpec::new(&topic, partitions)).await.unwrap();
        broker.ensure_topic(&TopicSpec::new(&dead, 1)).await.unwrap();
        Self { memory, broker, topic, dead, group: Group::new("shop").unwrap() }
    }

    fn policy(&self) -> Policy {
        let backoff = Backoff { first: SECOND, max: 60 * SECOND, jitter_percent: 0 };
        Policy { backoff, ..Policy::default() }.with_attempts(3).with_dead_letters(&self.dead)
    }

    fn subscription(&self) -> Subscription {
        Subscription::group(&self.topic, &self.group)
    }

    fn router(&self, concurrency: usize) -> Router {
        let broker = self.memory.connect(Policy::default());
        Router::new(broker).concurrency(concurrency).policy(self.policy())
    }

    /// Publishes texts; what stands before a colon is the key.
    async fn publish(&self, texts: &[&str]) {
        let message = |text: &&str| match text.split_once(':') {
            Some((key, _)) => Message::new(text.to_string()).with_key(key.to_owned()),
            None => Message::new(text.to_string()),
        };
        self.broker.publish_all(&self.topic, texts.iter().map(message).collect()).await.unwrap();
    }

    async fn behind(&self) -> u64 {
        let lag = self.broker.lag(&self.topic, &self.group).await.unwrap();
        lag.iter().map(|partition| partition.behind).sum()
    }

    /// The texts and causes of the dead letters.
    fn dead_letters(&self) -> Vec<(String, String)> {
        let letters = self.memory.published(&self.dead).into_iter();
        let reason =
            |letter: &Message| letter.headers.get_str("dead-letter-reason").map(str::to_owned);
        letters.map(|letter| (text_of(&letter), reason(&letter).unwrap())).collect()
    }
}

fn text_of(message: &Message) -> String {
    String::from_utf8(message.payload.to_vec()).unwrap()
}

/// Notes each message with its attempt.
fn noting(notes: &Notes) -> impl Handler {
    let notes = notes.clone();
    move |delivery: &Delivery| {
        notes.add(format!("{} {}", text_of(delivery), delivery.attempt()));
        async { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn everything_is_handled_and_settled() {
    let stage = Stage::new(4).await;
    let texts: Vec<String> = (0..5000).map(|n| format!("key-{}:{n}", n % 100)).collect();
    stage.publish(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let notes = Notes::default();
    let router = stage.router(8).handle(stage.subscription(), noting(&notes));
    router.run_until(notes.clone().reach(5000)).await.unwrap();
    let seen: BTreeSet<String> = notes.all().into_iter().collect();
    assert_eq!((seen.len(), notes.all().len()), (5000, 5000));
    assert_eq!(stage.behind().await, 0);
}

#[tokio::test(start_paused = true)]
async fn as_many_run_at_once_as_the_concurrency_says() {
    let stage = Stage::new(1).await;
    // What comes first is quick, so that workers have begun to take several at once.
    let quick: Vec<String> = (0..500).map(|n| format!("quick {n}")).collect();
    stage.publish(&quick.iter().map(String::as_str).collect::<Vec<_>>()).await;
    stage.publish(&["a:meet", "b:meet", "c:meet", "d:meet"]).await;
    let (barrier, notes) = (Arc::new(Barrier::new(4)), Notes::default());
    let handler = {
        let notes = notes.clone();
        move |delivery: &Delivery| {
            let (barrier, notes, text) = (barrier.clone(), notes.clone(), text_of(delivery));
            async move {
                if text.ends_with("meet") {
                    barrier.wait().await;
                    notes.add(text);
                }
                Ok(())
            }
        }
    };
    let router = stage.router(4).handle(stage.subscription(), handler);
    router.run_until(notes.reach(4)).await.unwrap();
    assert_eq!(stage.behind().await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_run_on_the_spot_may_wait_fail_and_panic() {
    let stage = Stage::new(1).await;
    let quick: Vec<String> = (0..2000).map(|n| format!("quick {n}")).collect();
    stage.publish(&quick.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (barrier, notes) = (Arc::new(Barrier::new(4)), Notes::default());
    // Workers are tasks; what is run where it is received is not.
    let spots = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (notes, spots) = (notes.clone(), spots.clone());
        move |delivery: &Delivery| {
            let (barrier, notes) = (barrier.clone(), notes.clone());
            let (text, attempt) = (text_of(delivery), delivery.attempt());
            spots.fetch_add(usize::from(tokio::task::try_id().is_none()), Ordering::Relaxed);
            async move {
                match (text.as_str(), attempt) {
                    ("k:fail", 1) => return Err(Failure::retry("not yet")),
                    ("k:panic", 1) => panic!("not yet"),
                    (meet, _) if meet.ends_with("meet") => {
                        barrier.wait().await;
                    }
                    _ => {}
                }
                notes.add(text);
                Ok(())
            }
        }
    };
    let router = stage.router(4).handle(stage.subscription(), handler);
    let play = async {
        notes.clone().reach(2000).await;
        stage.publish(&["k:1", "k:fail", "k:2", "k:panic", "k:3"]).await;
        notes.clone().reach(2005).await;
        assert!(spots.load(Ordering::Relaxed) > 0, "none ran where it was received");
        let more: Vec<String> = (0..1000).map(|n| format!("more {n}")).collect();
        stage.publish(&more.iter().map(String::as_str).collect::<Vec<_>>()).await;
        notes.clone().reach(3005).await;
        let before = spots.load(Ordering::Relaxed);
        stage.publish(&["x", "a:meet", "a:behind", "b:meet", "c:meet", "d:meet"]).await;
        notes.clone().reach(3011).await;
        assert!(spots.load(Ordering::Relaxed) >= before + 2, "none ran where it was received");
    };
    router.run_until(play).await.unwrap();
    assert_eq!(notes.all()[2000..2005], ["k:1", "k:fail", "k:2", "k:panic", "k:3"]);
    let end = &notes.all()[3005..];
    let place = |text: &str| end.iter().position(|note| note == text);
    assert!(place("a:meet") < place("a:behind"), "{end:?}");
    assert_eq!(stage.behind().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_retry_holds_back_its_key_and_costs_those_behind_no_attempt() {
    let stage = Stage::new(1).await;
    stage.publish(&["a:1", "a:2", "a:3", "b:1", "a:4"]).await;
    let notes = Notes::default();
    let handler = {
        let notes = notes.clone();
        move |delivery: &Delivery| {
            let (text, attempt) = (text_of(delivery), delivery.attempt());
            notes.add(format!("{text} {attempt}"));
            let fails = text == "a:1" && attempt < 3;
            async move { if fails { Err(Failure::retry("not yet")) } else { Ok(()) } }
        }
    };
    let router = stage.router(4).handle(stage.subscription(), handler);
    let begun = Instant::now();
    router.run_until(notes.clone().reach(7)).await.unwrap();
    assert!(begun.elapsed() >= 3 * SECOND, "the pauses are kept");
    let (a, b): (Vec<_>, Vec<_>) = notes.all().into_iter().partition(|n| n.starts_with('a'));
    assert_eq!(a, ["a:1 1", "a:1 2", "a:1 3", "a:2 1", "a:3 1", "a:4 1"]);
    assert_eq!(b, ["b:1 1"]);
    assert_eq!(notes.all().iter().position(|n| n == "b:1 1").map(|place| place < 3), Some(true));
    assert_eq!(stage.behind().await, 0);
}

#[tokio::test(start_paused = true)]
async fn failures_and_panics_end_in_the_dead_letters_with_their_cause() {
    let stage = Stage::new(1).await;
    stage.publish(&["k:reject", "k:busy", "k:panic", "k:good"]).await;
    let notes = Notes::default();
    let handler = {
        let notes = notes.clone();
        move |delivery: &Delivery| {
            let text = text_of(delivery);
            notes.add(format!("{text} {}", delivery.attempt()));
            async move {
                match text.as_str() {
                    "k:reject" => Err(Failure::reject("no such item")),
                    "k:busy" => Err(Failure::retry("still busy")),
                    "k:panic" => panic!("out of cheese"),
                    _ => Ok(()),
                }
            }
        }
    };
    let router = stage.router(2).handle(stage.subscription(), handler);
    router.run_until(notes.clone().reach(8)).await.unwrap();
    let expected = [
        "k:reject 1",
        "k:busy 1",
        "k:busy 2",
        "k:busy 3",
        "k:panic 1",
        "k:panic 2",
        "k:panic 3",
        "k:good 1",
    ];
    assert_eq!(notes.all(), expected);
    let dead = stage.dead_letters();
    let dead: Vec<_> = dead.iter().map(|(text, reason)| (text.as_str(), reason.as_str())).collect();
    let expected = [
        ("k:reject", "no such item"),
        ("k:busy", "still busy"),
        ("k:panic", "panicked: out of cheese"),
    ];
    assert_eq!(dead, expected);
    assert_eq!(stage.behind().await, 0);
}

#[tokio::test(start_paused = true)]
async fn deadlines_are_kept_for_what_runs_and_for_what_waits() {
    let stage = Stage::new(1).await;
    stage.publish(&["k:1", "k:2", "k:3", "4", "5", "6"]).await;
    let notes = Notes::default();
    let handler = {
        let notes = notes.clone();
        move |delivery: &Delivery| {
            let (notes, text, attempt) = (notes.clone(), text_of(delivery), delivery.attempt());
            async move {
                sleep(10 * SECOND).await;
                notes.add(format!("{text} {attempt}"));
                Ok(())
            }
        }
    };
    let subscription = stage.subscription().with_ack_deadline(SECOND);
    let router = stage.router(1).handle(subscription, handler);
    router.run_until(notes.clone().reach(6)).await.unwrap();
    assert_eq!(notes.all(), ["k:1 1", "k:2 1", "k:3 1", "4 1", "5 1", "6 1"]);
    assert_eq!(stage.behind().await, 0);
}

/// Notes when it begins and when it ends, a minute later.
fn slow(notes: &Notes) -> impl Handler {
    let notes = notes.clone();
    move |delivery: &Delivery| {
        let (notes, text) = (notes.clone(), text_of(delivery));
        notes.add(format!("begin {text}"));
        async move {
            sleep(60 * SECOND).await;
            notes.add(format!("end {text}"));
            Ok(())
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_handlers_end_and_gives_the_rest_back() {
    let stage = Stage::new(1).await;
    stage.publish(&["1", "2", "3", "4", "5"]).await;
    let notes = Notes::default();
    let router = stage.router(2).grace(120 * SECOND).handle(stage.subscription(), slow(&notes));
    router.run_until(notes.clone().reach(2)).await.unwrap();
    assert_eq!(notes.all(), ["begin 1", "begin 2", "end 1", "end 2"]);
    assert_eq!(stage.behind().await, 3);
    let rest = Notes::default();
    let router = stage.router(2).handle(stage.subscription(), noting(&rest));
    router.run_until(rest.clone().reach(3)).await.unwrap();
    assert_eq!(rest.all(), ["3 1", "4 1", "5 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_outlasts_the_grace_period_is_dropped_and_its_message_comes_again() {
    let stage = Stage::new(1).await;
    stage.publish(&["1"]).await;
    let notes = Notes::default();
    let router = stage.router(2).grace(10 * SECOND).handle(stage.subscription(), slow(&notes));
    let begun = Instant::now();
    router.run_until(notes.clone().reach(1)).await.unwrap();
    assert!(begun.elapsed() < 20 * SECOND, "{:?}", begun.elapsed());
    sleep(120 * SECOND).await;
    assert_eq!(notes.all(), ["begin 1"]);
    let again = Notes::default();
    let router = stage.router(2).handle(stage.subscription(), noting(&again));
    router.run_until(again.clone().reach(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_open_message_keeps_those_behind_it_from_being_committed() {
    let stage = Stage::new(1).await;
    stage.publish(&["a:slow", "b:1", "c:1", "d:1"]).await;
    let notes = Notes::default();
    let handler = {
        let notes = notes.clone();
        move |delivery: &Delivery| {
            let (notes, text) = (notes.clone(), text_of(delivery));
            async move {
                if text == "a:slow" {
                    sleep(PATIENCE).await;
                }
                notes.add(text);
                Ok(())
            }
        }
    };
    let router = stage.router(2).handle(stage.subscription(), handler);
    let crash = async {
        notes.clone().reach(3).await;
        sleep(SECOND).await;
    };
    let run = pin!(router.run());
    futures::future::select(run, pin!(crash)).await;
    assert_eq!(stage.behind().await, 4, "nothing may be committed beyond the open message");
    stage.memory.evict(&stage.group);
    let again = Notes::default();
    let router = stage.router(2).handle(stage.subscription(), noting(&again));
    router.run_until(again.clone().reach(4)).await.unwrap();
    assert_eq!(stage.behind().await, 0);
}

#[tokio::test(start_paused = true)]
async fn failures_that_pass_are_borne_with_growing_pauses() {
    let stage = Stage::new(1).await;
    let calls = [Call::Subscribe, Call::Receive, Call::Settle];
    for call in calls {
        for _ in 0..5 {
            stage.memory.fail_next(call, ErrorKind::Unavailable);
        }
    }
    stage.memory.fail_next(Call::Receive, ErrorKind::Fenced);
    stage.publish(&["k:1", "k:2", "k:3"]).await;
    let notes = Notes::default();
    let router = stage.router(2).handle(stage.subscription(), noting(&notes));
    let begun = Instant::now();
    let settled = async {
        while stage.behind().await > 0 {
            sleep(SECOND).await;
        }
    };
    router.run_until(settled).await.unwrap();
    assert!(begun.elapsed() > 3 * SECOND, "{:?}", begun.elapsed());
    let seen: BTreeSet<String> = notes.all().iter().map(|note| note[..3].to_owned()).collect();
    assert_eq!(seen.len(), 3, "{:?}", notes.all());
}

#[tokio::test(start_paused = true)]
async fn an_error_that_no_retry_helps_ends_the_router() {
    let stage = Stage::new(1).await;
    let nowhere = Subscription::group(&Topic::new("nowhere").unwrap(), &stage.group);
    let reader = Subscription::reader(&stage.topic);
    for (subscription, kind) in [(nowhere, ErrorKind::NotFound), (reader, ErrorKind::Unsupported)] {
        let notes = Notes::default();
        let router = stage.router(2).handle(stage.subscription(), noting(&notes));
        let router = router.handle(subscription, noting(&notes));
        assert_eq!(router.run().await.unwrap_err().kind(), kind);
    }
    stage.memory.fail_next(Call::Receive, ErrorKind::PermissionDenied);
    let router = stage.router(2).handle(stage.subscription(), noting(&Notes::default()));
    assert_eq!(router.run().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn a_refused_dead_letter_holds_up_nothing_and_is_tried_again() {
    let stage = Stage::new(1).await;
    stage.broker.admin().delete_topic(&stage.dead).await.unwrap();
    stage.publish(&["bad", "good"]).await;
    let notes = Notes::default();
    let handler = {
        let notes = notes.clone();
        move |delivery: &Delivery| {
            let text = text_of(delivery);
            notes.add(text.clone());
            async move { if text == "bad" { Err(Failure::reject("bad")) } else { Ok(()) } }
        }
    };
    let router = stage.router(2).handle(stage.subscription(), handler);
    let settled = async {
        notes.clone().reach(3).await;
        assert_eq!(stage.behind().await, 2);
        stage.broker.ensure_topic(&TopicSpec::new(&stage.dead, 1)).await.unwrap();
        while stage.behind().await > 0 {
            sleep(SECOND).await;
        }
    };
    router.run_until(settled).await.unwrap();
    let dead: Vec<String> = stage.dead_letters().into_iter().map(|(text, _)| text).collect();
    assert_eq!(dead, ["bad"]);
    assert_eq!(notes.all().iter().filter(|note| *note == "good").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_revoked_is_left_to_its_new_owner() {
    let stage = Stage::new(1).await;
    stage.publish(&["1", "2", "3"]).await;
    let (first, second) = (Notes::default(), Notes::default());
    let router = stage.router(1).handle(stage.subscription(), slow(&first));
    let usurp = async {
        first.clone().reach(1).await;
        stage.memory.evict(&stage.group);
        let mut usurper = stage.broker.subscribe(stage.subscription()).await.unwrap();
        let deliveries = usurper.receive(subscription::Limit::new(10, SECOND)).await.unwrap();
        assert_eq!(deliveries.len(), 3, "{deliveries:?}");
        deliveries.iter().for_each(|delivery| second.add(text_of(delivery)));
        sleep(600 * SECOND).await;
        let done = deliveries.into_iter().map(|it| (it.into_token(), crate::Outcome::Ack));
        assert!(usurper.settle(done.collect()).await.is_empty());
    };
    router.run_until(usurp).await.unwrap();
    assert_eq!(first.all(), ["begin 1", "end 1"], "2 and 3 are another's");
    assert_eq!(second.all(), ["1", "2", "3"]);
    assert_eq!(stage.behind().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_as_large_as_there_is_work_and_keeps_the_order_of_keys() {
    let stage = Stage::new(1).await;
    let texts: Vec<String> = (0..100).map(|n| format!("key-{}:{n}", n % 3)).collect();
    stage.publish(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (sizes, notes) = (Notes::default(), Notes::default());
    let handler = {
        let (sizes, notes) = (sizes.clone(), notes.clone());
        move |batch: &[Delivery]| {
            sizes.add(batch.len().to_string());
            batch.iter().for_each(|delivery| notes.add(text_of(delivery)));
            async {
                sleep(SECOND).await;
                Ok(())
            }
        }
    };
    let router = stage.router(2).handle_batch(stage.subscription(), 40, handler);
    router.run_until(notes.clone().reach(100)).await.unwrap();
    assert_eq!(sizes.all()[0], "40");
    assert_ordered(&notes.all());
    assert_eq!(stage.behind().await, 0);
}

/// Asserts that the numbers of each key ascend.
fn assert_ordered(notes: &[String]) {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for note in notes {
        let (key, number) = note.split_once(':').unwrap();
        let number: i64 = number.parse().unwrap();
        let before = last.insert(key, number).unwrap_or(-1);
        assert!(before < number, "{key}: {number} came behind {before} in {notes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_that_fails_only_the_culprit_is_rejected() {
    let stage = Stage::new(1).await;
    stage.publish(&["a:1", "b:bad", "c:1", "a:2"]).await;
    let notes = Notes::default();
    let handler = {
        let notes = notes.clone();
        move |batch: &[Delivery]| {
            let texts: Vec<String> = batch.iter().map(|delivery| text_of(delivery)).collect();
            notes.add(texts.join(" "));
            let bad = texts.iter().any(|text| text == "b:bad");
            async move { if bad { Err(Failure::reject("bad")) } else { Ok(()) } }
        }
    };
    let router = stage.router(1).handle_batch(stage.subscription(), 10, handler);
    router.run_until(notes.clone().reach(5)).await.unwrap();
    assert_eq!(notes.all(), ["a:1 b:bad c:1 a:2", "a:1", "b:bad", "c:1", "a:2"]);
    assert_eq!(stage.dead_letters(), [("b:bad".to_owned(), "bad".to_owned())]);
    assert_eq!(stage.behind().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_may_be_retried_is_retried_in_order() {
    let stage = Stage::new(1).await;
    stage.publish(&["a:1", "a:2", "b:1", "a:3"]).await;
    let (notes, calls) = (Notes::default(), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let notes = notes.clone();
        move |batch: &[Delivery]| {
            let fails = calls.fetch_add(1, Ordering::Relaxed) == 0;
            if !fails {
                batch.iter().for_each(|delivery| notes.add(text_of(delivery)));
            }
            async move { if fails { Err(Failure::retry("busy")) } else { Ok(()) } }
        }
    };
    let jittery = Policy { backoff: Backoff::default(), ..stage.policy() };
    let subscription = stage.subscription().with_policy(jittery);
    let router = stage.router(2).handle_batch(subscription, 2, handler);
    router.run_until(notes.clone().reach(4)).await.unwrap();
    assert_ordered(&notes.all());
    assert_eq!(stage.behind().await, 0);
}

/// What is checked while handlers of random length and luck run.
#[derive(Default)]
struct Watch {
    at_work: BTreeSet<String>,
    most_at_work: usize,
    overlaps: Vec<String>,
    succeeded: Vec<String>,
}

/// Takes its time, and fails now and then.
struct Fickle {
    watch: Arc<Mutex<Watch>>,
    random: Mutex<fastrand::Rng>,
}

impl Handler for Fickle {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        let text = text_of(delivery);
        let key = text.split_once(':').unwrap().0.to_owned();
        let (pause, luck) = {
            let mut random = self.random.lock().unwrap();
            (random.u64(0..50), random.u32(0..100))
        };
        {
            let mut watch = self.watch.lock().unwrap();
            if !watch.at_work.insert(key.clone()) {
                // A panic would only be one more failure.
                watch.overlaps.push(text.clone());
            }
            watch.most_at_work = watch.most_at_work.max(watch.at_work.len());
        }
        if pause < 40 {
            sleep(Duration::from_millis(pause)).await;
        }
        let mut watch = self.watch.lock().unwrap();
        watch.at_work.remove(&key);
        if luck < 10 {
            return Err(Failure::retry("bad luck"));
        }
        watch.succeeded.push(text);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn keys_keep_their_order_whatever_fails() {
    const COUNT: usize = 600;
    for seed in 0..20 {
        let stage = Stage::new(3).await;
        let texts: Vec<String> = (0..COUNT).map(|n| format!("key-{}:{n}", n * n % 17)).collect();
        stage.publish(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let watch: Arc<Mutex<Watch>> = Arc::default();
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        let handler = Fickle { watch: watch.clone(), random };
        let policy = Policy { attempts_max: 100, ..stage.policy() };
        let subscription = stage.subscription().with_policy(policy).with_ack_deadline(SECOND);
        let router = stage.router(8).handle(subscription, handler);
        let done = async {
            let start = Instant::now();
            while watch.lock().unwrap().succeeded.len() < COUNT {
                let came = watch.lock().unwrap().succeeded.len();
                assert!(start.elapsed() < PATIENCE, "seed {seed}: {came} succeeded");
                sleep(SECOND).await;
            }
        };
        router.run_until(done).await.unwrap();
        assert_eq!(stage.behind().await, 0, "seed {seed}");
        let watch = watch.lock().unwrap();
        assert_eq!((watch.succeeded.len(), watch.overlaps.len()), (COUNT, 0), "seed {seed}");
        assert_ordered(&watch.succeeded);
        assert!(watch.most_at_work > 4, "seed {seed}: {} at once", watch.most_at_work);
    }
}
