//! The `[embedded]` section.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{ByteSize, Section};
use crate::error::Result;

/// How safe a commit is when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Synced to the disk: survives a power loss.
    Full,
    /// Handed to the operating system: survives a crash of the process, while a power loss
    /// may take the last commits.
    Normal,
}

/// Where the store is and how it behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The store's directory; made where it is missing.
    pub directory: PathBuf,
    /// How safe a commit is.
    pub durability: Durability,
    /// How long a member may be silent before its partitions go to others. A member whose
    /// process died is noticed at once.
    pub session_timeout: Duration,
    /// The most bytes of key, payload and headers in one message.
    pub message_bytes_max: usize,
    /// How long topics keep messages unless they say otherwise.
    pub retention: Duration,
    /// How many bytes each partition keeps unless its topic says otherwise. Publishing is
    /// throttled at twice this, where retention has not caught up.
    pub retention_bytes: u64,
    /// How long a compacted topic keeps a tombstone, so that readers learn that its key is gone.
    pub tombstone_retention: Duration,
}

impl Config {
    /// The defaults, in a directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            durability: Durability::Full,
            session_timeout: Duration::from_secs(10),
            message_bytes_max: 1 << 20,
            retention: Duration::from_secs(7 * 24 * 3600),
            retention_bytes: 1 << 30,
            tombstone_retention: Duration::from_secs(24 * 3600),
        }
    }

    /// Reads and checks the section `[embedded]`; does no I/O.
    pub fn from_section(mut section: Section) -> Result<Self> {
        let default = Self::new(section.require::<PathBuf>("directory")?);
        let size = |bytes: usize| ByteSize(bytes as u64);
        let message_max = section.take_or("message.max.bytes", size(default.message_bytes_max))?;
        let durability = [("full", Durability::Full), ("normal", Durability::Normal)];
        let config = Self {
            durability: section.choose("durability", default.durability, &durability)?,
            session_timeout: section.take_or("session.timeout", default.session_timeout)?,
            message_bytes_max: usize::try_from(message_max.0).unwrap_or(usize::MAX),
            retention: section.take_or("retention", default.retention)?,
            retention_bytes: section
                .take_or("retention.bytes", ByteSize(default.retention_bytes))?
                .0,
            tombstone_retention: section
                .take_or("tombstone.retention", default.tombstone_retention)?,
            ..default
        };
        section.finish()?;
        Ok(config)
    }
}
