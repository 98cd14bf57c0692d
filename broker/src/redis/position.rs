//! Entry ids as offsets.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// How many bits of an offset count the entries of one millisecond.
const SEQUENCE_BITS: u32 = 20;
/// The largest sequence that fits.
const SEQUENCE_MAX: u64 = (1 << SEQUENCE_BITS) - 1;
/// From this sequence on a stream is moved to the next millisecond. So many entries get one
/// time only where the server's clock was set back.
const SEQUENCE_LIMIT: u64 = 1 << (SEQUENCE_BITS - 1);

/// The id of an entry: when it was added, and its number within that millisecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId {
    pub(super) millis: u64,
    pub(super) sequence: u64,
}

impl EntryId {
    /// Before every entry.
    pub(super) const ZERO: Self = Self { millis: 0, sequence: 0 };

    /// The id that an offset stands for.
    pub(super) const fn of(offset: u64) -> Self {
        Self { millis: offset >> SEQUENCE_BITS, sequence: offset & SEQUENCE_MAX }
    }

    /// The first id of a millisecond.
    pub(super) const fn first_of(millis: u64) -> Self {
        Self { millis, sequence: 0 }
    }

    /// The offset of this id; `Corrupt` for one of a foreign client that does not fit.
    pub(super) fn offset(self) -> Result<u64> {
        if self.sequence > SEQUENCE_MAX || self.millis >= 1 << (u64::BITS - SEQUENCE_BITS) {
            let problem = format!("the entry id {self} does not fit into an offset");
            return Err(Error::new(ErrorKind::Corrupt, "read entry", problem));
        }
        Ok(self.millis << SEQUENCE_BITS | self.sequence)
    }

    /// The offset behind this id, where the next entry can be at the earliest; zero where
    /// there never was an entry.
    pub(super) fn end(self) -> Result<u64> {
        match (self.millis, self.sequence) {
            (0, 0) => Ok(0),
            (millis, u64::MAX) => Self::first_of(millis + 1).offset(),
            _ => Ok(self.offset()? + 1),
        }
    }

    /// The greatest id before this one.
    pub(super) const fn before(self) -> Self {
        match (self.millis, self.sequence) {
            (0, 0) => self,
            (millis, 0) => Self { millis: millis - 1, sequence: u64::MAX },
            (millis, sequence) => Self { millis, sequence: sequence - 1 },
        }
    }

    /// The least id behind this one.
    pub(super) const fn next(self) -> Self {
        match self.sequence.checked_add(1) {
            Some(sequence) => Self { millis: self.millis, sequence },
            None => Self { millis: self.millis + 1, sequence: 0 },
        }
    }

    /// Whether the stream must be moved on for offsets to stay unique.
    pub(super) const fn is_crowded(self) -> bool {
        self.sequence >= SEQUENCE_LIMIT
    }

    /// Reads `ms-seq`.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (millis, sequence) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { millis: millis.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_offsets_stand_for_each_other() {
        for (text, offset) in
            [("0-1", 1), ("1-0", 1 << 20), ("1763712345678-9", 1_763_712_345_678 << 20 | 9)]
        {
            let id = EntryId::parse(text.as_bytes()).unwrap();
            assert_eq!((id.to_string(), id.offset().unwrap()), (text.to_owned(), offset));
            assert_eq!(EntryId::of(offset), id);
        }
    }

    #[test]
    fn offsets_ascend_as_ids_do() {
        let ids = ["0-1", "0-2", "1-0", "1-1048575", "2-0", "1763712345678-0"];
        let offsets = ids.map(|id| EntryId::parse(id.as_bytes()).unwrap().offset().unwrap());
        assert!(offsets.is_sorted(), "{offsets:?}");
    }

    #[test]
    fn ids_that_do_not_fit_are_corrupt() {
        for text in ["1-1048576", "17592186044416-0"] {
            let error = EntryId::parse(text.as_bytes()).unwrap().offset().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(text), "{error}");
        }
        for text in ["", "1", "a-1", "1-", "-1"] {
            assert_eq!(EntryId::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_id_before_another_is_less_by_nothing_in_between() {
        let id = |text: &str| EntryId::parse(text.as_bytes()).unwrap();
        assert_eq!(id("5-7").before(), id("5-6"));
        assert_eq!(id("5-0").before(), id("4-18446744073709551615"));
        assert_eq!(EntryId::ZERO.before(), EntryId::ZERO);
        assert_eq!(id("5-6").next(), id("5-7"));
        assert_eq!(id("4-18446744073709551615").next(), id("5-0"));
    }

    #[test]
    fn an_end_is_where_the_next_entry_can_be() {
        assert_eq!(EntryId::ZERO.end().unwrap(), 0);
        for offset in [2, 1 << 20, 7 << 20 | 3] {
            assert_eq!(EntryId::of(offset).before().end().unwrap(), offset);
        }
    }

    #[test]
    fn a_stream_is_crowded_long_before_its_offsets_run_out() {
        assert!(!EntryId { millis: 1, sequence: 1000 }.is_crowded());
        assert!(EntryId { millis: 1, sequence: 600_000 }.is_crowded());
    }
}
