//! From deliveries with images to predictions ready to be published.

use std::fmt;
use std::time::Instant;

use broker::layers::trace;
use broker::{Delivery, Message, Outcome, Timestamp};
use modelling::preprocess::{self, Limits, PIXELS, SIDE};
use modelling::{Batch, Checkpoint, Error, Labels, Model, Result, Signature, Tensor, labels};

use super::workers::Done;
use crate::prediction::{
    self, CONTENT_TYPE, ID, Input, LABEL, ModelRef, Outputs, Prediction, Source, Times,
};

/// Knows a model's names and turns batches of images into its predictions.
pub struct Classifier {
    model: ModelRef,
    topic: String,
    labels: Labels,
    input: String,
    output: String,
    limits: Limits,
    message_bytes_max: usize,
}

/// Images that were decoded, in one tensor's layout.
#[derive(Debug, Default)]
pub struct Images {
    pixels: Vec<f32>,
}

/// The probabilities of each image's classes, in their order.
#[derive(Debug)]
pub struct Classified {
    probabilities: Vec<f32>,
    classes: usize,
}

impl Images {
    /// Room for so many images.
    pub fn with_capacity(images: usize) -> Self {
        Self { pixels: Vec::with_capacity(images * PIXELS) }
    }

    /// Adds one, or tells why it is none.
    pub fn add(
        &mut self,
        payload: &[u8],
        content_type: Option<&str>,
        limits: &Limits,
    ) -> Result<(), preprocess::ImageError> {
        let mut pixels = [0.0; PIXELS];
        preprocess::preprocess(payload, content_type, limits, &mut pixels)?;
        self.pixels.extend_from_slice(&pixels);
        Ok(())
    }
}

impl Classified {
    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.probabilities.chunks_exact(self.classes)
    }
}

/// A message whose image is decoded and whose result is awaited.
struct Wanted {
    delivery: Delivery,
    id: String,
}

impl Classifier {
    /// A classifier of 28x28 images; `InvalidTensor` where the signature is of something else.
    pub fn new(
        checkpoint: &Checkpoint,
        signature: &Signature,
        labels: Labels,
        topic: &str,
    ) -> Result<Self> {
        let ([input], [output]) = (&signature.inputs[..], &signature.outputs[..]) else {
            let reason = format!("a classifier has one input and one output, not {signature:?}");
            return Err(Error::InvalidTensor { reason });
        };
        let (side, classes) = (SIDE as i64, labels.classes().len() as i64);
        if input.shape != [-1, 1, side, side] || output.shape != [-1, classes] {
            let (is, gives) = (&input.shape, &output.shape);
            let reason = format!(
                "the model takes {is:?} and gives {gives:?}, \
                 expected [-1, 1, {SIDE}, {SIDE}] and [-1, {classes}]"
            );
            return Err(Error::InvalidTensor { reason });
        }
        Ok(Self {
            model: ModelRef {
                name: checkpoint.name().to_owned(),
                version: checkpoint.version().to_owned(),
                digest: checkpoint.digest().to_owned(),
            },
            topic: topic.to_owned(),
            labels,
            input: input.name.clone(),
            output: output.name.clone(),
            limits: Limits::default(),
            message_bytes_max: usize::MAX,
        })
    }

    /// Rejects inputs whose results would be larger than this, such as those with vast keys.
    #[must_use]
    pub fn with_message_bytes_max(self, message_bytes_max: usize) -> Self {
        Self { message_bytes_max, ..self }
    }

