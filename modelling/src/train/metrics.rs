//! What `metrics.json` says: enough to judge a model and to train it again.

use std::collections::BTreeMap;

use super::{Ended, Epoch, Error, Examples, Settings};
use crate::torch::{CLASSES, INPUT, OUTPUT, PIXELS, SIDE};
use crate::{Batch, Labels, Model, Tensor};

/// Images that are measured at once.
const CHUNK: usize = 256;

/// How often each class (row) was taken for each (column).
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Confusion {
    /// Counts by true class, then by predicted class.
    pub counts: [[u64; CLASSES]; CLASSES],
}

impl Confusion {
    /// Lets a model predict every image, given as grey values from 0 to 1.
    pub fn measure(model: &mut dyn Model, examples: &Examples) -> Result<Self, Error> {
        let mut confusion = Self::default();
        let chunks = examples.pixels().chunks(CHUNK * PIXELS).zip(examples.labels().chunks(CHUNK));
        for (images, labels) in chunks {
            let grey = images.iter().map(|pixel| f32::from(*pixel) / 255.0).collect();
            let images = Tensor::from_f32(vec![labels.len(), 1, SIDE, SIDE], grey)?;
            let outputs = model.predict(&Batch::single(INPUT, images))?;
            let missing = || crate::Error::invalid(format!("no output {OUTPUT:?}"));
            let scores = outputs.get(OUTPUT).ok_or_else(missing)?.to_f32()?;
            for (row, label) in scores.chunks_exact(CLASSES).zip(labels) {
                if let Some((class, _)) = crate::labels::top(row) {
                    confusion.counts[usize::from(*label)][class] += 1;
                }
            }
        }
        Ok(confusion)
    }

    /// How many images there were.
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// How many were taken for what they are.
    pub fn correct(&self) -> u64 {
        (0..CLASSES).map(|class| self.counts[class][class]).sum()
    }

    /// The share that was taken for what it is, 0 to 1; 0 if there was none.
    pub fn accuracy(&self) -> f64 {
        self.correct() as f64 / self.total().max(1) as f64
    }
}

/// How a model in one runtime and precision did on the test images.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    /// The model's file.
    pub file: String,
    /// The runtime that computed.
    pub runtime: String,
    /// The arithmetic inside.
    pub precision: String,
    /// How many images were right.
    pub correct: u64,
    /// The share that was right, 0 to 1.
    pub accuracy: f64,
}

/// How many images served for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Split {
    /// For the fit.
    pub training: usize,
    /// For early stopping.
    pub validation: usize,
    /// For the final measurement only.
    pub test: usize,
}

/// What computed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Versions {
    /// This crate.
    pub modelling: String,
    /// The library for training and the runtime `torch`.
    pub libtorch: String,
    /// The library for the runtime `onnx`.
    pub onnxruntime: String,
}

/// What `metrics.json` holds.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Metrics {
    /// The name of the dataset.
    pub dataset: String,
    /// What the classes mean, in the order of the outputs.
    pub classes: Vec<String>,
    /// On the test images, by runtime and precision.
    pub test: Vec<Outcome>,
    /// Counts of runtime `torch` in fp32 on the test images, by true class, then by predicted class.
    pub confusion: Confusion,
    /// How many images served for what.
    pub split: Split,
    /// How it was trained.
    pub settings: Settings,
    /// Every epoch.
    pub epochs: Vec<Epoch>,
    /// The epoch whose weights these are.
    pub best_epoch: usize,
    /// Why training ended.
    pub ended: Ended,
    /// How long the fit took.
    pub training_seconds: f64,
    /// The SHA-256 of each file of the dataset.
    pub data_digests: BTreeMap<String, String>,
    /// The SHA-256 of each model file.
    pub model_digests: BTreeMap<String, String>,
    /// What computed.
    pub versions: Versions,
}

impl Metrics {
    /// The names of the classes, as a list that can be written.
    pub(super) fn classes(labels: Labels) -> Vec<String> {
        labels.classes().iter().map(|class| (*class).to_owned()).collect()
    }
}
