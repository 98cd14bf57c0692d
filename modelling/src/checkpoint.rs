//! Model files: reading and recognising them, and handing them to a runtime.
//!
//! A file is read whole and once, so that its digest names exactly the bytes that will compute.
//! Its format is told from its bytes; the name of a file never decides how it is read.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{Batch, Error, Model, Result, Signature, Tensor, onnx};

/// The largest model file that is read, in bytes.
pub const BYTES_MAX: u64 = 512 << 20;

/// The most elements that one input may have when a model is warmed up.
const WARM_UP_ELEMENTS_MAX: usize = 1 << 26;

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Runtime {
    /// ONNX Runtime, for `.onnx`; its library comes by `scripts/fetch-onnxruntime`.
    #[default]
    Onnx,
    /// libtorch, for the CNN in `.safetensors`; needs the cargo feature `torch`.
    Torch,
}

impl Runtime {
    /// Every runtime, whether it is compiled in or not.
    pub const ALL: [Self; 2] = [Self::Onnx, Self::Torch];

    /// The name in configurations: `onnx` or `torch`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::Torch => "torch",
        }
    }

    const fn format(self) -> Format {
        match self {
            Self::Onnx => Format::Onnx,
            Self::Torch => Format::Safetensors,
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Runtime {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        by_name("runtime", name, &Self::ALL, Self::name)
    }
}

/// The arithmetic that a runtime uses inside; inputs and outputs stay as the signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Single precision.
    #[default]
    Fp32,
    /// bfloat16, by runtime `torch` only.
    Bf16,
    /// 8-bit integers, by runtime `onnx` from the file `NAME.int8.onnx` beside `NAME.onnx`.
    Int8,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 3] = [Self::Fp32, Self::Bf16, Self::Int8];

    /// The name in configurations: `fp32`, `bf16` or `int8`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        by_name("precision", name, &Self::ALL, Self::name)
    }
}

fn by_name<T: Copy>(
    what: &'static str,
    value: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T> {
    all.iter().copied().find(|choice| name(*choice) == value).ok_or_else(|| Error::UnknownName {
        what,
        value: value.to_owned(),
        accepted: all.iter().map(|choice| name(*choice)).collect::<Vec<_>>().join(", "),
    })
}

/// How to load a model.
#[derive(Debug, Clone)]
pub struct Options {
    /// What computes.
    pub runtime: Runtime,
    /// The arithmetic inside.
    pub precision: Precision,
    /// Threads that one model computes with, at least 1.
    pub threads: usize,
    /// Where ONNX Runtime's library is, if not in one of the usual places (see [`onnx`]).
    pub onnxruntime: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { runtime: Runtime::Onnx, precision: Precision::Fp32, threads: 1, onnxruntime: None }
    }
}

impl Options {
    /// The file that serves the model `path` in this precision: for `int8` on `onnx` that is `NAME.int8.onnx` beside `NAME.onnx`, else `path` itself.
    pub fn file(&self, path: &Path) -> PathBuf {
        let quantised =
            path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(".int8"));
        if self.runtime != Runtime::Onnx || self.precision != Precision::Int8 || quantised {
            return path.to_owned();
        }
        path.with_extension("int8.onnx")
    }
}

/// The format of a model file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// ONNX's protobuf.
    Onnx,
    /// Weights in safetensors.
    Safetensors,
}

impl Format {
    /// Tells the format from the bytes; `None` if they are of no known one.
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        // Safetensors begin with the length of a JSON object; a zero-padded length can't be mistaken for protobuf's field 1.
        let header = bytes.split_first_chunk::<8>();
        if header.is_some_and(|(length, rest)| {
            rest.first() == Some(&b'{') && u64::from_le_bytes(*length) < 1 << 32
        }) {
            return Some(Self::Safetensors);
        }
        // A model's first field is its IR version, a small number; every exporter writes fields in order.
        matches!(bytes, [0x08, 1..=127, ..]).then_some(Self::Onnx)
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Onnx => ".onnx",
            Self::Safetensors => ".safetensors",
        }
    }

    const fn runtime(self) -> Runtime {
        match self {
            Self::Onnx => Runtime::Onnx,
            Self::Safetensors => Runtime::Torch,
        }
    }
}

/// A model file that was read whole, with the names by which its predictions are traced.
#[derive(Clone)]
pub struct Checkpoint {
    path: PathBuf,
    name: String,
    version: String,
    digest: String,
    format: Format,
    bytes: Bytes,
}

