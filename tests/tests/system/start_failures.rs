//! A wrong configuration, and what cannot be reached or used: each with an exit code of its own
//! and words that name the file, the section, the key and the value.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use forebay_tests::{Ini, PIPELINE, Redis, Running, Stage, Turn, command, model};
use model_server::process::Reason;

/// A password that no program may ever show.
const SECRET: &str = "s3cret-of-the-queue";

/// The programs of the pipeline, and the subcommands of `forebay`: all read the whole ini file.
const ALL: [&str; 7] =
    ["app1", "model_server_sub", "model_server_pub", "app2", "demo", "topics", "dlq"];
/// Those that open the store where the ini file says it is; the demo makes one of its own.
const AT_THE_STORE: [&str; 6] =
    ["app1", "model_server_sub", "model_server_pub", "app2", "topics", "dlq"];
/// Those that open the queue.
const AT_THE_QUEUE: [&str; 3] = ["model_server_sub", "model_server_pub", "demo"];

/// Those that load the model.
const AT_THE_MODEL: [&str; 2] = ["model_server_sub", "demo"];

/// The command line of a program with an ini file, for a run that is as short as can be.
fn invocation(program: &str, file: &Path, directory: &Path) -> Command {
    let mut invocation = match program {
        "demo" | "topics" | "dlq" => command("forebay"),
        program => command(program),
    };
    match program {
        "app1" => invocation.args(["--samples", "1"]),
        "demo" => {
            let run = directory.join("run");
            invocation.args(["demo", "--samples", "1", "--directory"]).arg(run)
        }
        "topics" | "dlq" => invocation.args([program, "list"]),
        _ => &mut invocation,
    };
    invocation.arg("--config").arg(file);
    // Where no data lies about, and with everything in the log that could be there.
    invocation.current_dir(directory).env("FOREBAY_LOG", "debug");
    invocation
}

/// Starts each program with an ini file; it must fail for that reason, with all of the words.
fn fails_with_file(programs: &[&str], file: &Path, reason: Reason, words: &[&str]) {
    let directory = own_directory();
    for program in programs {
        let command = invocation(program, file, directory.path());
        let mut running = Running::start(command, program, directory.path());
        let status = running.wait();
        let shown = format!("{}{}", running.log(), running.output());
        // The demo shows the end of the log of a program that failed below its own error.
        let error = shown.lines().position(|line| line.starts_with("error: "));
        let error = error.map(|at| shown.lines().skip(at).collect::<Vec<_>>().join("\n"));
        let error = error.unwrap_or_default();
        assert_eq!(status.code(), Some(reason as i32), "{program}: {shown}");
        for word in words {
            assert!(error.contains(word), "{program} does not say {word:?}: {shown}");
        }
        assert!(!shown.contains(SECRET), "{program} shows the password: {shown}");
        assert!(!shown.contains("panicked"), "{program}: {shown}");
    }
}

fn own_directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The same, with an ini file in which `change` made one thing wrong.
fn fails(programs: &[&str], reason: Reason, words: &[&str], change: impl FnOnce(&mut Ini, &Path)) {
    let directory = own_directory();
    let mut ini = Stage::ini(directory.path());
    change(&mut ini, directory.path());
    let file = directory.path().join("wrong.ini");
    std::fs::write(&file, ini.to_string()).unwrap();
    fails_with_file(programs, &file, reason, words);
}

/// A wrong key of a section: the words are those of every mistake in a file, and `words`.
fn misconfigured(section: &str, key: &str, value: &str, words: &[&str]) {
    let (section_shown, key_shown) = (format!("[section: {section}]"), format!("[key: {key}]"));
    let all = [&["wrong.ini", &section_shown, &key_shown], words].concat();
    fails(&ALL, Reason::Config, &all, |ini, _| {
        ini.set(section, key, value);
    });
}

/// A port of this machine on which nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_valid_one() {
    misconfigured("topics", "imges", "x", &["unknown key", "did you mean \"images\""]);
}

#[test]
fn an_unknown_section_is_named_with_the_nearest_valid_one() {
    let words = ["wrong.ini", "unknown section", "topcs", "did you mean \"topics\""];
    fails(&ALL, Reason::Config, &words, |ini, _| {
        ini.set("topcs", "images", "x");
    });
}

#[test]
fn an_unknown_kind_of_broker_is_named_with_those_there_are() {
    let words = ["\"rabbit\" is unknown", "embedded, kafka, pubsub"];
    misconfigured("broker", "kind", "rabbit", &words);
}

#[test]
fn an_unknown_kind_of_queue_is_named_with_those_there_are() {
    misconfigured("queue", "kind", "sqs", &["\"sqs\" is unknown", "embedded, redis"]);
}

#[test]
fn a_secret_that_is_not_set_is_named() {
    let words = ["[variable: FOREBAY_NO_SUCH_SECRET]"];
    misconfigured("queue", "url", "redis://:${FOREBAY_NO_SUCH_SECRET}@127.0.0.1/", &words);
}

#[test]
fn a_value_that_does_not_parse_is_named() {
    misconfigured("topics", "partitions", "many", &["\"many\" is no whole number"]);
}

#[test]
fn a_key_that_must_be_set_is_named() {
    misconfigured("embedded", "directory", "", &["empty"]);
}

#[test]
fn a_queue_in_redis_asks_for_its_address() {
    let words = ["wrong.ini", "[section: queue]", "[key: url]", "missing"];
    fails(&ALL, Reason::Config, &words, |ini, _| {
        ini.set("queue", "kind", "redis");
    });
}

#[test]
fn an_address_of_redis_that_is_not_valid_is_not_repeated() {
    let words = ["[section: queue]", "[key: url]", "not valid"];
    fails(&ALL, Reason::Config, &words, |ini, _| {
        ini.set("queue", "kind", "redis").set("queue", "url", format!("http://:{SECRET}@host/"));
    });
}

