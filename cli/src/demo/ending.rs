//! What the demo says before and after.

use std::fmt::{self, Write};
use std::path::Path;

use app2::report::Report;
use indicatif::HumanCount;
use serde::Serialize;

use super::Outcome;
use super::fleet::{Ended, PUBLISHER, Programs, SERVING};
use super::images::Images;
use super::ini;
use super::place::Place;

/// The result of a run, as `--json` prints it.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    published: u64,
    persisted: u64,
    dead_lettered: u64,
    duplicates: u64,
    accuracy: Option<f64>,
    images_per_second: f64,
    latency_ms: Latency,
}

#[derive(Debug, PartialEq, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
}

impl Summary {
    pub(super) fn new(outcome: &Outcome, report: &Report) -> Self {
        Self {
            published: outcome.published,
            persisted: report.persisted,
            dead_lettered: outcome.dead_lettered,
            duplicates: report.duplicates,
            accuracy: report.accuracy,
            images_per_second: report.images_per_second,
            latency_ms: Latency { p50: report.latency_ms.p50, p99: report.latency_ms.p99 },
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [self.published, self.persisted, self.dead_lettered, self.duplicates];
        let [published, persisted, dead_lettered, duplicates] = numbers.map(HumanCount);
        write!(f, "{published} published = {persisted} persisted + {dead_lettered} dead-lettered")?;
        match self.duplicates {
            0 => write!(f, "; no duplicates"),
            _ => write!(f, "; {duplicates} came again and count once"),
        }
    }
}

/// What is about to happen, and where.
pub(super) fn introduction(place: &Place, images: &Images) -> String {
    let settings = &place.settings;
    let kind = settings.broker.kind();
    let (broker, stored) = match kind {
        "embedded" => (kind.to_owned(), "what is stored"),
        _ => (format!("{kind}, and an embedded store for the queue"), "what that stores"),
    };
    let [subscriber, publisher, persister] = SERVING;
    format!(
        "Forebay demo in {}\n\
         \n  images   {images}\
         \n  way      {PUBLISHER} > images > {subscriber} > queue > {publisher} > predictions > \
         {persister} > database\
         \n  broker   {broker}\
         \n  safety   durability = normal: {stored} survives a crash of any process, while\
         \n           a power loss may take the last commits (the default is full)\n",
        place.shown(),
    )
}

/// Which processes had to be killed, to stand at the end of a clause.
pub(super) fn killed(ended: &Ended) -> String {
    match ended.killed.as_slice() {
        [] => String::new(),
        names => format!(", but {} had to be killed", names.join(", ")),
    }
}

/// Where everything is, and commands that work as they stand.
pub(super) fn next_steps(programs: &Programs, place: &Place, picture: &Path) -> String {
    let shown = |path: &Path| quoted(&place.relative(path));
    let config = shown(&place.config);
    let program = |name: &str| shown(&programs.path(name));
    let forebay = shown(&programs.own);
    let mut text = format!(
        "\nEverything is in {}: demo.ini, predictions.db, broker/, logs/\n\nWhat to try next:\n",
        place.shown()
    );
    let mut step = |what: &str, commands: &[String]| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {what}\n    {}", commands.join("\n    "));
    };
    step("the report again", &[format!("{} report --config {config}", program("app2"))]);
    step("the topics of the run", &[format!("{forebay} topics list --config {config}")]);
    step(
        "what could not be processed, and why (demo --broken 12 makes some)",
        &[format!("{forebay} dlq list --config {config}")],
    );
    let serving = SERVING.map(|name| format!("{} --config {config}", program(name)));
    step(
        "a picture of your own: start the three programs (Ctrl-C ends them) ...",
        &[format!("({})", serving.join(" & \\\n     "))],
    );
    step(
        "... and in another terminal publish it; here a digit that the demo has drawn",
        &[
            format!("{} --config {config} {}", program(PUBLISHER), shown(picture)),
            format!(
                "python3 -c {}",
                quoted(&last_prediction(&place.relative(&place.settings.database)))
            ),
        ],
    );
    if place.settings.broker.kind() == "embedded" {
        step("the same on Kafka", &[on_kafka(&forebay)]);
    }
    text + &needed_variables(place)
}

/// A script that prints the newest row; Python can read SQLite without anything installed.
fn last_prediction(database: &str) -> String {
    let query = "select label, probability from predictions order by persisted_us desc limit 1";
    format!(r#"import sqlite3; print(*sqlite3.connect({database:?}).execute("{query}"))"#)
}

/// In the project's own folder there is a way that brings a Kafka along.
fn on_kafka(forebay: &str) -> String {
    match Path::new("scripts/demo").is_file() {
        true => "make demo CONFIG=config/kafka.ini".to_owned(),
        false => format!("FOREBAY_KAFKA=HOST:PORT {forebay} demo --config PATH/config/kafka.ini"),
    }
}

/// A hint at variables that demo.ini still takes from the environment.
fn needed_variables(place: &Place) -> String {
    let text = std::fs::read_to_string(&place.config).unwrap_or_default();
    let set = |name: &&str| std::env::var_os(name).is_some();
    let names: Vec<&str> = ini::variables(&text).into_iter().filter(set).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("\nThese commands need {} set as for this run.\n", names.join(", ")),
    }
}

/// A word of a shell command.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_object_has_exactly_what_it_promises() {
        let outcome = Outcome { published: 10, dead_lettered: 2 };
        let report = Report { persisted: 8, images_per_second: 5.5, ..Report::default() };
        let shown = serde_json::to_string(&Summary::new(&outcome, &report)).unwrap();
        let expected = r#"{"published":10,"persisted":8,"dead_lettered":2,"duplicates":0,"accuracy":null,"images_per_second":5.5,"latency_ms":{"p50":0.0,"p99":0.0}}"#;
        assert_eq!(shown, expected);
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_split_or_change_them() {
        for (word, expected) in
            [("a/b-1.ini", "a/b-1.ini"), ("a b", "'a b'"), ("a'$b", r"'a'\''$b'"), ("", "''")]
        {
            assert_eq!(quoted(word), expected);
        }
    }
}
