//! Writing to standard output, which may be a pipe that nobody reads any more.
//!
//! Every report is rows of one shape. They become an aligned table with a head on a terminal,
//! bare lines with tabs elsewhere, and one JSON object a line where that is asked for.

use std::io::{ErrorKind, IsTerminal, Write};

use model_server::process::{Failure, Reason};
use serde::Serialize;

/// What stands in a cell without a value.
pub(crate) const NONE: &str = "-";

/// One row of a report.
pub(crate) trait Row: Serialize {
    /// What the columns are called.
    const HEADS: &'static [&'static str];

    /// The columns, in the order of the heads. They are escaped when they are shown.
    fn cells(&self) -> Vec<String>;
}

/// Shows rows; nothing but the head, or nothing at all, where there are none.
pub(crate) fn report<R: Row>(rows: &[R], as_json: bool) -> Result<(), Failure> {
    print(&text(rows, as_json, is_terminal())?)
}

/// Whether a person reads along.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

fn text<R: Row>(rows: &[R], as_json: bool, is_terminal: bool) -> Result<String, Failure> {
    if as_json {
        return rows.iter().map(json).collect();
    }
    let escaped = |row: &R| row.cells().iter().map(|cell| crate::escape::text(cell)).collect();
    let cells: Vec<Vec<String>> = rows.iter().map(escaped).collect();
    if is_terminal {
        return Ok(table(R::HEADS, &cells));
    }
    Ok(cells.iter().map(|row| row.join("\t") + "\n").collect())
}

/// Columns as wide as their widest cell; numbers stand to the right.
fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let is_number = |cell: &String| cell == NONE || cell.parse::<f64>().is_ok();
    let columns = heads.iter().enumerate().map(|(column, head)| {
        let cells = rows.iter().map(|row| &row[column]);
        let width = cells.clone().map(|cell| cell.chars().count()).max().unwrap_or(0);
        (width.max(head.len()), !rows.is_empty() && cells.clone().all(is_number))
    });
    let columns: Vec<(usize, bool)> = columns.collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&columns).map(|(cell, (width, is_right))| match is_right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let head = line(&mut heads.iter().copied());
    rows.iter().fold(head, |text, row| text + &line(&mut row.iter().map(String::as_str)))
}

/// A number, or the sign for none.
pub(crate) fn cell(value: Option<impl ToString>) -> String {
    value.map_or(NONE.to_owned(), |value| value.to_string())
}

/// Writes a text; a reader that went away, such as `head`, is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write(text.as_bytes()).map(drop)
}

/// Writes bytes, and tells whether anyone still reads them.
pub(crate) fn write(bytes: &[u8]) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            let failure = Failure::new(Reason::Unexpected, "cannot write to standard output");
            Err(failure.because(error))
        }
    }
}

/// A value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    let line = serde_json::to_string(value).map_err(|error| {
        Failure::new(Reason::Unexpected, "cannot write the result as JSON").because(error)
    })?;
    Ok(line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fruit {
        name: &'static str,
        count: Option<u32>,
    }

    impl Row for Fruit {
        const HEADS: &'static [&'static str] = &["fruit", "count"];

        fn cells(&self) -> Vec<String> {
            vec![self.name.to_owned(), cell(self.count)]
        }
    }

    const FRUIT: [Fruit; 3] = [
        Fruit { name: "plum", count: Some(1200) },
        Fruit { name: "pear\u{1b}[2J", count: Some(7) },
        Fruit { name: "fig", count: None },
    ];

    #[test]
    fn a_terminal_gets_a_table_with_numbers_to_the_right() {
        let shown = text(&FRUIT, false, true).unwrap();
        let expected = "fruit          count\nplum            1200\npear\\u{1b}[2J      7\n\
                        fig                -\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_pipe_gets_bare_lines_with_tabs() {
        let shown = text(&FRUIT, false, false).unwrap();
        assert_eq!(shown, "plum\t1200\npear\\u{1b}[2J\t7\nfig\t-\n");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let shown = text(&FRUIT[1..], true, true).unwrap();
        let expected = "{\"name\":\"pear\\u001b[2J\",\"count\":7}\n\
                        {\"name\":\"fig\",\"count\":null}\n";
        assert_eq!(shown, expected);
    }
}
