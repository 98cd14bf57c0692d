//! How long a program bears with failures that may pass.

use std::time::{Duration, Instant};

use broker::{Error, ErrorKind};

use super::failure::Failure;
use super::shutdown::Shutdown;

/// How long the broker or the queue may be gone.
const OUTAGE_MAX: Duration = Duration::from_secs(30);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Waits between tries, and gives up where failures last too long or cannot pass.
#[derive(Debug, Default)]
pub struct Patience {
    since: Option<Instant>,
    pause: Duration,
}

impl Patience {
    /// Notes that something worked.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Waits before the next try of what failed with `error`, or gives up with it.
    ///
    /// A full disk is an operator's matter and ends the program at once, as does draining. A
    /// throttled broker is waited for without end: that is how it pushes back.
    pub async fn bear(&mut self, error: Error, shutdown: &Shutdown) -> Result<(), Failure> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let throttled = error.kind() == ErrorKind::Throttled;
        let passes = error.is_retryable() && error.kind() != ErrorKind::StorageFull;
        if !passes || shutdown.is_wanted() || (!throttled && since.elapsed() > OUTAGE_MAX) {
            return Err(error.into());
        }
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        tracing::warn!(?error, pause = ?self.pause, "trying again");
        tokio::time::sleep(self.pause).await;
        Ok(())
    }
}
