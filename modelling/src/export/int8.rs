//! The CNN in static int8: every scale is fixed beforehand, so that nothing is measured while it computes.
//!
//! Activations are unsigned with zero at 0, which makes saturation the ReLU. Weights are signed and symmetric with a scale for each output. They use
//! 7 of the 8 bits, because processors without dot-product instructions add pairs of products in 16 bits, which full weights would overflow:
//! results are then the same everywhere.

use super::Ranges;
use super::proto::{
    FLOAT, INT8, INT32, MICROSOFT, NodeProto, TensorProto, UINT8, max_pool, model, node, tensor,
};
use crate::Labels;
use crate::torch::{INPUT, OUTPUT, Weights};

/// The largest quantised weight.
const WEIGHT_MAX: f32 = 64.0;

/// The largest quantised activation.
const ACTIVATION_MAX: f32 = 255.0;

/// The bytes of an ONNX model with the input `image` FP32[-1, 1, 28, 28] and the output `probabilities` FP32[-1, 10].
/// It needs ONNX Runtime, whose operator `QGemm` ONNX itself lacks.
pub fn int8(weights: &Weights, ranges: &Ranges, labels: Labels) -> Vec<u8> {
    let Ranges([conv1, conv2, dense1]) = *ranges;
    // Pixels are multiples of 1/255, so images lose nothing.
    let scales = [1.0, conv1, conv2, dense1].map(|largest| positive(largest) / ACTIVATION_MAX);
    let mut constants = Vec::new();
    for (index, scale) in scales.into_iter().enumerate() {
        constants.push(tensor(&format!("scale{index}"), FLOAT, &[], &[scale]));
    }
    constants.push(tensor("zero", UINT8, &[], &[0u8]));
    let layers: Vec<_> = weights.iter().collect();
    for (pair, scale) in layers.chunks_exact(2).zip(scales) {
        if let [(weight, shape, values), (_, _, bias)] = *pair {
            let layer = weight.trim_end_matches(".weight");
            constants.extend(quantise(layer, shape, values, bias, scale));
        }
    }
    model(nodes(), constants, labels)
}

fn nodes() -> Vec<NodeProto> {
    vec![
        node("QuantizeLinear", &[INPUT, "scale0", "zero"], "pixels"),
        layer("QLinearConv", "pixels", 0, "conv1", "maps1"),
        max_pool("maps1", "pooled1"),
        layer("QLinearConv", "pooled1", 1, "conv2", "maps2"),
        max_pool("maps2", "pooled2"),
        node("Flatten", &["pooled2"], "features").with("axis", 1),
        layer("QGemm", "features", 2, "dense1", "hidden"),
        layer("QGemm", "hidden", 3, "dense2", "logits"),
        node("Softmax", &["logits"], OUTPUT).with("axis", 1),
    ]
}

/// A layer whose input has the scale of that index and whose output the next; the last one gives single precision.
fn layer(op_type: &str, input: &str, scale: usize, name: &str, output: &str) -> NodeProto {
    let constant = |part: &str| format!("{name}.{part}");
    let (weight, weight_scale, weight_zero, bias) =
        (constant("weight"), constant("scale"), constant("zero"), constant("bias"));
    let (input_scale, output_scale) = (format!("scale{scale}"), format!("scale{}", scale + 1));
    let mut inputs = vec![input, &input_scale, "zero", &weight, &weight_scale, &weight_zero];
    match op_type {
        "QLinearConv" => {
            inputs.extend([output_scale.as_str(), "zero", &bias]);
            node(op_type, &inputs, output).convolution()
        }
        _ => {
            inputs.push(&bias);
            if output != "logits" {
                inputs.extend([output_scale.as_str(), "zero"]);
            }
            node(op_type, &inputs, output).with("transB", 1).of(MICROSOFT)
        }
    }
}

/// The constants of a layer: weights, their scales and zero points by output, and biases in units of input scale times weight scale.
fn quantise(
    layer: &str,
    shape: &[usize],
    values: &[f32],
    bias: &[f32],
    input_scale: f32,
) -> [TensorProto; 4] {
    let outputs = bias.len();
    let rows = || values.chunks_exact(values.len() / outputs);
    let largest = |row: &[f32]| row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scales: Vec<f32> = rows().map(|row| positive(largest(row)) / WEIGHT_MAX).collect();
    let weights: Vec<i8> = rows()
        .zip(&scales)
        .flat_map(|(row, scale)| row.iter().map(move |value| (value / scale).round() as i8))
        .collect();
    let biases: Vec<i32> = bias
        .iter()
        .zip(&scales)
        .map(|(bias, scale)| (bias / (scale * input_scale)).round() as i32)
        .collect();
    let name = |part: &str| format!("{layer}.{part}");
    [
        tensor(&name("weight"), INT8, shape, &weights),
        tensor(&name("scale"), FLOAT, &[outputs], &scales),
        tensor(&name("zero"), INT8, &[outputs], &vec![0i8; outputs]),
        tensor(&name("bias"), INT32, &[outputs], &biases),
    ]
}

/// A range to divide by: a layer that is silent gets any.
fn positive(largest: f32) -> f32 {
    if largest > 0.0 { largest } else { 1.0 }
}
