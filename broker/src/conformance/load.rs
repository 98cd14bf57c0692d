//! Many at once, and one that is slow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Harness;
use super::stage::{PATIENCE, QUIET, Stage, Tap, texts};
use crate::contract::Broker;
use crate::ext::BrokerExt;
use crate::message::Message;
use crate::name::Topic;
use crate::subscription::Subscription;

const PUBLISHERS: usize = 4;
const BATCHES: usize = 25;
const BATCH: usize = 20;
const KEYS: usize = 5;

/// How many times the usual load; set for soak runs.
fn scale() -> usize {
    let scale = std::env::var("FOREBAY_SCALE").ok();
    scale.map_or(1, |scale| scale.parse().expect("FOREBAY_SCALE is a number"))
}

/// Publishes numbered messages, each key's in ascending order.
async fn publish_numbers(broker: Arc<dyn Broker>, topic: Topic, publisher: usize) {
    for batch in 0..BATCHES * scale() {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let messages = numbers.map(|number| {
            let key = format!("{publisher}-{}", number % KEYS);
            Message::new(number.to_string()).with_key(key)
        });
        broker.publish_all(&topic, messages.collect()).await.unwrap();
    }
}

/// What all members of a group saw of each key, without repeats, in the order of first sight.
#[derive(Default)]
struct Seen {
    keys: BTreeMap<Bytes, (BTreeSet<u64>, Vec<u64>)>,
    count: usize,
}

impl Seen {
    fn note(&mut self, delivery: &Message) {
        let number = String::from_utf8_lossy(&delivery.payload).parse().unwrap();
        let (known, order) = self.keys.entry(delivery.key.clone().unwrap()).or_default();
        if known.insert(number) {
            order.push(number);
            self.count += 1;
        }
    }
}

/// Receives and acknowledges until all was seen; in its last moments a member that `leaves`
/// drops what it holds.
async fn consume(mut member: Tap, seen: Arc<Mutex<Seen>>, total: usize, leaves: bool) {
    let start = Instant::now();
    loop {
        let deliveries = member.glance(50).await;
        let count = {
            let mut seen = seen.lock().unwrap();
            deliveries.iter().for_each(|delivery| seen.note(delivery));
            seen.count
        };
        if leaves && count > total / 3 && !deliveries.is_empty() {
            return;
        }
        member.ack(deliveries).await;
        if count >= total {
            return;
        }
        assert!(start.elapsed() < 2 * PATIENCE, "{count} of {total} came");
    }
}

/// Publishers and members of several connections, one of which leaves in the middle of work.
pub async fn many_publishers_and_members_lose_and_invent_nothing(harness: &dyn Harness) {
    let stage = Stage::new(harness, 4).await;
    let other = stage.reconnected(harness).await;
    let total = PUBLISHERS * BATCHES * BATCH * scale();
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let mut tasks: Vec<JoinHandle<()>> = Vec::new();
    for (number, stage) in [&stage, &other, &stage].into_iter().enumerate() {
        let member = stage.member().await;
        tasks.push(tokio::spawn(consume(member, seen.clone(), total, number == 1)));
    }
    for publisher in 0..PUBLISHERS {
        let broker = if publisher % 2 == 0 { &stage.broker } else { &other.broker };
        let publishing = publish_numbers(broker.clone(), stage.topic.clone(), publisher);
        tasks.push(tokio::spawn(publishing));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let seen = seen.lock().unwrap();
    assert_eq!((seen.keys.len(), seen.count), (PUBLISHERS * KEYS, total));
    for (key, (_, order)) in &seen.keys {
        // Without partitions nobody owns a key: Google's emulator at times brings what a member
        // held that left behind later messages of the key.
        let is_owned = stage.broker.capabilities().partitions;
        assert!(order.is_sorted() || !is_owned, "{key:?} came out of order: {order:?}");
        assert_eq!(order.len(), total / PUBLISHERS / KEYS, "{key:?}");
    }
}

/// A batch may be larger than any buffer on its way: publishing blocks and goes on.
pub async fn a_batch_of_many_megabytes_is_written_whole_and_in_order(harness: &dyn Harness) {
    let stage = Stage::new(harness, 2).await;
    let count: u32 = 3000;
    let message = |number: u32| {
        let mut payload = vec![7; 10_000];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        Message::new(payload).with_key("key")
    };
    stage.publish((0..count).map(message).collect()).await;
    let mut reader = stage.reader().await;
    for number in 0..count {
        let delivery = reader.next().await;
        assert_eq!(delivery.payload.len(), 10_000);
        assert_eq!(delivery.payload[..4], number.to_be_bytes(), "at {delivery:?}");
    }
}

/// Receives until nothing more comes for a while.
async fn take_all(tap: &mut Tap) -> Vec<crate::Delivery> {
    let mut all = vec![tap.next().await];
    let mut last = Instant::now();
    while last.elapsed() < QUIET {
        let more = tap.glance(7).await;
        if !more.is_empty() {
            last = Instant::now();
        }
        all.extend(more);
    }
    all
}

/// Backpressure instead of growing memory: what is settled makes room for as much.
pub async fn a_slow_consumer_never_holds_more_than_its_bound(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(super::stage::numbers(100)).await;
    let bounded = Subscription { in_flight_max: 10, ..stage.subscription() };
    let mut member = stage.subscribe(bounded).await;
    let mut held = take_all(&mut member).await;
    assert_eq!(texts(&held), super::stage::numbers(10));
    let open = held.split_off(4);
    member.ack(held).await;
    let more = take_all(&mut member).await;
    assert_eq!(texts(&more), ["10", "11", "12", "13"]);
    member.ack(open).await;
    member.ack(more).await;
    let rest = take_all(&mut member).await;
    assert_eq!(rest.len(), 10);
}

/// The same in bytes of payload; a message larger than the bound comes alone.
pub async fn a_slow_consumer_never_holds_more_bytes_than_its_bound(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let sizes = [10_000; 20].into_iter().chain([60_000, 10_000]);
    stage.publish(sizes.map(|size| Message::new(vec![7; size])).collect()).await;
    let bounded = Subscription { in_flight_bytes_max: 50_000, ..stage.subscription() };
    let mut member = stage.subscribe(bounded).await;
    let mut came = 0;
    while came < 22 {
        let held = take_all(&mut member).await;
        let bytes: usize = held.iter().map(|delivery| delivery.payload.len()).sum();
        let alone = held.len() == 1;
        assert!(bytes <= 50_000 || alone, "{} deliveries hold {bytes} bytes", held.len());
        came += held.len();
        member.ack(held).await;
    }
}
