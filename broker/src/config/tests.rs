//! Good and bad files, with the words that each must be answered with.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::error::Result;

fn parse(text: &str) -> Result<File> {
    let environment = HashMap::from([("PASSWORD", "s3cret")]);
    File::parse(Path::new("test.ini"), text, &environment)
}

fn complaint<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn values_are_typed() {
    let file = parse("[a]\nwait = 250ms\nsize = 8MiB\non = true\nb.c.d = SASL_SSL\n").unwrap();
    let mut section = file.section("a");
    assert_eq!(section.take("wait").unwrap(), Some(Duration::from_millis(250)));
    assert_eq!(section.take("size").unwrap(), Some(ByteSize(8 << 20)));
    assert_eq!(section.take("on").unwrap(), Some(true));
    assert_eq!(section.take::<u32>("absent").unwrap(), None);
    assert_eq!(section.take_rest()["b.c.d"], "SASL_SSL");
    file.finish().unwrap();
}

#[test]
fn an_unknown_key_names_file_section_key_and_the_nearest() {
    let file = parse("[embedded]\ndirectry = x\n").unwrap();
    let mut section = file.section("embedded");
    section.take::<String>("directory").unwrap();
    section.take::<String>("durability").unwrap();
    let complaint = complaint(section.finish());
    for word in ["test.ini", "embedded", "directry", "did you mean \"directory\""] {
        assert!(complaint.contains(word), "{complaint} lacks {word}");
    }
}

#[test]
fn an_unknown_section_is_named() {
    let file = parse("[brokr]\nkind = kafka\n").unwrap();
    let _ = file.section("broker");
    let complaint = complaint(file.finish());
    assert!(complaint.contains("[section: brokr]"), "{complaint}");
    assert!(complaint.contains("did you mean \"broker\""), "{complaint}");
}

#[test]
fn secrets_come_from_the_environment_and_stay_out_of_debug() {
    let file = parse("[a]\npassword = ${PASSWORD}\nhost = ${HOST:-localhost}\n").unwrap();
    assert!(!format!("{file:?}").contains("s3cret"));
    let mut section = file.section("a");
    assert_eq!(section.require::<String>("password").unwrap(), "s3cret");
    assert_eq!(section.require::<String>("host").unwrap(), "localhost");
    let complaint = complaint(parse("[a]\nx = ${MISSING}\n"));
    assert!(complaint.contains("MISSING") && complaint.contains("not set"), "{complaint}");
}

#[test]
fn bad_values_tell_what_would_be_right() {
    let check = |text: &str, words: &str, take: fn(&mut Section) -> String| {
        let file = parse(&format!("[a]\nk = {text}\n")).unwrap();
        let complaint = take(&mut file.section("a"));
        assert!(complaint.contains(words), "{complaint} lacks {words}");
    };
    check("5 parsecs", "no duration such as", |s| complaint(s.take::<Duration>("k")));
    check("many", "no size such as", |s| complaint(s.take::<ByteSize>("k")));
    check("0", "above zero", |s| complaint(s.take::<std::num::NonZeroU32>("k")));
    check("c", "choose from: x, y", |s| complaint(s.choose("k", 1, &[("x", 1), ("y", 2)])));
    check("a b", "no valid name", |s| complaint(s.take::<crate::Topic>("k")));
}

#[test]
fn broken_files_are_config_errors() {
    for text in ["[a\nx = 1", "stray = 1\n", "[a]\nx = ${open\n"] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.kind(), crate::ErrorKind::ConfigInvalid, "{text}");
    }
    let missing = File::read(Path::new("/nonexistent.ini"), &ProcessEnvironment);
    assert!(complaint(missing).contains("/nonexistent.ini"));
}

#[test]
fn a_lenient_reading_tells_of_every_value_that_cannot_be_had() {
    let environment: HashMap<&str, &str> = HashMap::new();
    let text = "[a]\nx = ${ONE}\ny = 1\nz = ${TWO\n[b]\nx = ${THREE}\n";
    let (mut file, problems) =
        File::parse_leniently(Path::new("test.ini"), text, &environment).unwrap();
    let places: Vec<_> =
        problems.iter().map(|p| (p.context("section"), p.context("key"))).collect();
    let expected = [("a", "x"), ("a", "z"), ("b", "x")];
    assert_eq!(places, expected.map(|(section, key)| (Some(section), Some(key))));
    assert!(problems.iter().all(|problem| problem.context("file") == Some("test.ini")));
    assert!(file.has_key("a", "y") && !file.has_key("a", "x") && file.has_section("b"));
    file.remove_key("a", "y");
    file.set("a", "w", "2");
    assert_eq!(file.section("a").take_rest().keys().collect::<Vec<_>>(), ["w"]);
}
