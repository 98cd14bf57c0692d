//! The fit: Adam on mini-batches until validation stops improving.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tch::nn::{Adam, Optimizer, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

use super::distort::to_grey;
use super::stopping::{EarlyStopping, Verdict};
use super::{Distortion, Error, Examples, Observer};
use crate::torch::{CLASSES, HIDDEN, Network, PIXELS, Weights, images};

/// Images that are validated at once.
const CHUNK: usize = 32;

/// The share of the dense layer's outputs that training drops.
const DROPOUT: f32 = 0.3;

/// How to train.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// Where every random choice begins.
    pub seed: u64,
    /// The most epochs.
    pub epochs_max: usize,
    /// Images in a batch.
    pub batch_size: usize,
    /// Adam's step.
    pub learning_rate: f64,
    /// Epochs in a row without a better validation loss after which training ends.
    pub patience: usize,
    /// Threads that compute.
    pub threads: usize,
    /// What is done to training images.
    pub distortion: Distortion,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs_max: 60,
            batch_size: 32,
            learning_rate: 1e-3,
            patience: 3,
            threads: 2,
            distortion: Distortion::LIGHT,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<(), Error> {
        let positive = [
            ("epochs", self.epochs_max),
            ("batch size", self.batch_size),
            ("patience", self.patience),
            ("threads", self.threads),
        ];
        if let Some((name, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::Setting { name, value: "0".to_owned(), expected: "at least 1" });
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            let value = self.learning_rate.to_string();
            return Err(Error::Setting { name: "learning rate", value, expected: "more than 0" });
        }
        Ok(())
    }
}

/// What an epoch came to. Losses are mean cross-entropies in nats, accuracies shares from 0 to 1.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    /// Over the distorted training images, with dropout, while the weights change.
    pub training_loss: f64,
    /// As for the loss.
    pub training_accuracy: f64,
    /// Over the validation images, with the weights at the end of the epoch.
    pub validation_loss: f64,
    /// As for the loss.
    pub validation_accuracy: f64,
    /// How long training and validation took.
    pub seconds: f64,
}

/// Why training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Validation did not improve any more.
    Converged,
    /// The most epochs were done.
    EpochsMax,
    /// It was asked to stop.
    Cancelled,
}

/// The result of training.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The weights of the best epoch.
    pub weights: Weights,
    /// Which epoch that was.
    pub best_epoch: usize,
    /// All epochs.
    pub epochs: Vec<Epoch>,
    /// Why it ended.
    pub ended: Ended,
}

/// Trains until validation has not improved for as many epochs as patience allows, and returns the best weights, not the last.
///
/// The observer may end it at any batch: the epoch is then cut short, validated, and the best so far is returned. Fails with `Cancelled` if
/// there is none yet, so that no untrained weights come out.
pub fn fit(
    training: &Examples,
    validation: &Examples,
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<Fit, Error> {
    settings.check()?;
    if observer.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let mut trainer = Trainer::new(settings)?;
    let mut stopping = EarlyStopping::new(settings.patience);
    let mut epochs = Vec::new();
    let mut ended = Ended::EpochsMax;
    for number in 1..=settings.epochs_max {
        let started = Instant::now();
        observer.start_epoch(number, training.len());
        let (training_loss, training_accuracy) = trainer.epoch(training, observer)?;
        let (validation_loss, validation_accuracy) = evaluate(&trainer.network, validation)?;
        let seconds = started.elapsed().as_secs_f64();
        let verdict = stopping.observe(number, validation_loss, || trainer.network.weights())?;
        epochs.push(Epoch {
            epoch: number,
            training_loss,
            training_accuracy,
            validation_loss,
            validation_accuracy,
            seconds,
        });
        observer.end_epoch(&epochs[number - 1]);
        if observer.is_cancelled() {
            ended = Ended::Cancelled;
            break;
        }
        if verdict == Verdict::Stop {
            ended = Ended::Converged;
            break;
        }
    }
    let loss = epochs.last().map_or(f64::NAN, |epoch| epoch.validation_loss);
    let best = stopping.into_best().ok_or(Error::Diverged { loss })?;
    Ok(Fit { weights: best.snapshot, best_epoch: best.epoch, epochs, ended })
}

struct Trainer<'a> {
    settings: &'a Settings,
    network: Network,
    optimizer: Optimizer,
    random: StdRng,
}

