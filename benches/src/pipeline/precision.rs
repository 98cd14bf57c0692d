//! What each runtime and precision makes of the model alone.

use anyhow::Result;
use model_server::settings;
use modelling::{Options, Precision, Runtime};

use super::{Bench, alone};
use crate::measure::median;
use crate::report::Row;

/// Each with its model file's extension.
const ONNX: [(Runtime, Precision, &str); 2] =
    [(Runtime::Onnx, Precision::Fp32, "onnx"), (Runtime::Onnx, Precision::Int8, "onnx")];
#[cfg(feature = "torch")]
const TORCH: [(Runtime, Precision, &str); 2] = [
    (Runtime::Torch, Precision::Fp32, "safetensors"),
    (Runtime::Torch, Precision::Bf16, "safetensors"),
];
#[cfg(not(feature = "torch"))]
const TORCH: [(Runtime, Precision, &str); 0] = [];

pub(super) fn rows(bench: &Bench, rounds: usize) -> Result<Vec<Row>> {
    let kinds: Vec<_> = ONNX.into_iter().chain(TORCH).collect();
    let mut rates = vec![Vec::new(); kinds.len()];
    let mut accuracies = vec![0.0; kinds.len()];
    for _ in 0..rounds {
        for (kind, (runtime, precision, extension)) in kinds.iter().enumerate() {
            let (runtime, precision) = (*runtime, *precision);
            let options = Options { runtime, precision, ..bench.settings.options.clone() };
            let path = bench.model.with_extension(extension);
            let model = settings::Model { path, options, ..bench.settings.clone() };
            let count = bench.images.distinct();
            let alone = alone::predict(&model, &bench.images, count)?;
            eprintln!("{} {precision}: {:.0} images/s", runtime.name(), alone.images_per_second);
            rates[kind].push(alone.images_per_second);
            accuracies[kind] = 100.0 * alone.accuracy;
        }
    }
    let mut rows = Vec::new();
    for (kind, (runtime, precision, _)) in kinds.into_iter().enumerate() {
        let name = format!("model alone, {} {precision}", runtime.name());
        rows.push(Row::plain(&name, median(std::mem::take(&mut rates[kind])), "images/s"));
        let name = format!("{name}, accuracy on {} images", bench.images.distinct());
        rows.push(Row::plain(name, accuracies[kind], "%"));
    }
    Ok(rows)
}
