//! Calibration: how large the activations of the CNN become, by which the int8 model chooses its scales.

use crate::torch::{Network, PIXELS, Weights};
use crate::train::Error;

/// Images that are computed at once.
const CHUNK: usize = 32;

/// The largest activations after the first convolution, the second, and the first dense layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranges(pub [f32; 3]);

impl Ranges {
    /// Runs images, given by their pixels one after the other, through the CNN in fp32.
    pub fn measure(weights: &Weights, pixels: &[u8]) -> Result<Self, Error> {
        let network = Network::new(weights, tch::Kind::Float)?;
        let mut largest = [0.0f32; 3];
        for images in pixels.chunks(CHUNK * PIXELS) {
            let grey: Vec<f32> = images.iter().map(|pixel| f32::from(*pixel) / 255.0).collect();
            for (largest, peak) in largest.iter_mut().zip(network.peaks(&grey)?) {
                *largest = largest.max(peak);
            }
        }
        Ok(Self(largest))
    }
}