    /// Predicts a batch. What is no image, or makes the model fail, is rejected with its cause.
    pub fn run(&self, model: &mut dyn Model, deliveries: Vec<Delivery>) -> Done {
        let started = (Instant::now(), Timestamp::now());
        let mut done = Done::default();
        let mut images = Images::with_capacity(deliveries.len());
        let mut wanted = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match self.take_in(&delivery, &mut images) {
                Ok(id) => wanted.push(Wanted { delivery, id }),
                Err(reason) => reject(&mut done, delivery, reason),
            }
        }
        if wanted.is_empty() {
            return done;
        }
        match self.predict(model, images) {
            Ok(classified) => self.finish(&mut done, wanted, &classified, started),
            Err(error) => {
                tracing::error!(%error, model = %self, "the model failed on a batch");
                let reason = format!("the model {self} failed: {error}");
                wanted.into_iter().for_each(|w| reject(&mut done, w.delivery, reason.clone()));
            }
        }
        done
    }

    /// The model's probabilities for decoded images.
    pub fn predict(&self, model: &mut dyn Model, images: Images) -> Result<Classified> {
        let rows = images.pixels.len() / PIXELS;
        let tensor = Tensor::from_f32(vec![rows, 1, SIDE, SIDE], images.pixels)?;
        let outputs = model.predict(&Batch::single(&self.input, tensor))?;
        let Some(tensor) = outputs.get(&self.output) else {
            let reason = format!("output {:?} is missing", self.output);
            return Err(Error::InvalidTensor { reason });
        };
        let (probabilities, classes) = (tensor.to_f32()?, self.labels.classes().len());
        if probabilities.len() != rows * classes {
            let reason = format!("{rows} images gave {} probabilities", probabilities.len());
            return Err(Error::InvalidTensor { reason });
        }
        Ok(Classified { probabilities, classes })
    }

    fn take_in(&self, delivery: &Delivery, images: &mut Images) -> Result<String, String> {
        let id = prediction::id_of(delivery)?;
        let content_type = delivery.headers.get_str(CONTENT_TYPE);
        images
            .add(&delivery.payload, content_type, &self.limits)
            .map_err(|error| error.to_string())?;
        Ok(id)
    }

    fn finish(
        &self,
        done: &mut Done,
        wanted: Vec<Wanted>,
        classified: &Classified,
        (begun, taken): (Instant, Timestamp),
    ) {
        let computing_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        for (Wanted { delivery, id }, row) in wanted.into_iter().zip(classified.rows()) {
            let published = delivery.timestamp.unwrap_or(taken).as_micros();
            let queued_us = u64::try_from(taken.as_micros() - published).unwrap_or(0);
            let times = Times { queued_us, computing_us, total_us: queued_us + computing_us };
            match self.message(&delivery, id, row, times) {
                Ok(message) => {
                    done.ready.push(message);
                    done.outcomes.push((delivery.into_token(), Outcome::Ack));
                }
                Err(reason) => reject(done, delivery, reason),
            }
        }
    }

    fn message(
        &self,
        delivery: &Delivery,
        id: String,
        row: &[f32],
        times: Times,
    ) -> Result<Message, String> {
        let (class, probability) = labels::top(row).ok_or("the model gave no probabilities")?;
        if row.iter().any(|probability| !probability.is_finite()) {
            return Err(format!("the model {self} gave {row:?}"));
        }
        let position = delivery.position();
        let prediction = Prediction {
            id,
            model: self.model.clone(),
            source: Source {
                topic: self.topic.clone(),
                partition: position.partition(),
                offset: position.offset(),
            },
            input: Input {
                digest: prediction::digest_of(&delivery.payload),
                label: delivery.headers.get_str(LABEL).map(str::to_owned),
                published_us: delivery.timestamp.map_or(0, Timestamp::as_micros),
            },
            outputs: Outputs {
                label: self.labels.get(class).unwrap_or_default().to_owned(),
                probability,
                probabilities: row.to_vec(),
            },
            times,
        };
        let payload = serde_json::to_vec(&prediction).map_err(|error| error.to_string())?;
        let mut message = Message {
            key: delivery.key.clone(),
            ..Message::new(payload)
                .with_header(ID, &prediction.id)
                .with_header(CONTENT_TYPE, "application/json")
        };
        trace::carry(delivery, &mut message);
        let (size, limit) = (message.size(), self.message_bytes_max);
        if size > limit {
            return Err(format!("the result has {size} bytes, over the limit of {limit}"));
        }
        Ok(message)
    }
}

fn reject(done: &mut Done, delivery: Delivery, reason: String) {
    tracing::debug!(position = %delivery.position(), reason, "rejected");
    done.outcomes.push((delivery.into_token(), Outcome::Reject { reason }));
}

impl fmt::Display for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModelRef { name, version, digest } = &self.model;
        let digest = digest.get(..12).unwrap_or(digest);
        if version == digest {
            write!(f, "{name} {version}")
        } else {
            write!(f, "{name} {version} ({digest})")
        }
    }
}