#[test]
fn a_file_that_is_missing_is_named() {
    let file = Path::new("/nowhere/forebay.ini");
    fails_with_file(&ALL, file, Reason::Config, &["/nowhere/forebay.ini", "No such file"]);
}

#[test]
fn a_missing_checkpoint_is_named() {
    let words = ["absent.onnx", "does not exist"];
    fails(&AT_THE_MODEL, Reason::Start, &words, |ini, directory| {
        ini.set("model", "path", directory.join("absent.onnx").display());
    });
}

/// A checkpoint of which only the first half is there.
fn halved(directory: &Path, extension: &str) -> PathBuf {
    let path = directory.join("halved").with_extension(extension);
    let bytes = std::fs::read(model(extension)).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    path
}

#[test]
fn a_corrupt_onnx_checkpoint_is_named() {
    let words = ["corrupt model", "halved.onnx"];
    fails(&AT_THE_MODEL, Reason::Start, &words, |ini, directory| {
        ini.set("model", "path", halved(directory, "onnx").display());
    });
    let words = ["corrupt model", "noise.onnx", "neither ONNX nor safetensors"];
    fails(&AT_THE_MODEL, Reason::Start, &words, |ini, directory| {
        let path = directory.join("noise.onnx");
        std::fs::write(&path, [7; 5000]).unwrap();
        ini.set("model", "path", path.display());
    });
}

#[test]
fn a_safetensors_checkpoint_under_the_wrong_runtime_names_the_right_one() {
    let words = ["halved.safetensors", "runtime onnx takes .onnx", "runtime torch takes"];
    fails(&AT_THE_MODEL, Reason::Start, &words, |ini, directory| {
        ini.set("model", "path", halved(directory, "safetensors").display());
    });
}

/// A build without torch cannot look at it and names the feature; the checkpoint itself is
/// tested in `modelling`.
#[test]
fn a_corrupt_safetensors_checkpoint_is_refused() {
    let directory = own_directory();
    let path = halved(directory.path(), "safetensors");
    let built_with_torch = std::env::var_os("FOREBAY_TEST_TORCH").is_some();
    let words: &[&str] = if built_with_torch {
        &["corrupt model", "halved.safetensors"]
    } else {
        &["runtime torch is missing", "cargo feature `torch`"]
    };
    fails(&AT_THE_MODEL, Reason::Start, words, |ini, _| {
        ini.set("model", "path", path.display()).set("model", "runtime", "torch");
    });
}

#[test]
fn a_kafka_that_cannot_be_reached_is_named() {
    let address = format!("127.0.0.1:{}", closed_port());
    fails(&ALL, Reason::Broker, &[&address], |ini, _| {
        Stage::on_kafka(ini, &address);
        ini.set("kafka", "connect_timeout", "1s");
    });
}

#[test]
fn a_redis_that_cannot_be_reached_is_named() {
    let address = format!("127.0.0.1:{}", closed_port());
    fails(&AT_THE_QUEUE, Reason::Broker, &["redis", &address], |ini, _| {
        let url = format!("redis://:{SECRET}@{address}/");
        ini.set("queue", "kind", "redis").set("queue", "url", url);
    });
}

#[test]
fn a_redis_that_refuses_the_password_is_named_without_it() {
    let _turn = Turn::take();
    let Some(redis) = Redis::found("wrong-password") else { return };
    fails(&AT_THE_QUEUE, Reason::Broker, &["redis"], |ini, _| {
        let url = redis.url.replace("redis://", &format!("redis://:{SECRET}@"));
        ini.set("queue", "kind", "redis").set("queue", "url", url);
    });
}

#[test]
fn a_data_directory_that_is_a_file_is_named() {
    let words = ["the data directory is a file", "in-the-way"];
    fails(&AT_THE_STORE, Reason::Config, &words, |ini, directory| {
        let file = directory.join("in-the-way");
        std::fs::write(&file, "").unwrap();
        ini.set("embedded", "directory", file.display());
    });
}

#[test]
fn a_data_directory_below_a_file_is_named() {
    fails(&AT_THE_STORE, Reason::Config, &["in-the-way"], |ini, directory| {
        let file = directory.join("in-the-way");
        std::fs::write(&file, "").unwrap();
        ini.set("embedded", "directory", file.join("broker").display());
    });
}

#[test]
fn a_database_below_a_file_is_named() {
    fails(&["app2"], Reason::Start, &["in-the-way"], |ini, directory| {
        let file = directory.join("in-the-way");
        std::fs::write(&file, "").unwrap();
        ini.set("app2", "database", file.join("predictions.db").display());
    });
}

#[test]
fn a_database_that_is_none_is_named() {
    fails(&["app2"], Reason::Start, &["noise.db"], |ini, directory| {
        let file = directory.join("noise.db");
        std::fs::write(&file, [7; 5000]).unwrap();
        ini.set("app2", "database", file.display());
    });
}

#[test]
fn an_input_that_is_missing_is_named() {
    let stage = Stage::embedded(|_| {});
    let mut app1 = stage.start_with("app1", &["/nowhere/images"]);
    assert_eq!(app1.wait().code(), Some(Reason::Input as i32), "{}", app1.log());
    assert!(app1.log().contains("/nowhere/images"), "{}", app1.log());
}

#[test]
fn wrong_arguments_end_with_the_code_of_clap() {
    for program in PIPELINE {
        let directory = own_directory();
        let mut command = command(program);
        command.arg("--no-such-argument");
        let mut running = Running::start(command, program, directory.path());
        assert_eq!(running.wait().code(), Some(2), "{program}: {}", running.log());
    }
}
