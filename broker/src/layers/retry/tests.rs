//! The rule by cases, and by chance: whatever fails, keys keep their order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::resend::Resend;
use super::*;
use crate::embedded;
use crate::layers::chaos::{self, Chaos};
use crate::policy::Backoff;
use crate::{BrokerExt, Position, Subscription, TopicSpec};

fn failed(kind: ErrorKind) -> Error {
    Error::new(kind, "publish", "made up")
}

/// One answer for each letter: Written, Not written, Refused for good, Unknown.
fn answers(letters: &str) -> Vec<Published> {
    let answer = |letter| match letter {
        'W' => Published::Written(Position::new(0, 0)),
        'N' => Published::NotWritten(failed(ErrorKind::Unavailable)),
        'R' => Published::NotWritten(failed(ErrorKind::TooLarge)),
        _ => Published::Unknown(failed(ErrorKind::Timeout)),
    };
    letters.chars().map(answer).collect()
}

fn letters(results: &[Published]) -> String {
    let letter = |published: &Published| match published {
        Published::Written(_) => 'W',
        Published::NotWritten(error) if passes(error) => 'N',
        Published::NotWritten(_) => 'R',
        Published::Unknown(_) => 'U',
    };
    results.iter().map(letter).collect()
}

/// Messages whose keys are the letters; `-` has none. Each one's payload is its place.
fn messages(keys: &str) -> Vec<Message> {
    let message = |(place, key): (usize, char)| match key {
        '-' => Message::new(place.to_string()),
        key => Message::new(place.to_string()).with_key(key.to_string()),
    };
    keys.chars().enumerate().map(message).collect()
}

/// The places that are published again after the answers.
fn again(duplicates: Duplicates, keys: &str, given: &str) -> String {
    let mut resend = Resend::new(messages(keys), duplicates);
    match resend.take(answers(given)) {
        None => String::new(),
        Some(_) => {
            let places = resend.batch();
            places.iter().map(|message| String::from_utf8_lossy(&message.payload)).collect()
        }
    }
}

#[test]
fn only_what_is_not_written_is_repeated_and_never_behind_a_later_one_of_its_key() {
    let rows = [
        ("aaa", "WWW", ""),
        ("aaa", "NNN", "012"),
        ("aaa", "WNN", "12"),
        // A later one is written: the earlier one would come behind it.
        ("aaa", "NWN", ""),
        ("aaa", "NUN", ""),
        // What follows an unknown one waits for the caller's decision.
        ("aaa", "UNN", ""),
        ("aaa", "NNU", ""),
        // What can never be written holds nothing back.
        ("aaa", "RNN", "12"),
        ("aaa", "NRN", "02"),
        // Keys, and messages without one, do not wait for each other.
        ("abab", "UNNN", "13"),
        ("-a-b", "NWUN", "03"),
        ("----", "NWNU", "02"),
    ];
    for (keys, given, expected) in rows {
        assert_eq!(again(Duplicates::Deny, keys, given), expected, "{keys} {given}");
    }
}

#[test]
fn where_duplicates_are_allowed_all_later_ones_of_the_key_go_along() {
    let rows = [
        ("aaa", "WWW", ""),
        ("aaa", "NWN", "012"),
        ("aaa", "WUW", "12"),
        ("aab", "UWW", "01"),
        ("aaa", "NRW", "02"),
        ("-aa", "UWW", "0"),
        ("---", "NWU", "02"),
    ];
    for (keys, given, expected) in rows {
        assert_eq!(again(Duplicates::Allow, keys, given), expected, "{keys} {given}");
    }
}

#[test]
fn what_was_written_once_stays_written_though_its_repetition_fails() {
    let mut resend = Resend::new(messages("aa"), Duplicates::Allow);
    assert!(resend.take(answers("NW")).is_some());
    assert!(resend.take(answers("WN")).is_some());
    assert_eq!(letters(&resend.into_results()), "WW");
}

#[test]
fn a_backend_that_answers_too_little_or_too_much_harms_no_other_message() {
    for (given, expected) in [("N", "NU"), ("", "UU"), ("W", "WU"), ("NWW", "NW")] {
        let mut resend = Resend::new(messages("ab"), Duplicates::Deny);
        resend.take(answers(given));
        assert_eq!(letters(&resend.into_results()), expected, "{given}");
    }
}

const QUICK: Config = Config {
    attempts_max: 4,
    time_max: Duration::from_secs(60),
    backoff: Backoff { first: Duration::ZERO, max: Duration::ZERO, jitter_percent: 0 },
    duplicates: Duplicates::Deny,
};

/// An embedded broker with a topic of two partitions, under a chaos layer of this seed.
struct Stage {
    _directory: tempfile::TempDir,
    bare: Arc<dyn Broker>,
    chaotic: Arc<dyn Broker>,
    topic: Topic,
}

impl Stage {
    async fn new(faults: chaos::Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let durability = embedded::Durability::Normal;
        let config = embedded::Config { durability, ..embedded::Config::new(directory.path()) };
        let bare = embedded::open(config).await.unwrap();
        let topic = Topic::new("numbers").unwrap();
        bare.admin().create_topic(&TopicSpec::new(&topic, 2)).await.unwrap();
        let chaotic = Chaos::wrap(bare.clone(), faults);
        Self { _directory: directory, bare, chaotic, topic }
    }

    /// The payloads of each key in the order in which they stand.
    async fn written(&self) -> HashMap<Option<String>, Vec<u32>> {
        let mut reader = self.bare.subscribe(Subscription::reader(&self.topic)).await.unwrap();
        let mut written: HashMap<_, Vec<u32>> = HashMap::new();
        loop {
            let limit = Limit::new(1000, Duration::from_secs(60));
            for delivery in reader.receive(limit).await.unwrap() {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let number = text(&delivery.payload).parse().unwrap();
                written.entry(delivery.key.as_deref().map(text)).or_default().push(number);
            }
            if reader.events().contains(&Event::CaughtUp) {
                return written;
            }
        }
    }
}

