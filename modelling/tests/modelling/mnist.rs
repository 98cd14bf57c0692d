//! The trained CNN on MNIST's 10,000 test images.

use std::env;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, ImageFormat, imageops};
use modelling::idx::{self, Images};
use modelling::preprocess::{Limits, PIXELS, SIDE, preprocess};
use modelling::{Options, Precision};

use crate::{accuracy, load, probabilities};

fn file(name: &str) -> PathBuf {
    let data = env::var_os("FOREBAY_DATA").map(PathBuf::from);
    let data =
        data.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
    let path = data.join("mnist").join(name);
    assert!(
        path.is_file(),
        "{path:?} is missing; set FOREBAY_DATA to the folder that holds mnist/{name}"
    );
    path
}

fn test_set() -> (Images, Vec<u8>) {
    let images = Images::open(&file("t10k-images-idx3-ubyte.gz")).unwrap();
    let labels = idx::labels(&file("t10k-labels-idx1-ubyte.gz")).unwrap();
    assert_eq!(
        (images.len(), images.rows(), images.columns(), labels.len()),
        (10_000, SIDE, SIDE, 10_000)
    );
    (images, labels)
}

fn pixels(images: &Images) -> Vec<f32> {
    images.pixels().iter().map(|pixel| f32::from(*pixel) / 255.0).collect()
}

#[test]
fn the_committed_model_is_right_on_99_percent() {
    let (images, labels) = test_set();
    let options = Options { threads: 2, ..Options::default() };
    let outcome = accuracy(
        &probabilities(load("mnist-cnn.onnx", &options).as_mut(), pixels(&images)),
        &labels,
    );
    assert!(outcome >= 0.990, "{outcome}");
}

#[test]
fn eight_bit_integers_cost_little_accuracy() {
    let (images, labels) = test_set();
    let options = Options { threads: 2, precision: Precision::Int8, ..Options::default() };
    let outcome = accuracy(
        &probabilities(load("mnist-cnn.int8.onnx", &options).as_mut(), pixels(&images)),
        &labels,
    );
    assert!(outcome >= 0.988, "{outcome}");
}

#[test]
fn preprocessing_brings_enlarged_and_inverted_images_back() {
    let (images, labels) = test_set();
    let count = 1000;
    let mut pixels = vec![0.0; count * PIXELS];
    for (index, (image, pixels)) in images.iter().zip(pixels.as_chunks_mut().0).enumerate() {
        let payload = disguise(image, index);
        preprocess(&payload, None, &Limits::default(), pixels).unwrap();
    }
    let mut model = load("mnist-cnn.onnx", &Options::default());
    let outcome = accuracy(&probabilities(model.as_mut(), pixels), &labels[..count]);
    assert!(outcome >= 0.98, "{outcome}");
}

/// The image in another size, on a canvas of its own, every second one dark on light, as PNG or JPEG.
fn disguise(image: &[u8], index: usize) -> Vec<u8> {
    let side = SIDE as u32;
    let factor = 2 + index as u32 % 7;
    let image = GrayImage::from_vec(side, side, image.to_vec()).unwrap();
    let enlarged =
        imageops::resize(&image, side * factor, side * factor, imageops::FilterType::CatmullRom);
    let mut canvas = GrayImage::new(side * factor + 31, side * factor + 7);
    imageops::overlay(&mut canvas, &enlarged, 25, 3);
    if index.is_multiple_of(2) {
        imageops::invert(&mut canvas);
    }
    let format = if index.is_multiple_of(3) { ImageFormat::Jpeg } else { ImageFormat::Png };
    let mut payload = Cursor::new(Vec::new());
    DynamicImage::from(canvas).write_to(&mut payload, format).unwrap();
    payload.into_inner()
}

#[cfg(feature = "torch")]
#[test]
fn onnx_and_torch_agree_on_every_test_image() {
    use modelling::Runtime;

    let (images, labels) = test_set();
    let onnx = Options { threads: 2, ..Options::default() };
    let torch = Options { threads: 2, runtime: Runtime::Torch, ..Options::default() };
    let by_onnx = probabilities(load("mnist-cnn.onnx", &onnx).as_mut(), pixels(&images));
    let by_torch = probabilities(load("mnist-cnn.safetensors", &torch).as_mut(), pixels(&images));
    let distance = by_onnx.iter().zip(&by_torch).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(distance <= 1e-4, "probabilities differ by {distance}");
    assert!(accuracy(&by_torch, &labels) >= 0.990);
}
