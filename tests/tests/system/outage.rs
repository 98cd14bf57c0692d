//! A broker is away for a while, held still or gone: whoever publishes and consumes goes on by
//! itself when it is back, every error says that it passes, and nothing is lost.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use broker::{Broker, Error, Group, Limit, Message, Outcome, Subscription, Topic, TopicSpec};
use forebay_tests::{HANG, Ini, OwnServer, Stage, cannot_run, scale, unique, wait_until};
use model_server::settings::Settings;

/// Numbers that must flow before and after.
const FLOW: usize = 500;
const BATCH: usize = 10;
const PAUSE: Duration = Duration::from_millis(10);
const PARTITIONS: u32 = 2;

/// A minute in `make soak`.
fn outage() -> Duration {
    Duration::from_secs(if scale() == 1 { 5 } else { 60 })
}

/// What both sides tell of themselves.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Numbers below this are stored.
    published: AtomicUsize,
    seen: Mutex<BTreeSet<usize>>,
    errors: AtomicUsize,
    repeats: AtomicUsize,
}

impl Shared {
    /// An error of an outage says that it passes.
    fn bear(&self, error: &Error) {
        assert!(error.is_retryable(), "{error:?}");
        self.errors.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Runs one side on a thread with a connection of its own.
fn spawn<F: Future<Output = ()>>(
    settings: &Settings,
    side: impl FnOnce(Arc<dyn Broker>) -> F + Send + 'static,
) -> JoinHandle<()> {
    let settings = settings.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            side(settings.connect().await.unwrap()).await;
        });
    })
}

