//! A model in ONNX Runtime.

use std::fmt::Debug;
use std::ops::Range;

use bytemuck::Pod;
use bytes::Bytes;
use ort::environment::Environment;
use ort::session::SessionInputValue;
use ort::session::builder::SessionBuilder;
use ort::value::{
    DynValue, Outlet, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType,
};

use super::failed;
use crate::{Batch, Checkpoint, Datatype, Error, Model, Result, Signature, Tensor, TensorSpec};

/// Images that are computed at once. Microseconds an image for the CNN on 2 cores with 1 MB of L2 each, quiet, median:
///
/// | images at once | 1 | 2 | 4 | 8 | 16 | 32 | 64 |
/// |---|---|---|---|---|---|---|---|
/// | 1 thread | 107 | 98 | 95 | 94 | 95 | 95 | 98 |
/// | 2 threads | 98 | 74 | 65 | 58 | 53 | 51 | 50 |
///
/// Threads gain from more images to share; with 64 the activations (173 KB an image after the first convolution) no longer stay in the caches.
const CHUNK: usize = 32;

/// Runs the expression with `$element` standing for the Rust type of a datatype's elements.
macro_rules! with_element {
    ($datatype:expr, $element:ident => $expression:expr) => {{
        macro_rules! with {
            ($kind:ty) => {{
                type $element = $kind;
                $expression
            }};
        }
        match $datatype {
            Datatype::Fp32 => with!(f32),
            Datatype::Fp64 => with!(f64),
            Datatype::Uint8 => with!(u8),
            Datatype::Uint16 => with!(u16),
            Datatype::Uint32 => with!(u32),
            Datatype::Uint64 => with!(u64),
            Datatype::Int8 => with!(i8),
            Datatype::Int16 => with!(i16),
            Datatype::Int32 => with!(i32),
            Datatype::Int64 => with!(i64),
            Datatype::Bool | Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => {
                Err(unsupported($datatype))
            }
        }
    }};
}

/// One session; it is used by one thread at a time, with threads of its own inside.
pub(super) struct Session {
    session: ort::session::Session,
    signature: Signature,
    chunk: Option<usize>,
}

impl Session {
    pub(super) fn new(
        environment: &Environment,
        checkpoint: &Checkpoint,
        threads: usize,
    ) -> Result<Self> {
        let mut builder = builder(environment, threads).map_err(failed)?;
        let session = builder
            .commit_from_memory(checkpoint.bytes())
            .map_err(|error| checkpoint.corrupt(error.to_string()))?;
        let signature =
            Signature { inputs: specs(session.inputs())?, outputs: specs(session.outputs())? };
        let chunk = chunk(&signature);
        Ok(Self { session, signature, chunk })
    }

    fn run(&mut self, inputs: &Batch, rows: Range<usize>) -> Result<Vec<Tensor>> {
        let mut values = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs.iter() {
            values.push((name, value(tensor, rows.clone())?));
        }
        let outputs = self.session.run(values).map_err(failed)?;
        self.signature
            .outputs
            .iter()
            .map(|spec| tensor(spec.datatype, &outputs[spec.name.as_str()]))
            .collect()
    }

    fn run_chunks(&mut self, inputs: &Batch, chunk: usize) -> Result<Vec<Tensor>> {
        let rows = inputs.rows()?;
        let first = self.run(inputs, 0..rows.min(chunk))?;
        if rows <= chunk {
            return Ok(first);
        }
        let mut parts: Vec<Vec<Tensor>> = first.into_iter().map(|output| vec![output]).collect();
        for start in (chunk..rows).step_by(chunk) {
            let next = self.run(inputs, start..rows.min(start + chunk))?;
            parts.iter_mut().zip(next).for_each(|(parts, output)| parts.push(output));
        }
        parts.iter().map(|parts| Tensor::concat(parts)).collect()
    }
}

