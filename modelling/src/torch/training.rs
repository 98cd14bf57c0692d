//! What only training needs of the CNN: variables that an optimiser can change, and the way back to plain weights.

use tch::nn::VarStore;
use tch::{Kind, TchError, Tensor};

use super::network::{FILTERS, Network, POOLED, images};
use super::{LAYERS, Weights};

/// Outputs of the first dense layer.
pub(crate) const HIDDEN: usize = 128;

impl Network {
    /// A network whose tensors are variables of `store`, for training.
    pub(crate) fn trainable(weights: &Weights, store: &VarStore) -> Result<Self, TchError> {
        let root = store.root();
        let variable = |name: &str, tensor| {
            let (layer, name) = name.split_once('.').unwrap_or((name, "weight"));
            Ok((&root / layer).add(name, tensor, true))
        };
        Self::build(weights, variable, Kind::Float)
    }

    /// The weights as they are now, in the layout of files.
    pub(crate) fn weights(&self) -> Result<Weights, TchError> {
        let mut tensors = LAYERS.map(|_| Vec::new());
        for ((tensor, (name, _)), values) in self.tensors.iter().zip(LAYERS).zip(&mut tensors) {
            let tensor = channels_first(name, tensor)?.f_contiguous()?;
            *values = vec![0.0; tensor.numel()];
            tensor.f_copy_data(values, tensor.numel())?;
        }
        Weights::new(tensors).ok_or_else(|| TchError::Shape("weights changed their shape".into()))
    }

    /// The largest activations after each convolution and after the first dense layer.
    pub(crate) fn peaks(&self, pixels: &[f32]) -> Result<[f32; 3], TchError> {
        let _guard = tch::no_grad_guard();
        let mut peaks = [0.0; 3];
        for (peak, tensor) in peaks.iter_mut().zip(self.activations(&images(pixels)?)?) {
            *peak = tensor.f_max()?.f_double_value(&[])? as f32;
        }
        Ok(peaks)
    }
}

/// Undoes `channels_last`.
fn channels_first(name: &str, tensor: &Tensor) -> Result<Tensor, TchError> {
    let tensor = tensor.f_detach()?;
    match name {
        "dense1.weight" => tensor
            .f_view([-1, POOLED, POOLED, FILTERS])?
            .f_permute([0, 3, 1, 2])?
            .f_reshape([-1, POOLED * POOLED * FILTERS]),
        _ => Ok(tensor),
    }
}
