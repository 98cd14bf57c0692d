//! The tools of `forebay`, as a person or a script uses them, on the embedded broker and on Kafka.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use broker::{Consumer, Group, Limit, Message, Outcome, Subscription, Topic};
use forebay_tests::{Running, Stage, command, kafka, unique, wait_until};
use model_server::process::Reason;
use serde_json::Value;
use tokio::runtime::Runtime;

/// A run of `forebay` that ended.
pub(crate) struct Run {
    code: Option<i32>,
    pub(crate) out: Vec<u8>,
    log: String,
}

impl Run {
    /// What it said, where it ended well.
    #[track_caller]
    pub(crate) fn said(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.log);
        String::from_utf8(self.out).unwrap()
    }

    /// The exit code.
    pub(crate) fn code(&self) -> Option<i32> {
        self.code
    }

    /// The objects that it said.
    #[track_caller]
    pub(crate) fn objects(self) -> Vec<Value> {
        self.said().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What it complained of, where it ended for that reason.
    #[track_caller]
    pub(crate) fn failed(self, reason: Reason) -> String {
        let out = String::from_utf8_lossy(&self.out).into_owned();
        assert_eq!(self.code, Some(reason as i32), "{}{out}", self.log);
        self.log
    }
}

fn invocation(config: &Path, arguments: &[&str]) -> Command {
    let mut command = command("forebay");
    command.env("FOREBAY_CONFIG", config).args(arguments);
    command
}

/// Runs `forebay` to its end, with something to read.
pub(crate) fn forebay_reads(config: &Path, arguments: &[&str], input: &[u8]) -> Run {
    let mut command = invocation(config, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that fails early leaves its input unread.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!log.contains("panicked"), "{log}");
    Run { code: output.status.code(), out: output.stdout, log }
}

/// Runs `forebay` to its end.
pub(crate) fn forebay(stage: &Stage, arguments: &[&str]) -> Run {
    forebay_reads(stage.config(), arguments, b"")
}

/// A topic of its own.
pub(crate) fn topic(stage: &Stage, partitions: u32) -> Topic {
    let name = unique("tools");
    forebay(stage, &["topics", "create", &name, "--partitions", &partitions.to_string()]).said();
    Topic::new(&name).unwrap()
}

/// A member of a group that received so many messages and settled them.
struct Settled {
    member: Box<dyn Consumer>,
    broker: std::sync::Arc<dyn broker::Broker>,
    runtime: Runtime,
}

impl Settled {
    fn new(stage: &Stage, topic: &Topic, group: &str, count: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let group = Group::new(group).unwrap();
        let (broker, member) = runtime.block_on(async {
            let broker = stage.settings.connect().await.unwrap();
            let mut member = broker.subscribe(Subscription::group(topic, &group)).await.unwrap();
            let mut left = count;
            while left > 0 {
                let received = member.receive(Limit::new(left, Duration::from_secs(1))).await;
                let received = received.unwrap();
                left -= received.len();
                let acks = received.into_iter().map(|it| (it.into_token(), Outcome::Ack));
                assert!(member.settle(acks.collect()).await.is_empty());
            }
            (broker, member)
        });
        Self { member, broker, runtime }
    }

    /// Leaves the group.
    fn stop(self) {
        let Self { member, broker, runtime } = self;
        drop(member);
        runtime.block_on(broker.shutdown()).unwrap();
    }
}

fn numbered(count: usize) -> Vec<Message> {
    (0..count).map(|number| Message::new(number.to_string())).collect()
}

/// The numbers that a report has under a name.
fn column(objects: &[Value], name: &str) -> Vec<u64> {
    objects.iter().map(|object| object[name].as_u64().unwrap()).collect()
}

#[test]
fn topics_are_made_listed_described_and_deleted() {
    let stage = Stage::embedded(|_| {});
    let made = ["topics", "create", "made", "--partitions", "3", "--retention", "2h", "--json"];
    assert_eq!(forebay(&stage, &made).objects()[0]["done"], "created");
    let again = forebay(&stage, &["topics", "create", "made"]).failed(Reason::Unexpected);
    assert!(again.contains("already exists") && again.contains("made"), "{again}");
    stage.publish_to(&Topic::new("made").unwrap(), numbered(5));
    let listed = forebay(&stage, &["topics", "list"]).said();
    assert!(listed.lines().any(|line| line == "made\t3\t5"), "{listed}");
    let described = forebay(&stage, &["topics", "describe", "made", "--json"]).objects();
    assert_eq!(column(&described, "partition"), [0, 1, 2]);
    assert_eq!(column(&described, "messages").iter().sum::<u64>(), 5);
    let kept = forebay(&stage, &["topics", "delete", "made"]).failed(Reason::Unexpected);
    assert!(kept.contains("nothing was changed") && kept.contains("--yes"), "{kept}");
    forebay(&stage, &["topics", "delete", "made", "--yes"]).said();
    let gone = forebay(&stage, &["topics", "describe", "made"]).failed(Reason::Broker);
    assert!(gone.contains("not found") && gone.contains("made"), "{gone}");
}

