//! The command line.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::ArgGroup;

use crate::catalogue::Sources;

/// How many publications a second `--rate` is spread over.
const STEPS_PER_SECOND: usize = 20;
/// What an id needs beside the run's: a hyphen and the largest index.
const INDEX_LENGTH_MAX: usize = 21;
const RUN_ID_LENGTH_MAX: usize = model_server::prediction::ID_LENGTH_MAX - INDEX_LENGTH_MAX;

/// What to publish, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(group = ArgGroup::new("input").required(true).multiple(true))]
pub struct Options {
    /// Directories, image files, IDX files, or - for standard input
    #[arg(value_name = "SOURCE", group = "input")]
    pub sources: Vec<PathBuf>,
    /// A file with one more SOURCE on each line, or - for standard input
    #[arg(long, value_name = "FILE", group = "input")]
    pub files_from: Option<PathBuf>,
    /// Draws this many digits, and publishes them before the sources
    #[arg(long, value_name = "N", group = "input")]
    pub samples: Option<NonZeroU64>,
    /// Which series of samples to draw
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// The labels of the IDX file; default: its sibling labels-idx1, where there is one
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Images per second; default: as fast as the broker takes them
    #[arg(long, value_name = "N")]
    pub rate: Option<NonZeroU32>,
    /// Begins again after the last image
    #[arg(long = "loop")]
    pub again: bool,
    /// Stops after this many images, counting those of runs that --resume goes on from
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// How many keys there are: image i has the key key-{i % N}, and order holds for each key
    #[arg(long, value_name = "N", default_value = "16")]
    pub keys: NonZeroU32,
    /// The most images that are published at once
    #[arg(long, value_name = "N", default_value = "256")]
    pub batch: NonZeroUsize,
    /// What ids begin with; default: made of time and process id
    #[arg(long, value_name = "ID", value_parser = run_id)]
    pub run_id: Option<String>,
    /// Remembers in this file how far it got, and goes on from there with the same ids; the
    /// sources must be the same. The batch in which it was killed is published again
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
}

impl Options {
    /// The index behind the last image, for `len` images in the sources; none without end.
    pub(crate) fn end(&self, len: u64) -> Option<u64> {
        match (self.again, self.count) {
            (true, count) => count,
            (false, count) => Some(count.map_or(len, |count| count.min(len))),
        }
    }

    /// The most images at once; fewer where a rate would make large batches come in bursts.
    pub(crate) fn batch_max(&self) -> usize {
        let batch = self.batch.get();
        let step = |rate: NonZeroU32| (rate.get() as usize / STEPS_PER_SECOND).clamp(1, batch);
        self.rate.map_or(batch, step)
    }

    pub(crate) fn sources(self) -> Sources {
        Sources {
            paths: self.sources,
            files_from: self.files_from,
            labels: self.labels,
            samples: self.samples.map_or(0, NonZeroU64::get),
            seed: self.seed,
        }
    }
}

fn run_id(text: &str) -> Result<String, String> {
    let allowed = |c: char| !c.is_control() && !c.is_whitespace();
    if text.is_empty() || text.len() > RUN_ID_LENGTH_MAX || !text.chars().all(allowed) {
        return Err(format!("expected 1 to {RUN_ID_LENGTH_MAX} bytes without spaces"));
    }
    Ok(text.to_owned())
}
