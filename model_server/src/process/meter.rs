//! Progress of a stream: a live line on a terminal, a log line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is logged where no terminal shows the live one.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Counts what went through.
#[derive(Debug)]
pub struct Meter {
    what: &'static str,
    bar: Option<ProgressBar>,
    total: Option<u64>,
    count: u64,
    line: (Instant, u64),
    begun: Instant,
}

impl Meter {
    /// A meter of `what`, such as "images predicted"; `total` where the end is known.
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(what, total));
        let now = Instant::now();
        Self { what, bar, total, count: 0, line: (now, 0), begun: now }
    }

    /// Adds to the count.
    pub fn add(&mut self, count: u64) {
        self.count += count;
        match &self.bar {
            Some(bar) => bar.set_position(self.count),
            None => self.log(),
        }
    }

    /// What was counted so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    fn log(&mut self) {
        let (last, before) = self.line;
        if last.elapsed() < LINE_INTERVAL || self.count == before {
            return;
        }
        let rate = rate(self.count - before, last.elapsed());
        let (count, what) = (self.count, self.what);
        match self.total {
            Some(total) => tracing::info!(count, total, per_second = rate, "{what}"),
            None => tracing::info!(count, per_second = rate, "{what}"),
        }
        self.line = (Instant::now(), self.count);
    }

    /// Ends the live line and logs the whole.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let rate = rate(self.count, self.begun.elapsed());
        tracing::info!(count = self.count, per_second = rate, "{} in all", self.what);
    }
}

fn rate(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64().max(1e-9)) as u64
}

fn bar(what: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => {
            let template = "{bar:30} {human_pos}/{human_len} {msg} ({per_sec:.0}, {eta} left)";
            (ProgressBar::new(total), template)
        }
        None => (ProgressBar::new_spinner(), "{spinner} {human_pos} {msg} ({per_sec:.0})"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.with_message(what)
}
