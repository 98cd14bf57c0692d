//! Ini files under construction.

use std::collections::BTreeMap;
use std::fmt;

/// Sections, each with keys and values.
#[derive(Debug, Clone, Default)]
pub struct Ini {
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Ini {
    /// Sets a key, in place of what it was.
    pub fn set(&mut self, section: &str, key: &str, value: impl fmt::Display) -> &mut Self {
        let keys = self.sections.entry(section.to_owned()).or_default();
        keys.insert(key.to_owned(), value.to_string());
        self
    }

    /// The value of a key that was set.
    pub fn get(&self, section: &str, key: &str) -> &str {
        &self.sections[section][key]
    }
}

impl fmt::Display for Ini {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (section, keys) in &self.sections {
            writeln!(f, "[{section}]")?;
            for (key, value) in keys {
                writeln!(f, "{key} = {value}")?;
            }
        }
        Ok(())
    }
}