impl Model for Session {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn predict(&mut self, inputs: &Batch) -> Result<Batch> {
        self.signature.check_inputs(inputs)?;
        let outputs = match self.chunk {
            Some(chunk) => self.run_chunks(inputs, chunk)?,
            None => self.run(inputs, 0..usize::MAX)?,
        };
        let names = self.signature.outputs.iter().map(|spec| spec.name.clone());
        Batch::new(names.zip(outputs).collect())
    }
}

fn builder(environment: &Environment, threads: usize) -> ort::Result<SessionBuilder> {
    let builder = ort::session::Session::builder(environment)?
        .with_intra_threads(threads.max(1))?
        // Waiting threads would burn the cores that other processes need. With 2 threads on 2 quiet cores that costs a single image 98 instead
        // of 69 microseconds, and each of 64 images 51 instead of 48; beside a busy process they take 107 instead of about 150.
        .with_intra_op_spinning(false)?;
    Ok(builder)
}

/// How many rows are computed at once, if not all. Only images are split: no other input has activations that outgrow the caches.
fn chunk(signature: &Signature) -> Option<usize> {
    let batched = |spec: &TensorSpec| spec.shape.first() == Some(&-1);
    let images = signature.inputs.iter().all(|spec| spec.shape.len() == 4 && batched(spec));
    (images && signature.outputs.iter().all(batched)).then_some(CHUNK)
}

fn specs(outlets: &[Outlet]) -> Result<Vec<TensorSpec>> {
    outlets.iter().map(spec).collect()
}

fn spec(outlet: &Outlet) -> Result<TensorSpec> {
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        let reason = format!("onnx: {:?} is no tensor but {}", outlet.name(), outlet.dtype());
        return Err(Error::Unsupported { reason });
    };
    let datatype = match ty {
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        other => {
            let reason = format!("onnx: {:?} has elements of type {other}", outlet.name());
            return Err(Error::Unsupported { reason });
        }
    };
    Ok(TensorSpec::new(outlet.name(), datatype, shape.to_vec()))
}

fn unsupported(datatype: Datatype) -> Error {
    Error::Unsupported { reason: format!("onnx: elements of type {datatype}") }
}

/// Some rows of a tensor as ONNX Runtime takes them: in place, unless the bytes happen to be unaligned.
fn value(tensor: &Tensor, rows: Range<usize>) -> Result<SessionInputValue<'_>> {
    let mut shape = tensor.shape().to_vec();
    let mut bytes = &tensor.bytes()[..];
    if let Some(first) = shape.first_mut().filter(|first| **first > rows.len()) {
        let row = bytes.len() / *first;
        bytes = &bytes[rows.start * row..rows.end * row];
        *first = rows.len();
    }
    with_element!(tensor.datatype(), Element => input::<Element>(shape, bytes))
}

fn input<T: PrimitiveTensorElementType + Pod + Debug>(
    shape: Vec<usize>,
    bytes: &[u8],
) -> Result<SessionInputValue<'_>> {
    if let Ok(elements) = bytemuck::try_cast_slice::<u8, T>(bytes) {
        return Ok(TensorRef::from_array_view((shape, elements)).map_err(failed)?.into());
    }
    let mut elements = vec![T::zeroed(); bytes.len() / size_of::<T>()];
    bytemuck::cast_slice_mut(&mut elements).copy_from_slice(bytes);
    Ok(ort::value::Tensor::from_array((shape, elements)).map_err(failed)?.into())
}

fn tensor(datatype: Datatype, value: &DynValue) -> Result<Tensor> {
    with_element!(datatype, Element => output::<Element>(datatype, value))
}

fn output<T: PrimitiveTensorElementType + Pod>(
    datatype: Datatype,
    value: &DynValue,
) -> Result<Tensor> {
    let (shape, elements) = value.try_extract_tensor::<T>().map_err(failed)?;
    let shape = shape
        .iter()
        .map(|length| usize::try_from(*length))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    Tensor::new(datatype, shape, Bytes::copy_from_slice(bytemuck::cast_slice(elements)))
}
