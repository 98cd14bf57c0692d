//! A steady rate.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Lets so many pass in a second, and makes up for what a stall kept back.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: Option<u32>,
    begun: Instant,
    gone: u64,
}

impl Pace {
    /// A pace; without a rate, none.
    pub(crate) fn new(per_second: Option<u32>) -> Self {
        Self { per_second, begun: Instant::now(), gone: 0 }
    }

    /// Waits until at least one may go, and tells how many may, up to `max`.
    pub(crate) async fn wait(&self, max: usize) -> usize {
        let Some(rate) = self.per_second else { return max };
        loop {
            let due = (self.begun.elapsed().as_secs_f64() * f64::from(rate)) as u64 + 1;
            let may = due.saturating_sub(self.gone);
            if may > 0 {
                return usize::try_from(may).unwrap_or(max).min(max);
            }
            let next = Duration::from_secs_f64(self.gone as f64 / f64::from(rate));
            sleep(next.saturating_sub(self.begun.elapsed())).await;
        }
    }

    /// Notes that so many went.
    pub(crate) fn went(&mut self, count: usize) {
        self.gone += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_go_than_the_rate_lets_and_a_stall_is_made_up_for() {
        let mut pace = Pace::new(Some(10));
        for _ in 0..21 {
            assert_eq!(pace.wait(100).await, 1);
            pace.went(1);
        }
        assert_eq!(pace.begun.elapsed(), Duration::from_secs(2));
        sleep(Duration::from_millis(990)).await;
        assert_eq!(pace.wait(100).await, 9);
        assert_eq!(pace.wait(4).await, 4);
        assert_eq!(Pace::new(None).wait(100).await, 100);
    }
}
