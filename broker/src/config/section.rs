//! One section, whose keys are taken one by one; what is left over at the end is unknown.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::file::invalid;
use super::parse::Parse;
use crate::error::{Error, Result};

/// A section being read. Take every key you know, then call [`Section::finish`].
pub struct Section {
    file: PathBuf,
    name: String,
    entries: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl Section {
    pub(super) fn new(file: PathBuf, name: &str, entries: BTreeMap<String, String>) -> Self {
        Self { file, name: name.to_owned(), entries, known: Vec::new() }
    }

    /// The key's value, where it is set; fails where it does not parse.
    pub fn take<T: Parse>(&mut self, key: &'static str) -> Result<Option<T>> {
        self.known.push(key);
        let Some(text) = self.entries.remove(key) else { return Ok(None) };
        match T::parse(&text) {
            Ok(value) => Ok(Some(value)),
            Err(problem) => Err(self.error(key, format!("{text:?} is {problem}"))),
        }
    }

    /// The key's value, or a default where it is not set.
    pub fn take_or<T: Parse>(&mut self, key: &'static str, default: T) -> Result<T> {
        Ok(self.take(key)?.unwrap_or(default))
    }

    /// The key's value; fails where it is not set.
    pub fn require<T: Parse>(&mut self, key: &'static str) -> Result<T> {
        self.take(key)?.ok_or_else(|| self.error(key, "the key is missing"))
    }

    /// One of the named choices; fails with the list of them.
    pub fn choose<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        choices: &[(&str, T)],
    ) -> Result<T> {
        let Some(text) = self.take::<String>(key)? else { return Ok(default) };
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Ok(*choice);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let message = format!("{text:?} is unknown; choose from: {}", names.join(", "));
        Err(self.error(key, message))
    }

    /// Takes all keys that are left, for a backend that hands them on to its client library.
    pub fn take_rest(&mut self) -> BTreeMap<String, String> {
        std::mem::take(&mut self.entries)
    }

    /// Whether the section has no keys left.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An error about a key of this section.
    pub fn error(&self, key: &str, message: impl Into<String>) -> Error {
        invalid(message)
            .with("file", self.file.display())
            .with("section", &self.name)
            .with("key", key)
    }

    /// Fails where a key is left that nobody took.
    pub fn finish(self) -> Result<()> {
        let Some(unknown) = self.entries.keys().next() else { return Ok(()) };
        Err(self.error(unknown, format!("unknown key{}", nearest(unknown, &self.known))))
    }
}

/// A hint at the valid name that is most like an unknown one, or at all of them.
pub(super) fn nearest(unknown: &str, known: &[&str]) -> String {
    let score = |name: &&&str| (strsim::jaro_winkler(unknown, name) * 1e6) as u64;
    match known.iter().max_by_key(score) {
        Some(best) if strsim::jaro_winkler(unknown, best) > 0.7 => {
            format!("; did you mean {best:?}?")
        }
        Some(_) => format!("; valid are: {}", known.join(", ")),
        None => String::new(),
    }
}
