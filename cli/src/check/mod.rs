//! `forebay config check`: every problem of an ini file at once, then of what it names.
//!
//! The programs stop at the first mistake of a file. Here the mistake is noted and taken out of
//! the way, by leaving the key away or by a value that stands in for one that must be there,
//! and the file is read again, until nothing is left to complain of.

mod connect;
mod keys;

use std::path::PathBuf;
use std::process::ExitCode;

use broker::config::{File, ProcessEnvironment};
use model_server::process::{Failure, Reason};
use serde::Serialize;

use crate::connection::Place;
use crate::output::{self, Row};

/// What `forebay config` does.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Check(Arguments),
}

/// Check an ini file, then connect to what it names
///
/// It reports every problem at once, each with its section and key, and ends with the exit code
/// of the first. It changes nothing: an embedded store that is not there yet is not made.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  forebay config check config/kafka.ini
  forebay config check my.ini --offline --json")]
pub(crate) struct Arguments {
    /// The ini file
    #[arg(env = "FOREBAY_CONFIG", value_name = "FILE")]
    file: PathBuf,
    /// Only read the file, and connect to nothing
    #[arg(long)]
    offline: bool,
    /// Report as JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// What was looked at, and what was found.
#[derive(Debug, Serialize)]
struct Finding {
    /// `file`, `broker`, `queue`, `model` or `database`.
    check: &'static str,
    file: String,
    section: Option<String>,
    key: Option<String>,
    is_ok: bool,
    /// The problem, or what was found in order.
    message: String,
    #[serde(skip)]
    reason: Option<Reason>,
}

impl Row for Finding {
    const HEADS: &'static [&'static str] = &["check", "section", "key", "result"];

    fn cells(&self) -> Vec<String> {
        let (section, key) = (output::cell(self.section.as_ref()), output::cell(self.key.as_ref()));
        let result = if self.is_ok { "ok" } else { "PROBLEM" };
        vec![self.check.to_owned(), section, key, format!("{result}: {}", self.message)]
    }
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        let (file, message) = (String::new(), message.into());
        Self { check, file, section: None, key: None, is_ok: true, message, reason: None }
    }

    fn problem(check: &'static str, section: &str, key: &str, failure: &Failure) -> Self {
        Self {
            section: Some(section.to_owned()),
            key: Some(key.to_owned()),
            is_ok: false,
            reason: Some(failure.reason()),
            ..Self::ok(check, failure.to_string())
        }
    }
}

pub(crate) async fn run(command: &Command) -> Result<ExitCode, Failure> {
    let Command::Check(arguments) = command;
    let mut findings = findings(arguments).await;
    for finding in &mut findings {
        finding.file = arguments.file.display().to_string();
    }
    if !arguments.json {
        output::print(&format!("{}\n", arguments.file.display()))?;
    }
    output::report(&findings, arguments.json)?;
    let first = findings.iter().find_map(|finding| finding.reason);
    Ok(first.map_or(ExitCode::SUCCESS, ExitCode::from))
}

async fn findings(arguments: &Arguments) -> Vec<Finding> {
    let (mut file, unreadable) = match File::read_leniently(&arguments.file, &ProcessEnvironment) {
        Ok(read) => read,
        Err(error) => return vec![keys::finding(&error)],
    };
    let (place, mut findings) = keys::check(&mut file, unreadable);
    let is_sound =
        |section: &str| !findings.iter().any(|finding| finding.section.as_deref() == Some(section));
    let sound = keys::SECTIONS.into_iter().filter(|section| is_sound(section)).collect::<Vec<_>>();
    if findings.is_empty() {
        findings.push(Finding::ok("file", "every section and key is valid"));
    }
    if let Some(place) = place.filter(|_| !arguments.offline) {
        findings.extend(look(&place, &sound).await);
    }
    findings
}

/// Looks at all that the sound sections name.
async fn look(place: &Place, sound: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_sound = |section: &str| sound.contains(&section);
    if is_sound("broker") && is_sound(place.broker.kind()) {
        findings.push(connect::broker(place).await);
    }
    let Some(system) = &place.system else { return findings };
    if is_sound("queue") && is_sound("embedded") {
        findings.extend(connect::queue(system).await);
    }
    if is_sound("model") {
        findings.push(connect::model(system));
    }
    if is_sound("app2") {
        findings.push(connect::database(system));
    }
    findings
}
