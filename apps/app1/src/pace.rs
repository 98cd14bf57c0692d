//! Spreads publications evenly over time.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// A delay up to this is made up for; what a longer one lost is not hurried after.
const LATE_MAX: Duration = Duration::from_millis(200);

/// Tells when the next batch may go.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Option<NonZeroU32>,
    next: Instant,
}

impl Pace {
    /// At `rate` messages per second, or without any limit.
    pub(crate) fn new(rate: Option<NonZeroU32>) -> Self {
        Self { rate, next: Instant::now() }
    }

    /// Waits until `count` messages may go.
    pub(crate) async fn wait(&mut self, count: usize) {
        let Some(rate) = self.rate else { return };
        tokio::time::sleep_until(self.next).await;
        let earliest = Instant::now().checked_sub(LATE_MAX).unwrap_or(self.next);
        let time = Duration::from_secs_f64(count as f64 / f64::from(rate.get()));
        self.next = self.next.max(earliest) + time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn messages_are_spread_evenly_and_a_stall_is_not_made_up_for() {
        let begun = Instant::now();
        let mut pace = Pace::new(NonZeroU32::new(100));
        for _ in 0..11 {
            pace.wait(10).await;
        }
        let late = begun.elapsed().as_millis();
        assert!((1000..1010).contains(&late), "{late}");
        tokio::time::advance(Duration::from_secs(10)).await;
        for _ in 0..11 {
            pace.wait(10).await;
        }
        let more = begun.elapsed().as_millis() - late;
        assert!((10_700..10_900).contains(&more), "{more}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits() {
        let begun = Instant::now();
        let mut pace = Pace::new(None);
        pace.wait(1_000_000).await;
        pace.wait(1_000_000).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
