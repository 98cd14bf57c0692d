//! The section `[chaos]`.

use std::time::Duration;

use crate::config::Section;
use crate::error::{ErrorKind, Result};

/// Which faults to make, and how often: rates from 0 (never, the default) to 1 (always).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Where the dice begin; equal seeds and equal calls meet equal faults.
    pub seed: u64,
    /// A published message is dropped, and said to be not written.
    pub not_written: f64,
    /// A published message is said to be unknown; every other one is written all the same.
    pub unknown: f64,
    /// A published message is written twice.
    pub duplicate: f64,
    /// A call fails before anything is done.
    pub error: f64,
    /// How it fails then.
    pub error_kind: ErrorKind,
    /// A call is late.
    pub delay: f64,
    /// By how much at most.
    pub delay_max: Duration,
    /// A `receive` loses the connection: it fails, and what was in flight comes again.
    pub disconnect: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            not_written: 0.0,
            unknown: 0.0,
            duplicate: 0.0,
            error: 0.0,
            error_kind: ErrorKind::Unavailable,
            delay: 0.0,
            delay_max: Duration::from_millis(100),
            disconnect: 0.0,
        }
    }
}

/// The kinds of failure that can be asked for.
const KINDS: [(&str, ErrorKind); 6] = [
    ("unavailable", ErrorKind::Unavailable),
    ("timeout", ErrorKind::Timeout),
    ("throttled", ErrorKind::Throttled),
    ("storage-full", ErrorKind::StorageFull),
    ("permission-denied", ErrorKind::PermissionDenied),
    ("unexpected", ErrorKind::Unexpected),
];

impl Config {
    /// Reads the section `[chaos]`: `seed` (0), the rates `not_written`, `unknown`,
    /// `duplicate`, `error`, `delay` and `disconnect` (0), `error_kind` (`unavailable`) and
    /// `delay_max` (100ms).
    pub fn from_section(mut section: Section) -> Result<Self> {
        let default = Self::default();
        let config = Self {
            seed: section.take_or("seed", default.seed)?,
            not_written: rate(&mut section, "not_written")?,
            unknown: rate(&mut section, "unknown")?,
            duplicate: rate(&mut section, "duplicate")?,
            error: rate(&mut section, "error")?,
            error_kind: section.choose("error_kind", default.error_kind, &KINDS)?,
            delay: rate(&mut section, "delay")?,
            delay_max: section.take_or("delay_max", default.delay_max)?,
            disconnect: rate(&mut section, "disconnect")?,
        };
        section.finish()?;
        Ok(config)
    }

    /// Whether any fault can happen.
    pub fn is_on(&self) -> bool {
        let Self { not_written, unknown, duplicate, error, delay, disconnect, .. } = *self;
        [not_written, unknown, duplicate, error, delay, disconnect].iter().any(|rate| *rate > 0.0)
    }
}

fn rate(section: &mut Section, key: &'static str) -> Result<f64> {
    let rate = section.take_or(key, 0.0)?;
    if !(0.0..=1.0).contains(&rate) {
        return Err(section.error(key, format!("{rate} is no rate from 0 to 1")));
    }
    Ok(rate)
}