#[test]
fn an_embedded_store_that_is_not_there_is_told_of_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("forebay.ini");
    let store = directory.path().join("store");
    let text = format!("[broker]\nkind = embedded\n[embedded]\ndirectory = {}\n", store.display());
    std::fs::write(&config, text).unwrap();
    for arguments in
        [&["topics", "list"][..], &["dlq", "list"], &["groups", "list"], &["tail", "t"], &["lag"]]
    {
        let told = forebay_reads(&config, arguments, b"").failed(Reason::Config);
        assert!(told.contains("there is no store in") && told.contains("store"), "{told}");
        assert!(!store.exists(), "{arguments:?} made the store");
    }
    // Making a topic is to want a store, and a file with a broker is all that it takes.
    forebay_reads(&config, &["topics", "create", "first"], b"").said();
    assert_eq!(forebay_reads(&config, &["topics", "list"], b"").said(), "first\t1\t0\n");
}

/// Text, bytes and lines go in, and `tail --json` into `publish --json-lines` copies them.
fn what_is_published_comes_out_as_it_was(stage: &Stage) {
    let (name, copy) = (topic(stage, 1), topic(stage, 1));
    let noise = stage.directory().join("noise.bin");
    std::fs::write(&noise, [0, 255, 10, 27]).unwrap();
    let text = ["publish", name.as_str(), "größer", "-k", "7", "-H", "id=a", "-H", "id=b=c"];
    let said = forebay(stage, &text).said();
    assert_eq!(said, format!("{name}\t0\t0\n"));
    forebay(stage, &["publish", name.as_str(), "--file", noise.to_str().unwrap()]).said();
    let lines = ["publish", name.as_str(), "--lines", "--json"];
    let receipts = forebay_reads(stage.config(), &lines, b"one\n\nthree").objects();
    assert_eq!(column(&receipts, "offset"), [2, 3, 4]);
    let said = forebay(stage, &["publish", name.as_str(), "again", "--count", "3"]).said();
    assert!(said.starts_with("3 messages"), "{said}");
    let dump = forebay(stage, &["tail", name.as_str(), "--follow=false", "--json"]).said();
    assert_eq!(dump.lines().count(), 8, "{dump}");
    forebay_reads(stage.config(), &["publish", copy.as_str(), "--json-lines"], dump.as_bytes())
        .said();
    let messages = |topic| {
        let records = stage.read(topic).into_iter().map(|record| record.message);
        records.collect::<Vec<Message>>()
    };
    let (originals, copies) = (messages(&name), messages(&copy));
    assert_eq!(originals, copies);
    let first =
        Message::new("größer").with_key("7").with_header("id", "a").with_header("id", "b=c");
    assert_eq!(Message { timestamp: None, ..originals[0].clone() }, first);
    assert_eq!(&originals[1].payload[..], [0, 255, 10, 27]);
    let payloads: Vec<&[u8]> = originals[2..5].iter().map(|message| &message.payload[..]).collect();
    assert_eq!(payloads, [&b"one"[..], b"", b"three"]);
}

#[test]
fn what_is_published_comes_out_as_it_was_on_embedded() {
    what_is_published_comes_out_as_it_was(&Stage::embedded(|_| {}));
}

#[test]
fn what_is_published_comes_out_as_it_was_on_kafka() {
    let Some(servers) = kafka() else { return };
    what_is_published_comes_out_as_it_was(&Stage::kafka(&servers, |_| {}));
}

#[test]
fn input_that_is_no_message_is_told_with_its_line() {
    let stage = Stage::embedded(|_| {});
    let name = topic(&stage, 1);
    let lines = b"{\"payload\": \"one\"}\n{\"pyload\": \"two\"}\n";
    let publish = ["publish", name.as_str(), "--json-lines"];
    let told = forebay_reads(stage.config(), &publish, lines).failed(Reason::Input);
    assert!(told.contains("line 2 is no message") && told.contains("pyload"), "{told}");
    let missing = ["publish", name.as_str(), "--file", "/nowhere/payload"];
    let told = forebay(&stage, &missing).failed(Reason::Input);
    assert!(told.contains("/nowhere/payload"), "{told}");
    let told = forebay(&stage, &["publish", "absent", "text"]).failed(Reason::Broker);
    assert!(told.contains("absent"), "{told}");
    let large = vec![b'x'; 2 << 20];
    let told = forebay_reads(stage.config(), &["publish", name.as_str(), "-"], &large);
    assert!(told.failed(Reason::Input).contains("longer than a message may be"));
}

