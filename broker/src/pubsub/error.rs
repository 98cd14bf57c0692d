//! What Google's client reports, as errors of the contract.

use std::error::Error as StdError;
use std::sync::Arc;

use google_cloud_gax::client_builder::Error as BuilderError;
use google_cloud_gax::error::rpc::Code;
use google_cloud_gax::error::{CredentialsError, Error as GoogleError};
use google_cloud_pubsub::error::{AckError, PublishError};

use crate::contract::Published;
use crate::error::{Error, ErrorKind};

/// Translates an error met while doing `operation`.
pub(super) fn translate(operation: &'static str, error: GoogleError) -> Error {
    describe(operation, &error).with_source(error)
}

/// A client that cannot be built: its credentials or its address are wrong.
pub(super) fn unbuilt(error: BuilderError) -> Error {
    let problem = if error.is_default_credentials() {
        "there are no credentials; name a key file by the key credentials"
    } else {
        "the client cannot be built"
    };
    Error::new(ErrorKind::ConfigInvalid, "connect", problem).with_source(error)
}

/// What became of a message whose publishing failed.
pub(super) fn unpublished(error: PublishError) -> Published {
    match error {
        PublishError::Rpc(error) => {
            let translated = describe("publish", &error).with_source(error.clone());
            if is_refusal(&error) {
                return Published::NotWritten(translated);
            }
            Published::Unknown(translated)
        }
        PublishError::OrderingKeyPaused => {
            let problem = "an earlier message of the key failed";
            Published::NotWritten(Error::new(ErrorKind::Unavailable, "publish", problem))
        }
        error => {
            let problem = "the client was closed";
            Published::Unknown(Error::new(ErrorKind::Closed, "publish", problem).with_source(error))
        }
    }
}

/// An acknowledgement that was not confirmed. The message may come again, and with it another
/// token, so that trying again with this one helps nobody.
pub(super) fn unacknowledged(error: AckError) -> Error {
    let translated = match &error {
        AckError::Rpc { source, .. } => describe("settle", source),
        AckError::LeaseExpired => {
            Error::new(ErrorKind::Fenced, "settle", "the lease of the message has run out")
        }
        _ => Error::new(ErrorKind::Closed, "settle", "the consumer was shut down"),
    };
    translated.with_retryable(false).with_source(error)
}

fn describe(operation: &'static str, error: &GoogleError) -> Error {
    if let Some(status) = error.status() {
        let kind = kind_of(status.code);
        let code = status.code.name().to_ascii_lowercase().replace('_', " ");
        let text = if status.message.is_empty() { code } else { lower(&status.message) };
        let passes = matches!(status.code, Code::Internal | Code::Unknown | Code::Aborted);
        let translated = Error::new(kind, operation, text);
        return if passes { translated.with_retryable(true) } else { translated };
    }
    if let Some(error) = credentials_error(error) {
        let problem = "no access token can be had";
        let translated = Error::new(ErrorKind::PermissionDenied, operation, problem);
        return translated.with_retryable(error.is_transient());
    }
    let (kind, problem) = if error.is_timeout() || error.is_exhausted() {
        (ErrorKind::Timeout, "no answer came in time")
    } else if error.is_serialization() || error.is_deserialization() {
        (ErrorKind::Unexpected, "the request or the answer does not parse")
    } else {
        match error.http_status_code() {
            Some(code) => (kind_of_http(code), "the service refused the request"),
            None => (ErrorKind::Unavailable, "the service cannot be reached"),
        }
    };
    Error::new(kind, operation, problem)
}

fn credentials_error(error: &GoogleError) -> Option<&CredentialsError> {
    error.source()?.downcast_ref()
}

fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::PermissionDenied,
        Code::ResourceExhausted => ErrorKind::Throttled,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Unavailable | Code::Aborted => ErrorKind::Unavailable,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::ConfigInvalid,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::DataLoss => ErrorKind::Corrupt,
        Code::Cancelled => ErrorKind::Closed,
        _ => ErrorKind::Unexpected,
    }
}

/// Answers of what stands between us and the service, which knows no codes of Pub/Sub.
fn kind_of_http(code: u16) -> ErrorKind {
    match code {
        401 | 403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        408 | 504 => ErrorKind::Timeout,
        413 => ErrorKind::TooLarge,
        429 => ErrorKind::Throttled,
        502 | 503 => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    }
}

/// Whether the service said no, or was never asked: then nothing is written.
fn is_refusal(error: &Arc<GoogleError>) -> bool {
    let Some(status) = error.status() else { return error.is_transient_and_before_rpc() };
    matches!(
        status.code,
        Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::ResourceExhausted
            | Code::InvalidArgument
            | Code::OutOfRange
            | Code::FailedPrecondition
            | Code::Unimplemented
    )
}

