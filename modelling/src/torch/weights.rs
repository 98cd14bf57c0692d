//! The CNN's weights as plain numbers: reading and writing safetensors, without libtorch.

use std::collections::HashMap;

use rand::Rng;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::{Checkpoint, Error, Result};

/// Name and shape of each of the CNN's tensors, in the order of the layers. Convolutions are [out, in, height, width],
/// dense layers [out, in]; the first dense layer takes the 64 feature maps of 5x5 one after another.
pub const LAYERS: [(&str, &[usize]); 8] = [
    ("conv1.weight", &[64, 1, 3, 3]),
    ("conv1.bias", &[64]),
    ("conv2.weight", &[64, 64, 3, 3]),
    ("conv2.bias", &[64]),
    ("dense1.weight", &[128, 64 * 5 * 5]),
    ("dense1.bias", &[128]),
    ("dense2.weight", &[10, 128]),
    ("dense2.bias", &[10]),
];

/// All tensors of the CNN, single precision and row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    tensors: [Vec<f32>; LAYERS.len()],
}

impl Weights {
    /// Weights to begin training with: He's uniform distribution, which keeps the signal's strength through ReLU, and biases of zero.
    pub fn random(random: &mut impl Rng) -> Self {
        let tensors = LAYERS.map(|(_, shape)| match shape {
            [_, inputs @ ..] if !inputs.is_empty() => {
                let bound = (6.0 / inputs.iter().product::<usize>() as f32).sqrt();
                let elements = shape.iter().product();
                (0..elements).map(|_| random.random_range(-bound..bound)).collect()
            }
            _ => vec![0.0; shape.iter().product()],
        });
        Self { tensors }
    }

    /// Takes the tensors in the order of [`LAYERS`]; `None` unless each has as many elements as its shape says.
    #[cfg(feature = "train")]
    pub(crate) fn new(tensors: [Vec<f32>; LAYERS.len()]) -> Option<Self> {
        let fits = |(tensor, (_, shape)): (&Vec<f32>, (&str, &[usize]))| {
            tensor.len() == shape.iter().product::<usize>()
        };
        tensors.iter().zip(LAYERS).all(fits).then_some(Self { tensors })
    }

    /// Reads a safetensors file that holds exactly the tensors of [`LAYERS`].
    ///
    /// Fails with `CorruptModel` if the file is damaged, a tensor is missing, unknown or of another datatype or shape, or a number is not finite.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let file = SafeTensors::deserialize(checkpoint.bytes())
            .map_err(|error| checkpoint.corrupt(error.to_string()))?;
        let unknown = |name: &&str| LAYERS.iter().all(|(known, _)| known != name);
        if let Some(name) = file.names().into_iter().find(unknown) {
            return Err(checkpoint.corrupt(format!("the CNN has no tensor {name:?}")));
        }
        let mut tensors = LAYERS.map(|_| Vec::new());
        for ((name, shape), tensor) in LAYERS.into_iter().zip(&mut tensors) {
            *tensor = read(&file, name, shape).map_err(|reason| checkpoint.corrupt(reason))?;
        }
        Ok(Self { tensors })
    }

    /// Writes a safetensors file, with free text about its origin in the header.
    pub fn to_safetensors(&self, about: HashMap<String, String>) -> Result<Vec<u8>> {
        let views = LAYERS
            .iter()
            .zip(&self.tensors)
            .map(|((name, shape), values)| {
                let bytes = bytemuck::cast_slice(values);
                Ok((*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
        views
            .and_then(|views| safetensors::serialize(views, Some(about)))
            .map_err(|error| Error::invalid(error.to_string()))
    }

    /// The tensors with their names and shapes, in the order of [`LAYERS`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static [usize], &[f32])> {
        LAYERS.iter().zip(&self.tensors).map(|((name, shape), values)| (*name, *shape, &values[..]))
    }
}

fn read(file: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let tensor = file.tensor(name).map_err(|_| format!("tensor {name:?} is missing"))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("tensor {name:?} has datatype {:?}, expected F32", tensor.dtype()));
    }
    if tensor.shape() != shape {
        return Err(format!("tensor {name:?} has shape {:?}, expected {shape:?}", tensor.shape()));
    }
    let bytes = tensor.data().as_chunks().0;
    let values: Vec<f32> = bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(format!("tensor {name:?} holds {value}")),
        None => Ok(values),
    }
}