#[test]
fn tail_shows_what_is_asked_for_and_steers_no_terminal() {
    let stage = Stage::embedded(|_| {});
    let name = topic(&stage, 1);
    let escape = Message::new("clear \u{1b}[2J me\n").with_key("k-1").with_header("kind", "evil");
    let mut messages = numbered(5);
    messages.push(escape);
    stage.publish_to(&name, messages);
    let tail = |arguments: &[&str]| {
        let all = [&["tail", name.as_str(), "--follow=false"], arguments].concat();
        forebay(&stage, &all).said()
    };
    let shown = tail(&["--from", "5", "--headers"]);
    assert!(shown.starts_with("0:5\t") && !shown.contains('\u{1b}'), "{shown}");
    assert!(shown.ends_with("\tk-1\tkind=evil\tclear \\u{1b}[2J me\\n\n"), "{shown}");
    assert_eq!(tail(&["--count", "2"]).lines().count(), 2);
    assert_eq!(tail(&["--filter", "^[1-3]$"]).lines().count(), 3);
    assert_eq!(tail(&["--filter", "key=^k-"]), shown.replace("kind=evil\t", ""));
    assert_eq!(tail(&["--filter", "header=kind=evil", "--filter", "absent"]), "");
    assert_eq!(tail(&["--from", "-1h"]).lines().count(), 6);
    assert_eq!(tail(&["--from", "latest"]), "");
    let wrong = forebay(&stage, &["tail", name.as_str(), "--from", "yesterday"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.log);
    assert!(wrong.log.contains("earliest, latest, an offset"), "{}", wrong.log);
}

#[test]
fn tail_waits_for_what_comes() {
    let stage = Stage::embedded(|_| {});
    let name = topic(&stage, 1);
    stage.publish_to(&name, numbered(3));
    let tail = ["tail", name.as_str(), "--from", "1", "--count", "4", "--json"];
    let tail = invocation(stage.config(), &tail);
    let mut running = Running::start(tail, "tail", stage.directory());
    wait_until("the two that are there", || (running.output().lines().count() == 2).then_some(()));
    stage.publish_to(&name, numbered(3));
    assert!(running.wait().success(), "{}", running.log());
    let offsets: Vec<u64> = running
        .output()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(offsets, [1, 2, 3, 4]);
    let endless = invocation(stage.config(), &["tail", name.as_str(), "--from", "earliest"]);
    let mut endless = Running::start(endless, "endless", stage.directory());
    wait_until("all six", || (endless.output().lines().count() >= 6).then_some(()));
    endless.check_alive();
    assert!(endless.terminate().code().is_some_and(|code| code == 0), "{}", endless.log());
}

/// A group is shown, is not moved while it runs, and is moved as the plan said.
fn groups_are_shown_moved_and_deleted(stage: &Stage) {
    let name = topic(stage, 1);
    let group = unique("group");
    stage.publish_to(&name, numbered(10));
    let member = Settled::new(stage, &name, &group, 6);
    let described = ["groups", "describe", &group, "--json"];
    let described = wait_until("the six to be committed", || {
        let mut described = forebay(stage, &described).objects();
        (described[0]["positions"][0]["position"] == 6).then(|| described.remove(0))
    });
    assert_eq!(described["members"][0]["partitions"][0]["topic"], name.as_str());
    assert_eq!(described["positions"][0]["behind"], 4);
    let lag = forebay(stage, &["lag", &group, "--topic", name.as_str()]).said();
    assert_eq!(lag, format!("{group}\t{name}\t0\t6\t10\t4\n"));
    let reset = ["groups", "reset", &group, "--topic", name.as_str(), "--to", "2"];
    let running = forebay(stage, &[&reset[..], &["--yes"]].concat()).failed(Reason::Unexpected);
    assert!(running.contains("stop them first"), "{running}");
    member.stop();
    wait_until("the group to be empty", || {
        let described = forebay(stage, &["groups", "describe", &group, "--json"]).objects();
        described[0]["members"].as_array().unwrap().is_empty().then_some(())
    });
    let plan = forebay(stage, &[&reset[..], &["--dry-run"]].concat()).said();
    assert_eq!(plan, "0\t6\t2\t0\t4\n");
    forebay(stage, &reset).failed(Reason::Unexpected);
    let unknown = forebay(stage, &[&reset[..], &["--partition", "9"]].concat());
    assert!(unknown.failed(Reason::Config).contains("no partition 9"));
    assert!(forebay(stage, &["lag", &group]).said().contains("\t6\t10\t4\n"));
    forebay(stage, &[&reset[..], &["--yes"]].concat()).said();
    assert!(forebay(stage, &["lag", &group]).said().contains("\t2\t10\t8\n"));
    let later = ["groups", "reset", &group, "--topic", name.as_str(), "--to", "latest", "--yes"];
    assert_eq!(forebay(stage, &later).said(), "0\t2\t10\t8\t0\n");
    let described = forebay(stage, &["topics", "describe", name.as_str(), "--groups", "--json"]);
    assert_eq!(described.objects()[0]["groups"][0]["group"], group);
    let listed = forebay(stage, &["groups", "list"]).said();
    assert!(listed.contains(&format!("{group}\t0\t0\t{name}\n")), "{listed}");
    forebay(stage, &["groups", "delete", &group, "--yes"]).said();
    let gone = forebay(stage, &["groups", "describe", &group]).failed(Reason::Broker);
    assert!(gone.contains(&group), "{gone}");
}

#[test]
fn groups_are_shown_moved_and_deleted_on_embedded() {
    groups_are_shown_moved_and_deleted(&Stage::embedded(|_| {}));
}

#[test]
fn groups_are_shown_moved_and_deleted_on_kafka() {
    let Some(servers) = kafka() else { return };
    groups_are_shown_moved_and_deleted(&Stage::kafka(&servers, |_| {}));
}

#[test]
fn bench_reports_and_leaves_nothing_behind() {
    let stage = Stage::embedded(|_| {});
    let before = forebay(&stage, &["topics", "list"]).said();
    let bench = ["bench", "--messages", "2000", "--size", "100", "--batch", "50", "--json"];
    let report = forebay(&stage, &bench).objects().remove(0);
    assert_eq!((&report["broker"], &report["messages"]), (&"embedded".into(), &2000.into()));
    for side in ["publish", "consume"] {
        let speed = &report[side];
        assert!(speed["messages_per_second"].as_f64().unwrap() > 0.0, "{report}");
        let latency = |name: &str| speed[name].as_u64().unwrap();
        let all = ["p50", "p90", "p99", "max"].map(|part| latency(&format!("latency_{part}_us")));
        assert!(all.is_sorted() && all[3] > 0, "{report}");
    }
    assert_eq!(forebay(&stage, &["topics", "list"]).said(), before);
}

/// Plays some rules, and nothing of them is left.
fn the_conformance_suite_is_played_and_cleaned_up(stage: &Stage) {
    let before = forebay(stage, &["topics", "list", "--json"]).objects().len();
    let suite = ["conformance", "--filter", "^payload |a stopped group is deleted$", "--json"];
    let verdicts = forebay(stage, &suite).objects();
    assert!(verdicts.len() > 5, "{verdicts:?}");
    assert!(verdicts.iter().all(|verdict| verdict["result"] == "kept"), "{verdicts:?}");
    assert!(verdicts.iter().any(|verdict| verdict["rule"] == "an empty payload round trips"));
    let left = forebay(stage, &["topics", "list"]).said();
    assert_eq!(forebay(stage, &["topics", "list", "--json"]).objects().len(), before, "{left}");
}

#[test]
fn the_conformance_suite_is_played_on_embedded() {
    the_conformance_suite_is_played_and_cleaned_up(&Stage::embedded(|_| {}));
}

#[test]
fn a_rule_that_is_broken_is_told_with_its_place() {
    // A broker that writes everything twice breaks most promises.
    let stage = Stage::embedded(|ini| {
        ini.set("chaos", "duplicate", 1.0);
    });
    let run = forebay(&stage, &["conformance", "--filter", "every byte round trips"]);
    let said = String::from_utf8_lossy(&run.out).into_owned();
    assert!(said.contains("BROKEN  payload every byte round trips"), "{said}");
    assert!(said.contains("(at ") && said.contains("0 kept, 1 broken, 0 not played"), "{said}");
    run.failed(Reason::Unexpected);
}

#[test]
fn what_cannot_be_staged_is_told_and_is_no_failure() {
    let stage = Stage::embedded(|_| {});
    let suite = ["conformance", "--filter", "a member taken for dead", "--json"];
    let verdicts = forebay(&stage, &suite).objects();
    assert_eq!(verdicts[0]["result"], "not_played");
    assert!(verdicts[0]["problem"].as_str().unwrap().contains("taken for dead"));
}
