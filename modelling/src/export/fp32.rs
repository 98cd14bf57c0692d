//! The CNN in single precision.

use super::proto::{FLOAT, max_pool, model, node, tensor};
use crate::Labels;
use crate::torch::{INPUT, OUTPUT, Weights};

/// The bytes of an ONNX model with the input `image` FP32[-1, 1, 28, 28] and the output `probabilities` FP32[-1, 10].
pub fn fp32(weights: &Weights, labels: Labels) -> Vec<u8> {
    let convolution = |input, layer: &str, output| {
        let (weight, bias) = (format!("{layer}.weight"), format!("{layer}.bias"));
        node("Conv", &[input, &weight, &bias], output).convolution()
    };
    let dense = |input, layer: &str, output| {
        let (weight, bias) = (format!("{layer}.weight"), format!("{layer}.bias"));
        node("Gemm", &[input, &weight, &bias], output).with("transB", 1)
    };
    let nodes = vec![
        convolution(INPUT, "conv1", "maps1"),
        node("Relu", &["maps1"], "active1"),
        max_pool("active1", "pooled1"),
        convolution("pooled1", "conv2", "maps2"),
        node("Relu", &["maps2"], "active2"),
        max_pool("active2", "pooled2"),
        node("Flatten", &["pooled2"], "features").with("axis", 1),
        dense("features", "dense1", "sums"),
        node("Relu", &["sums"], "hidden"),
        dense("hidden", "dense2", "logits"),
        node("Softmax", &["logits"], OUTPUT).with("axis", 1),
    ];
    let constants =
        weights.iter().map(|(name, shape, values)| tensor(name, FLOAT, shape, values)).collect();
    model(nodes, constants, labels)
}
