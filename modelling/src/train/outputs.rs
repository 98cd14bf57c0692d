//! A whole run: fit, export, measure, draw, and write every file.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{
    Confusion, Dataset, Error, Examples, Fit, Metrics, Observer, Outcome, Settings, Split,
    Versions, fit, plot,
};
use crate::{Checkpoint, Options, Precision, Runtime, checkpoint, export};

/// The version that the crate `tch` is made for; the build refuses others.
const LIBTORCH: &str = "2.13.0";

/// Images by which the ranges of the quantised model are chosen.
const CALIBRATION: usize = 2_000;

/// Trains on a dataset and writes into `folder`: `NAME.safetensors`, `NAME.onnx`, `NAME.int8.onnx`, `metrics.json`, and the diagrams `curves` and
/// `confusion` as SVG and PNG. Each file appears whole or not at all.
pub fn run(
    dataset: &Dataset,
    settings: &Settings,
    folder: &Path,
    name: &str,
    observer: &mut dyn Observer,
) -> Result<Metrics, Error> {
    fs::create_dir_all(folder).map_err(|error| Error::write(folder, error))?;
    let (training, validation) = dataset.training.split(settings.seed);
    let started = Instant::now();
    let fit = fit(&training, &validation, settings, observer)?;
    let training_seconds = started.elapsed().as_secs_f64();
    observer.note(&format!("the weights of epoch {} are the best", fit.best_epoch));

    let models = write_models(dataset, &training, &fit, folder, name)?;
    let (test, confusion) = measure_all(&models, &dataset.test, settings.threads, observer)?;
    let metrics = Metrics {
        dataset: dataset.labels.name().to_owned(),
        classes: Metrics::classes(dataset.labels),
        test,
        confusion,
        split: Split {
            training: training.len(),
            validation: validation.len(),
            test: dataset.test.len(),
        },
        settings: settings.clone(),
        epochs: fit.epochs,
        best_epoch: fit.best_epoch,
        ended: fit.ended,
        training_seconds,
        data_digests: dataset.digests.clone(),
        model_digests: models.iter().map(digest).collect(),
        versions: versions(),
    };
    write_reports(&metrics, folder)?;
    Ok(metrics)
}

fn write_models(
    dataset: &Dataset,
    training: &Examples,
    fit: &Fit,
    folder: &Path,
    name: &str,
) -> Result<Vec<Checkpoint>, Error> {
    let about = HashMap::from([
        ("dataset".to_owned(), dataset.labels.name().to_owned()),
        ("classes".to_owned(), dataset.labels.classes().join(",")),
    ]);
    let calibration = training.pixels().len().min(CALIBRATION * crate::torch::PIXELS);
    let ranges = export::Ranges::measure(&fit.weights, &training.pixels()[..calibration])?;
    let files = [
        (format!("{name}.safetensors"), fit.weights.to_safetensors(about)?),
        (format!("{name}.onnx"), export::fp32(&fit.weights, dataset.labels)),
        (format!("{name}.int8.onnx"), export::int8(&fit.weights, &ranges, dataset.labels)),
    ];
    let mut checkpoints = Vec::new();
    for (file, bytes) in files {
        let path = folder.join(file);
        write_file(&path, &bytes)?;
        checkpoints.push(Checkpoint::from_bytes(&path, bytes.into())?);
    }
    Ok(checkpoints)
}

/// Measures each file in each precision that its runtime has; the confusion is that of the first, `torch` in fp32.
fn measure_all(
    models: &[Checkpoint],
    test: &Examples,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<(Vec<Outcome>, Confusion), Error> {
    let [weights, onnx, quantised] = models else { return Ok(Default::default()) };
    let runs = [
        (weights, Runtime::Torch, Precision::Fp32),
        (weights, Runtime::Torch, Precision::Bf16),
        (onnx, Runtime::Onnx, Precision::Fp32),
        (quantised, Runtime::Onnx, Precision::Int8),
    ];
    let mut outcomes = Vec::new();
    let mut first = None;
    for (model, runtime, precision) in runs {
        let options = Options { runtime, precision, threads, ..Options::default() };
        let mut loaded = match checkpoint::load(model, &options) {
            // Training is possible without ONNX Runtime; the figure is then absent.
            Err(error @ crate::Error::RuntimeMissing { .. }) => {
                observer.note(&format!("{precision} on {runtime} is not measured: {error}"));
                continue;
            }
            loaded => loaded?,
        };
        let confusion = Confusion::measure(loaded.as_mut(), test)?;
        let outcome = outcome(model, &options, &confusion);
        observer.note(&format!(
            "{:.2} % of {} test images are right in {precision} on {runtime}",
            outcome.accuracy * 100.0,
            confusion.total(),
        ));
        outcomes.push(outcome);
        first.get_or_insert(confusion);
    }
    Ok((outcomes, first.unwrap_or_default()))
}

fn outcome(model: &Checkpoint, options: &Options, confusion: &Confusion) -> Outcome {
    Outcome {
        file: file_name(model.path()),
        runtime: options.runtime.name().to_owned(),
        precision: options.precision.name().to_owned(),
        correct: confusion.correct(),
        accuracy: confusion.accuracy(),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn digest(model: &Checkpoint) -> (String, String) {
    (file_name(model.path()), model.digest().to_owned())
}

fn versions() -> Versions {
    Versions {
        modelling: env!("CARGO_PKG_VERSION").to_owned(),
        libtorch: LIBTORCH.to_owned(),
        onnxruntime: "1.31.1".to_owned(),
    }
}

fn write_reports(metrics: &Metrics, folder: &Path) -> Result<(), Error> {
    let path = folder.join("metrics.json");
    let mut json =
        serde_json::to_vec_pretty(metrics).map_err(|error| Error::write(&path, error.into()))?;
    json.push(b'\n');
    write_file(&path, &json)?;
    let diagrams: [(&str, plot::Draw); 2] =
        [("curves", plot::curves), ("confusion", plot::confusion)];
    for (name, draw) in diagrams {
        let path = folder.join(name);
        draw(metrics, &path)?;
    }
    Ok(())
}

/// Writes a file that appears whole or not at all.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let partial = partial(path);
    fs::write(&partial, bytes).map_err(|error| Error::write(&partial, error))?;
    fs::rename(&partial, path).map_err(|error| Error::write(path, error))
}

/// Where a file is while it is not whole: beside its place, under a name that nobody looks for.
pub(super) fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}
