//! A table of figures as text, JSON and Markdown.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::machine::Machine;

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// What Forebay does.
    pub(crate) ours: Option<f64>,
    /// What the other one does.
    pub(crate) peer: Option<f64>,
    /// What nobody could pass here.
    pub(crate) limit: Option<f64>,
    /// Ours to the peer's, else to the limit.
    pub(crate) ratio: Option<f64>,
    /// The ratio that is wanted at least.
    pub(crate) goal: Option<f64>,
    pub(crate) unit: &'static str,
}

impl Row {
    /// A figure without comparison.
    pub(crate) fn plain(name: impl Into<String>, ours: f64, unit: &'static str) -> Self {
        let (peer, limit, ratio, goal) = (None, None, None, None);
        Self { name: name.into(), ours: Some(ours), peer, limit, ratio, goal, unit }
    }

    /// A figure and its limit; the more the better.
    pub(crate) fn limited(
        name: impl Into<String>,
        ours: f64,
        limit: f64,
        unit: &'static str,
    ) -> Self {
        Self { limit: Some(limit), ratio: Some(ours / limit), ..Self::plain(name, ours, unit) }
    }

    /// A cost and the least that it could be; the ratio is the part that is not ours to save.
    pub(crate) fn cost(name: impl Into<String>, ours: f64, limit: f64, unit: &'static str) -> Self {
        Self { limit: Some(limit), ratio: Some(limit / ours), ..Self::plain(name, ours, unit) }
    }

    /// A figure and another's; the more the better.
    pub(crate) fn compared(
        name: impl Into<String>,
        ours: f64,
        peer: f64,
        unit: &'static str,
    ) -> Self {
        Self { peer: Some(peer), ratio: Some(ours / peer), ..Self::plain(name, ours, unit) }
    }

    /// A limit by itself.
    pub(crate) fn limit(name: impl Into<String>, limit: f64, unit: &'static str) -> Self {
        Self { ours: None, limit: Some(limit), ..Self::plain(name, limit, unit) }
    }

    pub(crate) fn with_goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// Our figure alone, to be held against a fixed one.
    pub(crate) fn wanted(&self) -> Self {
        Self { limit: None, peer: None, ..self.clone() }
    }

    /// A figure that is to reach a fixed one, to which the ratio then is.
    pub(crate) fn with_floor(self, floor: f64) -> Self {
        let ratio = self.ours.map(|ours| ours / floor);
        let name = format!("{}, ratio to {}", self.name, figure(floor));
        Self { name, ratio, goal: Some(1.0), ..self }
    }

    /// A cost that is not to pass a fixed one, to which the ratio then is.
    pub(crate) fn with_ceiling(self, ceiling: f64) -> Self {
        let ratio = self.ours.map(|ours| ceiling / ours);
        let name = format!("{}, ratio to {}", self.name, figure(ceiling));
        Self { name, ratio, goal: Some(1.0), ..self }
    }

    fn cells(&self) -> [String; 7] {
        let figure = |value: Option<f64>| value.map(figure).unwrap_or_default();
        let ratio = self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let goal = match (self.goal, self.ratio) {
            (Some(goal), Some(ratio)) if ratio >= goal => format!("{goal} met"),
            (Some(goal), _) => format!("{goal} missed"),
            _ => String::new(),
        };
        let (name, unit) = (self.name.clone(), self.unit.to_owned());
        [name, figure(self.ours), figure(self.peer), figure(self.limit), ratio, goal, unit]
    }
}

