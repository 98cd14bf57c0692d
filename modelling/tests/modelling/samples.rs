//! The drawn digits are such as the trained CNN reads.

use modelling::Options;
use modelling::preprocess::{Limits, PIXELS, preprocess};
use modelling::samples;

use crate::{accuracy, load, probabilities};

#[test]
fn the_model_reads_97_percent_of_the_drawn_digits() {
    let drawn: Vec<_> = (0..500).map(|index| samples::draw(20, index)).collect();
    let mut pixels = vec![0.0; drawn.len() * PIXELS];
    for (sample, pixels) in drawn.iter().zip(pixels.as_chunks_mut().0) {
        preprocess(&sample.bytes, Some(sample.content_type), &Limits::default(), pixels).unwrap();
    }
    let labels: Vec<u8> = drawn.iter().map(|sample| sample.label).collect();
    let mut model = load("mnist-cnn.onnx", &Options::default());
    let outcome = accuracy(&probabilities(model.as_mut(), pixels), &labels);
    assert!(outcome >= 0.97, "{outcome}");
}
