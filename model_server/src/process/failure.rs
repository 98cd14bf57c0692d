//! Why a program ended, with an exit code for each reason.

use std::error::Error as StdError;
use std::fmt;
use std::process::ExitCode;

use broker::ErrorKind;

/// What a supervisor may want to tell apart. Codes 1 and 2 are left to the unexpected and to
/// wrong command-line arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Anything else.
    Unexpected = 1,
    /// The ini file or something it names is wrong: exit code 3.
    Config = 3,
    /// The model or a file of the program's own cannot be used: exit code 4.
    Start = 4,
    /// The broker or the result queue cannot be reached, or was lost for too long: exit code 5.
    Broker = 5,
    /// A disk is full: exit code 6.
    StorageFull = 6,
    /// The input to publish cannot be read: exit code 7.
    Input = 7,
    /// Draining took longer than the grace period: exit code 8.
    Grace = 8,
}

impl From<Reason> for ExitCode {
    fn from(reason: Reason) -> Self {
        Self::from(reason as u8)
    }
}

impl From<ErrorKind> for Reason {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::ConfigInvalid | ErrorKind::Unsupported => Self::Config,
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Throttled => Self::Broker,
            ErrorKind::PermissionDenied | ErrorKind::NotFound => Self::Broker,
            ErrorKind::StorageFull => Self::StorageFull,
            _ => Self::Unexpected,
        }
    }
}

/// The end of a program that failed.
#[derive(Debug)]
pub struct Failure {
    reason: Reason,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Failure {
    /// A failure with its cause, if there is one.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), source: None }
    }

    /// Something that the program needs to start is missing or broken.
    pub fn start(
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(Reason::Start, message).because(source)
    }

    /// Keeps the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of end it is.
    pub fn reason(&self) -> Reason {
        self.reason
    }
}

impl fmt::Display for Failure {
    /// The message and every cause, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(source) = cause {
            write!(f, ": {source}")?;
            cause = source.source();
        }
        Ok(())
    }
}

impl StdError for Failure {}

impl From<broker::Error> for Failure {
    fn from(error: broker::Error) -> Self {
        let source = StdError::source(&error).map(ToString::to_string);
        let failure = Self::new(error.kind().into(), error.to_string());
        match source {
            Some(source) => failure.because(source),
            None => failure,
        }
    }
}
