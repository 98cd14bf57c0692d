#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

pub mod checkpoint;
mod error;
pub mod idx;
pub mod labels;
mod model;
pub mod onnx;
pub mod preprocess;
pub mod samples;
mod tensor;

#[cfg(feature = "train")]
pub mod export;
#[cfg(feature = "torch")]
pub mod torch;
#[cfg(feature = "train")]
pub mod train;

pub use checkpoint::{Checkpoint, Options, Precision, Runtime, load};
pub use error::{Error, Result};
pub use labels::Labels;
pub use model::{Batch, Model, Signature, TensorSpec};
pub use tensor::{Datatype, Tensor};

#[cfg(test)]
mod tests;
