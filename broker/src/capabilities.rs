//! What a backend can do, as plain data.

use crate::error::{Error, ErrorKind, Result};

/// What a backend can do. Asking for what is absent answers `Unsupported`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The backend's name, as in `[broker] kind`.
    pub backend: &'static str,
    /// Topics have numbered partitions, and equal keys share one.
    pub partitions: bool,
    /// A consumer can start at, and seek to, an offset.
    pub offset_seek: bool,
    /// A single message can be read again by its position.
    pub read_at: bool,
    /// Topics can keep only the last message of each key.
    pub compaction: bool,
    /// The distance of a group from a topic's end is known.
    pub lag: bool,
    /// Publishing and settling can be one atomic step.
    pub transactions: bool,
    /// Whether the count of deliveries survives a crash of the consumer.
    pub attempts: Attempts,
    /// What a message survives once its receipt says [`Published::Written`].
    ///
    /// [`Published::Written`]: crate::Published::Written
    pub durability: Durability,
    /// The most bytes of key, payload and headers in one message.
    pub message_bytes_max: usize,
}

/// What stored messages survive, as the backend is configured or was found when connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// They go with the server's process.
    Memory,
    /// They survive the server's process; a loss of power may take the last of them.
    Process,
    /// They survive a loss of power: they are synced to disk before the receipt.
    Disk,
    /// They survive a server: others hold them too, as many as the server was set up for.
    Replicas,
}

/// How well deliveries are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempts {
    /// The count survives crashes of the consumer.
    Durable,
    /// A crash of the consumer may start the count anew.
    Approximate,
}

impl Capabilities {
    /// Fails with `Unsupported`, naming the backend and the feature, where `has` is false.
    pub fn require(&self, has: bool, feature: &'static str) -> Result<()> {
        if has {
            return Ok(());
        }
        let message = format!("the {} broker has no {feature}", self.backend);
        Err(Error::new(ErrorKind::Unsupported, "require", message))
    }
}
