//! What can go wrong in training.

use std::io;
use std::path::{Path, PathBuf};

/// An error of training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A dataset or a model file could not be read, or a runtime failed.
    #[error(transparent)]
    Modelling(#[from] crate::Error),
    /// Images and labels do not belong together, or are not the CNN's.
    #[error("unsuitable dataset {path:?}: {reason}")]
    Unsuitable {
        /// The folder or file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A download failed.
    #[error("cannot download {url:?}: {reason}")]
    Download {
        /// What was asked for.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// A download is complete but not what was published.
    #[error("{url:?} has the {algorithm} {actual}, expected {expected}")]
    Checksum {
        /// What was asked for.
        url: String,
        /// `SHA-256` or `MD5`.
        algorithm: &'static str,
        /// The digest of what came.
        actual: String,
        /// The published digest.
        expected: String,
    },
    /// A setting is out of its range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// The setting's name.
        name: &'static str,
        /// The value that was given.
        value: String,
        /// The values that are accepted.
        expected: &'static str,
    },
    /// The loss became infinite or no number before any epoch was finished.
    #[error("training diverged: the validation loss is {loss}")]
    Diverged {
        /// The loss.
        loss: f64,
    },
    /// It was asked to stop before anything was trained.
    #[error("cancelled before training began")]
    Cancelled,
    /// libtorch failed.
    #[error("libtorch failed: {0}")]
    Torch(#[from] tch::TchError),
    /// A diagram could not be drawn.
    #[error("cannot draw {path:?}: {reason}")]
    Plot {
        /// The file that it was for.
        path: PathBuf,
        /// What the drawing library said.
        reason: String,
    },
    /// A file could not be written.
    #[error("cannot write {path:?}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn unsuitable(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unsuitable { path: path.to_owned(), reason: reason.into() }
    }

    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}
