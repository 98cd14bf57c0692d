//! What can go wrong, as far as a caller acts on it.

use std::io;
use std::path::{Path, PathBuf};

use crate::idx;
use crate::preprocess::ImageError;

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. Callers branch on the variant, never on the text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that was named is not there.
    #[error("{path:?} does not exist")]
    MissingFile {
        /// The path as it was given.
        path: PathBuf,
    },
    /// A file is there but can't be read or written.
    #[error("cannot access {path:?}: {source}")]
    Io {
        /// The path as it was given.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The bytes of a model file are damaged or are no model at all.
    #[error("corrupt model {path:?}: {reason}")]
    CorruptModel {
        /// The model file.
        path: PathBuf,
        /// What is wrong with its bytes.
        reason: String,
    },
    /// The bytes of a dataset's file are damaged.
    #[error("bad dataset {path:?}: {defect}")]
    Dataset {
        /// The file.
        path: PathBuf,
        /// What is wrong with its bytes.
        defect: idx::Defect,
    },
    /// An image can't be decoded.
    #[error("bad image: {0}")]
    Image(#[from] ImageError),
    /// A runtime is left out at compile time or its library can't be loaded.
    #[error("runtime {runtime} is missing: {reason}")]
    RuntimeMissing {
        /// The name of the runtime, for example `onnx`.
        runtime: &'static str,
        /// What is missing and how to get it.
        reason: String,
    },
    /// What was asked for is understood but can't be served.
    #[error("unsupported: {reason}")]
    Unsupported {
        /// What was asked for, and what is possible instead.
        reason: String,
    },
    /// A name or number in the configuration is not one of the accepted ones.
    #[error("unknown {what} {value:?}; accepted: {accepted}")]
    UnknownName {
        /// What was to be named, for example `runtime`.
        what: &'static str,
        /// The value that was given.
        value: String,
        /// The accepted values, separated by commas.
        accepted: String,
    },
    /// Something is larger than its limit.
    #[error("{what} is {actual}, the limit is {limit}")]
    LimitExceeded {
        /// What was measured, with its unit.
        what: String,
        /// Its size.
        actual: u64,
        /// The largest size that is accepted.
        limit: u64,
    },
    /// Tensors do not fit each other or the model's signature.
    #[error("invalid tensor: {reason}")]
    InvalidTensor {
        /// Which tensor, and what is wrong with it.
        reason: String,
    },
    /// A runtime failed although model and input were acceptable.
    #[error("runtime {runtime} failed: {reason}")]
    RuntimeFailed {
        /// The name of the runtime, for example `onnx`.
        runtime: &'static str,
        /// What the runtime said.
        reason: String,
    },
}

impl Error {
    /// Turns the failure to open or read `path` into `MissingFile` or `Io`.
    pub fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::MissingFile { path },
            _ => Self::Io { path, source },
        }
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::InvalidTensor { reason: reason.into() }
    }
}
