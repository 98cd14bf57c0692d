//! The model alone: batches from memory, with decoding and preprocessing, by as many threads
//! as the model server has.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use model_server::settings;
use modelling::preprocess::{self, Limits, PIXELS, SIDE};
use modelling::{Batch, Checkpoint, Model, Tensor, labels};

use crate::images::Images;
use crate::measure::own_cpu;

/// What came out.
pub(super) struct Alone {
    pub(super) images_per_second: f64,
    /// Microseconds of CPU for each image.
    pub(super) cpu_us: f64,
    /// The share of images whose likeliest class is their label.
    pub(super) accuracy: f64,
}

/// Predicts the first `count` images.
pub(super) fn predict(model: &settings::Model, images: &Images, count: usize) -> Result<Alone> {
    let checkpoint = Checkpoint::open(&model.options.file(&model.path))?;
    let load = |_| modelling::load(&checkpoint, &model.options);
    let mut models = (0..model.workers).map(load).collect::<Result<Vec<_>, _>>()?;
    let (next, start) = (AtomicUsize::new(0), Barrier::new(models.len() + 1));
    let work = |model_: &mut dyn Model| {
        start.wait();
        let mut right = 0;
        loop {
            let first = next.fetch_add(model.batch_max, Ordering::Relaxed);
            if first >= count {
                return Ok(right);
            }
            right += batch(model_, images, first..count.min(first + model.batch_max))?;
        }
    };
    let (right, seconds, cpu) = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            models.iter_mut().map(|model| scope.spawn(move || work(model.as_mut()))).collect();
        start.wait();
        let (started, cpu) = (Instant::now(), own_cpu());
        let right: Vec<Result<usize>> = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a model's thread died"))?)
            .collect();
        (right, started.elapsed().as_secs_f64(), own_cpu() - cpu)
    });
    let right: usize = right.into_iter().sum::<Result<usize>>()?;
    Ok(Alone {
        images_per_second: count as f64 / seconds,
        cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
        accuracy: right as f64 / count as f64,
    })
}

/// How many of these images are recognised.
fn batch(model: &mut dyn Model, images: &Images, range: std::ops::Range<usize>) -> Result<usize> {
    let rows = range.len();
    let mut pixels = Vec::with_capacity(rows * PIXELS);
    for index in range.clone() {
        let mut image = [0.0; PIXELS];
        preprocess::preprocess(images.get(index).0, None, &Limits::default(), &mut image)?;
        pixels.extend_from_slice(&image);
    }
    let tensor = Tensor::from_f32(vec![rows, 1, SIDE, SIDE], pixels)?;
    let input = model.signature().inputs.first().context("the model has no input")?;
    let outputs = model.predict(&Batch::single(input.name.clone(), tensor))?;
    let (_, output) = outputs.iter().next().context("the model has no output")?;
    let scores = output.to_f32()?;
    let classes = scores.len() / rows;
    let right = scores.chunks_exact(classes).zip(range).filter(|(scores, index)| {
        labels::top(scores).is_some_and(|(class, _)| class == usize::from(images.get(*index).1))
    });
    Ok(right.count())
}
