//! Training of the CNN: data, distortions, the fit itself with early stopping, and all files that come of it.
//!
//! A run is determined by its settings, its data and the number of threads: every random choice comes from the seed.

mod data;
mod distort;
mod download;
mod error;
mod fit;
mod metrics;
mod outputs;
mod plot;
mod progress;
mod stopping;

pub use data::{Dataset, Examples};
pub use distort::Distortion;
pub use download::{BASE_URLS, cache_folder, fetch};
pub use error::Error;
pub use fit::{Ended, Epoch, Fit, Settings, fit};
pub use metrics::{Confusion, Metrics, Outcome, Split, Versions};
pub use outputs::{run, write_file};
pub use plot::{confusion, curves};
pub use progress::{Observer, Progress, Quiet};

#[cfg(test)]
mod tests;