/// Three digits or all before the point, with commas.
fn figure(value: f64) -> String {
    if value < 100.0 {
        return if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") };
    }
    let digits = format!("{value:.0}");
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

const HEADINGS: [&str; 7] = ["name", "ours", "peer", "limit", "ratio", "goal", "unit"];
/// The columns of figures stand at the right.
const RIGHT: std::ops::Range<usize> = 1..5;

/// What a new file begins with.
const TITLE: &str = "# Benchmarks

As measured by `make bench`, misses included. A ratio is ours to the peer's figure where there is a
peer, else ours to the limit.
";

/// A whole table.
pub(crate) struct Report {
    pub(crate) table: &'static str,
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// One object a line.
    pub(crate) fn json(&self) -> Result<String> {
        let mut text = String::new();
        for row in &self.rows {
            text += &serde_json::to_string(row).context("a row has no JSON form")?;
            text.push('\n');
        }
        Ok(text)
    }

    /// For people: the machine and an aligned table.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.machine.lines().join("\n"));
        for line in self.aligned(" ", "-") {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    /// Replaces this table's section of a file, or adds it at the end.
    pub(crate) fn write_markdown(&self, path: &Path) -> Result<()> {
        let old = match std::fs::read_to_string(path) {
            Ok(old) => old,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {path:?}")),
        };
        let new = replaced(&old, self.table, &self.markdown());
        std::fs::write(path, new).with_context(|| format!("cannot write {path:?}"))
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        for line in self.machine.lines() {
            let _ = writeln!(text, "- {line}");
        }
        text.push('\n');
        for line in self.aligned("|", "-") {
            let _ = writeln!(text, "|{line}|");
        }
        text
    }

    /// The lines of the table, heading and rule first.
    fn aligned(&self, between: &str, rule: &str) -> Vec<String> {
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        rows.extend(self.rows.iter().map(Row::cells));
        let widths: Vec<usize> = (0..HEADINGS.len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let line = |row: &[String; 7]| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if RIGHT.contains(&column) {
                    format!(" {cell:>width$} ")
                } else {
                    format!(" {cell:<width$} ")
                }
            });
            cells.collect::<Vec<_>>().join(between)
        };
        let mut lines: Vec<String> = rows.iter().map(line).collect();
        let rules = widths.iter().enumerate().map(|(column, width)| {
            let end = if RIGHT.contains(&column) { ":" } else { rule };
            format!("{}{}", rule.repeat(width + 1), if between == "|" { end } else { rule })
        });
        lines.insert(1, rules.collect::<Vec<_>>().join(between));
        lines
    }
}

/// The text with the section of `table` replaced, or added where there is none.
fn replaced(old: &str, table: &str, section: &str) -> String {
    let (begin, end) = (format!("<!-- table {table} -->"), format!("<!-- end {table} -->"));
    let section = format!("{begin}\n{section}{end}");
    if let Some((before, rest)) = old.split_once(&begin)
        && let Some((_, after)) = rest.split_once(&end)
    {
        return format!("{before}{section}{after}");
    }
    let before = if old.is_empty() { TITLE } else { old };
    format!("{before}\n## {table}\n\n{section}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_readable() {
        for (value, shown) in [
            (0.123, "0.12"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1234.0, "1,234"),
            (1e6, "1,000,000"),
        ] {
            assert_eq!(figure(value), shown);
        }
    }

    #[test]
    fn a_goal_is_met_or_missed() {
        let goal = |row: Row| row.cells()[5].clone();
        assert_eq!(goal(Row::limited("x", 85.0, 100.0, "/s").with_goal(0.85)), "0.85 met");
        assert_eq!(goal(Row::compared("x", 4.0, 1.0, "/s").with_goal(5.0)), "5 missed");
        assert_eq!(goal(Row::plain("x", 4.0, "/s")), "");
    }

    #[test]
    fn a_row_is_one_object_with_every_field() {
        let row = Row::compared("x", 4.0, 2.0, "images/s").with_goal(1.5);
        let json = r#"{"name":"x","ours":4.0,"peer":2.0,"limit":null,"ratio":2.0,"goal":1.5,"unit":"images/s"}"#;
        assert_eq!(serde_json::to_string(&row).unwrap(), json);
    }

    #[test]
    fn a_section_is_replaced_where_it_stands() {
        let first = replaced("# Title\n", "broker", "one\n");
        assert_eq!(
            first,
            "# Title\n\n## broker\n\n<!-- table broker -->\none\n<!-- end broker -->\n"
        );
        let both = replaced(&first, "pipeline", "p\n") + "tail\n";
        let again = replaced(&both, "broker", "two\n");
        assert_eq!(again, both.replace("one", "two"));
        assert!(replaced("", "broker", "one\n").starts_with("# Benchmarks\n"));
    }
}
