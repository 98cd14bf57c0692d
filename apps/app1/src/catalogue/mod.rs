//! All that is to be published, numbered through.
//!
//! Sources are looked at once, when the program starts. IDX files and standard input are then in
//! memory, and of other files only the paths; they are read when their turn comes.

mod open;
mod walk;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use modelling::preprocess::PIXELS;
use modelling::{Labels, samples};

pub(crate) use open::Sources;

/// The content type of pixels without any format around them.
const RAW: &str = "application/octet-stream";

/// Everything that is to be published, in order.
#[derive(Debug)]
pub(crate) struct Catalogue {
    parts: Vec<Part>,
    len: u64,
    labels: Labels,
}

/// The items of one source.
#[derive(Debug)]
struct Part {
    /// The index of its first item.
    first: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Samples { seed: u64, count: u64 },
    Idx { name: String, pixels: Bytes, classes: Option<Vec<u8>> },
    Files(Vec<PathBuf>),
    Bytes { name: String, content: Bytes },
}

/// What one message is made of.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) payload: Bytes,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) label: Option<&'static str>,
    pub(crate) file_name: Option<Vec<u8>>,
}

impl Item {
    fn new(payload: impl Into<Bytes>, content_type: Option<&'static str>) -> Self {
        Self { payload: payload.into(), content_type, label: None, file_name: None }
    }
}

impl Catalogue {
    fn new(sources: Vec<Source>, labels: Labels) -> Self {
        let mut len = 0;
        let mut number = |source: Source| {
            let part = Part { first: len, source };
            len += part.source.len();
            part
        };
        let parts = sources.into_iter().map(&mut number).collect();
        Self { parts, len, labels }
    }

    /// How many items there are; at least one.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Item `index`, counted on from the start again behind the last one. The error tells what
    /// is wrong with it.
    pub(crate) fn item(&self, index: u64, bytes_max: usize) -> Result<Item, String> {
        let (source, at) = self.locate(index);
        match source {
            Source::Samples { seed, .. } => {
                let sample = samples::draw(*seed, at);
                let label = Labels::Mnist.get(usize::from(sample.label));
                Ok(Item { label, ..Item::new(sample.bytes, Some(sample.content_type)) })
            }
            Source::Idx { pixels, classes, .. } => {
                let at = at as usize;
                let class = classes.as_ref().and_then(|classes| classes.get(at));
                let label = class.and_then(|class| self.labels.get(usize::from(*class)));
                let payload = pixels.slice(at * PIXELS..(at + 1) * PIXELS);
                Ok(Item { label, ..Item::new(payload, Some(RAW)) })
            }
            Source::Files(paths) => read(&paths[at as usize], bytes_max),
            Source::Bytes { content, .. } => Ok(Item::new(content.clone(), None)),
        }
    }

    /// What a person knows item `index` by.
    pub(crate) fn name(&self, index: u64) -> String {
        let (source, at) = self.locate(index);
        match source {
            Source::Samples { seed, .. } => format!("sample {at} of seed {seed}"),
            Source::Idx { name, .. } => format!("image {at} of {name}"),
            Source::Files(paths) => format!("{:?}", paths[at as usize]),
            Source::Bytes { name, .. } => name.clone(),
        }
    }

    /// The source of an item, and the item's index in it.
    fn locate(&self, index: u64) -> (&Source, u64) {
        let index = index % self.len;
        let behind = self.parts.partition_point(|part| part.first <= index);
        // The first part begins at 0, and none is empty.
        let part = &self.parts[behind - 1];
        (&part.source, index - part.first)
    }
}

impl Source {
    fn len(&self) -> u64 {
        match self {
            Self::Samples { count, .. } => *count,
            Self::Idx { pixels, .. } => (pixels.len() / PIXELS) as u64,
            Self::Files(paths) => paths.len() as u64,
            Self::Bytes { .. } => 1,
        }
    }
}

/// Reads a file of at most `bytes_max`; a larger one is not even read.
fn read(path: &PathBuf, bytes_max: usize) -> Result<Item, String> {
    let cannot = |error: std::io::Error| format!("it cannot be read: {error}");
    let file = File::open(path).map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    if size > bytes_max as u64 {
        return Err(too_large(size, bytes_max));
    }
    let mut content = Vec::with_capacity(size as usize + 1);
    // One byte more tells that the file grew over the limit meanwhile.
    file.take(bytes_max as u64 + 1).read_to_end(&mut content).map_err(cannot)?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let file_name = path.file_name().map(|name| name.as_encoded_bytes().to_vec());
    Ok(Item { file_name, ..Item::new(content, content_type(extension)) })
}

/// The cause for an item that no message can hold.
pub(crate) fn too_large(size: impl fmt::Display, bytes_max: usize) -> String {
    format!("it has {size} bytes, over the broker's limit of {bytes_max}")
}

fn content_type(extension: &str) -> Option<&'static str> {
    let known = [
        ("png", "image/png"),
        ("jpg", "image/jpeg"),
        ("jpeg", "image/jpeg"),
        ("bmp", "image/bmp"),
        ("gif", "image/gif"),
        ("webp", "image/webp"),
        ("npy", "application/x-npy"),
        ("raw", RAW),
        ("bin", RAW),
        ("txt", "text/plain"),
    ];
    let found = known.iter().find(|(name, _)| extension.eq_ignore_ascii_case(name));
    found.map(|(_, content_type)| *content_type)
}
