//! SQLite's and the file system's errors in the SDK's words.

use rusqlite::ErrorCode;

use crate::error::{Error, ErrorKind};

/// Translates an error of SQLite.
pub(super) fn from_sqlite(operation: &'static str, error: rusqlite::Error) -> Error {
    let kind = match &error {
        rusqlite::Error::SqliteFailure(failure, _) => kind_of(failure),
        rusqlite::Error::QueryReturnedNoRows => ErrorKind::NotFound,
        _ => ErrorKind::Unexpected,
    };
    let message = match kind {
        ErrorKind::StorageFull => "the disk of the store is full".to_owned(),
        _ => error.to_string(),
    };
    Error::new(kind, operation, message).with_source(error)
}

fn kind_of(failure: &rusqlite::ffi::Error) -> ErrorKind {
    use rusqlite::ffi::{SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE};
    match failure.code {
        ErrorCode::DiskFull => ErrorKind::StorageFull,
        // Growing the shared index fails in this way where the disk is full.
        ErrorCode::SystemIoFailure
            if matches!(failure.extended_code, SQLITE_IOERR_SHMSIZE | SQLITE_IOERR_WRITE) =>
        {
            ErrorKind::StorageFull
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => ErrorKind::Unavailable,
        ErrorCode::SystemIoFailure => ErrorKind::Unavailable,
        ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen => {
            ErrorKind::PermissionDenied
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => ErrorKind::Corrupt,
        ErrorCode::TooBig => ErrorKind::TooLarge,
        _ => ErrorKind::Unexpected,
    }
}

/// Translates an error of the file system.
pub(super) fn from_io(operation: &'static str, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            ErrorKind::StorageFull
        }
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::PermissionDenied
        }
        std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists => {
            ErrorKind::ConfigInvalid
        }
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, operation, error.to_string()).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_codes_become_kinds() {
        use rusqlite::ffi::*;
        let rows = [
            (SQLITE_FULL, ErrorKind::StorageFull, true),
            (SQLITE_IOERR_SHMSIZE, ErrorKind::StorageFull, true),
            (SQLITE_IOERR_READ, ErrorKind::Unavailable, true),
            (SQLITE_BUSY, ErrorKind::Unavailable, true),
            (SQLITE_CANTOPEN, ErrorKind::PermissionDenied, false),
            (SQLITE_READONLY, ErrorKind::PermissionDenied, false),
            (SQLITE_NOTADB, ErrorKind::Corrupt, false),
            (SQLITE_CORRUPT, ErrorKind::Corrupt, false),
            (SQLITE_TOOBIG, ErrorKind::TooLarge, false),
            (SQLITE_MISUSE, ErrorKind::Unexpected, false),
        ];
        for (code, kind, retryable) in rows {
            let failure = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            let error = from_sqlite("test", failure);
            assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "code {code}");
        }
    }
}
