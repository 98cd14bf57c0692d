//! Every example runs through, over an embedded broker of its own.

use std::path::PathBuf;
use std::process::Command;

use super::{cargo, output_of};

/// The file of a built example. Cargo builds the examples with the tests, unless it was told to
/// run only these.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let binary = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if !binary.exists() {
        let mut build = cargo();
        build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--example", name]);
        build.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        output_of(&mut build);
    }
    binary
}

/// Runs an example; what it prints must have these words in their order.
fn shows(name: &str, words: &[&str]) {
    let shown = output_of(&mut Command::new(binary(name)));
    let mut rest = shown.as_str();
    for word in words {
        let found = rest.find(word);
        let found = found.unwrap_or_else(|| panic!("{word:?} is missing in its place:\n{shown}"));
        rest = &rest[found + word.len()..];
    }
}

#[test]
fn publish_consume() {
    shows("publish_consume", &["published 9 messages", "order 2", "order 5", "order 8"]);
}

#[test]
fn router() {
    shows("router", &["order 0, attempt 1", "order 5, attempt 2", "order 10, attempt 1"]);
}

#[test]
fn request_reply() {
    shows("request_reply", &["hello -> HELLO", "is anybody there -> IS ANYBODY THERE"]);
}

#[test]
fn transactions() {
    shows("transactions", &["0\n1\n4\n9\n16\n25\n36\n49\n64\n81\n"]);
}

#[test]
fn dead_letters() {
    shows("dead_letters", &["put aside: two", "dead-letter-reason: \"two\" is no number"]);
}

#[test]
fn replay() {
    shows("replay", &["from offset 3: [\"minute 3\", \"minute 4\"]", "of minute 2: [\"minute 2\""]);
}

#[test]
fn typed() {
    shows("typed", &["packing 3 of \"apple\"", "packing 5 of \"pear\""]);
}

#[test]
fn router_speed() {
    shows("router_speed", &["bare loop", "router, concurrency 8", "ratio"]);
}
