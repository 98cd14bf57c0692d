//! `forebay dlq`: letters are retried or dropped one by one, and none is lost on the way.

use std::collections::BTreeMap;

use broker::{Message, Topic};
use forebay_tests::{Running, Stage, command, kafka, unique, wait_until};
use model_server::process::Reason;

use super::tools::{forebay, topic};

/// A dead letter as the delivery layer makes it.
fn letter(source: &Topic, id: &str, reason: &str) -> Message {
    Message::new(format!("payload of {id}"))
        .with_key(id.to_owned())
        .with_header("id", id)
        .with_header("dead-letter-reason", reason)
        .with_header("dead-letter-topic", source.as_str())
        .with_header("dead-letter-partition", "3")
        .with_header("dead-letter-offset", "44")
        .with_header("dead-letter-attempts", "5")
        .with_header("dead-letter-time", "1795243400000000")
}

/// The ids of the open letters, in their order.
fn open(stage: &Stage) -> Vec<String> {
    let listed = forebay(stage, &["dlq", "list", "--json", "--limit", "100000"]).objects();
    listed.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
}

/// The ids in a topic, in their order.
fn ids(stage: &Stage, topic: &Topic) -> Vec<String> {
    stage.read(topic).iter().map(|record| record.header("id").to_owned()).collect()
}

fn letters_are_shown_retried_and_dropped(stage: &Stage) {
    let source = topic(stage, 1);
    let dead = &stage.settings.topics.dead_letters;
    let causes =
        [("a", "busy"), ("b", "no image"), ("c", "busy"), ("d", "no image"), ("e", "busy")];
    stage.publish_to(dead, causes.map(|(id, reason)| letter(&source, id, reason)).into());
    assert_eq!(open(stage), ["a", "b", "c", "d", "e"]);
    let shown = forebay(stage, &["dlq", "show", "b"]).said();
    for word in ["0:1", "no image", "3:44", "attempts 5", "2026-11-21 06:43:20 UTC", "payload of b"]
    {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert_eq!(forebay(stage, &["dlq", "show", "0:2", "--raw"]).out, b"payload of c");
    // A look changes nothing, and neither does what cannot be done.
    let planned = forebay(stage, &["dlq", "retry", "c", "--dry-run"]).said();
    assert!(
        planned.contains("would be retried: 1 ") && planned.contains("moved to its end: 2 "),
        "{planned}"
    );
    let unknown = forebay(stage, &["dlq", "retry", "c", "zz"]).failed(Reason::Unexpected);
    assert!(unknown.contains("zz") && !unknown.contains(" c "), "{unknown}");
    let unasked = forebay(stage, &["dlq", "drop", "--all"]).failed(Reason::Unexpected);
    assert!(unasked.contains("--yes"), "{unasked}");
    assert_eq!(open(stage), ["a", "b", "c", "d", "e"]);
    assert!(stage.read(&source).is_empty());
    // One from the midst: those before it wait at the end.
    forebay(stage, &["dlq", "retry", "c"]).said();
    assert_eq!(open(stage), ["d", "e", "a", "b"]);
    let revived = stage.read(&source).remove(0).message;
    let expected = Message::new("payload of c").with_key("c").with_header("id", "c");
    assert_eq!(Message { timestamp: None, ..revived }, expected);
    // Those with one cause, wherever they are.
    let dropped = ["dlq", "drop", "--reason", "^no image$", "--yes", "--json"];
    let dropped = forebay(stage, &dropped).objects().remove(0);
    assert_eq!((&dropped["chosen"], &dropped["moved"]), (&2.into(), &2.into()));
    assert_eq!(open(stage), ["e", "a"]);
    forebay(stage, &["dlq", "retry", "--all"]).said();
    assert!(open(stage).is_empty());
    assert_eq!(ids(stage, &source), ["c", "e", "a"]);
    let listed = forebay(stage, &["dlq", "list"]).said();
    assert!(listed.contains("no dead letters in"), "{listed}");
    let all = forebay(stage, &["dlq", "list", "--settled", "--json"]).objects();
    assert_eq!(all.len(), 9, "five, two moved, and two moved again");
}

#[test]
fn letters_are_shown_retried_and_dropped_on_embedded() {
    letters_are_shown_retried_and_dropped(&Stage::embedded(|_| {}));
}

#[test]
fn letters_are_shown_retried_and_dropped_on_kafka() {
    let Some(servers) = kafka() else { return };
    letters_are_shown_retried_and_dropped(&Stage::kafka(&servers, |_| {}));
}

#[test]
fn a_letter_with_nowhere_to_go_stays() {
    let stage = Stage::embedded(|_| {});
    let gone = Topic::new(&unique("gone")).unwrap();
    let dead = &stage.settings.topics.dead_letters;
    let stray = Message::new("stray").with_header("id", "stray");
    stage.publish_to(dead, vec![letter(&gone, "a", "busy"), stray]);
    let told = forebay(&stage, &["dlq", "retry", "a"]).failed(Reason::Broker);
    assert!(told.contains(gone.as_str()), "{told}");
    let told = forebay(&stage, &["dlq", "retry", "stray"]).failed(Reason::Unexpected);
    assert!(told.contains("--to"), "{told}");
    assert_eq!(open(&stage), ["a", "stray"]);
    let other = topic(&stage, 1);
    forebay(&stage, &["dlq", "retry", "--all", "--to", other.as_str()]).said();
    assert_eq!(ids(&stage, &other), ["a", "stray"]);
    assert!(open(&stage).is_empty());
}

/// On the embedded broker each step is one transaction, so a kill does not even repeat.
#[test]
fn a_kill_in_the_midst_of_a_retry_loses_and_repeats_nothing() {
    const LETTERS: usize = 20_000;
    let stage = Stage::embedded(|_| {});
    let source = topic(&stage, 2);
    let reason = |number: usize| if number.is_multiple_of(2) { "busy" } else { "no image" };
    let letters = (0..LETTERS).map(|n| letter(&source, &n.to_string(), reason(n)));
    stage.publish_to(&stage.settings.topics.dead_letters, letters.collect());
    let mut kills = 0;
    for round in 0.. {
        let mut retry = command("forebay");
        retry.arg("dlq").args(["retry", "--reason", "busy", "--config"]).arg(stage.config());
        let mut running = Running::start(retry, "retry", stage.directory());
        let before = stage.published(&source);
        // Killed once it has begun, as long as there is enough left to kill it at.
        let begun = wait_until("the retry to go on", || {
            let ended = running.ended().is_some();
            (ended || stage.published(&source) > before).then_some(!ended)
        });
        if begun && round < 5 {
            kills += usize::from(running.kill());
            continue;
        }
        assert!(running.wait().success(), "{}", running.log());
        if stage.published(&source) == (LETTERS / 2) as u64 {
            break;
        }
        assert!(round < 20, "the retries do not come to an end");
    }
    assert!(kills > 0, "no retry was killed at work");
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let retried = ids(&stage, &source);
    for id in retried.iter().chain(&open(&stage)) {
        *seen.entry(id.clone()).or_default() += 1;
    }
    assert_eq!(retried.len(), LETTERS / 2);
    assert_eq!(seen.len(), LETTERS);
    assert!(seen.values().all(|count| *count == 1), "a letter is there twice");
}
