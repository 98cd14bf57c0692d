//! Redis's errors in the SDK's words.

use redis::{RedisError, ServerError};

use crate::error::{Error, ErrorKind};

/// What our own scripts answer to a member whose lease went to another.
pub(super) const FENCED: &str = "FENCED";
/// What our own scripts answer where a stream is gone.
pub(super) const MISSING: &str = "MISSING";

/// Translates an error of the client or the server.
pub(super) fn translate(operation: &'static str, error: RedisError) -> Error {
    let kind = kind_of(&error);
    let message = match kind {
        ErrorKind::Timeout => "the server did not answer in time".to_owned(),
        ErrorKind::Fenced => "the partition went to another member".to_owned(),
        ErrorKind::NotFound => "the topic or group does not exist".to_owned(),
        _ => describe(&error),
    };
    Error::new(kind, operation, message).with_source(error)
}

/// Translates an error that stands for one command of several.
pub(super) fn from_server(operation: &'static str, error: ServerError) -> Error {
    translate(operation, RedisError::from(error))
}

fn describe(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

fn kind_of(error: &RedisError) -> ErrorKind {
    if let Some(code) = error.code() {
        return kind_of_code(code, error.detail().unwrap_or_default());
    }
    match error.kind() {
        redis::ErrorKind::AuthenticationFailed => ErrorKind::PermissionDenied,
        redis::ErrorKind::InvalidClientConfig | redis::ErrorKind::EmptySentinelList => {
            ErrorKind::ConfigInvalid
        }
        redis::ErrorKind::MasterNameNotFoundBySentinel
        | redis::ErrorKind::NoValidReplicasFoundBySentinel
        | redis::ErrorKind::ClusterConnectionNotFound => ErrorKind::Unavailable,
        redis::ErrorKind::Io if error.is_timeout() => ErrorKind::Timeout,
        // The client library has no kind for it, and trying again won't help.
        redis::ErrorKind::Io if error.to_string().contains("certificate") => {
            ErrorKind::PermissionDenied
        }
        redis::ErrorKind::Io => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    }
}

fn kind_of_code(code: &str, detail: &str) -> ErrorKind {
    match code {
        FENCED => ErrorKind::Fenced,
        MISSING | "NOGROUP" => ErrorKind::NotFound,
        "OOM" => ErrorKind::Throttled,
        // The disk of the append-only file or of a snapshot is full or broken.
        "MISCONF" => ErrorKind::StorageFull,
        "NOAUTH" | "WRONGPASS" | "NOPERM" => ErrorKind::PermissionDenied,
        "READONLY" | "LOADING" | "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK"
        | "NOREPLICAS" | "BUSY" | "UNBLOCKED" => ErrorKind::Unavailable,
        "CROSSSLOT" => ErrorKind::Unsupported,
        "WRONGTYPE" => ErrorKind::Corrupt,
        // An error within a script is told with its own code in the text.
        "ERR" if detail.contains("OOM command not allowed") => ErrorKind::Throttled,
        "ERR" if detail.contains("max number of clients") => ErrorKind::Unavailable,
        "ERR" if detail.contains("no such key") => ErrorKind::NotFound,
        "ERR" if detail.contains("XGROUP subcommand requires the key to exist") => {
            ErrorKind::NotFound
        }
        _ => ErrorKind::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn codes_of_the_server_become_kinds() {
        let rows = [
            (FENCED, "", ErrorKind::Fenced, false),
            (MISSING, "", ErrorKind::NotFound, false),
            ("NOGROUP", "", ErrorKind::NotFound, false),
            (
                "OOM",
                "command not allowed when used memory > 'maxmemory'.",
                ErrorKind::Throttled,
                true,
            ),
            ("MISCONF", "", ErrorKind::StorageFull, true),
            ("NOAUTH", "Authentication required.", ErrorKind::PermissionDenied, false),
            ("WRONGPASS", "", ErrorKind::PermissionDenied, false),
            ("NOPERM", "", ErrorKind::PermissionDenied, false),
            ("READONLY", "", ErrorKind::Unavailable, true),
            ("LOADING", "", ErrorKind::Unavailable, true),
            ("CLUSTERDOWN", "", ErrorKind::Unavailable, true),
            ("MASTERDOWN", "", ErrorKind::Unavailable, true),
            ("NOREPLICAS", "", ErrorKind::Unavailable, true),
            ("CROSSSLOT", "", ErrorKind::Unsupported, false),
            ("WRONGTYPE", "", ErrorKind::Corrupt, false),
            ("ERR", "max number of clients reached", ErrorKind::Unavailable, true),
            ("ERR", "OOM command not allowed, in a script", ErrorKind::Throttled, true),
            ("ERR", "syntax error", ErrorKind::Unexpected, false),
        ];
        for (code, detail, kind, retryable) in rows {
            assert_eq!(kind_of_code(code, detail), kind, "{code} {detail}");
            let error = Error::new(kind, "test", "");
            assert_eq!(error.is_retryable(), retryable, "{code} {detail}");
        }
    }

    #[test]
    fn errors_of_the_client_become_kinds() {
        let of_kind = |kind| RedisError::from((kind, "test"));
        let of_io = |kind| RedisError::from(io::Error::from(kind));
        let rows = [
            (of_kind(redis::ErrorKind::AuthenticationFailed), ErrorKind::PermissionDenied),
            (of_kind(redis::ErrorKind::InvalidClientConfig), ErrorKind::ConfigInvalid),
            (of_kind(redis::ErrorKind::MasterNameNotFoundBySentinel), ErrorKind::Unavailable),
            (of_kind(redis::ErrorKind::ClusterConnectionNotFound), ErrorKind::Unavailable),
            (of_kind(redis::ErrorKind::Parse), ErrorKind::Unexpected),
            (of_io(io::ErrorKind::ConnectionRefused), ErrorKind::Unavailable),
            (of_io(io::ErrorKind::TimedOut), ErrorKind::Timeout),
            (of_io(io::ErrorKind::UnexpectedEof), ErrorKind::Unavailable),
            (
                RedisError::from(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "invalid peer certificate: UnknownIssuer",
                )),
                ErrorKind::PermissionDenied,
            ),
        ];
        for (error, kind) in rows {
            let shown = error.to_string();
            assert_eq!(translate("test", error).kind(), kind, "{shown}");
        }
    }
}
