//! Labelled images in memory, and how they are split.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};

use super::Error;
use crate::torch::{CLASSES, PIXELS, SIDE};
use crate::{Labels, idx};

/// The share of the training images that is held back for validation: one in this many.
const VALIDATION_SHARE: usize = 10;

/// Grey images of 28x28 with their classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examples {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Examples {
    /// Takes the pixels of all images, one after the other, and the class of each, 0 to 9; `None` if their numbers do not fit.
    pub fn new(pixels: Vec<u8>, labels: Vec<u8>) -> Option<Self> {
        let fits = pixels.len() == labels.len() * PIXELS;
        let known = labels.iter().all(|label| usize::from(*label) < CLASSES);
        (fits && known).then_some(Self { pixels, labels })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The pixels of all images, one after the other; 0 is the background.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The class of each image.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The pixels of one image, in row-major order. The index must be below `len`.
    pub(super) fn image(&self, index: usize) -> &[u8] {
        &self.pixels[index * PIXELS..][..PIXELS]
    }

    fn select(&self, indices: &[usize]) -> Self {
        let pixels = indices.iter().flat_map(|index| self.image(*index)).copied().collect();
        let labels = indices.iter().map(|index| self.labels[*index]).collect();
        Self { pixels, labels }
    }

    /// Holds one in ten back, chosen by the seed: (training, validation).
    pub fn split(&self, seed: u64) -> (Self, Self) {
        let mut indices: Vec<usize> = (0..self.len()).collect();
        indices.shuffle(&mut StdRng::seed_from_u64(seed));
        let (validation, training) = indices.split_at(self.len() / VALIDATION_SHARE);
        (self.select(training), self.select(validation))
    }
}

/// A dataset with the digests of the files that it came from.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// What the classes mean.
    pub labels: Labels,
    /// For training and validation.
    pub training: Examples,
    /// For the final measurement only.
    pub test: Examples,
    /// The SHA-256 of each file, by its name.
    pub digests: BTreeMap<String, String>,
}

impl Dataset {
    /// Reads the four files of a folder, `train-images-idx3-ubyte` and so on, plain or with `.gz`.
    pub fn open(folder: &Path, labels: Labels) -> Result<Self, Error> {
        let mut digests = BTreeMap::new();
        let training = examples(folder, "train", &mut digests)?;
        let test = examples(folder, "t10k", &mut digests)?;
        Ok(Self { labels, training, test, digests })
    }
}

fn examples(
    folder: &Path,
    part: &str,
    digests: &mut BTreeMap<String, String>,
) -> Result<Examples, Error> {
    let images_path = file(folder, &format!("{part}-images-idx3-ubyte"), digests)?;
    let labels_path = file(folder, &format!("{part}-labels-idx1-ubyte"), digests)?;
    let images = idx::Images::open(&images_path)?;
    if (images.rows(), images.columns()) != (SIDE, SIDE) {
        let size = format!("images are {}x{}, expected 28x28", images.rows(), images.columns());
        return Err(Error::unsuitable(&images_path, size));
    }
    let labels = idx::labels(&labels_path)?;
    let (count, classes) = (images.len(), labels.len());
    Examples::new(images.pixels().to_vec(), labels).ok_or_else(|| {
        let reason = format!("{classes} labels from 0 to 9 are expected for {count} images");
        Error::unsuitable(&labels_path, reason)
    })
}

/// The path of a file that may be packed, and its digest.
fn file(
    folder: &Path,
    name: &str,
    digests: &mut BTreeMap<String, String>,
) -> Result<PathBuf, Error> {
    let packed = folder.join(format!("{name}.gz"));
    let path = if packed.exists() { packed } else { folder.join(name) };
    let bytes = fs::read(&path).map_err(|error| crate::Error::from_io(&path, error))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    digests.insert(name, format!("{:x}", Sha256::digest(&bytes)));
    Ok(path)
}