/// Messages of ours begin with a small letter.
fn lower(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}

#[cfg(test)]
mod tests {
    use google_cloud_gax::error::rpc::Status;

    use super::*;

    fn service(code: Code) -> GoogleError {
        GoogleError::service(Status::default().set_code(code).set_message("No such luck"))
    }

    #[test]
    fn each_code_has_its_kind_and_says_whether_to_retry() {
        let rows = [
            (Code::NotFound, ErrorKind::NotFound, false),
            (Code::AlreadyExists, ErrorKind::AlreadyExists, false),
            (Code::PermissionDenied, ErrorKind::PermissionDenied, false),
            (Code::Unauthenticated, ErrorKind::PermissionDenied, false),
            (Code::ResourceExhausted, ErrorKind::Throttled, true),
            (Code::DeadlineExceeded, ErrorKind::Timeout, true),
            (Code::Unavailable, ErrorKind::Unavailable, true),
            (Code::Aborted, ErrorKind::Unavailable, true),
            (Code::InvalidArgument, ErrorKind::ConfigInvalid, false),
            (Code::OutOfRange, ErrorKind::ConfigInvalid, false),
            (Code::Unimplemented, ErrorKind::Unsupported, false),
            (Code::DataLoss, ErrorKind::Corrupt, false),
            (Code::Cancelled, ErrorKind::Closed, false),
            (Code::FailedPrecondition, ErrorKind::Unexpected, false),
            (Code::Internal, ErrorKind::Unexpected, true),
            (Code::Unknown, ErrorKind::Unexpected, true),
        ];
        for (code, kind, retryable) in rows {
            let error = translate("publish", service(code));
            assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{code:?}");
            assert!(error.to_string().contains("no such luck"), "{error}");
        }
    }

    #[test]
    fn errors_without_a_code_have_a_kind_too() {
        let http = |code| GoogleError::http(code, Default::default(), bytes::Bytes::new());
        let token = |passes| GoogleError::authentication(CredentialsError::from_msg(passes, "no"));
        let rows = [
            (GoogleError::timeout("late"), ErrorKind::Timeout, true),
            (GoogleError::exhausted("late"), ErrorKind::Timeout, true),
            (GoogleError::connect("refused"), ErrorKind::Unavailable, true),
            (GoogleError::io("reset"), ErrorKind::Unavailable, true),
            (GoogleError::deser("cut"), ErrorKind::Unexpected, false),
            (token(true), ErrorKind::PermissionDenied, true),
            (token(false), ErrorKind::PermissionDenied, false),
            (http(401), ErrorKind::PermissionDenied, false),
            (http(403), ErrorKind::PermissionDenied, false),
            (http(404), ErrorKind::NotFound, false),
            (http(413), ErrorKind::TooLarge, false),
            (http(429), ErrorKind::Throttled, true),
            (http(503), ErrorKind::Unavailable, true),
            (http(504), ErrorKind::Timeout, true),
            (http(500), ErrorKind::Unexpected, false),
        ];
        for (error, kind, retryable) in rows {
            let shown = error.to_string();
            let error = translate("publish", error);
            assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{shown}");
        }
    }

    #[test]
    fn only_what_the_service_refused_is_surely_not_written() {
        let rows = [
            (service(Code::NotFound), true),
            (service(Code::PermissionDenied), true),
            (service(Code::ResourceExhausted), true),
            (GoogleError::connect("refused"), true),
            (service(Code::Unavailable), false),
            (service(Code::DeadlineExceeded), false),
            (service(Code::Internal), false),
            (GoogleError::timeout("late"), false),
            (GoogleError::io("reset"), false),
        ];
        for (error, refused) in rows {
            let shown = error.to_string();
            let became = unpublished(PublishError::Rpc(Arc::new(error)));
            assert_eq!(matches!(became, Published::NotWritten(_)), refused, "{shown}");
        }
        let paused = unpublished(PublishError::OrderingKeyPaused);
        assert!(matches!(paused, Published::NotWritten(error) if error.is_retryable()));
        let closed = unpublished(PublishError::Shutdown);
        assert!(matches!(closed, Published::Unknown(error) if error.kind() == ErrorKind::Closed));
    }

    #[test]
    fn an_unconfirmed_acknowledgement_is_not_worth_another_try() {
        let error = unacknowledged(AckError::LeaseExpired);
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Fenced, false));
        let error = unacknowledged(AckError::ShutdownBeforeAck);
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Closed, false));
    }
}
