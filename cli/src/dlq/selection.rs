//! Which dead letters are meant.

use std::collections::BTreeSet;

use broker::{Delivery, Message, Position};
use model_server::prediction;
use regex::bytes::Regex;

/// The header with the cause.
const REASON: &str = "dead-letter-reason";

/// Which dead letters are meant.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Selection {
    /// Letters by their id, or by their place as PARTITION:OFFSET
    #[arg(value_name = "LETTER", conflicts_with = "all")]
    letters: Vec<String>,
    /// All open letters
    #[arg(long)]
    all: bool,
    /// Letters whose cause matches a regular expression
    #[arg(long, value_name = "REGEX", conflicts_with = "all")]
    reason: Option<Regex>,
}

impl Selection {
    /// Whether a letter is meant.
    pub(super) fn takes(&self, letter: &Delivery) -> bool {
        self.takes_message(letter.message(), letter.position())
    }

    fn takes_message(&self, letter: &Message, position: Position) -> bool {
        let cause = || letter.headers.get(REASON).unwrap_or_default();
        self.all
            || self.named(letter, position).is_some()
            || self.reason.as_ref().is_some_and(|reason| reason.is_match(cause()))
    }

    /// The name that was given for this letter.
    fn named(&self, letter: &Message, position: Position) -> Option<&String> {
        let (place, id) = (position.to_string(), letter.headers.get_str(prediction::ID));
        self.letters.iter().find(|name| **name == place || Some(name.as_str()) == id)
    }

    /// The names that were given, from which those of the letters seen are taken.
    pub(super) fn names(&self) -> Missing<'_> {
        Missing { selection: self, names: self.letters.iter().collect() }
    }
}

/// Names that no letter was seen for.
pub(super) struct Missing<'a> {
    selection: &'a Selection,
    names: BTreeSet<&'a String>,
}

impl Missing<'_> {
    pub(super) fn see(&mut self, letter: &Delivery) {
        let (position, id) =
            (letter.position().to_string(), letter.headers.get_str(prediction::ID));
        self.names.retain(|name| **name != position && Some(name.as_str()) != id);
    }

    pub(super) fn left(&self) -> Vec<String> {
        let given = self.selection.letters.iter();
        given.filter(|name| self.names.contains(name)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(letters: &[&str], reason: Option<&str>) -> Selection {
        Selection {
            letters: letters.iter().map(ToString::to_string).collect(),
            all: false,
            reason: reason.map(|reason| Regex::new(reason).unwrap()),
        }
    }

    #[test]
    fn letters_are_chosen_by_id_place_and_cause() {
        let letter =
            Message::new("x").with_header("id", "a-7").with_header(REASON, "no image: GIF");
        let place = Position::new(0, 12);
        let check = |selection: Selection, expected: bool| {
            assert_eq!(selection.takes_message(&letter, place), expected, "{selection:?}");
        };
        check(selection(&["a-7"], None), true);
        check(selection(&["b", "0:12"], None), true);
        check(selection(&["0:1", "a"], None), false);
        check(selection(&[], Some("GIF$")), true);
        check(selection(&["0:12"], Some("PNG")), true);
        check(selection(&[], Some("PNG")), false);
        check(Selection { all: true, ..selection(&[], None) }, true);
    }
}
