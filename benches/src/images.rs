//! The images that all sides get: MNIST's test images, or digits that Forebay draws.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use modelling::preprocess::{self, Limits, PIXELS, SIDE};
use modelling::{idx, samples};

/// How many digits are drawn where MNIST is absent.
const DRAWN: u64 = 2_000;
const SEED: u64 = 1;
/// The magic number of a file of images.
const IDX_IMAGES: u32 = 0x0803;

/// Grey images of 28x28 with their labels, taken again from the first one when they end.
pub(crate) struct Images {
    pub(crate) source: &'static str,
    all: Vec<(Bytes, u8)>,
}

impl Images {
    /// MNIST from `$FOREBAY_DATA/mnist`, by default beside the checkout, else drawn digits.
    pub(crate) fn load() -> Result<Self> {
        let data = std::env::var_os("FOREBAY_DATA").map(PathBuf::from);
        let folder = data.unwrap_or_else(|| PathBuf::from("../shared/data")).join("mnist");
        let (images, labels) =
            (folder.join("t10k-images-idx3-ubyte.gz"), folder.join("t10k-labels-idx1-ubyte.gz"));
        if !images.is_file() {
            eprintln!("{} is not there: digits are drawn", images.display());
            return Self::draw();
        }
        let (images, labels) = (idx::Images::open(&images)?, idx::labels(&labels)?);
        anyhow::ensure!(images.len() == labels.len(), "MNIST has not a label for each image");
        let images = images.iter().map(Bytes::copy_from_slice);
        Ok(Self { source: "the 10,000 test images of MNIST", all: images.zip(labels).collect() })
    }

    fn draw() -> Result<Self> {
        let draw = |index| {
            let sample = samples::draw(SEED, index);
            let mut pixels = [0.0; PIXELS];
            let limits = Limits::default();
            preprocess::preprocess(&sample.bytes, None, &limits, &mut pixels)?;
            let grey: Vec<u8> = pixels.iter().map(|pixel| (pixel * 255.0).round() as u8).collect();
            Ok((Bytes::from(grey), sample.label))
        };
        let all: Result<_> = (0..DRAWN).map(draw).collect();
        Ok(Self { source: "2,000 drawn digits", all: all? })
    }

    /// How many differ.
    pub(crate) fn distinct(&self) -> usize {
        self.all.len()
    }

    /// Image `index` with its label.
    pub(crate) fn get(&self, index: usize) -> (&Bytes, u8) {
        let (image, label) = &self.all[index % self.all.len()];
        (image, *label)
    }

    /// Writes the first `count` as an IDX file, which `app1` reads.
    pub(crate) fn write_idx(&self, path: &Path, count: usize) -> Result<()> {
        let write = || {
            let mut file = BufWriter::new(File::create(path)?);
            file.write_all(&IDX_IMAGES.to_be_bytes())?;
            for length in [count, SIDE, SIDE] {
                file.write_all(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes())?;
            }
            (0..count).try_for_each(|index| file.write_all(self.get(index).0))?;
            file.flush()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}
