//! Faults are as the section says, and the same for the same seed.

use std::collections::HashMap;
use std::path::Path;

use super::*;
use crate::config::File;
use crate::embedded;
use crate::ext::BrokerExt;

fn parse(lines: &str) -> Result<Config> {
    let environment: HashMap<&str, &str> = HashMap::new();
    let file = File::parse(Path::new("t.ini"), &format!("[chaos]\n{lines}"), &environment)?;
    Config::from_section(file.section("chaos"))
}

/// An embedded broker of its own with the topic `numbers`.
async fn stage() -> (tempfile::TempDir, Arc<dyn Broker>, Topic) {
    let directory = tempfile::tempdir().unwrap();
    let broker = embedded::open(embedded::Config::new(directory.path())).await.unwrap();
    let topic = Topic::new("numbers").unwrap();
    broker.admin().create_topic(&TopicSpec::new(&topic, 1)).await.unwrap();
    (directory, broker, topic)
}

fn numbers(count: usize) -> Vec<Message> {
    (0..count).map(|number| Message::new(number.to_string()).with_key("key")).collect()
}

/// Everything that the topic holds.
async fn everything(broker: &Arc<dyn Broker>, topic: &Topic) -> Vec<String> {
    let mut reader = broker.subscribe(Subscription::reader(topic)).await.unwrap();
    let mut texts = Vec::new();
    loop {
        let limit = Limit::new(1000, Duration::from_secs(60));
        for delivery in reader.receive(limit).await.unwrap() {
            texts.push(String::from_utf8_lossy(&delivery.payload).into_owned());
        }
        if reader.events().contains(&Event::CaughtUp) {
            return texts;
        }
    }
}

/// All that a program sees which publishes, asks and consumes a little.
async fn seen(config: Config) -> Vec<String> {
    let (_directory, bare, topic) = stage().await;
    let broker = Chaos::wrap(bare.clone(), config);
    let group = Group::new("g").unwrap();
    let mut seen = Vec::new();
    for _ in 0..10 {
        seen.push(format!("{:?}", broker.publish(&topic, numbers(10)).await));
        seen.push(format!("{:?}", broker.health().await));
        seen.push(format!("{:?}", broker.admin().list().await));
    }
    seen.extend(everything(&bare, &topic).await);
    let mut member = loop {
        match broker.subscribe(Subscription::group(&topic, &group)).await {
            Ok(member) => break member,
            Err(error) => seen.push(format!("{error:?}")),
        }
    };
    for _ in 0..20 {
        match member.receive(Limit::new(1, Duration::from_secs(60))).await {
            Ok(deliveries) => seen.push(format!("{deliveries:?}")),
            Err(error) => seen.push(format!("{error:?}")),
        }
    }
    seen
}

#[tokio::test]
async fn two_runs_of_a_seed_meet_the_same_faults_and_another_seed_others() {
    let config = Config {
        seed: 7,
        not_written: 0.2,
        unknown: 0.2,
        duplicate: 0.2,
        error: 0.2,
        delay: 0.2,
        delay_max: Duration::from_millis(2),
        disconnect: 0.2,
        ..Config::default()
    };
    let first = seen(config).await;
    assert_eq!(first, seen(config).await);
    assert_ne!(first, seen(Config { seed: 8, ..config }).await);
}

#[tokio::test]
async fn what_is_said_of_a_message_is_what_became_of_it() {
    let (_directory, bare, topic) = stage().await;
    let config = Config { not_written: 0.3, unknown: 0.3, duplicate: 0.3, ..Config::default() };
    let broker = Chaos::wrap(bare.clone(), config);
    let answers = broker.publish(&topic, numbers(300)).await.unwrap();
    let written = everything(&bare, &topic).await;
    let (mut dropped, mut unknown, mut unheard, mut doubled) = (0, 0, 0, 0);
    for (number, answer) in answers.iter().enumerate() {
        let count = written.iter().filter(|text| **text == number.to_string()).count();
        match answer {
            Published::NotWritten(_) => {
                assert_eq!(count, 0);
                dropped += 1;
            }
            Published::Unknown(_) => {
                assert!(count <= 1);
                unknown += 1;
                unheard += count;
            }
            Published::Written(_) => {
                assert!((1..=2).contains(&count));
                doubled += count - 1;
            }
        }
    }
    assert!(dropped > 0 && unheard > 0 && unknown > unheard && doubled > 0);
}

#[tokio::test]
async fn a_lost_connection_brings_what_was_in_flight_again() {
    let (_directory, bare, topic) = stage().await;
    bare.publish_all(&topic, numbers(5)).await.unwrap();
    let config = Config { disconnect: 0.5, ..Config::default() };
    let broker = Chaos::wrap(bare.clone(), config);
    let group = Group::new("g").unwrap();
    let mut member = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
    let (mut first, mut cuts, mut revoked) = (Vec::new(), 0, 0);
    // Nothing is settled, so each new connection begins at the first message.
    while first.len() < 3 {
        match member.receive(Limit::new(5, Duration::from_millis(100))).await {
            Ok(deliveries) => first.extend(deliveries.first().map(|d| d.position().offset())),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                cuts += 1;
            }
        }
        revoked += member.events().iter().filter(|e| matches!(e, Event::Revoked(_))).count();
    }
    assert_eq!(first, [0, 0, 0]);
    assert!(cuts >= 2 && revoked >= 2, "{cuts} cuts, {revoked} revocations");
}

#[tokio::test]
async fn a_failed_commit_leaves_nothing() {
    let (_directory, bare, topic) = stage().await;
    bare.publish_all(&topic, numbers(1)).await.unwrap();
    let group = Group::new("g").unwrap();
    let broker = Chaos::wrap(bare.clone(), Config { error: 0.3, ..Config::default() });
    let mut member = loop {
        if let Ok(member) = broker.subscribe(Subscription::group(&topic, &group)).await {
            break member;
        }
    };
    let mut failed = 0;
    while failed < 3 {
        let Ok(mut step) = member.transaction().await else { continue };
        if step.publish(&topic, numbers(1)).await.is_ok() {
            let before = everything(&bare, &topic).await.len();
            match step.commit().await {
                Ok(()) => assert_eq!(everything(&bare, &topic).await.len(), before + 1),
                Err(_) => {
                    assert_eq!(everything(&bare, &topic).await.len(), before);
                    failed += 1;
                }
            }
        }
    }
}

#[test]
fn the_section_says_what_is_wrong() {
    assert!(!parse("").unwrap().is_on());
    assert!(!parse("seed = 9\n").unwrap().is_on());
    let config = parse("seed = 9\nerror = 0.25\nerror_kind = throttled\n").unwrap();
    assert!(config.is_on() && config.error_kind == ErrorKind::Throttled && config.seed == 9);
    for (lines, words) in [
        ("error = 1.5\n", "no rate from 0 to 1"),
        ("error = NaN\n", "no rate from 0 to 1"),
        ("eror = 0.5\n", "did you mean \"error\""),
        ("error_kind = odd\n", "choose from: unavailable"),
    ] {
        let shown = parse(lines).unwrap_err().to_string();
        assert!(shown.contains(words), "{shown} lacks {words}");
    }
}
