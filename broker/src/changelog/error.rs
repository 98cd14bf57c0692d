//! The local store's errors in the SDK's words.

use crate::error::{Error, ErrorKind};

/// Translates an error of the local store.
pub(super) fn from_fjall(operation: &'static str, error: fjall::Error) -> Error {
    Error::new(kind(&error), operation, format!("the cache failed: {error}")).with_source(error)
}

fn kind(error: &fjall::Error) -> ErrorKind {
    use fjall::Error as E;
    match error {
        E::Io(error) => io_kind(error),
        E::Storage(fjall::LsmError::Io(error)) => io_kind(error),
        E::Locked => ErrorKind::InUse,
        E::Poisoned => ErrorKind::Unavailable,
        E::KeyspaceDeleted => ErrorKind::Closed,
        E::Storage(_)
        | E::JournalRecovery(_)
        | E::InvalidVersion(_)
        | E::Decompress(_)
        | E::InvalidTrailer
        | E::InvalidTag(_)
        | E::Unrecoverable => ErrorKind::Corrupt,
        _ => ErrorKind::Unexpected,
    }
}

fn io_kind(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as I;
    match error.kind() {
        I::StorageFull | I::QuotaExceeded => ErrorKind::StorageFull,
        I::PermissionDenied | I::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        // A file that is cut off or gone, or holds what it should not, such as a place beyond
        // its end.
        I::UnexpectedEof
        | I::NotFound
        | I::InvalidData
        | I::InvalidInput
        | I::NotADirectory
        | I::IsADirectory => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_store_become_kinds() {
        let io = |kind: std::io::ErrorKind| fjall::Error::Io(kind.into());
        let rows = [
            (fjall::Error::Locked, ErrorKind::InUse, false),
            (fjall::Error::Poisoned, ErrorKind::Unavailable, true),
            (fjall::Error::KeyspaceDeleted, ErrorKind::Closed, false),
            (fjall::Error::InvalidVersion(None), ErrorKind::Corrupt, false),
            (fjall::Error::InvalidTrailer, ErrorKind::Corrupt, false),
            (fjall::Error::InvalidTag(("x", 9)), ErrorKind::Corrupt, false),
            (fjall::Error::Unrecoverable, ErrorKind::Corrupt, false),
            (io(std::io::ErrorKind::UnexpectedEof), ErrorKind::Corrupt, false),
            (io(std::io::ErrorKind::InvalidInput), ErrorKind::Corrupt, false),
            (io(std::io::ErrorKind::StorageFull), ErrorKind::StorageFull, true),
            (io(std::io::ErrorKind::PermissionDenied), ErrorKind::PermissionDenied, false),
            (io(std::io::ErrorKind::Other), ErrorKind::Unavailable, true),
        ];
        for (error, kind, retryable) in rows {
            let shown = format!("{error:?}");
            let error = from_fjall("test", error);
            assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{shown}");
        }
    }
}
