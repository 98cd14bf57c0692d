//! The file as a whole.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Config, FileFormat};

use super::section::{Section, nearest};
use crate::error::{Error, ErrorKind, Result};

/// Where `${NAME}` gets its value; `main` passes the process's environment, tests their own.
pub trait Environment {
    /// The variable's value, or none where it is unset.
    fn get(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl Environment for HashMap<&str, &str> {
    fn get(&self, name: &str) -> Option<String> {
        HashMap::get(self, name).map(ToString::to_string)
    }
}

/// A parsed ini file. It remembers which sections were asked for.
pub struct File {
    path: PathBuf,
    sections: BTreeMap<String, BTreeMap<String, String>>,
    asked: RefCell<BTreeSet<String>>,
}

impl File {
    /// Reads and parses a file and puts in the environment's values.
    pub fn read(path: &Path, environment: &dyn Environment) -> Result<Self> {
        let (file, problems) = Self::read_leniently(path, environment)?;
        problems.into_iter().next().map_or(Ok(file), Err)
    }

    /// Reads a file as [`File::parse_leniently`] parses it.
    pub fn read_leniently(
        path: &Path,
        environment: &dyn Environment,
    ) -> Result<(Self, Vec<Error>)> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            invalid("the file cannot be read").with("file", path.display()).with_source(error)
        })?;
        Self::parse_leniently(path, &text, environment)
    }

    /// Parses a text as [`File::read`] does; `path` only names it in errors.
    pub fn parse(path: &Path, text: &str, environment: &dyn Environment) -> Result<Self> {
        let (file, problems) = Self::parse_leniently(path, text, environment)?;
        problems.into_iter().next().map_or(Ok(file), Err)
    }

    /// Parses a text, leaving out the keys whose value cannot be had, each with its error.
    pub fn parse_leniently(
        path: &Path,
        text: &str,
        environment: &dyn Environment,
    ) -> Result<(Self, Vec<Error>)> {
        let at = |error: Error| error.with("file", path.display());
        let unreadable = |error| at(invalid("the file is no valid ini").with_source(error));
        let parsed = Config::builder()
            .add_source(config::File::from_str(text, FileFormat::Ini))
            .build()
            .map_err(unreadable)?;
        let raw: BTreeMap<String, config::Value> = parsed.try_deserialize().map_err(unreadable)?;
        let (mut sections, mut problems) = (BTreeMap::new(), Vec::new());
        for (section, table) in raw {
            let entries = read_section(&section, table, environment, &mut problems);
            sections.insert(section, entries.map_err(at)?);
        }
        let file = Self { path: path.to_owned(), sections, asked: RefCell::default() };
        Ok((file, problems.into_iter().map(at).collect()))
    }

    /// The path it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The section called `name`, empty where the file has none.
    pub fn section(&self, name: &str) -> Section {
        self.asked.borrow_mut().insert(name.to_owned());
        let entries = self.sections.get(name).cloned().unwrap_or_default();
        Section::new(self.path.clone(), name, entries)
    }

    /// Whether the file has a section called `name`.
    pub fn has_section(&self, name: &str) -> bool {
        self.sections.contains_key(name)
    }

    /// Whether the file sets a key.
    pub fn has_key(&self, section: &str, key: &str) -> bool {
        self.sections.get(section).is_some_and(|keys| keys.contains_key(key))
    }

    /// Sets a key, in place of what the file said.
    pub fn set(&mut self, section: &str, key: &str, value: &str) {
        let keys = self.sections.entry(section.to_owned()).or_default();
        keys.insert(key.to_owned(), value.to_owned());
    }

    /// Takes a key away.
    pub fn remove_key(&mut self, section: &str, key: &str) {
        if let Some(keys) = self.sections.get_mut(section) {
            keys.remove(key);
        }
    }

    /// Takes a section away.
    pub fn remove_section(&mut self, name: &str) {
        self.sections.remove(name);
    }

    /// Fails where the file holds a section that nobody asked for; call it last.
    pub fn finish(&self) -> Result<()> {
        let asked = self.asked.borrow();
        let Some(unknown) = self.sections.keys().find(|name| !asked.contains(*name)) else {
            return Ok(());
        };
        let known: Vec<&str> = asked.iter().map(String::as_str).collect();
        let message = format!("unknown section{}", nearest(unknown, &known));
        Err(invalid(message).with("file", self.path.display()).with("section", unknown))
    }
}

impl fmt::Debug for File {
    /// Values may be secrets: only names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.sections.iter().map(|(name, keys)| (name, keys.keys()));
        f.debug_map().entries(names).finish()
    }
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::ConfigInvalid, "read config", message)
}

fn read_section(
    section: &str,
    table: config::Value,
    environment: &dyn Environment,
    problems: &mut Vec<Error>,
) -> Result<BTreeMap<String, String>> {
    let table = table
        .into_table()
        .map_err(|_| invalid("a key stands before the first [section]").with("key", section))?;
    let mut entries = BTreeMap::new();
    // In the order of their names, so that the same file always gives the same error first.
    for (key, value) in table.into_iter().collect::<BTreeMap<_, _>>() {
        match read_value(value, environment) {
            Ok(text) => drop(entries.insert(key, text)),
            Err(error) => problems.push(error.with("section", section).with("key", key)),
        }
    }
    Ok(entries)
}

fn read_value(value: config::Value, environment: &dyn Environment) -> Result<String> {
    let no_text = |error| invalid("the value is no text").with_source(error);
    expand(&value.into_string().map_err(no_text)?, environment)
}

/// Puts in the environment's values: `${NAME}`, or `${NAME:-default}`.
fn expand(text: &str, environment: &dyn Environment) -> Result<String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("${") {
        let Some((name, after)) = tail.split_once('}') else {
            return Err(invalid("a ${ is not closed by }"));
        };
        let (name, default) = match name.split_once(":-") {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (name, None),
        };
        let value = environment
            .get(name)
            .or(default)
            .ok_or_else(|| invalid("the environment variable is not set").with("variable", name))?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}