async fn publish(broker: Arc<dyn Broker>, topic: Topic, shared: Arc<Shared>) {
    let mut next = 0;
    while shared.goes_on() {
        let mut left: Vec<usize> = (next..next + BATCH).collect();
        next += BATCH;
        while !left.is_empty() {
            left = publish_batch(broker.as_ref(), &topic, left, &shared).await;
        }
        shared.published.store(next, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Publishes numbers and returns those that are not known to be stored.
async fn publish_batch(
    broker: &dyn Broker,
    topic: &Topic,
    numbers: Vec<usize>,
    shared: &Shared,
) -> Vec<usize> {
    let message = |number: &usize| Message::new(number.to_string()).with_key(number.to_string());
    let results = match broker.publish(topic, numbers.iter().map(message).collect()).await {
        Ok(results) => results,
        Err(error) => {
            shared.bear(&error);
            return numbers;
        }
    };
    let mut left = Vec::new();
    for (number, result) in numbers.into_iter().zip(results) {
        if let Err(error) = result.position() {
            shared.bear(&error);
            left.push(number);
        }
    }
    left
}

async fn consume(broker: Arc<dyn Broker>, topic: Topic, group: Group, shared: Arc<Shared>) {
    let mut consumer = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
    while shared.goes_on() {
        let deliveries = match consumer.receive(Limit::new(100, PAUSE)).await {
            Ok(deliveries) => deliveries,
            Err(error) => {
                shared.bear(&error);
                continue;
            }
        };
        consumer.events();
        let mut settled = Vec::new();
        for delivery in deliveries {
            let number = std::str::from_utf8(&delivery.payload).unwrap().parse().unwrap();
            let is_new = shared.seen.lock().unwrap().insert(number);
            shared.repeats.fetch_add(usize::from(!is_new), Ordering::Relaxed);
            settled.push((delivery.into_token(), Outcome::Ack));
        }
        for unsettled in consumer.settle(settled).await {
            shared.bear(&unsettled.error);
        }
    }
}

/// Waits until so many numbers were published, and all of those were received.
fn flow(shared: &Shared, count: usize) {
    let is_published = || (shared.published.load(Ordering::Relaxed) >= count).then_some(());
    wait_until(&format!("{count} numbers published"), is_published);
    let first_missing = || {
        let seen = shared.seen.lock().unwrap();
        (0..count).find(|number| !seen.contains(number))
    };
    let begun = Instant::now();
    while let Some(missing) = first_missing() {
        assert!(begun.elapsed() < HANG, "number {missing} of {count} was never received");
        thread::sleep(PAUSE);
    }
}

fn survives(what: &str, partitions: u32, change: impl FnOnce(&mut Ini), away: impl FnOnce()) {
    let stage = Stage::embedded(change);
    let topic = Topic::new(&unique("numbers")).unwrap();
    stage.create(&TopicSpec::new(&topic, partitions));
    let group = Group::new(&unique("group")).unwrap();
    let shared = Arc::new(Shared::default());
    let (to, own) = (topic.clone(), shared.clone());
    let publisher = spawn(&stage.settings, move |broker| publish(broker, to, own));
    let own = shared.clone();
    let consumer = spawn(&stage.settings, move |broker| consume(broker, topic, group, own));
    flow(&shared, FLOW);
    away();
    let begun = Instant::now();
    flow(&shared, shared.published.load(Ordering::Relaxed) + FLOW);
    let back = begun.elapsed();
    shared.stop.store(true, Ordering::Relaxed);
    publisher.join().unwrap();
    consumer.join().unwrap();
    println!(
        "{what} for {:?}: {} numbers, none lost, {} repeats, {} errors that pass; all of them there \
         {:.1} s after it was back",
        outage(),
        shared.published.load(Ordering::Relaxed),
        shared.repeats.load(Ordering::Relaxed),
        shared.errors.load(Ordering::Relaxed),
        back.as_secs_f64(),
    );
}

/// A server of the test's own, where the environment says that there are servers.
fn server(name: &'static str) -> Option<OwnServer> {
    let variable = format!("FOREBAY_TEST_{}", name.to_uppercase());
    if std::env::var_os(&variable).is_none() {
        cannot_run(&format!("{variable} is not set: start a server with scripts/servers"));
        return None;
    }
    Some(OwnServer::start(name))
}

fn held_still(server: &OwnServer) {
    server.pause();
    thread::sleep(outage());
    server.resume();
}

fn gone(server: &OwnServer) {
    server.kill();
    thread::sleep(outage());
    server.restart();
}

fn on_kafka(address: &str) -> impl FnOnce(&mut Ini) {
    let address = address.to_owned();
    move |ini| Stage::on_kafka(ini, &address)
}

fn on_redis(address: &str) -> impl FnOnce(&mut Ini) {
    let address = address.to_owned();
    move |ini| {
        ini.set("broker", "kind", "redis").set("redis", "url", address);
    }
}

#[test]
fn kafka_is_gone_for_a_while() {
    let Some(server) = server("kafka") else { return };
    survives("Kafka was gone", PARTITIONS, on_kafka(&server.address), || gone(&server));
}

#[test]
fn kafka_is_held_still_for_a_while() {
    let Some(server) = server("kafka") else { return };
    survives("Kafka was held still", PARTITIONS, on_kafka(&server.address), || held_still(&server));
}

#[test]
fn redis_is_gone_for_a_while() {
    let Some(server) = server("redis") else { return };
    survives("Redis was gone", PARTITIONS, on_redis(&server.address), || gone(&server));
}

#[test]
fn redis_is_held_still_for_a_while() {
    let Some(server) = server("redis") else { return };
    survives("Redis was held still", PARTITIONS, on_redis(&server.address), || held_still(&server));
}

/// An emulator keeps everything in memory, so that one that is gone has lost it.
#[test]
fn pubsub_is_held_still_for_a_while() {
    let Some(server) = server("pubsub") else { return };
    let address = server.address.clone();
    let change = |ini: &mut Ini| {
        ini.set("broker", "kind", "pubsub").set("pubsub", "project", "forebay-outage");
        ini.set("pubsub", "emulator", address);
    };
    survives("Pub/Sub was held still", 1, change, || held_still(&server));
}
