use std::collections::HashMap;
use std::path::Path;

use rand::SeedableRng;
use rand::rngs::StdRng;
use safetensors::tensor::{Dtype, TensorView};

use super::{CLASSES, INPUT, LAYERS, OUTPUT, PIXELS, SIDE, Weights};
use crate::{Batch, Checkpoint, Error, Model, Options, Precision, Runtime, Tensor, checkpoint};

fn weights() -> Weights {
    Weights::random(&mut StdRng::seed_from_u64(7))
}

fn open(bytes: Vec<u8>) -> Checkpoint {
    Checkpoint::from_bytes(Path::new("cnn.safetensors"), bytes.into()).unwrap()
}

fn load(precision: Precision) -> crate::Result<Box<dyn Model>> {
    let checkpoint = open(weights().to_safetensors(HashMap::new()).unwrap());
    let options = Options { runtime: Runtime::Torch, precision, ..Options::default() };
    checkpoint::load(&checkpoint, &options)
}

/// Images without any order in them.
fn images(count: usize) -> Vec<f32> {
    (0..count * PIXELS).map(|index| (index * 7919 % 256) as f32 / 255.0).collect()
}

fn predict(model: &mut dyn Model, pixels: &[f32]) -> Vec<f32> {
    let shape = vec![pixels.len() / PIXELS, 1, SIDE, SIDE];
    let images = Tensor::from_f32(shape, pixels.to_vec()).unwrap();
    let outputs = model.predict(&Batch::single(INPUT, images)).unwrap();
    outputs.get(OUTPUT).unwrap().to_f32().unwrap()
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

#[test]
fn weights_survive_the_file() {
    let bytes = weights().to_safetensors(HashMap::new()).unwrap();
    assert_eq!(Weights::read(&open(bytes)).unwrap(), weights());
}

#[cfg(feature = "train")]
#[test]
fn weights_survive_the_network_layout() {
    let network = super::Network::new(&weights(), tch::Kind::Float).unwrap();
    assert_eq!(network.weights().unwrap(), weights());
}

/// A file of the CNN's tensors, of which `change` may alter each: its name, datatype, shape and bytes; without a name it is left out.
type Raw = (Option<String>, Dtype, Vec<usize>, Vec<u8>);

fn file(change: impl Fn(&mut Raw)) -> Vec<u8> {
    let weights = weights();
    let raw = weights.iter().filter_map(|(name, shape, values)| {
        let bytes = bytemuck::cast_slice(values).to_vec();
        let mut raw = (Some(name.to_owned()), Dtype::F32, shape.to_vec(), bytes);
        change(&mut raw);
        Some((raw.0?, raw.1, raw.2, raw.3))
    });
    let raw: Vec<_> = raw.collect();
    let views = raw.iter().map(|(name, datatype, shape, bytes)| {
        (name.as_str(), TensorView::new(*datatype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn check_corrupt(bytes: Vec<u8>, expected: &str) {
    match Weights::read(&open(bytes)) {
        Err(Error::CorruptModel { reason, .. }) => {
            assert!(reason.contains(expected), "{reason:?} does not contain {expected:?}");
        }
        other => panic!("expected {expected:?}, got {other:?}"),
    }
}

fn is(raw: &Raw, name: &str) -> bool {
    raw.0.as_deref() == Some(name)
}

#[test]
fn corrupt_safetensors_are_refused_with_the_reason() {
    let whole = file(|_| ());
    assert!(Weights::read(&open(whole.clone())).is_ok());

    check_corrupt(whole[..whole.len() - 4].to_vec(), "not fully covered");
    check_corrupt([whole.as_slice(), &[0; 4]].concat(), "not fully covered");
    check_corrupt(whole[..40].to_vec(), "header");
    let mut long_header = whole.clone();
    long_header[3] = 0xff;
    check_corrupt(long_header, "header");
    let mut bad_json = whole;
    bad_json[12] = 0;
    check_corrupt(bad_json, "header");
}

#[test]
fn files_of_another_network_are_refused_with_the_tensor() {
    let without = file(|raw| raw.0 = raw.0.take().filter(|name| name != "conv2.bias"));
    check_corrupt(without, r#"tensor "conv2.bias" is missing"#);

    let renamed = file(|raw| {
        if is(raw, "conv2.bias") {
            raw.0 = Some("extra".to_owned());
        }
    });
    check_corrupt(renamed, r#"no tensor "extra""#);

    let integers = file(|raw| {
        if is(raw, "dense2.bias") {
            raw.1 = Dtype::I32;
        }
    });
    check_corrupt(integers, r#""dense2.bias" has datatype I32, expected F32"#);

    let reshaped = file(|raw| {
        if is(raw, "dense2.weight") {
            raw.2 = vec![128, 10];
        }
    });
    check_corrupt(reshaped, r#""dense2.weight" has shape [128, 10], expected [10, 128]"#);

    let padded = file(|raw| {
        if is(raw, "dense1.weight") {
            raw.2 = vec![128, 64 * 7 * 7];
            raw.3 = vec![0; 4 * 128 * 64 * 7 * 7];
        }
    });
    check_corrupt(padded, r#""dense1.weight" has shape [128, 3136], expected [128, 1600]"#);

    let infinite = file(|raw| {
        if is(raw, "conv1.bias") {
            raw.3[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
    });
    check_corrupt(infinite, r#""conv1.bias" holds NaN"#);
}

#[test]
fn probabilities_add_up_to_one() {
    let probabilities = predict(load(Precision::Fp32).unwrap().as_mut(), &images(3));
    for row in probabilities.chunks(CLASSES) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
    }
}

#[test]
fn a_batch_gives_what_its_images_give_alone() {
    let mut model = load(Precision::Fp32).unwrap();
    let pixels = images(70);
    let together = predict(model.as_mut(), &pixels);
    let alone: Vec<f32> =
        pixels.chunks(PIXELS).flat_map(|image| predict(model.as_mut(), image)).collect();
    assert!(largest_difference(&together, &alone) < 1e-5);
}

#[test]
fn bf16_is_close_to_fp32() {
    let exact = predict(load(Precision::Fp32).unwrap().as_mut(), &images(33));
    let rough = predict(load(Precision::Bf16).unwrap().as_mut(), &images(33));
    let difference = largest_difference(&exact, &rough);
    assert!(difference > 0.0, "bf16 must compute differently");
    assert!(difference < 0.05, "{difference}");
}

#[test]
fn an_empty_batch_gives_an_empty_result() {
    assert!(predict(load(Precision::Fp32).unwrap().as_mut(), &[]).is_empty());
}

#[test]
fn a_model_stays_usable_after_a_wrong_input() {
    let mut model = load(Precision::Fp32).unwrap();
    let wrong = Tensor::from_f32(vec![1, 3, SIDE, SIDE], vec![0.0; 3 * PIXELS]).unwrap();
    let error = model.predict(&Batch::single(INPUT, wrong)).unwrap_err();
    assert!(matches!(error, Error::InvalidTensor { .. }), "{error}");
    assert_eq!(predict(model.as_mut(), &images(1)).len(), CLASSES);
}

#[test]
fn precision_int8_is_unsupported() {
    assert!(matches!(load(Precision::Int8).err(), Some(Error::Unsupported { .. })));
}

#[test]
fn the_network_has_243_786_weights() {
    let count: usize = LAYERS.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    assert_eq!(count, 243_786);
}
