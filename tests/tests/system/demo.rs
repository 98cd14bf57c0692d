//! `forebay demo`: what a stranger sees first.

use std::path::Path;
use std::process::{Command, Output};

use forebay_tests::{PIPELINE, Running, Turn, command, kafka, repository, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// The demo with its run in a directory, without MNIST, which would make it long.
fn demo(directory: &Path, arguments: &[&str]) -> Command {
    let mut demo = command("forebay");
    // Where it finds neither MNIST nor a directory of its own to write to.
    demo.current_dir(directory).env("FOREBAY_DATA", directory);
    demo.arg("demo").arg("--directory").arg(directory.join("run")).args(arguments);
    demo
}

fn finish(mut demo: Command) -> Output {
    let output = demo.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {shown}", output.status);
    output
}

/// The one object that `--json` ends with.
fn object(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let value: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let names: Vec<&String> = value.as_object().unwrap().keys().collect();
    let expected = [
        "accuracy",
        "dead_lettered",
        "duplicates",
        "images_per_second",
        "latency_ms",
        "persisted",
        "published",
    ];
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
    let latency: Vec<&String> = value["latency_ms"].as_object().unwrap().keys().collect();
    assert_eq!(latency, ["p50", "p99"]);
    value
}

fn check(value: &Value, samples: u64, broken: u64) {
    let number = |name: &str| value[name].as_u64().unwrap_or_else(|| panic!("{name}: {value}"));
    assert_eq!(number("published"), samples + broken, "{value}");
    assert_eq!(number("persisted"), samples, "{value}");
    assert_eq!(number("dead_lettered"), broken, "{value}");
    assert_eq!(number("duplicates"), 0, "{value}");
    assert!(value["accuracy"].as_f64().unwrap() > 0.9, "{value}");
    assert!(value["images_per_second"].as_f64().unwrap() > 0.0, "{value}");
    let latency = |name: &str| value["latency_ms"][name].as_f64().unwrap();
    assert!(0.0 < latency("p50") && latency("p50") <= latency("p99"), "{value}");
}

/// The processes of a run: their command lines name its directory.
fn processes(directory: &Path) -> Vec<String> {
    let list = Command::new("ps").args(["-A", "-ww", "-o", "pid=,stat=,args="]).output().unwrap();
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    let mark = directory.join("run").display().to_string();
    let ours = |line: &&str| line.contains(&mark) && !line.contains(" demo ");
    text.lines().filter(ours).map(str::to_owned).collect()
}

/// A demo that would go on for a long time, with all four processes at work.
fn long_demo(directory: &Path) -> Running {
    let demo = demo(directory, &["--json", "--samples", "1000000"]);
    let mut running = Running::start(demo, "forebay", directory);
    wait_until("the four processes", || {
        running.check_alive();
        let processes = processes(directory);
        let runs = |program: &&str| processes.iter().any(|line| line.contains(program));
        PIPELINE.iter().all(runs).then_some(())
    });
    running
}

#[test]
fn it_ends_with_one_object_in_which_all_is_accounted_for() {
    let directory = tempfile::tempdir().unwrap();
    let output = finish(demo(directory.path(), &["--json", "--samples", "200"]));
    check(&object(&output), 200, 0);
    assert_eq!(processes(directory.path()), [""; 0]);
}

#[test]
fn it_shows_broken_inputs_among_the_dead_letters() {
    let directory = tempfile::tempdir().unwrap();
    let output = finish(demo(directory.path(), &["--json", "--samples", "200", "--broken", "12"]));
    check(&object(&output), 200, 12);
}

#[test]
fn it_ends_with_a_report_and_what_to_try_next() {
    let directory = tempfile::tempdir().unwrap();
    let output = finish(demo(directory.path(), &["--samples", "200"]));
    let text = String::from_utf8_lossy(&output.stdout);
    for word in ["accuracy", "200 published = 200 persisted + 0 dead-lettered", "app2 report"] {
        assert!(text.contains(word), "{word:?} is missing: {text}");
    }
    // A terminal is told of progress in place; others get no escape sequences.
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn its_report_can_be_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    finish(demo(directory.path(), &["--json", "--samples", "200"]));
    let config = std::fs::read_dir(directory.path().join("run")).unwrap();
    let config = config.map(|entry| entry.unwrap().path());
    let config = config.into_iter().find(|path| path.extension().is_some_and(|it| it == "ini"));
    let mut report = command("app2");
    report.args(["report", "--json", "--config"]).arg(config.expect("an ini file"));
    let report: Value = serde_json::from_slice(&finish(report).stdout).unwrap();
    assert_eq!(report["persisted"], 200, "{report}");
}

#[test]
fn ctrl_c_ends_all_processes() {
    let _turn = Turn::take();
    let directory = tempfile::tempdir().unwrap();
    let mut demo = long_demo(directory.path());
    demo.signal(Signal::INT);
    let status = demo.wait();
    assert_eq!(status.code(), Some(130), "{}", demo.log());
    assert_eq!(processes(directory.path()), [""; 0]);
}

/// Only Linux ties a process to the life of its parent.
#[cfg(target_os = "linux")]
#[test]
fn a_demo_that_is_killed_takes_its_processes_along() {
    let _turn = Turn::take();
    let directory = tempfile::tempdir().unwrap();
    assert!(long_demo(directory.path()).kill());
    wait_until("the end of all", || processes(directory.path()).is_empty().then_some(()));
}

#[test]
fn it_runs_on_kafka() {
    let Some(servers) = kafka() else { return };
    let _turn = Turn::take();
    let directory = tempfile::tempdir().unwrap();
    let config = repository().join("config/kafka.ini").display().to_string();
    let arguments = ["--json", "--samples", "200", "--broken", "6", "--config", &config];
    let mut demo = demo(directory.path(), &arguments);
    // The model's path in the file is relative to the repository.
    demo.current_dir(repository()).env("FOREBAY_KAFKA", servers);
    check(&object(&finish(demo)), 200, 6);
}
