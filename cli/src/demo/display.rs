//! Live progress: bars on a terminal, a plain line each second elsewhere. On standard error,
//! so that standard output holds the result alone.

use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{
    HumanCount, MultiProgress, ProgressBar, ProgressFinish, ProgressState, ProgressStyle,
};

use super::stages::Counts;

/// How often a line is printed where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
const STAGES: [&str; 4] = ["published", "predicted", "forwarded", "persisted"];

/// Shows counts as they come.
#[derive(Debug)]
pub(super) enum Display {
    /// For a person who watches.
    Bars {
        /// One for each stage.
        stages: Vec<ProgressBar>,
        /// The dead letters, which have no goal.
        dead_letters: ProgressBar,
        /// How many images there will be.
        total: u64,
    },
    /// For a log.
    Lines {
        /// When the last line was printed, and what it said.
        last: Option<(Instant, Counts)>,
        /// How many images there will be.
        total: u64,
    },
}

impl Display {
    pub(super) fn new(total: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines { last: None, total };
        }
        let all = MultiProgress::new();
        let template = "  {prefix:<14}{bar:36.cyan/blue} {human_pos:>9} of {human_len}  {rate}";
        let stage = |name| {
            let bar = all.add(ProgressBar::new(total)).with_prefix(name);
            styled(bar, template)
        };
        let stages = STAGES.map(stage).into();
        let dead_letters = all.add(ProgressBar::new_spinner()).with_prefix("dead-lettered");
        let dead_letters = styled(dead_letters, "  {prefix:<14}{human_pos:>46}");
        Self::Bars { stages, dead_letters, total }
    }

    pub(super) fn show(&mut self, counts: &Counts) {
        match self {
            Self::Bars { stages, dead_letters, total } => {
                dead_letters.set_position(counts.dead_lettered);
                for (index, (bar, count)) in stages.iter().zip(row(counts)).enumerate() {
                    // What was put aside never reaches the stages behind the first.
                    let aside = if index == 0 { 0 } else { counts.dead_lettered };
                    bar.set_length(total.saturating_sub(aside).max(count));
                    bar.set_position(count);
                }
            }
            Self::Lines { last, total } => {
                if last.is_none_or(|(when, _)| when.elapsed() >= LINE_INTERVAL) {
                    eprintln!("{}", line(counts, *total));
                    *last = Some((Instant::now(), *counts));
                }
            }
        }
    }

    /// Shows the last counts and leaves them on the screen.
    pub(super) fn finish(&mut self, counts: &Counts) {
        self.show(counts);
        match self {
            Self::Bars { stages, dead_letters, .. } => {
                stages.iter().chain([&*dead_letters]).for_each(ProgressBar::abandon);
            }
            Self::Lines { last: Some((_, shown)), .. } if shown == counts => {}
            Self::Lines { total, .. } => eprintln!("{}", line(counts, *total)),
        }
    }
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    if let Ok(style) = ProgressStyle::with_template(template) {
        let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
            // A rate that cannot be written is not shown.
            let _ = write!(text, "{:.0}/s", state.per_sec());
        };
        bar.set_style(style.with_key("rate", rate));
    }
    // Also where the run is interrupted, how far it got stays on the screen.
    bar.with_finish(ProgressFinish::Abandon)
}

fn row(counts: &Counts) -> [u64; 4] {
    [counts.published, counts.predicted(), counts.forwarded, counts.persisted]
}

fn line(counts: &Counts, total: u64) -> String {
    let stages = STAGES.iter().zip(row(counts));
    let stages: Vec<String> =
        stages.map(|(name, count)| format!("{name} {}", HumanCount(count))).collect();
    let dead_lettered = HumanCount(counts.dead_lettered);
    format!("{}, dead-lettered {dead_lettered}, of {}", stages.join(", "), HumanCount(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_every_stage() {
        let counts = Counts {
            published: 10_240,
            settled: 9_000,
            forwarded: 8_000,
            persisted: 7_000,
            dead_lettered: 6,
        };
        let expected = "published 10,240, predicted 8,994, forwarded 8,000, persisted 7,000, \
                        dead-lettered 6, of 10,246";
        assert_eq!(line(&counts, 10_246), expected);
    }
}
