//! The section `[pubsub]`.

use std::path::PathBuf;
use std::time::Duration;

use super::names::Project;
use crate::config::{ByteSize, Environment, Section};
use crate::error::Result;

/// What Google's own libraries call the address of an emulator.
const EMULATOR_VARIABLE: &str = "PUBSUB_EMULATOR_HOST";
/// What is left of the 10,000,000 bytes that Pub/Sub takes, once a hundred attributes are full.
const MESSAGE_BYTES_MAX: u64 = 9_800_000;
/// What Pub/Sub takes as a lease.
const LEASE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// What Pub/Sub takes as a retention.
const RETENTION: (Duration, Duration) = (minutes(10), minutes(31 * 24 * 60));

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// What `[pubsub]` says.
///
/// `project` (required), `emulator` (host:port; else the environment's `PUBSUB_EMULATOR_HOST`,
/// else none), `endpoint` (Google's own), `credentials` (a key file; else Google's default ones),
/// `exactly_once` (false), `lease` (20s), `retention` (7d), `caught_up_after` (3s),
/// `request_timeout` (30s), `message_bytes_max` (9800000), and how publishing gathers:
/// `batch_messages` (100), `batch_bytes` (1000000), `batch_delay` (10ms).
#[derive(Debug, Clone)]
pub struct Config {
    pub(super) project: Project,
    pub(super) emulator: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) credentials: Option<PathBuf>,
    pub(super) exactly_once: bool,
    pub(super) lease: Duration,
    pub(super) retention: Duration,
    pub(super) caught_up_after: Duration,
    pub(super) request_timeout: Duration,
    pub(super) message_bytes_max: usize,
    pub(super) batch_messages: u32,
    pub(super) batch_bytes: u32,
    pub(super) batch_delay: Duration,
}

impl Config {
    /// Reads the section; the environment is asked for `PUBSUB_EMULATOR_HOST` alone.
    pub fn from_section(mut section: Section, environment: &dyn Environment) -> Result<Self> {
        let emulator = section.take("emulator")?;
        let config = Self {
            project: Project(section.require("project")?),
            emulator: emulator.or_else(|| named_by(environment)),
            endpoint: section.take("endpoint")?,
            credentials: section.take("credentials")?,
            exactly_once: section.take_or("exactly_once", false)?,
            lease: within(&mut section, "lease", Duration::from_secs(20), LEASE)?,
            retention: within(&mut section, "retention", minutes(7 * 24 * 60), RETENTION)?,
            caught_up_after: section.take_or("caught_up_after", Duration::from_secs(3))?,
            request_timeout: section.take_or("request_timeout", Duration::from_secs(30))?,
            message_bytes_max: message_bytes_max(&mut section)?,
            batch_messages: section.take_or("batch_messages", 100)?,
            batch_bytes: section.take_or("batch_bytes", 1_000_000)?,
            batch_delay: section.take_or("batch_delay", Duration::from_millis(10))?,
        };
        section.finish()?;
        Ok(config)
    }

    /// Where Pub/Sub is; `None` for Google's own.
    pub(super) fn address(&self) -> Option<String> {
        self.emulator
            .as_ref()
            .map(|host| format!("http://{host}"))
            .or_else(|| self.endpoint.clone())
    }
}

fn named_by(environment: &dyn Environment) -> Option<String> {
    environment.get(EMULATOR_VARIABLE).filter(|host| !host.is_empty())
}

fn within(
    section: &mut Section,
    key: &'static str,
    default: Duration,
    (least, most): (Duration, Duration),
) -> Result<Duration> {
    let value = section.take_or(key, default)?;
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(section.error(key, format!("{value:?} is not from {least:?} to {most:?}")))
}

fn message_bytes_max(section: &mut Section) -> Result<usize> {
    let key = "message_bytes_max";
    let ByteSize(bytes) = section.take_or(key, ByteSize(MESSAGE_BYTES_MAX))?;
    let fits = (1..=MESSAGE_BYTES_MAX).contains(&bytes);
    usize::try_from(bytes)
        .ok()
        .filter(|_| fits)
        .ok_or_else(|| section.error(key, format!("{bytes} is not from 1 to {MESSAGE_BYTES_MAX}")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::config::File;

    fn parse(lines: &str, environment: &[(&str, &str)]) -> Result<Config> {
        let environment: HashMap<&str, &str> = environment.iter().copied().collect();
        let text = format!("[pubsub]\nproject = p\n{lines}");
        let file = File::parse(Path::new("forebay.ini"), &text, &environment).unwrap();
        Config::from_section(file.section("pubsub"), &environment)
    }

    #[test]
    fn the_environment_names_an_emulator_where_the_file_names_none() {
        let environment = [("PUBSUB_EMULATOR_HOST", "127.0.0.1:8085")];
        let address = |lines, environment| parse(lines, environment).unwrap().address();
        assert_eq!(address("", &[]), None);
        assert_eq!(address("", &[("PUBSUB_EMULATOR_HOST", "")]), None);
        assert_eq!(address("", &environment).as_deref(), Some("http://127.0.0.1:8085"));
        let named = address("emulator = a:1\n", &environment);
        assert_eq!(named.as_deref(), Some("http://a:1"));
        let endpoint = address("endpoint = https://b:2\n", &[]);
        assert_eq!(endpoint.as_deref(), Some("https://b:2"));
    }

    #[test]
    fn what_pubsub_would_refuse_is_refused_with_the_key() {
        let rows = [
            ("lease = 9s", "lease"),
            ("lease = 11m", "lease"),
            ("retention = 1m", "retention"),
            ("retention = 32d", "retention"),
            ("message_bytes_max = 10000000", "message_bytes_max"),
            ("message_bytes_max = 0", "message_bytes_max"),
            ("exactly_once = maybe", "exactly_once"),
            ("leese = 20s", "leese"),
        ];
        for (line, key) in rows {
            let shown = parse(&format!("{line}\n"), &[]).unwrap_err().to_string();
            assert!(shown.contains(&format!("[key: {key}]")), "{shown}");
        }
    }
}
