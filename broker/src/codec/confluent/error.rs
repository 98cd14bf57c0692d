//! From what the registry says, and what keeps it from saying anything, to our errors.

use crate::error::{Error, ErrorKind};

/// A status other than success, with the registry's words.
pub(super) fn refusal(operation: &'static str, status: u16, words: &str) -> Error {
    let kind = match status {
        401 | 403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        408 => ErrorKind::Timeout,
        409 | 422 => ErrorKind::ConfigInvalid,
        413 => ErrorKind::TooLarge,
        429 => ErrorKind::Throttled,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, operation, format!("the schema registry says: {words}")).with("status", status)
}

/// A request without an answer.
pub(super) fn failure(operation: &'static str, error: ureq::Error) -> Error {
    use ureq::Error as E;
    let (kind, message) = match &error {
        E::Timeout(_) => (ErrorKind::Timeout, "the schema registry does not answer in time"),
        E::Io(_) | E::HostNotFound | E::ConnectionFailed | E::Protocol(_) => {
            (ErrorKind::Unavailable, "the schema registry cannot be reached")
        }
        E::Rustls(_) | E::Tls(_) | E::Pem(_) | E::TlsRequired => {
            (ErrorKind::PermissionDenied, "the schema registry's certificate is not trusted")
        }
        E::BadUri(_) | E::Http(_) => (ErrorKind::ConfigInvalid, "the URL is not valid"),
        E::BodyExceedsLimit(_) => {
            (ErrorKind::TooLarge, "the schema registry's answer is too large")
        }
        _ => (ErrorKind::Unexpected, "the request failed"),
    };
    Error::new(kind, operation, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn each_status_is_a_kind_that_says_whether_to_retry() {
        let rows = [
            (401, ErrorKind::PermissionDenied, false),
            (403, ErrorKind::PermissionDenied, false),
            (404, ErrorKind::NotFound, false),
            (408, ErrorKind::Timeout, true),
            (409, ErrorKind::ConfigInvalid, false),
            (413, ErrorKind::TooLarge, false),
            (418, ErrorKind::Unexpected, false),
            (422, ErrorKind::ConfigInvalid, false),
            (429, ErrorKind::Throttled, true),
            (500, ErrorKind::Unavailable, true),
            (503, ErrorKind::Unavailable, true),
        ];
        for (status, kind, retryable) in rows {
            let error = refusal("register schema", status, "some words");
            assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{status}");
            assert!(error.to_string().contains("some words"), "{error}");
        }
    }

    #[test]
    fn each_failure_is_a_kind_that_says_whether_to_retry() {
        let rows = [
            (ureq::Error::Timeout(ureq::Timeout::Global), ErrorKind::Timeout, true),
            (
                ureq::Error::Io(io::ErrorKind::ConnectionRefused.into()),
                ErrorKind::Unavailable,
                true,
            ),
            (ureq::Error::HostNotFound, ErrorKind::Unavailable, true),
            (ureq::Error::ConnectionFailed, ErrorKind::Unavailable, true),
            (ureq::Error::Tls("no certificate"), ErrorKind::PermissionDenied, false),
            (ureq::Error::BadUri("x".into()), ErrorKind::ConfigInvalid, false),
            (ureq::Error::BodyExceedsLimit(1), ErrorKind::TooLarge, false),
            (ureq::Error::TooManyRedirects, ErrorKind::Unexpected, false),
        ];
        for (failed, kind, retryable) in rows {
            let shown = failed.to_string();
            let error = failure("read schema", failed);
            assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{shown}");
        }
    }
}
