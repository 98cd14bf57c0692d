//! The local store: what was read of each partition, and up to where.
//!
//! Constraints: it is a cache, so whatever is wrong with it is answered by building it anew; a
//! partition's state and its standing change in one atomic batch. Layout: the table `standings`
//! maps a partition's number (u32, big endian) to its [`Standing`] as JSON; the state of a
//! partition is a table of its own, whose name the standing holds, and whose keys begin with one
//! zero byte, because the store has no empty keys. Recovery: a partition without
//! a standing has no state; a table that no standing names is deleted when the cache is opened.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use serde::{Deserialize, Serialize};

use super::error::from_fjall;
use super::record::Id;
use crate::error::{Error, ErrorKind, Result};

const STANDINGS: &str = "standings";
/// The memory for blocks that were read.
const BLOCKS_BYTES_MAX: u64 = 32 << 20;

/// How far a table follows its partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// The name of the table with the state.
    pub(super) table: String,
    /// Which log this is of, and where that says so.
    pub(super) incarnation: Option<(u64, Id)>,
    /// All records below are in the table.
    pub(super) next: u64,
    /// The log is at least so long, since the table has so many records.
    pub(super) reach: u64,
    /// The boot in which this was written: after a loss of power a log may be shorter than what
    /// was read of it.
    pub(super) boot: String,
    /// When the table last had all that was in the log, in seconds on the boot's clock. A table
    /// that never had may miss tombstones that went before they were read.
    pub(super) complete: Option<i64>,
}

/// The open store.
#[derive(Clone)]
pub(super) struct Cache {
    database: Database,
    standings: Keyspace,
}

/// The longest key of a state; the store's keys have 16 bits for their length.
pub(super) const KEY_BYTES_MAX: usize = u16::MAX as usize - 1;

fn stored(key: &[u8]) -> Vec<u8> {
    [&[0], key].concat()
}

/// New values of keys, in order; nothing for a key that goes.
pub(super) type Writes = BTreeMap<Bytes, Option<Bytes>>;

impl Cache {
    /// Opens the store; one that cannot be read is deleted and made anew.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let error = match Self::try_open(path) {
            Err(error) if error.kind() == ErrorKind::Corrupt => error,
            other => return other,
        };
        tracing::warn!(path = %path.display(), %error, "the cache is corrupt and is built anew");
        std::fs::remove_dir_all(path).map_err(|error| from_fjall("open cache", error.into()))?;
        Self::try_open(path)
    }

    fn try_open(path: &Path) -> Result<Self> {
        let at = |error| from_fjall("open cache", error).with("path", path.display());
        if path.exists() && !path.is_dir() {
            let message = "the cache's directory is a file";
            let error = Error::new(ErrorKind::ConfigInvalid, "open cache", message);
            return Err(error.with("path", path.display()));
        }
        std::fs::create_dir_all(path).map_err(|error| at(error.into()))?;
        let database = Database::builder(path).cache_size(BLOCKS_BYTES_MAX).open().map_err(at)?;
        let standings = database.keyspace(STANDINGS, KeyspaceCreateOptions::default).map_err(at)?;
        let cache = Self { database, standings };
        cache.drop_unknown_tables()?;
        Ok(cache)
    }

    fn drop_unknown_tables(&self) -> Result<()> {
        let mut known = vec![STANDINGS.to_owned()];
        for row in self.standings.iter() {
            let value = row.value().map_err(|error| from_fjall("open cache", error))?;
            known.extend(parse(&value).map(|standing| standing.table));
        }
        for name in self.database.list_keyspace_names() {
            if !known.iter().any(|known| *known == *name) {
                self.delete_table(&name)?;
            }
        }
        Ok(())
    }

    fn delete_table(&self, name: &str) -> Result<()> {
        let deleted = self.keyspace(name).and_then(|table| self.database.delete_keyspace(table));
        deleted.map_err(|error| from_fjall("drop cache", error))
    }

    fn keyspace(&self, name: &str) -> fjall::Result<Keyspace> {
        self.database.keyspace(name, KeyspaceCreateOptions::default)
    }

    /// The table that a standing names, or an empty one for a partition without.
    pub(super) fn table(&self, partition: u32, boot: &str) -> Result<Table> {
        let failed = |error| from_fjall("open cache", error);
        let found = self.standings.get(partition.to_be_bytes()).map_err(failed)?;
        let standing = found.and_then(|value| parse(&value));
        let is_new = standing.is_none();
        let standing = standing.unwrap_or_else(|| Standing {
            table: format!("p{partition}-{:016x}", fastrand::u64(..)),
            incarnation: None,
            next: 0,
            reach: 0,
            boot: boot.to_owned(),
            complete: None,
        });
        let state = self.keyspace(&standing.table).map_err(failed)?;
        Ok(Table { cache: self.clone(), partition, state, standing, is_new })
    }
}

fn parse(value: &[u8]) -> Option<Standing> {
    serde_json::from_slice(value).ok()
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

/// The state of one partition.
#[derive(Clone)]
pub(super) struct Table {
    cache: Cache,
    partition: u32,
    state: Keyspace,
    pub(super) standing: Standing,
    /// It has no standing yet, so nothing was ever applied.
    pub(super) is_new: bool,
}

impl Table {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.state.get(stored(key)).map_err(|error| from_fjall("read state", error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The keys that begin with `prefix`, in their order.
    pub(super) fn prefix(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Bytes, Bytes)>> + use<> {
        self.state.prefix(stored(prefix)).map(|row| {
            let (key, value) = row.into_inner().map_err(|error| from_fjall("read state", error))?;
            Ok((Bytes::copy_from_slice(&key[1..]), Bytes::copy_from_slice(&value)))
        })
    }

    /// Writes values and the standing as one; a crash of the process takes neither back.
    pub(super) fn apply(&mut self, writes: &Writes, standing: Standing) -> Result<()> {
        let mut batch = self.batch();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(&self.state, stored(key), &value[..]),
                None => batch.remove(&self.state, stored(key)),
            }
        }
        let failed = |error| from_fjall("write cache", error);
        let value = serde_json::to_vec(&standing).map_err(|error| {
            let message = "a standing has no JSON form";
            Error::new(ErrorKind::Unexpected, "write cache", message).with_source(error)
        })?;
        batch.insert(&self.cache.standings, &self.partition.to_be_bytes()[..], value);
        batch.commit().map_err(failed)?;
        self.standing = standing;
        self.is_new = false;
        Ok(())
    }

    /// Forgets the partition and begins with an empty table.
    pub(super) fn renew(&mut self, boot: &str) -> Result<()> {
        let mut batch = self.batch();
        batch.remove(&self.cache.standings, &self.partition.to_be_bytes()[..]);
        batch.commit().map_err(|error| from_fjall("drop cache", error))?;
        let fresh = self.cache.table(self.partition, boot)?;
        let old = std::mem::replace(self, fresh);
        self.cache.delete_table(&old.standing.table)
    }

    fn batch(&self) -> OwnedWriteBatch {
        self.cache.database.batch().durability(Some(PersistMode::Buffer))
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("standing", &self.standing).finish_non_exhaustive()
    }
}