impl Checkpoint {
    /// Reads a model file of at most [`BYTES_MAX`] bytes.
    ///
    /// Fails with `MissingFile`, `Io`, `LimitExceeded`, or `CorruptModel` if the bytes are of no known format.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::from_io(path, error))?;
        let length = file.metadata().map_err(|error| Error::from_io(path, error))?.len();
        check_size(path, length)?;
        let mut bytes = Vec::new();
        // A file may grow while it is read.
        file.take(BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::from_io(path, error))?;
        Self::from_bytes(path, bytes.into())
    }

    /// Takes the bytes of a model that came another way than by file; `path` only names them.
    ///
    /// Fails with `LimitExceeded`, or `CorruptModel` if the bytes are of no known format.
    pub fn from_bytes(path: &Path, bytes: Bytes) -> Result<Self> {
        check_size(path, bytes.len() as u64)?;
        let Some(format) = Format::sniff(&bytes) else {
            let reason = "the bytes are neither ONNX nor safetensors".to_owned();
            return Err(Error::CorruptModel { path: path.to_owned(), reason });
        };
        let digest = hex(&Sha256::digest(&bytes));
        let stem =
            path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let name = stem.strip_suffix(".int8").unwrap_or(&stem).to_owned();
        let version = digest[..12].to_owned();
        Ok(Self { path: path.to_owned(), name, version, digest, format, bytes })
    }

    /// Gives it another name than the file's stem.
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Gives it another version than the first 12 digits of the digest.
    pub fn with_version(self, version: impl Into<String>) -> Self {
        Self { version: version.into(), ..self }
    }

    /// Where the bytes came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The SHA-256 of the bytes as 64 lower-case hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The format, as told from the bytes.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::CorruptModel { path: self.path.clone(), reason: reason.into() }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, digest, format, bytes, .. } = self;
        write!(
            formatter,
            "Checkpoint({name:?} {version:?}, {digest}, {format:?}, {} bytes)",
            bytes.len()
        )
    }
}

fn check_size(path: &Path, actual: u64) -> Result<()> {
    if actual > BYTES_MAX {
        return Err(Error::LimitExceeded {
            what: format!("size of {path:?} in bytes"),
            actual,
            limit: BYTES_MAX,
        });
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Loads a model and runs it once, so that what is returned is known to work and is as fast as it will ever be.
///
/// Fails with `RuntimeMissing` if the runtime is left out at compile time or its library is missing, with `Unsupported` if format, runtime and
/// precision do not go together, and with `CorruptModel` if the file is damaged or its first run fails.
pub fn load(checkpoint: &Checkpoint, options: &Options) -> Result<Box<dyn Model>> {
    check_combination(checkpoint, options)?;
    let mut model = match options.runtime {
        Runtime::Onnx => onnx::load(checkpoint, options)?,
        Runtime::Torch => load_torch(checkpoint, options)?,
    };
    warm_up(model.as_mut())
        .map_err(|error| checkpoint.corrupt(format!("the first run failed: {error}")))?;
    Ok(model)
}

fn check_combination(checkpoint: &Checkpoint, options: &Options) -> Result<()> {
    let (runtime, format) = (options.runtime, checkpoint.format);
    if runtime.format() != format {
        let (path, takes, fits) =
            (checkpoint.path(), runtime.format().extension(), format.runtime());
        let is = format.extension();
        let reason = format!(
            "runtime {runtime} takes {takes} files, {path:?} is {is}, which runtime {fits} takes"
        );
        return Err(Error::Unsupported { reason });
    }
    let fits = match options.precision {
        Precision::Fp32 => return Ok(()),
        Precision::Bf16 => Runtime::Torch,
        Precision::Int8 => Runtime::Onnx,
    };
    if runtime != fits {
        let reason = format!("precision {} needs runtime {fits}, not {runtime}", options.precision);
        return Err(Error::Unsupported { reason });
    }
    Ok(())
}

#[cfg(feature = "torch")]
fn load_torch(checkpoint: &Checkpoint, options: &Options) -> Result<Box<dyn Model>> {
    crate::torch::load(checkpoint, options)
}

#[cfg(not(feature = "torch"))]
fn load_torch(_: &Checkpoint, _: &Options) -> Result<Box<dyn Model>> {
    let reason = "this program was built without the cargo feature `torch`".to_owned();
    Err(Error::RuntimeMissing { runtime: Runtime::Torch.name(), reason })
}

fn warm_up(model: &mut dyn Model) -> Result<()> {
    let inputs = zeros(model.signature())?;
    let outputs = model.predict(&inputs)?;
    model.signature().check_outputs(&outputs)
}

/// The smallest input that a signature allows: one row, all zero.
fn zeros(signature: &Signature) -> Result<Batch> {
    let mut tensors = Vec::with_capacity(signature.inputs.len());
    for spec in &signature.inputs {
        let shape: Vec<usize> =
            spec.shape.iter().map(|length| usize::try_from(*length).unwrap_or(1)).collect();
        let elements =
            shape.iter().try_fold(1usize, |product, length| product.checked_mul(*length));
        let elements =
            elements.filter(|count| *count <= WARM_UP_ELEMENTS_MAX).ok_or_else(|| {
                Error::LimitExceeded {
                    what: format!("elements of input {:?} with shape {shape:?}", spec.name),
                    actual: elements.unwrap_or(usize::MAX) as u64,
                    limit: WARM_UP_ELEMENTS_MAX as u64,
                }
            })?;
        // Four zero bytes are the empty string.
        let bytes = vec![0; elements * spec.datatype.size().unwrap_or(4)];
        tensors.push((spec.name.clone(), Tensor::new(spec.datatype, shape, bytes.into())?));
    }
    Batch::new(tensors)
}
