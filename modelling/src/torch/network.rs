//! The CNN itself: 3x3 convolution of 64 filters without padding, max-pool, the same again, a dense layer of 128, one of 10.
//! Maps shrink from 28x28 to 26, 13, 11 and 5. Training and serving share this forward pass.

use tch::{Kind, TchError, Tensor};

use super::{LAYERS, PIXELS, SIDE, Weights};

/// Filters of a convolution, and the side of what the second pooling leaves.
pub(super) const FILTERS: i64 = 64;
pub(super) const POOLED: i64 = 5;

pub(crate) struct Network {
    /// In the order of `LAYERS`; convolutions channels-last, and the first dense layer takes its inputs in that order.
    pub(super) tensors: [Tensor; LAYERS.len()],
    kind: Kind,
}

impl Network {
    /// A network that computes with `kind`, for serving.
    pub(crate) fn new(weights: &Weights, kind: Kind) -> Result<Self, TchError> {
        Self::build(weights, |_, tensor| tensor.f_to_kind(kind), kind)
    }

    pub(super) fn build(
        weights: &Weights,
        finish: impl Fn(&str, Tensor) -> Result<Tensor, TchError>,
        kind: Kind,
    ) -> Result<Self, TchError> {
        let mut tensors = LAYERS.map(|_| Tensor::new());
        for ((name, shape, values), slot) in weights.iter().zip(&mut tensors) {
            let shape: Vec<i64> = shape.iter().map(|length| *length as i64).collect();
            let tensor = Tensor::f_from_slice(values)?.f_view(shape.as_slice())?;
            *slot = finish(name, channels_last(name, &tensor)?)?;
        }
        Ok(Self { tensors, kind })
    }

    /// The probabilities of each class for `results.len() / 10` images.
    pub(crate) fn predict(&self, pixels: &[f32], results: &mut [f32]) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        let logits = self.logits(&images(pixels)?, None)?;
        logits.f_softmax(-1, Kind::Float)?.f_copy_data(results, results.len())
    }

    /// The logits [n, 10] of images [n, 1, 28, 28]. Training gives a mask [n, 128], by which the outputs of the first dense layer are
    /// multiplied.
    pub(crate) fn logits(
        &self,
        images: &Tensor,
        dropout: Option<&Tensor>,
    ) -> Result<Tensor, TchError> {
        let [_, _, hidden] = self.activations(images)?;
        let hidden = match dropout {
            Some(mask) => hidden.f_mul(mask)?,
            None => hidden,
        };
        let [.., weight, bias] = &self.tensors;
        hidden.f_linear(weight, Some(bias))
    }

    /// What leaves each pooling, and the first dense layer.
    pub(super) fn activations(&self, images: &Tensor) -> Result<[Tensor; 3], TchError> {
        let [conv1, conv1_bias, conv2, conv2_bias, dense1, dense1_bias, ..] = &self.tensors;
        let images = images.f_to_kind(self.kind)?;
        let pooled1 = convolve_and_pool(&images, conv1, conv1_bias)?;
        let pooled2 = convolve_and_pool(&pooled1, conv2, conv2_bias)?;
        // Channels-last maps are contiguous in this order, so nothing is copied.
        let features =
            pooled2.f_permute([0, 2, 3, 1])?.f_reshape([-1, POOLED * POOLED * FILTERS])?;
        let hidden = features.f_linear(dense1, Some(dense1_bias))?.f_relu_()?;
        Ok([pooled1, pooled2, hidden])
    }
}

/// Images [n, 1, 28, 28] of row-major pixels.
pub(crate) fn images(pixels: &[f32]) -> Result<Tensor, TchError> {
    let (count, side) = ((pixels.len() / PIXELS) as i64, SIDE as i64);
    // With one channel both layouts are the same in memory, and only strides tell libtorch which is meant.
    Tensor::f_from_slice(pixels)?.f_view([count, side, side, 1])?.f_permute([0, 3, 1, 2])
}

/// ReLU comes after pooling: the result is the same and there is a quarter to do.
fn convolve_and_pool(maps: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, TchError> {
    let (padding, one) = ([0, 0], [1, 1]);
    let maps = if tch::utils::has_mkldnn() {
        maps.f_mkldnn_convolution(weight, Some(bias), padding, one, one, 1)?
    } else {
        maps.f_conv2d(weight, Some(bias), one, padding, one, 1)?
    };
    maps.f_max_pool2d([2, 2], [2, 2], [0, 0], one, false)?.f_relu_()
}

fn channels_last(name: &str, tensor: &Tensor) -> Result<Tensor, TchError> {
    match (name, tensor.dim()) {
        (_, 4) => tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2]),
        ("dense1.weight", _) => tensor
            .f_view([-1, FILTERS, POOLED, POOLED])?
            .f_permute([0, 2, 3, 1])?
            .f_reshape([-1, POOLED * POOLED * FILTERS]),
        _ => tensor.f_contiguous(),
    }
}
