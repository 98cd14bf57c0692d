//! What every backend gets on top: wrappers that keep the same contract.
//!
//! [`Config::wrap`] puts them on in one fixed order, from the backend outwards:
//!
//! 1. [`Chaos`], only where `[chaos]` asks for it: next to the backend, so that all others meet
//!    its faults as if they were the backend's.
//! 2. [`Timeout`]: bounds each single try, also one that chaos delays.
//! 3. [`Retry`]: repeats what failed or was too late, if that breaks no promise.
//! 4. [`Delivery`]: its dead letters are published through the three below.
//! 5. `Metrics` (feature `metrics`): measures what a caller meets, so with all tries and dead
//!    letters.
//! 6. [`Trace`]: outermost, so that everything below stands in the span of its call.

pub mod chaos;
mod count;
mod delivery;
mod letter;
mod link;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod retry;
pub mod timeout;
pub mod trace;

use std::sync::Arc;

pub use chaos::Chaos;
pub use delivery::Delivery;
#[cfg(feature = "metrics")]
pub use metrics::Metrics;
pub use retry::Retry;
pub use timeout::Timeout;
pub use trace::Trace;

use crate::config::File;
use crate::contract::Broker;
use crate::error::Result;
use crate::policy::Policy;

/// How the layers are set: a section for each.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `[chaos]`: faults on purpose.
    pub chaos: chaos::Config,
    /// `[timeout]`: how long operations may take.
    pub timeout: timeout::Config,
    /// `[retry]`: what is tried again.
    pub retry: retry::Config,
    /// `[trace]`: which traces are begun.
    pub trace: trace::Config,
}

impl Config {
    /// Reads and checks the sections; does no I/O.
    pub fn from_file(file: &File) -> Result<Self> {
        Ok(Self {
            chaos: chaos::Config::from_section(file.section("chaos"))?,
            timeout: timeout::Config::from_section(file.section("timeout"))?,
            retry: retry::Config::from_section(file.section("retry"))?,
            trace: trace::Config::from_section(file.section("trace"))?,
        })
    }

    /// Puts all layers around a backend; `policy` serves subscriptions without one.
    pub fn wrap(&self, backend: Arc<dyn Broker>, policy: Policy) -> Arc<dyn Broker> {
        let mut broker = backend;
        if self.chaos.is_on() {
            broker = Chaos::wrap(broker, self.chaos);
        }
        broker = Timeout::wrap(broker, self.timeout);
        broker = Retry::wrap(broker, self.retry);
        broker = Delivery::wrap(broker, policy);
        #[cfg(feature = "metrics")]
        {
            broker = Metrics::wrap(broker);
        }
        Trace::wrap(broker, &self.trace)
    }
}
