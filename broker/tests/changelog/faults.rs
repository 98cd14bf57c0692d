//! Faults that take several processes, or end one.

use std::path::Path;
use std::time::Duration;

use broker::{
    BrokerExt, Event, Group, Limit, Message, Outcome, Policy, Subscription, Topic, TopicSpec,
};

use super::child::{Process, Settings, connect, settings};

const WAIT: Duration = Duration::from_secs(1);
/// How many processes open the old store at once, and how often that is tried.
const UPGRADERS: usize = 4;
const ROUNDS: usize = 5;

/// The tables of a store as its first format had them.
const FORMAT_1: &str = "
PRAGMA journal_mode = WAL;
CREATE TABLE topics (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
    retention_ms INTEGER NOT NULL, retention_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic INTEGER NOT NULL REFERENCES topics (id),
    number INTEGER NOT NULL, start INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0, bytes_max INTEGER NOT NULL, UNIQUE (topic, number)
) STRICT;
CREATE TABLE batches (
    id INTEGER PRIMARY KEY, count INTEGER NOT NULL, time INTEGER NOT NULL, data BLOB NOT NULL
) STRICT;
CREATE TABLE positions (
    grp TEXT NOT NULL, partition INTEGER NOT NULL REFERENCES partitions (id),
    committed INTEGER NOT NULL, owner TEXT, generation INTEGER NOT NULL DEFAULT 0,
    starts INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (grp, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE members (
    name TEXT PRIMARY KEY, grp TEXT NOT NULL, topic INTEGER NOT NULL REFERENCES topics (id),
    boot TEXT NOT NULL, lease_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO topics (name, retention_ms, retention_bytes) VALUES ('old', 604800000, 1073741824);
INSERT INTO partitions (topic, number, next, bytes, bytes_max)
    VALUES (1, 0, 2, 43, 2147483648);
PRAGMA user_version = 1;
";

/// Two messages as the first format wrote them: without key and headers, made now.
fn rows_of_format_1(payloads: [&str; 2], micros: i64) -> Vec<u8> {
    let mut data = Vec::new();
    for payload in payloads {
        data.extend(u32::MAX.to_le_bytes());
        data.extend(0_u32.to_le_bytes());
        data.extend((payload.len() as u32).to_le_bytes());
        data.extend(micros.to_le_bytes());
        data.extend(payload.as_bytes());
    }
    data
}

fn make_old_store(directory: &Path) {
    let database = rusqlite::Connection::open(directory.join("forebay.db")).unwrap();
    database.execute_batch(FORMAT_1).unwrap();
    let now = broker::Timestamp::now().as_micros();
    let data = rows_of_format_1(["a", "bc"], now);
    assert_eq!(data.len(), 43);
    let insert = "INSERT INTO batches (id, count, time, data) VALUES (1 << 40, 2, ?1, ?2)";
    database.execute(insert, rusqlite::params![now / 1000, data]).unwrap();
}

fn ini(directory: &Path) -> String {
    format!("[broker]\nkind = embedded\n[embedded]\ndirectory = {}\n", directory.display())
}

/// Opens the store, reads what is old and writes something new.
pub(crate) async fn upgrade(settings: &Settings) {
    let broker = connect(&settings["ini"]).await;
    let topic = Topic::new("old").unwrap();
    let payloads = payloads(&*broker, &topic).await;
    assert_eq!(payloads[..2], ["a", "bc"]);
    broker.publish_one(&topic, Message::new("new")).await.unwrap();
    let compacted = Topic::new("compacted").unwrap();
    broker.ensure_topic(&TopicSpec::new(&compacted, 1).compacted()).await.unwrap();
    broker.shutdown().await.unwrap();
}

async fn payloads(broker: &dyn broker::Broker, topic: &Topic) -> Vec<String> {
    let mut reader = broker.subscribe(Subscription::reader(topic)).await.unwrap();
    let mut all = Vec::new();
    loop {
        let deliveries = reader.receive(Limit::new(100, WAIT)).await.unwrap();
        all.extend(deliveries.iter().map(|d| String::from_utf8_lossy(&d.payload).into_owned()));
        if reader.events().contains(&Event::CaughtUp) {
            return all;
        }
    }
}

#[tokio::test]
async fn processes_that_upgrade_a_store_at_once_do_each_other_no_harm() {
    for _ in 0..ROUNDS {
        let directory = tempfile::tempdir().unwrap();
        make_old_store(directory.path());
        let settings = settings(&[("ini", &ini(directory.path()))]);
        let upgraders: [Process; UPGRADERS] =
            std::array::from_fn(|_| Process::start("upgrader", &settings));
        for upgrader in upgraders {
            assert!(upgrader.wait().success());
        }
        let broker = connect(&ini(directory.path())).await;
        let payloads = payloads(&*broker, &Topic::new("old").unwrap()).await;
        assert_eq!(payloads.len(), 2 + UPGRADERS, "{payloads:?}");
        let database = rusqlite::Connection::open(directory.path().join("forebay.db")).unwrap();
        let version: i64 =
            database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, 2);
    }
}

const KILLERS: [usize; 2] = [7, 18];
const MESSAGES: usize = 30;

fn dead() -> Topic {
    Topic::new("dead").unwrap()
}

/// Works until a message kills it, or nothing comes any more.
pub(crate) async fn fall_victim(settings: &Settings) {
    let broker = connect(&settings["ini"]).await;
    let policy = Policy::default().with_attempts(3).with_dead_letters(&dead());
    let (work, group) = (Topic::new("work").unwrap(), Group::new("workers").unwrap());
    let subscription = Subscription::group(&work, &group).with_policy(policy);
    let mut member = broker.subscribe(subscription).await.unwrap();
    loop {
        let deliveries = member.receive(Limit::new(10, WAIT * 3)).await.unwrap();
        if member.events().is_empty() && deliveries.is_empty() {
            return;
        }
        for delivery in deliveries {
            if &delivery.payload[..] == b"kill" {
                std::process::abort();
            }
            assert!(member.settle(vec![(delivery.into_token(), Outcome::Ack)]).await.is_empty());
        }
    }
}

#[tokio::test]
async fn a_message_that_kills_its_consumers_becomes_a_dead_letter_and_harms_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let broker = connect(&ini(directory.path())).await;
    let (work, group) = (Topic::new("work").unwrap(), Group::new("workers").unwrap());
    for topic in [&work, &dead()] {
        broker.admin().create_topic(&TopicSpec::new(topic, 1)).await.unwrap();
    }
    let message = |number: usize| match KILLERS.contains(&number) {
        true => Message::new("kill"),
        false => Message::new(number.to_string()),
    };
    broker.publish_all(&work, (0..MESSAGES).map(message).collect()).await.unwrap();
    let settings = settings(&[("ini", &ini(directory.path()))]);
    let mut deaths = 0;
    while !Process::start("victim", &settings).wait().success() {
        deaths += 1;
        assert!(deaths <= 40, "the killers are not found out");
    }
    assert!(deaths >= KILLERS.len(), "nobody died");
    assert_eq!(payloads(&*broker, &dead()).await, ["kill"; KILLERS.len()]);
    assert_eq!(broker.lag(&work, &group).await.unwrap()[0].behind, 0);
}
