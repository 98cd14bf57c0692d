//! The section `[retry]`.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::Section;
use crate::error::Result;
use crate::policy::Backoff;

/// How often and how long what failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How often an operation is tried in all; 1 turns the layer off.
    pub attempts_max: u32,
    /// No try begins later than this after the first.
    pub time_max: Duration,
    /// The pauses between tries.
    pub backoff: Backoff,
    /// Whether a message that may be written already is published again.
    pub duplicates: Duplicates,
}

/// What to do with messages of which nobody knows whether they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// Leave them to the caller: nothing is written twice.
    Deny,
    /// Publish them again, with all later messages of their keys.
    Allow,
}

impl Default for Config {
    fn default() -> Self {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(2));
        Self {
            attempts_max: 5,
            time_max: Duration::from_secs(30),
            backoff: Backoff { first, max, jitter_percent: 50 },
            duplicates: Duplicates::Deny,
        }
    }
}

impl Config {
    /// Reads the section `[retry]`: `attempts` (5), `time_max` (30s), `backoff_first` (100ms),
    /// `backoff_max` (2s), `backoff_jitter_percent` (50) and `duplicates` (`deny`; `allow`).
    pub fn from_section(mut section: Section) -> Result<Self> {
        let Self { attempts_max, time_max, backoff, duplicates } = Self::default();
        let attempts = NonZeroU32::new(attempts_max).unwrap_or(NonZeroU32::MIN);
        let jitter_percent = section.take_or("backoff_jitter_percent", backoff.jitter_percent)?;
        if jitter_percent > 100 {
            let problem = format!("{jitter_percent} is more than 100");
            return Err(section.error("backoff_jitter_percent", problem));
        }
        let choices = [("deny", Duplicates::Deny), ("allow", Duplicates::Allow)];
        let config = Self {
            attempts_max: section.take_or("attempts", attempts)?.get(),
            time_max: section.take_or("time_max", time_max)?,
            backoff: Backoff {
                first: section.take_or("backoff_first", backoff.first)?,
                max: section.take_or("backoff_max", backoff.max)?,
                jitter_percent,
            },
            duplicates: section.choose("duplicates", duplicates, &choices)?,
        };
        section.finish()?;
        Ok(config)
    }
}
