//! The runtime `torch`: the CNN by libtorch, from safetensors.
//!
//! Images and weights lie channels-last and convolutions go to oneDNN directly, which is several times as fast as the usual layout.
//! A model computes with the threads of its options; libtorch keeps that number per calling thread, so models on threads of their own
//! don't disturb each other.

mod network;
#[cfg(feature = "train")]
mod training;
mod weights;

pub(crate) use network::Network;
#[cfg(feature = "train")]
pub(crate) use network::images;
#[cfg(feature = "train")]
pub(crate) use training::HIDDEN;
pub use weights::{LAYERS, Weights};

use tch::{Kind, TchError};

use crate::{
    Batch, Checkpoint, Datatype, Error, Model, Options, Precision, Result, Runtime, Signature,
    Tensor, TensorSpec,
};

/// The name of the CNN's input: images of grey values from 0 (background) to 1.
pub const INPUT: &str = "image";

/// The name of the CNN's output: the probability of each class.
pub const OUTPUT: &str = "probabilities";

/// Height and width of an image.
pub const SIDE: usize = 28;

/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;

/// Classes that the CNN tells apart.
pub const CLASSES: usize = 10;

/// Images that are computed at once: what lies between the layers then stays in the processor's cache.
const CHUNK: usize = 32;

/// What the CNN takes and gives: `image` FP32[-1, 1, 28, 28] and `probabilities` FP32[-1, 10].
pub fn signature() -> Signature {
    let side = SIDE as i64;
    Signature {
        inputs: vec![TensorSpec::new(INPUT, Datatype::Fp32, [-1, 1, side, side])],
        outputs: vec![TensorSpec::new(OUTPUT, Datatype::Fp32, [-1, CLASSES as i64])],
    }
}

/// Makes a model of the CNN's weights, whose names, datatypes and shapes are checked before libtorch sees them.
pub(crate) fn load(checkpoint: &Checkpoint, options: &Options) -> Result<Box<dyn Model>> {
    let weights = Weights::read(checkpoint)?;
    let kind = match options.precision {
        Precision::Fp32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
        Precision::Int8 => {
            let reason = "precision int8 needs runtime onnx, not torch".to_owned();
            return Err(Error::Unsupported { reason });
        }
    };
    let network = Network::new(&weights, kind).map_err(failed)?;
    let threads = i32::try_from(options.threads.max(1)).unwrap_or(i32::MAX);
    Ok(Box::new(Cnn { network, threads, signature: signature() }))
}

struct Cnn {
    network: Network,
    threads: i32,
    signature: Signature,
}

impl Model for Cnn {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn predict(&mut self, inputs: &Batch) -> Result<Batch> {
        self.signature.check_inputs(inputs)?;
        let (_, images) = inputs.iter().next().ok_or_else(|| Error::invalid("no input"))?;
        tch::set_num_threads(self.threads);
        let mut probabilities = vec![0.0; images.rows() * CLASSES];
        let pixels = images.as_f32()?;
        let chunks = pixels.chunks(CHUNK * PIXELS);
        for (images, results) in chunks.zip(probabilities.chunks_mut(CHUNK * CLASSES)) {
            self.network.predict(images, results).map_err(failed)?;
        }
        let output = Tensor::from_f32(vec![images.rows(), CLASSES], probabilities)?;
        Ok(Batch::single(OUTPUT, output))
    }
}

fn failed(error: TchError) -> Error {
    Error::RuntimeFailed { runtime: Runtime::Torch.name(), reason: error.to_string() }
}

#[cfg(test)]
mod tests;
