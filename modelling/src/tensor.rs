//! Tensors as the Open Inference Protocol knows them: a datatype, a shape, and the elements in row-major order as little-endian bytes.
//! The bytes always fit datatype and shape, since no other tensor can be built.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use bytes::Bytes;

use crate::{Error, Result};

#[cfg(target_endian = "big")]
compile_error!("tensors are viewed in place, which needs a little-endian machine");

/// The type of a tensor's elements, by the Open Inference Protocol's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Datatype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    Uint8,
    /// Unsigned, 16 bits.
    Uint16,
    /// Unsigned, 32 bits.
    Uint32,
    /// Unsigned, 64 bits.
    Uint64,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// IEEE 754 half precision.
    Fp16,
    /// IEEE 754 single precision.
    Fp32,
    /// IEEE 754 double precision.
    Fp64,
    /// The upper half of a single-precision number.
    Bf16,
    /// Strings of bytes, each behind its length as 32 bits.
    Bytes,
}

impl Datatype {
    /// Every datatype, in the protocol's order.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bf16,
        Self::Bytes,
    ];

    /// The protocol's name, for example `FP32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bf16 => "BF16",
            Self::Bytes => "BYTES",
        }
    }

    /// Bytes of one element, or `None` for `BYTES`, whose elements vary.
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Datatype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name).ok_or_else(|| {
            Error::UnknownName {
                what: "datatype",
                value: name.to_owned(),
                accepted: Self::ALL.map(Self::name).join(", "),
            }
        })
    }
}

/// A block of elements: cheap to clone, since the bytes are shared.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    datatype: Datatype,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl Tensor {
    /// Takes little-endian elements in row-major order.
    ///
    /// Fails with `InvalidTensor` if the bytes do not fit datatype and shape, or if a `BOOL` is neither 0 nor 1.
    pub fn new(datatype: Datatype, shape: Vec<usize>, bytes: Bytes) -> Result<Self> {
        let elements = elements(&shape)?;
        match datatype.size() {
            Some(size) => check_length(datatype, &shape, elements.checked_mul(size), bytes.len())?,
            None => check_strings(&shape, elements, &bytes)?,
        }
        if datatype == Datatype::Bool && bytes.iter().any(|byte| *byte > 1) {
            return Err(Error::invalid("a BOOL is neither 0 nor 1"));
        }
        Ok(Self { datatype, shape, bytes })
    }

    /// Takes single-precision numbers in row-major order, without copying them.
    ///
    /// Fails with `InvalidTensor` if there are not as many as the shape says.
    pub fn from_f32(shape: Vec<usize>, values: Vec<f32>) -> Result<Self> {
        Self::new(Datatype::Fp32, shape, Bytes::from_owner(Floats(values)))
    }

    /// Puts the rows of tensors one after the other.
    ///
    /// Fails with `InvalidTensor` if there is none, or if they differ in datatype or in any dimension but the first.
    pub fn concat(parts: &[Self]) -> Result<Self> {
        let first =
            parts.first().ok_or_else(|| Error::invalid("there is nothing to concatenate"))?;
        let row =
            first.shape.get(1..).ok_or_else(|| Error::invalid("a single number has no rows"))?;
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.bytes.len()).sum());
        for part in parts {
            if part.datatype != first.datatype || part.shape.get(1..) != Some(row) {
                return Err(Error::invalid(format!("rows of {first:?} and {part:?} differ")));
            }
            bytes.extend_from_slice(&part.bytes);
        }
        let mut shape = first.shape.clone();
        shape[0] = parts.iter().map(Self::rows).sum();
        Self::new(first.datatype, shape, bytes.into())
    }

    /// The rows of that range, sharing the bytes.
    ///
    /// Fails with `InvalidTensor` if the range is out of bounds, or for `BYTES`, whose rows vary in length.
    pub fn slice(&self, rows: Range<usize>) -> Result<Self> {
        let length = self
            .shape
            .first()
            .copied()
            .filter(|length| rows.start <= rows.end && rows.end <= *length);
        let (Some(length), Some(_)) = (length, self.datatype.size()) else {
            return Err(Error::invalid(format!("{self:?} has no rows {rows:?}")));
        };
        let row = self.bytes.len().checked_div(length).unwrap_or(0);
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        Ok(Self {
            datatype: self.datatype,
            shape,
            bytes: self.bytes.slice(rows.start * row..rows.end * row),
        })
    }

    /// The type of the elements.
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// The length of each dimension; empty for a single number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The length of the first dimension, which counts the rows of a batch; 1 for a single number.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The elements as little-endian bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The elements of an `FP32` tensor, in place if the bytes happen to be aligned, else copied.
    ///
    /// Fails with `InvalidTensor` for other datatypes.
    pub fn as_f32(&self) -> Result<Cow<'_, [f32]>> {
        if self.datatype != Datatype::Fp32 {
            return Err(Error::invalid(format!("datatype is {}, expected FP32", self.datatype)));
        }
        Ok(match bytemuck::try_cast_slice(&self.bytes) {
            Ok(values) => Cow::Borrowed(values),
            Err(_) => Cow::Owned(
                self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            ),
        })
    }

    /// The elements of an `FP32` tensor as a vector of its own.
    ///
    /// Fails with `InvalidTensor` for other datatypes.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.as_f32().map(Cow::into_owned)
    }

    /// The elements of a `BYTES` tensor, in order and without copying.
    ///
    /// Fails with `InvalidTensor` for other datatypes.
    pub fn to_strings(&self) -> Result<Vec<Bytes>> {
        if self.datatype != Datatype::Bytes {
            return Err(Error::invalid(format!("datatype is {}, expected BYTES", self.datatype)));
        }
        let mut strings = Vec::new();
        let mut rest = self.bytes.clone();
        while let Some(length) = string_length(&rest) {
            rest = rest.slice(4..);
            strings.push(rest.split_to(length));
        }
        Ok(strings)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tensor({}{:?}, {} bytes)", self.datatype, self.shape, self.bytes.len())
    }
}

/// Lets `Bytes` own single-precision numbers where they are.
struct Floats(Vec<f32>);

impl AsRef<[u8]> for Floats {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// How many elements a shape has; a product that overflows is no shape.
fn elements(shape: &[usize]) -> Result<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, length| product.checked_mul(*length))
        .ok_or_else(|| Error::invalid(format!("shape {shape:?} is too large")))
}

fn check_length(
    datatype: Datatype,
    shape: &[usize],
    expected: Option<usize>,
    actual: usize,
) -> Result<()> {
    if expected == Some(actual) {
        return Ok(());
    }
    let expected = expected.map_or("too many".to_owned(), |count| count.to_string());
    Err(Error::invalid(format!("{datatype}{shape:?} needs {expected} bytes, got {actual}")))
}

/// The length of the string at the front, if it is there in full.
fn string_length(bytes: &[u8]) -> Option<usize> {
    let (prefix, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*prefix) as usize;
    (length <= rest.len()).then_some(length)
}

fn check_strings(shape: &[usize], expected: usize, bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    let mut count = 0;
    while let Some(length) = string_length(rest) {
        rest = &rest[4 + length..];
        count += 1;
    }
    if !rest.is_empty() {
        return Err(Error::invalid(format!("BYTES{shape:?} is cut off in element {count}")));
    }
    if count != expected {
        return Err(Error::invalid(format!(
            "BYTES{shape:?} needs {expected} elements, got {count}"
        )));
    }
    Ok(())
}
