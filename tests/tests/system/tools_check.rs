//! `forebay config check`: every problem at once, each with its place.

use std::net::TcpListener;
use std::path::Path;

use forebay_tests::{Ini, Stage, kafka};
use model_server::process::Reason;
use serde_json::Value;

use super::tools::forebay_reads;

/// What is reported of an ini file in which `change` did something, and the exit code.
fn checked(change: impl FnOnce(&mut Ini, &Path)) -> (Vec<Value>, Option<i32>) {
    let directory = tempfile::tempdir().unwrap();
    let mut ini = Stage::ini(directory.path());
    change(&mut ini, directory.path());
    let file = directory.path().join("forebay.ini");
    std::fs::write(&file, ini.to_string()).unwrap();
    let run = forebay_reads(&file, &["config", "check", "--json"], b"");
    let said = String::from_utf8(run.out.clone()).unwrap();
    assert!(!directory.path().join("broker").exists(), "the check made the store");
    let findings: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = file.display().to_string();
    assert!(findings.iter().all(|finding| finding["file"] == named.as_str()), "{findings:?}");
    (findings, run.code())
}

/// The places of the problems, in their order.
fn problems(findings: &[Value]) -> Vec<String> {
    let problems = findings.iter().filter(|finding| finding["is_ok"] == false);
    let part = |finding: &Value, name: &str| finding[name].as_str().unwrap_or("").to_owned();
    problems
        .map(|finding| format!("{}/{}", part(finding, "section"), part(finding, "key")))
        .collect()
}

fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_sound_file_is_told_so_of_everything_that_it_names() {
    let (findings, code) = checked(|_, _| {});
    assert_eq!(code, Some(0), "{findings:?}");
    let checks: Vec<&str> =
        findings.iter().map(|finding| finding["check"].as_str().unwrap()).collect();
    assert_eq!(checks, ["file", "broker", "model", "database"]);
}

#[test]
fn every_mistake_is_reported_at_once_beside_what_cannot_be_reached() {
    let (findings, code) = checked(|ini, directory| {
        ini.set("topics", "imges", "x").set("topics", "partitions", "many");
        ini.set("delivery", "attempts", "0");
        ini.set("queue", "kind", "redis");
        ini.set("queue", "url", format!("redis://:s3cret@127.0.0.1:{}/", closed_port()));
        ini.set("model", "path", directory.join("absent.onnx").display());
        ini.set("app2", "database", directory.join("forebay.ini").join("x.db").display());
        Stage::on_kafka(ini, &format!("127.0.0.1:{}", closed_port()));
        ini.set("kafka", "connect_timeout", "1s");
    });
    let expected = [
        "topics/imges",
        "topics/partitions",
        "delivery/attempts",
        "kafka/",
        "queue/url",
        "model/path",
        "app2/database",
    ];
    let mut found = problems(&findings);
    // The order of the first three is that in which the sections are read.
    found[..3].sort();
    let mut expected = expected.map(str::to_owned);
    expected[..3].sort();
    assert_eq!(found, expected, "{findings:?}");
    assert_eq!(code, Some(Reason::Config as i32), "that of the first");
    let shown = findings.iter().map(Value::to_string).collect::<String>();
    assert!(shown.contains("did you mean") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn what_cannot_be_reached_has_its_own_exit_code() {
    let (findings, code) = checked(|ini, _| {
        Stage::on_kafka(ini, &format!("127.0.0.1:{}", closed_port()));
        ini.set("kafka", "connect_timeout", "1s");
    });
    assert_eq!(problems(&findings), ["kafka/"]);
    assert_eq!(code, Some(Reason::Broker as i32));
}

#[test]
fn a_kafka_that_answers_is_told_of() {
    let Some(servers) = kafka() else { return };
    let (findings, code) = checked(|ini, _| Stage::on_kafka(ini, &servers));
    assert_eq!(code, Some(0), "{findings:?}");
    let shown = findings.iter().map(Value::to_string).collect::<String>();
    assert!(shown.contains("kafka answers"), "{shown}");
}

#[test]
fn a_file_that_is_none_is_a_problem_too() {
    let run = forebay_reads(Path::new("/nowhere/x.ini"), &["config", "check"], b"");
    let said = String::from_utf8_lossy(&run.out).into_owned();
    assert!(said.contains("/nowhere/x.ini") && said.contains("cannot be read"), "{said}");
    run.failed(Reason::Config);
}
