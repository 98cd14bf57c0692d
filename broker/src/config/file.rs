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
        let text = std::fs::read_to_string(path).map_err(|error| {
            invalid("the file cannot be read").with("file", path.display()).with_source(error)
        })?;
        Self::parse(path, &text, environment)
    }

    /// Parses a text as [`File::read`] does; `path` only names it in errors.
    pub fn parse(path: &Path, text: &str, environment: &dyn Environment) -> Result<Self> {
        let at = |error: Error| error.with("file", path.display());
        let unreadable = |error| at(invalid("the file is no valid ini").with_source(error));
        let parsed = Config::builder()
            .add_source(config::File::from_str(text, FileFormat::Ini))
            .build()
            .map_err(unreadable)?;
        let raw: BTreeMap<String, config::Value> = parsed.try_deserialize().map_err(unreadable)?;
        let mut sections = BTreeMap::new();
        for (section, table) in raw {
            let entries = read_section(&section, table, environment).map_err(at)?;
            sections.insert(section, entries);
        }
        Ok(Self { path: path.to_owned(), sections, asked: RefCell::default() })
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
) -> Result<BTreeMap<String, String>> {
    let table = table
        .into_table()
        .map_err(|_| invalid("a key stands before the first [section]").with("key", section))?;
    let mut entries = BTreeMap::new();
    for (key, value) in table {
        let named = |error: Error| error.with("section", section).with("key", &key);
        let text = value
            .into_string()
            .map_err(|error| named(invalid("the value is no text").with_source(error)))?;
        entries.insert(key.clone(), expand(&text, environment).map_err(named)?);
    }
    Ok(entries)
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