/// Publishes numbered batches of messages with three keys and none; returns what was said of
/// each number.
async fn publish(broker: &Arc<dyn Broker>, topic: &Topic, seed: u64) -> Vec<Published> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut answers = Vec::new();
    for _ in 0..20 {
        let first = answers.len();
        let keys = [Some("a"), Some("b"), Some("c"), None];
        let message = |place: usize| {
            let message = Message::new((first + place).to_string());
            match keys[dice.usize(..keys.len())] {
                Some(key) => message.with_key(key),
                None => message,
            }
        };
        let batch: Vec<Message> = (0..10).map(message).collect();
        match broker.publish(topic, batch).await {
            Ok(results) => answers.extend(results),
            Err(error) => answers.extend((0..10).map(|_| Published::NotWritten(error.duplicate()))),
        }
    }
    answers
}

fn faults(seed: u64) -> chaos::Config {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut rate = || dice.f64() * 0.4;
    let (not_written, unknown, error) = (rate(), rate(), rate());
    chaos::Config { seed, not_written, unknown, error, ..chaos::Config::default() }
}

/// How many seeds are tried; more with `FOREBAY_REPEAT`.
fn seeds() -> u64 {
    let repeat = std::env::var("FOREBAY_REPEAT").ok().and_then(|text| text.parse().ok());
    30 * repeat.unwrap_or(1)
}

#[tokio::test]
async fn whatever_fails_keys_keep_their_order_and_nothing_is_written_twice() {
    let mut repeated = 0;
    for seed in 0..seeds() {
        let stage = Stage::new(faults(seed)).await;
        let broker = Retry::wrap(stage.chaotic.clone(), QUICK);
        let answers = publish(&broker, &stage.topic, seed).await;
        let written = stage.written().await;
        let mut counts = vec![0; answers.len()];
        for (key, numbers) in &written {
            // Those without a key are spread, and need no order.
            let is_ordered = key.is_none() || numbers.is_sorted();
            assert!(is_ordered, "seed {seed}: {key:?} has {numbers:?}");
            numbers.iter().for_each(|number| counts[*number as usize] += 1);
        }
        for (number, (answer, count)) in answers.iter().zip(counts).enumerate() {
            let is_right = match answer {
                Published::Written(_) => count == 1,
                Published::NotWritten(_) => count == 0,
                Published::Unknown(_) => count <= 1,
            };
            assert!(is_right, "seed {seed}: {number} is there {count} times, yet {answer:?}");
        }
        repeated += answers.iter().filter(|answer| matches!(answer, Published::Written(_))).count();
        let bare = Stage::new(faults(seed)).await;
        let alone = publish(&bare.chaotic, &bare.topic, seed).await;
        repeated -= alone.iter().filter(|answer| matches!(answer, Published::Written(_))).count();
    }
    assert!(repeated > 0, "the layer repeated nothing");
}

#[tokio::test]
async fn where_duplicates_are_allowed_each_key_ends_in_its_order() {
    for seed in 0..seeds() {
        let faults = chaos::Config { error: 0.0, ..faults(seed) };
        let stage = Stage::new(faults).await;
        let config = Config { attempts_max: 100, duplicates: Duplicates::Allow, ..QUICK };
        let broker = Retry::wrap(stage.chaotic.clone(), config);
        let answers = publish(&broker, &stage.topic, seed).await;
        let left = answers.iter().filter(|answer| !matches!(answer, Published::Written(_)));
        assert_eq!(left.count(), 0, "seed {seed}");
        for (key, numbers) in stage.written().await {
            let last = |number: &u32| numbers.iter().rposition(|other| other == number);
            let mut distinct = numbers.clone();
            distinct.sort_unstable();
            distinct.dedup();
            let is_ordered = distinct.is_sorted_by_key(last);
            assert!(key.is_none() || is_ordered, "seed {seed}: {key:?} has {numbers:?}");
        }
    }
}

#[tokio::test]
async fn a_call_of_which_nothing_was_tried_is_repeated_and_then_fails_as_a_whole() {
    let stage = Stage::new(chaos::Config { error: 1.0, ..chaos::Config::default() }).await;
    let broker = Retry::wrap(stage.chaotic.clone(), QUICK);
    let error = broker.publish_one(&stage.topic, Message::new("0")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(broker.lag(&stage.topic, &Group::new("g").unwrap()).await.is_err());
    assert!(stage.written().await.is_empty());
}

#[tokio::test]
async fn a_settlement_that_failed_is_repeated() {
    let stage = Stage::new(chaos::Config { error: 0.5, ..chaos::Config::default() }).await;
    let broker = Retry::wrap(stage.chaotic.clone(), Config { attempts_max: 100, ..QUICK });
    broker.publish_one(&stage.topic, Message::new("0")).await.unwrap();
    let group = Group::new("g").unwrap();
    let mut member = broker.subscribe(Subscription::group(&stage.topic, &group)).await.unwrap();
    let deliveries = loop {
        match member.receive(Limit::new(1, Duration::from_secs(60))).await {
            Ok(deliveries) if !deliveries.is_empty() => break deliveries,
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
    };
    let outcomes = deliveries.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack));
    assert!(member.settle(outcomes.collect()).await.is_empty());
    let lag = broker.lag(&stage.topic, &group).await.unwrap();
    assert_eq!(lag.iter().map(|partition| partition.behind).sum::<u64>(), 0);
}
