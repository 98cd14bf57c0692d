//! What becomes of deliveries that fail: one object, so that it cannot be stacked wrongly.

use std::any::Any;
use std::error::Error as StdError;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::Section;
use crate::delivery::Outcome;
use crate::error::{Error, Result};
use crate::name::Topic;

/// How often, after which pauses and for which failures a message is delivered again, and
/// where it goes in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How often a message is delivered before it counts as dead.
    pub attempts_max: u32,
    /// How long a failed message rests before it is delivered again.
    pub backoff: Backoff,
    /// Which failures are worth another delivery.
    pub retryable: Retryable,
    /// Where rejected and dead messages go; without a topic they are logged and settled.
    pub dead_letters: Option<Topic>,
}

/// Pauses that double from one attempt to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first attempt.
    pub first: Duration,
    /// The longest pause.
    pub max: Duration,
    /// Up to how many percent a pause is cut, by chance, so that what failed together does not
    /// come again together. At most 100.
    pub jitter_percent: u32,
}

/// Which failures are worth another delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retryable {
    /// All of them.
    Always,
    /// Those that say so themselves: see [`Failure`].
    Marked,
    /// None: what fails once is dead.
    Never,
}

impl Default for Policy {
    fn default() -> Self {
        let backoff = Backoff::default();
        Self { attempts_max: 5, backoff, retryable: Retryable::Marked, dead_letters: None }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        let (first, max) = (Duration::from_millis(200), Duration::from_secs(30));
        Self { first, max, jitter_percent: 50 }
    }
}

impl Backoff {
    /// The pause after `attempt` attempts, counted from 1.
    pub fn pause(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.max);
        let cut = f64::from(self.jitter_percent.min(100)) / 100.0 * fastrand::f64();
        whole.mul_f64(1.0 - cut)
    }
}

impl Policy {
    /// A policy whose dead letters go to `topic`.
    #[must_use]
    pub fn with_dead_letters(mut self, topic: &Topic) -> Self {
        self.dead_letters = Some(topic.clone());
        self
    }

    /// Sets how often a message is delivered before it counts as dead.
    #[must_use]
    pub fn with_attempts(mut self, attempts_max: u32) -> Self {
        self.attempts_max = attempts_max;
        self
    }

    /// Reads the section `[delivery]`: `attempts` (5), `backoff_first` (200ms), `backoff_max`
    /// (30s), `backoff_jitter_percent` (50) and `retry` (`marked`; `always`, `never`).
    pub fn from_section(mut section: Section) -> Result<Self> {
        let Self { attempts_max, backoff, retryable, dead_letters } = Self::default();
        let attempts = NonZeroU32::new(attempts_max).unwrap_or(NonZeroU32::MIN);
        let jitter_percent = section.take_or("backoff_jitter_percent", backoff.jitter_percent)?;
        if jitter_percent > 100 {
            let problem = format!("{jitter_percent} is more than 100");
            return Err(section.error("backoff_jitter_percent", problem));
        }
        let choices = [
            ("marked", Retryable::Marked),
            ("always", Retryable::Always),
            ("never", Retryable::Never),
        ];
        let policy = Self {
            attempts_max: section.take_or("attempts", attempts)?.get(),
            backoff: Backoff {
                first: section.take_or("backoff_first", backoff.first)?,
                max: section.take_or("backoff_max", backoff.max)?,
                jitter_percent,
            },
            retryable: section.choose("retry", retryable, &choices)?,
            dead_letters,
        };
        section.finish()?;
        Ok(policy)
    }

    /// What to settle a delivery with that failed at its `attempt`.
    pub fn outcome(&self, attempt: u32, failure: Failure) -> Outcome {
        let may_retry = match self.retryable {
            Retryable::Always => true,
            Retryable::Marked => failure.retryable,
            Retryable::Never => false,
        };
        if may_retry && attempt < self.attempts_max {
            return Outcome::Retry { after: self.backoff.pause(attempt) };
        }
        Outcome::Reject { reason: failure.reason }
    }
}

/// Why a message could not be processed, and whether another delivery may help.
///
/// Every error becomes one by `?`. An [`Error`] of this crate knows whether it is retryable;
/// any other is taken for one that passes, so say [`Failure::reject`] where it never will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    reason: String,
    retryable: bool,
}

impl Failure {
    /// A failure that another delivery may not meet.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retryable: true }
    }

    /// A failure that every delivery would meet: the message itself is wrong.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retryable: false }
    }

    /// The cause, in words for a person.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether another delivery may help.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

impl<E: StdError + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let known = (&error as &dyn Any).downcast_ref::<Error>();
        Self { retryable: known.is_none_or(Error::is_retryable), reason: chain(&error) }
    }
}

/// An error with all its causes.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::error::ErrorKind;

    const PLAIN: Backoff = Backoff {
        first: Duration::from_millis(100),
        max: Duration::from_secs(1),
        jitter_percent: 0,
    };

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<u128> = (1..7).map(|n| PLAIN.pause(n).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(PLAIN.pause(u32::MAX), PLAIN.max);
    }

    #[test]
    fn jitter_cuts_a_pause_by_no_more_than_it_may() {
        let backoff = Backoff { jitter_percent: 50, ..PLAIN };
        let pauses: Vec<u128> = (0..200).map(|_| backoff.pause(4).as_millis()).collect();
        assert!(pauses.iter().all(|pause| (400..=800).contains(pause)), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "all pauses are alike");
    }

    #[test]
    fn a_failure_is_retried_until_the_attempts_are_used_up() {
        let policy = Policy { attempts_max: 3, backoff: PLAIN, ..Policy::default() };
        let after = Duration::from_millis(100);
        assert_eq!(policy.outcome(1, Failure::retry("busy")), Outcome::Retry { after });
        let reason = "busy".to_owned();
        assert_eq!(policy.outcome(3, Failure::retry("busy")), Outcome::Reject { reason });
    }

    #[test]
    fn the_policy_says_which_failures_are_worth_another_delivery() {
        let retried = |retryable, failure: Failure| {
            let policy = Policy { retryable, ..Policy::default() };
            matches!(policy.outcome(1, failure), Outcome::Retry { .. })
        };
        assert!(retried(Retryable::Marked, Failure::retry("busy")));
        assert!(!retried(Retryable::Marked, Failure::reject("no image")));
        assert!(retried(Retryable::Always, Failure::reject("no image")));
        assert!(!retried(Retryable::Never, Failure::retry("busy")));
    }

    #[test]
    fn errors_become_failures_with_their_causes() {
        let source = io::Error::other("cable cut");
        let gone = Error::new(ErrorKind::Unavailable, "publish", "no broker").with_source(source);
        let failure = Failure::from(gone);
        assert!(failure.is_retryable() && failure.reason().contains("cable cut"), "{failure:?}");
        let large = Error::new(ErrorKind::TooLarge, "publish", "the message is too large");
        assert!(!Failure::from(large).is_retryable());
        assert!(Failure::from(io::Error::other("any")).is_retryable());
    }
}
