use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::bars;
use crate::torch::{INPUT, OUTPUT, PIXELS, SIDE};
use crate::train::{Dataset, Error, Metrics, Quiet, Settings, run};
use crate::{
    Batch, Checkpoint, Labels, Model, Options, Precision, Runtime, Tensor, checkpoint, torch,
};

fn dataset() -> Dataset {
    let digests = BTreeMap::from([("bars".to_owned(), "none".to_owned())]);
    Dataset { labels: Labels::Mnist, training: bars(400), test: bars(100), digests }
}

fn settings() -> Settings {
    Settings { epochs_max: 4, batch_size: 16, threads: 1, ..Settings::default() }
}

/// One small run, whose files many tests look at.
static RUN: LazyLock<(TempDir, Metrics)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let metrics = run(&dataset(), &settings(), folder.path(), "bars", &mut Quiet).unwrap();
    (folder, metrics)
});

fn load(file: &str, runtime: Runtime, precision: Precision) -> Box<dyn Model> {
    let checkpoint = Checkpoint::open(&RUN.0.path().join(file)).unwrap();
    checkpoint::load(&checkpoint, &Options { runtime, precision, ..Options::default() }).unwrap()
}

fn probabilities(model: &mut dyn Model, count: usize) -> Vec<f32> {
    let grey = bars(count).pixels().iter().map(|pixel| f32::from(*pixel) / 255.0).collect();
    let images = Tensor::from_f32(vec![count, 1, SIDE, SIDE], grey).unwrap();
    let outputs = model.predict(&Batch::single(INPUT, images)).unwrap();
    outputs.get(OUTPUT).unwrap().to_f32().unwrap()
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

#[test]
fn a_run_writes_all_files_and_nothing_else() {
    let mut names: Vec<String> = fs::read_dir(RUN.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "bars.int8.onnx",
        "bars.onnx",
        "bars.safetensors",
        "confusion.png",
        "confusion.svg",
        "curves.png",
        "curves.svg",
        "metrics.json",
    ];
    assert_eq!(names, expected);
}

#[test]
fn metrics_name_the_files_and_how_they_came_to_be() {
    let (folder, metrics) = &*RUN;
    let text = fs::read_to_string(folder.path().join("metrics.json")).unwrap();
    let read: Metrics = serde_json::from_str(&text).unwrap();
    assert_eq!((&read.test, &read.confusion), (&metrics.test, &metrics.confusion));
    assert_eq!((read.best_epoch, read.epochs.len()), (metrics.best_epoch, metrics.epochs.len()));
    for (file, digest) in &metrics.model_digests {
        assert_eq!(Checkpoint::open(&folder.path().join(file)).unwrap().digest(), digest);
    }
    assert_eq!(metrics.model_digests.len(), 3);
    assert_eq!(metrics.settings, settings());
    assert_eq!(
        (metrics.split.training, metrics.split.validation, metrics.split.test),
        (360, 40, 100)
    );
    let runs: Vec<(&str, &str)> = metrics
        .test
        .iter()
        .map(|outcome| (outcome.runtime.as_str(), outcome.precision.as_str()))
        .collect();
    assert_eq!(runs, [("torch", "fp32"), ("torch", "bf16"), ("onnx", "fp32"), ("onnx", "int8")]);
    assert_eq!(metrics.confusion.total(), 100);
    assert_eq!(metrics.confusion.correct(), metrics.test[0].correct);
    assert!(metrics.test[0].accuracy > 0.9, "{:?}", metrics.test);
}

#[test]
fn diagrams_are_whole_images() {
    for name in ["curves", "confusion"] {
        let svg = fs::read_to_string(RUN.0.path().join(format!("{name}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{name}");
        let png = image::open(RUN.0.path().join(format!("{name}.png"))).unwrap().into_rgb8();
        let colours: std::collections::HashSet<_> = png.pixels().collect();
        assert!(colours.len() > 10, "{name} has {} colours", colours.len());
    }
}

#[test]
fn exported_onnx_equals_torch() {
    let mut torch = load("bars.safetensors", Runtime::Torch, Precision::Fp32);
    let mut onnx = load("bars.onnx", Runtime::Onnx, Precision::Fp32);
    for count in [1, 3, 50] {
        let (torch, onnx) =
            (probabilities(torch.as_mut(), count), probabilities(onnx.as_mut(), count));
        assert!(largest_difference(&torch, &onnx) < 1e-4);
    }
}

#[test]
fn exported_int8_is_close_to_fp32() {
    let mut exact = load("bars.onnx", Runtime::Onnx, Precision::Fp32);
    let mut rough = load("bars.int8.onnx", Runtime::Onnx, Precision::Int8);
    let (exact, rough) = (probabilities(exact.as_mut(), 50), probabilities(rough.as_mut(), 50));
    let difference = largest_difference(&exact, &rough);
    assert!(difference > 0.0, "int8 must compute differently");
    assert!(difference < 0.1, "{difference}");
}

#[test]
fn exported_models_have_the_signature_of_the_cnn() {
    for (file, precision) in [("bars.onnx", Precision::Fp32), ("bars.int8.onnx", Precision::Int8)] {
        assert_eq!(load(file, Runtime::Onnx, precision).signature(), &torch::signature());
    }
}

fn idx(folder: &Path, name: &str, lengths: &[u32], elements: &[u8]) {
    let magic = 0x0800 | lengths.len() as u32;
    let header = [&[magic], lengths].concat();
    let bytes: Vec<u8> = header.iter().flat_map(|number| number.to_be_bytes()).collect();
    fs::write(folder.join(name), [&bytes, elements].concat()).unwrap();
}

fn folder(side: u32, labels: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in ["train", "t10k"] {
        let pixels = vec![9; (side * side * 2) as usize];
        idx(folder.path(), &format!("{part}-images-idx3-ubyte"), &[2, side, side], &pixels);
        idx(folder.path(), &format!("{part}-labels-idx1-ubyte"), &[labels.len() as u32], labels);
    }
    folder
}

#[test]
fn datasets_are_read_with_their_digests() {
    let folder = folder(28, &[3, 4]);
    let dataset = Dataset::open(folder.path(), Labels::FashionMnist).unwrap();
    assert_eq!((dataset.training.len(), dataset.test.labels()), (2, &[3, 4][..]));
    assert_eq!(dataset.training.pixels(), [9; 2 * PIXELS]);
    assert_eq!(dataset.digests.len(), 4);
    assert!(dataset.digests.values().all(|digest| digest.len() == 64));
}

#[test]
fn unsuitable_datasets_are_refused_with_the_reason() {
    let check = |side, labels: &[u8], expected: &str| {
        let error = Dataset::open(folder(side, labels).path(), Labels::Mnist).unwrap_err();
        assert!(matches!(error, Error::Unsuitable { .. }), "{error}");
        assert!(error.to_string().ends_with(expected), "{error}");
    };
    check(14, &[3, 4], "images are 14x14, expected 28x28");
    check(28, &[3], "1 labels from 0 to 9 are expected for 2 images");
    check(28, &[3, 10], "2 labels from 0 to 9 are expected for 2 images");
}

#[test]
fn a_missing_dataset_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Dataset::open(folder.path(), Labels::Mnist).unwrap_err();
    assert!(error.to_string().contains("train-images-idx3-ubyte"), "{error}");
}
