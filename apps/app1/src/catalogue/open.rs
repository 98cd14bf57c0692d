//! From what the command line names to a catalogue.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::read::GzDecoder;
use model_server::process::{Failure, Reason};
use modelling::preprocess::SIDE;
use modelling::{Labels, idx};

use super::walk::walk;
use super::{Catalogue, Source};

/// What an IDX file of images begins with.
const IDX_IMAGES: [u8; 4] = [0, 0, 8, 3];
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How much of a file is looked at to tell what it is; a gzip header may hold a name.
const START_LENGTH: u64 = 4096;
/// The most bytes of standard input that is one image.
const IMAGE_BYTES_MAX: u64 = 256 << 20;
const STANDARD_INPUT: &str = "standard input";

/// What the command line names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) files_from: Option<PathBuf>,
    pub(crate) labels: Option<PathBuf>,
    pub(crate) samples: u64,
    pub(crate) seed: u64,
}

impl Catalogue {
    /// Looks at all sources. `labels` names the classes of IDX files.
    pub(crate) fn open(sources: &Sources, labels: Labels) -> Result<Self, Failure> {
        let mut opener = Opener { labels_file: sources.labels.clone(), labels, found: Vec::new() };
        if sources.samples > 0 {
            opener.found.push(Source::Samples { seed: sources.seed, count: sources.samples });
        }
        let mut paths = sources.paths.clone();
        if let Some(list) = &sources.files_from {
            paths.extend(read_list(list)?);
        }
        let from_input = paths.iter().chain(&sources.files_from).filter(|path| is_dash(path));
        if from_input.count() > 1 {
            return Err(unusable(STANDARD_INPUT, "it is named twice"));
        }
        for path in &paths {
            opener.open(path)?;
        }
        if let Some(unused) = opener.labels_file {
            return Err(unusable(&quoted(&unused), "no IDX file of images is there for it"));
        }
        if opener.found.is_empty() {
            return Err(Failure::new(Reason::Input, "the sources name nothing to publish"));
        }
        Ok(Self::new(opener.found, labels))
    }
}

struct Opener {
    /// The file of `--labels` until the IDX file comes that it belongs to.
    labels_file: Option<PathBuf>,
    labels: Labels,
    found: Vec<Source>,
}

impl Opener {
    fn open(&mut self, path: &Path) -> Result<(), Failure> {
        if is_dash(path) {
            return self.stream(STANDARD_INPUT, io::stdin().lock());
        }
        let name = quoted(path);
        let kind = fs::metadata(path).map_err(|error| unreadable(&name, error))?;
        if kind.is_dir() {
            self.found.push(Source::Files(walk(path)?));
            return Ok(());
        }
        let file = File::open(path).map_err(|error| unreadable(&name, error))?;
        if !kind.is_file() {
            return self.stream(&name, file);
        }
        let mut start = Vec::new();
        let read = (&file).take(START_LENGTH).read_to_end(&mut start);
        read.map_err(|error| unreadable(&name, error))?;
        if is_idx(&start) {
            return self.idx(name, path, sibling(path));
        }
        match self.found.last_mut() {
            Some(Source::Files(paths)) => paths.push(path.to_owned()),
            _ => self.found.push(Source::Files(vec![path.to_owned()])),
        }
        Ok(())
    }

    /// What can be read only once: an IDX file if it begins like one, else one image.
    fn stream(&mut self, name: &str, mut stream: impl Read) -> Result<(), Failure> {
        let unreadable = |error| unreadable(name, error);
        let mut content = Vec::new();
        stream.by_ref().take(START_LENGTH).read_to_end(&mut content).map_err(unreadable)?;
        if is_idx(&content) {
            let mut file = tempfile::NamedTempFile::new().map_err(unreadable)?;
            file.write_all(&content).map_err(unreadable)?;
            io::copy(&mut stream.take(idx::BYTES_MAX), &mut file).map_err(unreadable)?;
            return self.idx(name.to_owned(), file.path(), None);
        }
        stream.take(IMAGE_BYTES_MAX).read_to_end(&mut content).map_err(unreadable)?;
        self.found.push(Source::Bytes { name: name.to_owned(), content: content.into() });
        Ok(())
    }

    fn idx(&mut self, name: String, path: &Path, near: Option<PathBuf>) -> Result<(), Failure> {
        let images = idx::Images::open(path).map_err(|error| damaged(&name, error))?;
        let (rows, columns) = (images.rows(), images.columns());
        if (rows, columns) != (SIDE, SIDE) {
            let reason = format!("its images are {rows}x{columns}, expected {SIDE}x{SIDE}");
            return Err(unusable(&name, reason));
        }
        let classes = match self.labels_file.take().or(near) {
            Some(labels) => Some(self.classes(&labels, &name, images.len())?),
            None => None,
        };
        let pixels = Bytes::from_owner(Pixels(images));
        self.found.push(Source::Idx { name, pixels, classes });
        Ok(())
    }

    /// The classes of `count` images, all of which have a name.
    fn classes(&self, path: &Path, images: &str, count: usize) -> Result<Vec<u8>, Failure> {
        let name = quoted(path);
        let classes = idx::labels(path).map_err(|error| damaged(&name, error))?;
        if classes.len() != count {
            let reason = format!("it has {} labels for {count} images of {images}", classes.len());
            return Err(unusable(&name, reason));
        }
        let unnamed = |class: &&u8| self.labels.get(usize::from(**class)).is_none();
        match classes.iter().find(unnamed) {
            Some(class) => {
                Err(unusable(&name, format!("{class} is no class of {}", self.labels.name())))
            }
            None => Ok(classes),
        }
    }
}

/// Lets `Bytes` own the images, so that a payload is a slice of them.
struct Pixels(idx::Images);

impl AsRef<[u8]> for Pixels {
    fn as_ref(&self) -> &[u8] {
        self.0.pixels()
    }
}

fn read_list(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let (name, text) = if is_dash(path) {
        (STANDARD_INPUT.to_owned(), io::read_to_string(io::stdin().lock()))
    } else {
        (quoted(path), fs::read_to_string(path))
    };
    let text = text.map_err(|error| unreadable(&name, error))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect())
}

fn is_idx(start: &[u8]) -> bool {
    if !start.starts_with(&GZIP) {
        return start.starts_with(&IDX_IMAGES);
    }
    let mut magic = [0; 4];
    GzDecoder::new(start).read_exact(&mut magic).is_ok() && magic == IDX_IMAGES
}

/// The labels that MNIST and its siblings put beside their images.
fn sibling(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let labels = name.replace("images-idx3", "labels-idx1");
    let path = images.with_file_name(&labels);
    (labels != name && path.exists()).then_some(path)
}

fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn quoted(path: &Path) -> String {
    format!("{path:?}")
}

fn unreadable(name: &str, error: io::Error) -> Failure {
    Failure::new(Reason::Input, format!("cannot read {name}")).because(error)
}

fn unusable(name: &str, reason: impl Into<String>) -> Failure {
    Failure::new(Reason::Input, format!("cannot use {name}: {}", reason.into()))
}

fn damaged(name: &str, error: modelling::Error) -> Failure {
    match error {
        // Standard input is read from a file of ours, whose name would only confuse.
        modelling::Error::Dataset { defect, .. } => unusable(name, defect.to_string()),
        other => Failure::new(Reason::Input, format!("cannot use {name}")).because(other),
    }
}
