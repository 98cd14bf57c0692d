//! Chance that can be repeated.

use std::sync::{Mutex, PoisonError};

use super::Config;
use crate::error::{Error, Result};

/// What becomes of one published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is published as it should be.
    Written,
    /// It is dropped, and said to be not written.
    Dropped,
    /// It is dropped, and said to be unknown.
    Vanished,
    /// It is published, and said to be unknown.
    Unheard,
    /// It is published twice.
    Doubled,
}

/// The dice of a broker, or of one consumer. Rates of zero throw none.
#[derive(Debug)]
pub(super) struct Dice {
    config: Config,
    chance: Mutex<fastrand::Rng>,
}

impl Dice {
    /// Dice that fall alike for an equal seed and number.
    pub(super) fn new(config: Config, number: u64) -> Self {
        let mut seeds = fastrand::Rng::with_seed(config.seed);
        // Neighbouring numbers must not give neighbouring seeds.
        let seed = seeds.u64(..) ^ fastrand::Rng::with_seed(number).u64(..);
        Self { config, chance: Mutex::new(fastrand::Rng::with_seed(seed)) }
    }

    fn falls(&self, rate: f64) -> bool {
        rate > 0.0 && self.throw(fastrand::Rng::f64) < rate
    }

    fn throw<T>(&self, throw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        throw(&mut self.chance.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A fault of the configured kind.
    pub(super) fn fault(&self, operation: &'static str) -> Error {
        Error::new(self.config.error_kind, operation, "the chaos layer made this fault")
    }

    /// Delays a call, and fails it, by chance.
    pub(super) async fn disturb(&self, operation: &'static str) -> Result<()> {
        if self.falls(self.config.delay) {
            let part = self.throw(fastrand::Rng::f64);
            tokio::time::sleep(self.config.delay_max.mul_f64(part)).await;
        }
        if self.falls(self.config.error) { Err(self.fault(operation)) } else { Ok(()) }
    }

    /// Whether the connection is lost now.
    pub(super) fn disconnects(&self) -> bool {
        self.falls(self.config.disconnect)
    }

    pub(super) fn fate(&self) -> Fate {
        if self.falls(self.config.not_written) {
            Fate::Dropped
        } else if self.falls(self.config.unknown) {
            if self.throw(fastrand::Rng::bool) { Fate::Unheard } else { Fate::Vanished }
        } else if self.falls(self.config.duplicate) {
            Fate::Doubled
        } else {
            Fate::Written
        }
    }
}
