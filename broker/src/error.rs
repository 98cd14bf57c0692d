//! The one error of the SDK: what failed, on what, and whether to try again.
//!
//! Callers branch on [`Error::kind`] and [`Error::is_retryable`], never on text.

use std::error::Error as StdError;
use std::fmt;

/// What the operations of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of failure that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration is wrong; no retry helps.
    ConfigInvalid,
    /// The topic, partition or group does not exist.
    NotFound,
    /// The topic exists already.
    AlreadyExists,
    /// The broker or the file system refused the caller.
    PermissionDenied,
    /// The backend lacks the capability that was asked for.
    Unsupported,
    /// A message or batch is over a limit.
    TooLarge,
    /// The group has members, and what was asked is only for one that has none.
    InUse,
    /// Another owner took over: the token, member or producer is stale.
    Fenced,
    /// A size bound is reached; try again when readers or retention made room.
    Throttled,
    /// The store's disk is full; what was asked is not written.
    StorageFull,
    /// The operation did not end in time; its effect is unknown.
    Timeout,
    /// The broker cannot be reached.
    Unavailable,
    /// Stored bytes do not parse.
    Corrupt,
    /// The broker or consumer was shut down.
    Closed,
    /// Anything else; the source tells.
    Unexpected,
}

impl ErrorKind {
    /// The kind's name in lower case, as logs and metrics show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigInvalid => "config invalid",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::PermissionDenied => "permission denied",
            Self::Unsupported => "unsupported",
            Self::TooLarge => "too large",
            Self::InUse => "in use",
            Self::Fenced => "fenced",
            Self::Throttled => "throttled",
            Self::StorageFull => "storage full",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Closed => "closed",
            Self::Unexpected => "unexpected",
        }
    }

    /// Whether this kind usually passes by itself.
    fn retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::StorageFull | Self::Timeout | Self::Unavailable)
    }
}

/// A failed operation with its kind, what it was done on, and its cause.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    retryable: bool,
    operation: &'static str,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` met while doing `operation`.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            retryable: kind.retryable(),
            operation,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// Names a thing and its value, such as the topic.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Overrides whether a retry may help, where the backend knows better than the kind.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The operation that failed.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// What went wrong, without the names of the things that it happened to.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The value of a thing that the error names, such as the topic.
    pub fn context(&self, name: &str) -> Option<&str> {
        let mut context = self.0.context.iter();
        context.find(|(thing, _)| *thing == name).map(|(_, value)| value.as_str())
    }

    /// A copy for each message of a batch that failed as a whole; the source becomes text.
    pub(crate) fn duplicate(&self) -> Self {
        let mut copy = Self::new(self.0.kind, self.0.operation, self.0.message.clone());
        copy.0.retryable = self.0.retryable;
        copy.0.context = self.0.context.clone();
        copy.0.source = self.0.source.as_ref().map(|source| source.to_string().into());
        copy
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        write!(f, "{}: {}: {}", inner.operation, inner.kind.as_str(), inner.message)?;
        for (name, value) in &inner.context {
            write!(f, " [{name}: {value}]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