impl<'a> Trainer<'a> {
    fn new(settings: &'a Settings) -> Result<Self, Error> {
        tch::set_num_threads(i32::try_from(settings.threads).unwrap_or(i32::MAX));
        let mut random = StdRng::seed_from_u64(settings.seed);
        let store = VarStore::new(Device::Cpu);
        let network = Network::trainable(&Weights::random(&mut random), &store)?;
        let optimizer = Adam::default().build(&store, settings.learning_rate)?;
        Ok(Self { settings, network, optimizer, random })
    }

    /// One pass over all images, in an order of its own: mean loss and accuracy.
    fn epoch(
        &mut self,
        examples: &Examples,
        observer: &mut dyn Observer,
    ) -> Result<(f64, f64), Error> {
        let mut order: Vec<usize> = (0..examples.len()).collect();
        order.shuffle(&mut self.random);
        let (mut loss, mut correct, mut done) = (0.0, 0.0, 0);
        for indices in order.chunks(self.settings.batch_size) {
            if observer.is_cancelled() {
                break;
            }
            let (batch_loss, batch_correct) = self.step(examples, indices)?;
            loss += batch_loss * indices.len() as f64;
            correct += batch_correct;
            done += indices.len();
            observer.batch(done, loss / done as f64, correct / done as f64);
        }
        let done = done.max(1) as f64;
        Ok((loss / done, correct / done))
    }

    /// One step of Adam: the batch's mean loss and how many it got right.
    fn step(&mut self, examples: &Examples, indices: &[usize]) -> Result<(f64, f64), Error> {
        let mut pixels = vec![0.0; indices.len() * PIXELS];
        for (index, target) in indices.iter().zip(pixels.chunks_exact_mut(PIXELS)) {
            self.settings.distortion.apply(examples.image(*index), target, &mut self.random);
        }
        let labels: Vec<i64> =
            indices.iter().map(|index| i64::from(examples.labels()[*index])).collect();
        let labels = Tensor::f_from_slice(&labels)?;
        let mask = self.dropout_mask(indices.len())?;
        let logits = self.network.logits(&images(&pixels)?, Some(&mask))?;
        let loss = logits.f_log_softmax(-1, Kind::Float)?.f_nll_loss(
            &labels,
            None::<Tensor>,
            tch::Reduction::Mean,
            -100,
        )?;
        self.optimizer.zero_grad();
        loss.f_backward()?;
        self.optimizer.step();
        let correct = logits.f_argmax(-1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Float)?;
        Ok((loss.f_double_value(&[])?, correct.f_double_value(&[])?))
    }

    /// What is kept is enlarged, so that the sum stays about the same. libtorch would draw from a generator that all its users share.
    fn dropout_mask(&mut self, images: usize) -> Result<Tensor, Error> {
        let kept = 1.0 / (1.0 - DROPOUT);
        let draw = |_| if self.random.random::<f32>() < DROPOUT { 0.0 } else { kept };
        let mask: Vec<f32> = (0..images * HIDDEN).map(draw).collect();
        Ok(Tensor::f_from_slice(&mask)?.f_view([images as i64, HIDDEN as i64])?)
    }
}

/// Mean loss and accuracy, without distortion and dropout.
fn evaluate(network: &Network, examples: &Examples) -> Result<(f64, f64), Error> {
    let mut pixels = vec![0.0; CHUNK * PIXELS];
    let mut probabilities = vec![0.0; CHUNK * CLASSES];
    let (mut loss, mut correct) = (0.0, 0);
    let chunks = examples.pixels().chunks(CHUNK * PIXELS).zip(examples.labels().chunks(CHUNK));
    for (images, labels) in chunks {
        let pixels = &mut pixels[..images.len()];
        let probabilities = &mut probabilities[..labels.len() * CLASSES];
        to_grey(images, pixels);
        network.predict(pixels, probabilities)?;
        for (row, label) in probabilities.chunks_exact(CLASSES).zip(labels) {
            // A probability of 0 is one too small for single precision; what is no number stays so.
            loss -= f64::from(row[usize::from(*label)].clamp(f32::MIN_POSITIVE, 1.0)).ln();
            let top = crate::labels::top(row).map(|(class, _)| class);
            correct += usize::from(top == Some(usize::from(*label)));
        }
    }
    let count = examples.len().max(1) as f64;
    Ok((loss / count, correct as f64 / count))
}
