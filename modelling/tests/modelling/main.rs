//! The crate as its users meet it: the committed models, real data, and the binary `predict`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are no tests to Clippy")]

mod checkpoints;
mod datasets;
mod mnist;
mod predict;
mod samples;

use std::path::{Path, PathBuf};

use modelling::preprocess::{PIXELS, SIDE};
use modelling::{Batch, Checkpoint, Model, Options, Tensor, labels};

/// A file of the trained CNN.
fn trained(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mnist-cnn").join(file)
}

fn load(file: &str, options: &Options) -> Box<dyn Model> {
    modelling::load(&Checkpoint::open(&trained(file)).unwrap(), options).unwrap()
}

fn images(pixels: Vec<f32>) -> Batch {
    Batch::single(
        "image",
        Tensor::from_f32(vec![pixels.len() / PIXELS, 1, SIDE, SIDE], pixels).unwrap(),
    )
}

/// Ten probabilities for each image.
fn probabilities(model: &mut dyn Model, pixels: Vec<f32>) -> Vec<f32> {
    model.predict(&images(pixels)).unwrap().get("probabilities").unwrap().to_f32().unwrap()
}

/// The part of the images whose most probable class is their label.
fn accuracy(probabilities: &[f32], labels: &[u8]) -> f64 {
    assert_eq!(probabilities.len(), 10 * labels.len());
    let right = probabilities.chunks_exact(10).zip(labels).filter(|(scores, label)| {
        labels::top(scores).is_some_and(|(class, _)| class == usize::from(**label))
    });
    right.count() as f64 / labels.len() as f64
}
