//! The IDX files in which MNIST and its siblings come: images and labels, plain or gzip.
//!
//! A file is a magic number that names the element type (8, unsigned bytes) and the number of dimensions, the length of each dimension as
//! 32 bits in big-endian order, and then the elements. Lengths are checked against limits before anything is allocated for them, and against the file afterwards.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::{Error, Result};

/// The most images or labels in a file.
pub const ITEMS_MAX: u64 = 10_000_000;
/// The most pixels of one image.
pub const PIXELS_MAX: u64 = 1 << 20;
/// The most bytes of a file, unpacked.
pub const BYTES_MAX: u64 = 4 << 30;

const IMAGES: u32 = 0x0803;
const LABELS: u32 = 0x0801;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What can be wrong with the bytes of an IDX file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// The magic number is another one.
    #[error("magic number is {actual:#010x}, expected {expected:#010x}")]
    Magic {
        /// The number at the start of the file.
        actual: u32,
        /// The number that such a file starts with.
        expected: u32,
    },
    /// The file ends early.
    #[error("it ends after {actual} bytes of {part}, expected {expected}")]
    Truncated {
        /// `header` or `elements`.
        part: &'static str,
        /// How many bytes there are.
        actual: u64,
        /// How many the header promises.
        expected: u64,
    },
    /// There is more than the header promises.
    #[error("more bytes follow the {expected} that the header promises")]
    TooLong {
        /// How many the header promises.
        expected: u64,
    },
    /// A length in the header is 0 or above its limit.
    #[error("{what} is {actual}, expected 1 to {limit}")]
    Length {
        /// Which length.
        what: &'static str,
        /// Its value.
        actual: u64,
        /// The largest that is accepted.
        limit: u64,
    },
    /// The gzip stream is damaged.
    #[error("damaged gzip stream: {reason}")]
    Gzip {
        /// What the decoder said.
        reason: String,
    },
}

impl Defect {
    fn of(self, path: &Path) -> Error {
        Error::Dataset { path: path.to_owned(), defect: self }
    }
}

/// Grey images of equal size, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    rows: usize,
    columns: usize,
    pixels: Vec<u8>,
}

impl Images {
    /// Reads a file of images.
    ///
    /// Fails with `MissingFile`, `Io`, or `Dataset`, which names the defect.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = Idx::open(path, IMAGES)?;
        let count = file.length("number of images", ITEMS_MAX)?;
        let rows = file.length("number of rows", PIXELS_MAX)?;
        let columns = file.length("number of columns", PIXELS_MAX)?;
        file.check("pixels of an image", rows * columns, PIXELS_MAX)?;
        let pixels = file.elements(count * rows * columns)?;
        Ok(Self { rows: rows as usize, columns: columns as usize, pixels })
    }

    /// The height of each image in pixels.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The width of each image in pixels.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.pixels.len() / (self.rows * self.columns)
    }

    /// Whether there is no image; a file always has one.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// The pixels of one image in row-major order, 0 for the background.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let size = self.rows * self.columns;
        self.pixels.get(index.checked_mul(size)?..)?.get(..size)
    }

    /// The images in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.pixels.chunks_exact(self.rows * self.columns)
    }

    /// The pixels of all images, one after the other.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

/// Reads a file of labels.
///
/// Fails with `MissingFile`, `Io`, or `Dataset`, which names the defect.
pub fn labels(path: &Path) -> Result<Vec<u8>> {
    let mut file = Idx::open(path, LABELS)?;
    let count = file.length("number of labels", ITEMS_MAX)?;
    file.elements(count)
}

/// A file that is being read.
struct Idx {
    path: PathBuf,
    reader: Box<dyn Read>,
    gzip: bool,
}

impl Idx {
    fn open(path: &Path, magic: u32) -> Result<Self> {
        let from_io = |error| Error::from_io(path, error);
        let mut start = Vec::new();
        File::open(path).map_err(from_io)?.take(2).read_to_end(&mut start).map_err(from_io)?;
        let file = BufReader::new(File::open(path).map_err(from_io)?);
        let gzip = start == GZIP;
        let reader: Box<dyn Read> =
            if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut idx = Self { path: path.to_owned(), reader, gzip };
        let actual = idx.number()?;
        if actual != magic {
            return Err(Defect::Magic { actual, expected: magic }.of(path));
        }
        Ok(idx)
    }

    /// The next number of the header.
    fn number(&mut self) -> Result<u32> {
        let bytes = self.read("header", 4)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn length(&mut self, what: &'static str, limit: u64) -> Result<u64> {
        let actual = u64::from(self.number()?);
        self.check(what, actual, limit)?;
        Ok(actual)
    }

    fn check(&self, what: &'static str, actual: u64, limit: u64) -> Result<()> {
        match (1..=limit).contains(&actual) {
            true => Ok(()),
            false => Err(Defect::Length { what, actual, limit }.of(&self.path)),
        }
    }

    /// All that follows the header, which must be `count` bytes.
    fn elements(&mut self, count: u64) -> Result<Vec<u8>> {
        self.check("number of bytes", count, BYTES_MAX)?;
        let elements = self.read("elements", count)?;
        match self.reader.by_ref().take(1).read_to_end(&mut Vec::new()) {
            Ok(0) => Ok(elements),
            Ok(_) => Err(Defect::TooLong { expected: count }.of(&self.path)),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Exactly `expected` bytes. Memory grows with what is there, not with what the header promises.
    fn read(&mut self, part: &'static str, expected: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.reader.by_ref().take(expected).read_to_end(&mut bytes) {
            Ok(actual) if actual as u64 == expected => Ok(bytes),
            Ok(actual) => {
                Err(Defect::Truncated { part, actual: actual as u64, expected }.of(&self.path))
            }
            Err(error) if self.gzip && error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Defect::Truncated { part, actual: bytes.len() as u64, expected }.of(&self.path))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        match self.gzip {
            true => Defect::Gzip { reason: error.to_string() }.of(&self.path),
            false => Error::from_io(&self.path, error),
        }
    }
}
