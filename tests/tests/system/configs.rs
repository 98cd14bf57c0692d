//! The ini files that Forebay ships.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use broker::config::File;
use forebay_tests::repository;
use model_server::settings::Settings;

/// The sections that every program reads.
const SECTIONS: [&str; 7] = ["broker", "embedded", "topics", "delivery", "queue", "model", "app2"];

/// No variable is set: everything a file asks for must have a default.
fn no_environment() -> HashMap<&'static str, &'static str> {
    HashMap::new()
}

fn path(name: &str) -> PathBuf {
    repository().join("config").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// What the settings say of a text.
fn verdict(text: &str) -> Result<Settings, String> {
    let file = File::parse(Path::new("forebay.ini"), text, &no_environment()).unwrap();
    Settings::from_file(&file).map_err(|error| error.to_string())
}

#[test]
fn every_file_loads_or_names_the_feature_that_is_missing() {
    let files = std::fs::read_dir(repository().join("config")).unwrap();
    let mut seen = BTreeSet::new();
    for file in files {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let read = Settings::read(&file, &no_environment());
        match (name.as_str(), read) {
            ("pubsub.ini", Err(error)) => {
                let shown = error.to_string();
                assert!(shown.contains("built without feature \"pubsub\""), "{shown}");
            }
            (_, Ok(settings)) => assert_eq!(format!("{}.ini", settings.broker.kind()), name),
            (_, Err(error)) => panic!("{name}: {error}"),
        }
        seen.insert(name);
    }
    for name in ["embedded.ini", "kafka.ini", "pubsub.ini", "redis.ini"] {
        assert!(seen.contains(name), "{name} is missing: there are {seen:?}");
    }
}

#[test]
fn every_key_has_a_comment_above_it() {
    for name in ["embedded.ini", "kafka.ini", "pubsub.ini", "redis.ini"] {
        let text = text(name);
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2) {
            let is_key = !pair[1].starts_with(['#', '[']) && pair[1].contains('=');
            let sentence = pair[0].strip_prefix("# ").is_some_and(|comment| comment.len() > 8);
            assert!(!is_key || sentence, "{name}: nothing explains {:?}", pair[1]);
        }
    }
}

/// The keys that the programs take in a section: the error of one that is unlike all lists them.
fn known_keys(name: &str, section: &str) -> Vec<String> {
    let text = text(name).replace(&format!("\n[{section}]\n"), &format!("\n[{section}]\n@ = 0\n"));
    let complaint = verdict(&text).expect_err(section);
    let (_, list) = complaint.split_once("valid are: ").unwrap_or_else(|| panic!("{complaint}"));
    let list = list.split(" [").next().unwrap();
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_that_programs_take_is_in_the_file() {
    let text = text("embedded.ini");
    for section in SECTIONS {
        let own = text.split(&format!("\n[{section}]\n")).nth(1).expect(section);
        let own = own.split("\n[").next().unwrap();
        for key in known_keys("embedded.ini", section) {
            let shown = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} ="));
            assert!(own.lines().any(shown), "[{section}] does not show {key}");
        }
    }
}

#[test]
fn the_keys_of_a_queue_in_redis_are_in_the_file() {
    let text = text("kafka.ini");
    let (kafka, with) = text.split_once("\n[queue]\n").unwrap();
    let with = with.replacen("kind = embedded", "kind = redis", 1);
    let with = with.replace("# url = redis://:${REDIS_PASSWORD}@", "url = redis://:secret@");
    let with = with.replace("# lease = ", "lease = ");
    let settings = verdict(&format!("{kafka}\n[queue]\n{with}")).unwrap();
    let shown = format!("{:?}", settings.queue);
    assert!(shown.contains("Redis") && shown.contains("lease: 5s"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
}
