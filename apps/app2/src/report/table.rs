//! The report as people read it.

use std::fmt;

use super::{LabelCount, Report};

/// What stands where there is no figure.
const NONE: &str = "-";
const LABEL_WIDTH_MIN: usize = 5;

impl fmt::Display for Report {
    /// Aligned columns without a line break at the end. Labels come from messages, so their
    /// control characters are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.labels.iter().map(|count| escape(&count.label)).collect();
        let widths = names.iter().map(|name| name.chars().count());
        let width = widths.max().unwrap_or(0).max(LABEL_WIDTH_MIN);
        let head = ["predicted", "truth", "correct", "accuracy"];
        line(f, width, "label", head.map(str::to_owned))?;
        for (name, count) in names.iter().zip(&self.labels) {
            line(f, width, name, cells(count))?;
        }
        line(f, width, "all", cells(&self.all()))?;
        writeln!(f)?;
        self.totals(f)
    }
}

impl Report {
    /// The sums over all labels.
    fn all(&self) -> LabelCount {
        LabelCount {
            label: String::new(),
            predicted: self.persisted,
            truth: self.labels.iter().map(|label| label.truth).sum(),
            correct: self.labels.iter().map(|label| label.correct).sum(),
            accuracy: self.accuracy,
        }
    }

    fn totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = self.persisted > 0;
        let shown = |value: f64, unit: &str| match some {
            true => format!("{value:.1}{unit}"),
            false => NONE.to_owned(),
        };
        let latency = &self.latency_ms;
        writeln!(f, "persisted   {}", self.persisted)?;
        writeln!(f, "repeats     {}", self.duplicates)?;
        writeln!(f, "accuracy    {}", percent(self.accuracy))?;
        writeln!(f, "throughput  {}", shown(self.images_per_second, " images/s"))?;
        write!(f, "latency     p50 {}", shown(latency.p50, " ms"))?;
        write!(f, ", p90 {}", shown(latency.p90, " ms"))?;
        write!(f, ", p99 {}", shown(latency.p99, " ms"))?;
        writeln!(f, ", max {}", shown(latency.max, " ms"))?;
        write!(f, "mean        queued {}", shown(self.queued_ms, " ms"))?;
        write!(f, ", computing {}", shown(self.computing_ms, " ms"))
    }
}

fn cells(count: &LabelCount) -> [String; 4] {
    let known = |value: u64| match count.truth {
        0 => NONE.to_owned(),
        _ => value.to_string(),
    };
    let accuracy = percent(count.accuracy);
    [count.predicted.to_string(), known(count.truth), known(count.correct), accuracy]
}

fn line(
    f: &mut fmt::Formatter<'_>,
    width: usize,
    label: &str,
    [predicted, truth, correct, accuracy]: [String; 4],
) -> fmt::Result {
    writeln!(f, "{label:<width$}  {predicted:>9}  {truth:>9}  {correct:>9}  {accuracy:>9}")
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| NONE.to_owned(), |share| format!("{:.2} %", share * 100.0))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    escaped
}
