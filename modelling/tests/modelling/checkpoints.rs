//! Loading model files, good and bad.

use std::fs::{self, File};
use std::path::Path;

use bytes::Bytes;
use modelling::checkpoint::{BYTES_MAX, Format};
use modelling::preprocess::PIXELS;
use modelling::{
    Batch, Checkpoint, Datatype, Error, Model, Options, Precision, Result, Runtime, Tensor,
};

use crate::{images, load, probabilities, trained};

fn bytes(file: &str) -> Vec<u8> {
    fs::read(trained(file)).unwrap()
}

fn load_bytes(name: &str, bytes: Vec<u8>, options: &Options) -> Result<Box<dyn Model>> {
    modelling::load(&Checkpoint::from_bytes(Path::new(name), bytes.into())?, options)
}

fn cause(outcome: Result<Box<dyn Model>>) -> String {
    match outcome {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was loaded"),
    }
}

/// Replaces the first occurrence.
fn replace(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn a_checkpoint_names_its_bytes() {
    let checkpoint = Checkpoint::open(&trained("mnist-cnn.onnx")).unwrap();
    assert_eq!((checkpoint.name(), checkpoint.format()), ("mnist-cnn", Format::Onnx));
    assert_eq!(checkpoint.digest().len(), 64);
    assert_eq!(checkpoint.version(), &checkpoint.digest()[..12]);
    assert_eq!(checkpoint.bytes(), &bytes("mnist-cnn.onnx"));
    let named = checkpoint.with_name("digits").with_version("7");
    assert_eq!((named.name(), named.version()), ("digits", "7"));
    let sibling = Checkpoint::open(&trained("mnist-cnn.int8.onnx")).unwrap();
    assert_eq!(sibling.name(), "mnist-cnn");
    assert_ne!(sibling.digest(), named.digest());
    // The digest is SHA-256's, as any other tool computes it.
    let safetensors =
        Checkpoint::from_bytes(Path::new("x"), Bytes::from_static(b"\x02\0\0\0\0\0\0\0{}"))
            .unwrap();
    assert_eq!(safetensors.format(), Format::Safetensors);
    assert_eq!(
        safetensors.digest(),
        "411a485216e432ece6b9af94fa32154cf79a2a56d4f81266baa50063f45092bd"
    );
}

#[test]
fn the_signature_is_that_of_the_cnn() {
    let model = load("mnist-cnn.onnx", &Options::default());
    let signature = model.signature();
    assert_eq!(
        (signature.inputs[0].datatype, &signature.inputs[0].shape[..]),
        (Datatype::Fp32, &[-1, 1, 28, 28][..])
    );
    assert_eq!(
        (signature.outputs[0].datatype, &signature.outputs[0].shape[..]),
        (Datatype::Fp32, &[-1, 10][..])
    );
}

#[test]
fn missing_files_and_files_that_are_no_model_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    assert!(matches!(Checkpoint::open(&path), Err(Error::MissingFile { .. })));
    for content in [&b""[..], b"hello", b"PK\x03\x04 TorchScript", b"\x80\x02 pickle", b"\x08"] {
        fs::write(&path, content).unwrap();
        let cause = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(cause.contains("neither ONNX nor safetensors"), "{cause}");
    }
    assert!(matches!(
        Checkpoint::open(folder.path()),
        Err(Error::Io { .. } | Error::CorruptModel { .. })
    ));
}

#[test]
fn a_file_above_the_limit_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    File::create(&path).unwrap().set_len(BYTES_MAX + 1).unwrap();
    let Err(Error::LimitExceeded { actual, limit, .. }) = Checkpoint::open(&path) else {
        panic!("it was read")
    };
    assert_eq!((actual, limit), (BYTES_MAX + 1, BYTES_MAX));
}

#[test]
fn damaged_onnx_is_corrupt() {
    let whole = bytes("mnist-cnn.onnx");
    let half = whole[..whole.len() / 2].to_vec();
    for damaged in [half, b"\x08\x08".to_vec(), replace(whole, b"Conv", b"Cxnv")] {
        let outcome = load_bytes("m.onnx", damaged, &Options::default());
        assert!(matches!(outcome, Err(Error::CorruptModel { .. })), "{}", cause(outcome));
    }
}

#[test]
fn weights_in_another_file_are_refused() {
    // Protobuf merges what is appended: a graph with a weight "w" whose data is external.
    let external = [&bytes("mnist-cnn.onnx")[..], b"\x3a\x07\x2a\x05\x42\x01w\x70\x01"].concat();
    let outcome = load_bytes("m.onnx", external, &Options::default());
    assert!(matches!(outcome, Err(Error::Unsupported { .. })));
    assert!(cause(outcome).contains("keeps the weight \"w\" in another file"));
}

#[test]
fn a_graph_with_too_many_nodes_is_refused() {
    let nodes = b"\x3a\x02\x0a\x00".repeat(100_001);
    let outcome = load_bytes("m.onnx", [&b"\x08\x08"[..], &nodes].concat(), &Options::default());
    assert!(matches!(outcome, Err(Error::LimitExceeded { actual: 100_001, limit: 100_000, .. })));
}

#[test]
fn graphs_that_are_nested_too_deep_are_corrupt() {
    // A graph in an attribute of a node of a graph, and so on.
    let mut graph = vec![];
    let wrap = |tag: u8, inside: &[u8]| {
        let mut length = inside.len();
        let mut wrapped = vec![tag];
        while length > 127 {
            wrapped.push(length as u8 | 128);
            length >>= 7;
        }
        [&wrapped[..], &[length as u8], inside].concat()
    };
    for _ in 0..200 {
        graph = wrap(0x0a, &wrap(0x2a, &wrap(0x32, &graph)));
    }
    let outcome =
        load_bytes("m.onnx", [&b"\x08\x08"[..], &wrap(0x3a, &graph)].concat(), &Options::default());
    assert!(matches!(outcome, Err(Error::CorruptModel { .. })));
}

#[test]
fn format_runtime_and_precision_have_to_go_together() {
    let options = |runtime, precision| Options { runtime, precision, ..Options::default() };
    let check = |file: &str, runtime, precision, expected: &str| {
        let checkpoint = Checkpoint::open(&trained(file)).unwrap();
        let outcome = modelling::load(&checkpoint, &options(runtime, precision));
        assert!(matches!(outcome, Err(Error::Unsupported { .. })));
        let cause = cause(outcome);
        assert!(cause.contains(expected), "{cause:?} does not contain {expected:?}");
    };
    check(
        "mnist-cnn.safetensors",
        Runtime::Onnx,
        Precision::Fp32,
        "is .safetensors, which runtime torch takes",
    );
    check(
        "mnist-cnn.onnx",
        Runtime::Torch,
        Precision::Fp32,
        "runtime torch takes .safetensors files",
    );
    check(
        "mnist-cnn.onnx",
        Runtime::Onnx,
        Precision::Bf16,
        "precision bf16 needs runtime torch, not onnx",
    );
    check(
        "mnist-cnn.safetensors",
        Runtime::Torch,
        Precision::Int8,
        "precision int8 needs runtime onnx, not torch",
    );
    check("mnist-cnn.onnx", Runtime::Onnx, Precision::Int8, "needs the quantised");
}

#[test]
fn the_precision_picks_the_file() {
    let int8 = Options { precision: Precision::Int8, ..Options::default() };
    assert_eq!(int8.file(Path::new("a/m.onnx")), Path::new("a/m.int8.onnx"));
    assert_eq!(int8.file(Path::new("a/m.int8.onnx")), Path::new("a/m.int8.onnx"));
    assert_eq!(Options::default().file(Path::new("a/m.onnx")), Path::new("a/m.onnx"));
}

#[test]
fn unknown_names_list_the_accepted_ones() {
    let runtime = "tensorflow".parse::<Runtime>().unwrap_err().to_string();
    assert_eq!(runtime, r#"unknown runtime "tensorflow"; accepted: onnx, torch"#);
    let precision = "fp64".parse::<Precision>().unwrap_err().to_string();
    assert_eq!(precision, r#"unknown precision "fp64"; accepted: fp32, bf16, int8"#);
    assert!("float".parse::<Datatype>().unwrap_err().to_string().contains("BOOL, UINT8"));
    assert_eq!("torch".parse::<Runtime>().unwrap(), Runtime::Torch);
}

#[cfg(not(feature = "torch"))]
#[test]
fn a_runtime_that_is_left_out_names_its_feature() {
    let options = Options { runtime: Runtime::Torch, ..Options::default() };
    let outcome =
        modelling::load(&Checkpoint::open(&trained("mnist-cnn.safetensors")).unwrap(), &options);
    assert!(cause(outcome).contains("cargo feature `torch`"));
}

#[cfg(feature = "torch")]
#[test]
fn damaged_safetensors_are_corrupt() {
    let whole = bytes("mnist-cnn.safetensors");
    let options = Options { runtime: Runtime::Torch, ..Options::default() };
    let cut = whole[..whole.len() - 1].to_vec();
    let header = replace(whole, b"\"dtype\"", b"\"dtyqe\"");
    for damaged in [cut, header, b"\x02\0\0\0\0\0\0\0{}".to_vec(), b"\xff\0\0\0\0\0\0\0{}".to_vec()]
    {
        let outcome = load_bytes("m.safetensors", damaged, &options);
        assert!(matches!(outcome, Err(Error::CorruptModel { .. })), "{}", cause(outcome));
    }
}

fn varied(rows: usize) -> Vec<f32> {
    (0..rows * PIXELS).map(|index| (index * 31 % 97) as f32 / 97.0).collect()
}

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it() {
    let mut model = load("mnist-cnn.onnx", &Options::default());
    for rows in [1, 31, 32, 33, 100] {
        let together = probabilities(model.as_mut(), varied(rows));
        assert_eq!(together.len(), rows * 10);
        for (row, pixels) in varied(rows).chunks_exact(PIXELS).enumerate() {
            let alone = probabilities(model.as_mut(), pixels.to_vec());
            let close = alone.iter().zip(&together[row * 10..]).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close, "row {row} of {rows}");
        }
    }
}

#[test]
fn an_empty_batch_gives_an_empty_result() {
    let mut model = load("mnist-cnn.onnx", &Options::default());
    let outputs = model.predict(&images(Vec::new())).unwrap();
    assert_eq!(outputs.get("probabilities").unwrap().shape(), [0, 10]);
}

#[test]
fn unaligned_bytes_give_the_same_result() {
    let mut model = load("mnist-cnn.onnx", &Options::default());
    let aligned = Tensor::from_f32(vec![3, 1, 28, 28], varied(3)).unwrap();
    let shifted = Bytes::from([b"x", &aligned.bytes()[..]].concat()).slice(1..);
    let shifted = Tensor::new(Datatype::Fp32, vec![3, 1, 28, 28], shifted).unwrap();
    let mut run = |tensor| model.predict(&Batch::single("image", tensor)).unwrap();
    assert_eq!(run(aligned), run(shifted));
}

#[test]
fn input_that_does_not_fit_is_refused_and_the_model_goes_on() {
    let mut model = load("mnist-cnn.onnx", &Options::default());
    let tensor = |shape: &[usize]| {
        Tensor::from_f32(shape.to_vec(), vec![0.0; shape.iter().product()]).unwrap()
    };
    let bytes = Tensor::new(Datatype::Uint8, vec![1, 1, 28, 28], vec![0; PIXELS].into()).unwrap();
    let two =
        Batch::new(vec![("image".into(), tensor(&[1, 1, 28, 28])), ("other".into(), tensor(&[1]))])
            .unwrap();
    for (batch, expected) in [
        (
            Batch::single("image", tensor(&[1, 1, 28, 27])),
            "\"image\" has shape [1, 1, 28, 27], expected [-1, 1, 28, 28]",
        ),
        (Batch::single("image", tensor(&[1, 784])), "has shape [1, 784]"),
        (Batch::single("image", bytes), "has datatype UINT8, expected FP32"),
        (Batch::single("picture", tensor(&[1, 1, 28, 28])), "input \"image\" is missing"),
        (two, "\"other\" is no input of this model, expected image"),
    ] {
        let cause = model.predict(&batch).unwrap_err().to_string();
        assert!(cause.contains(expected), "{cause:?} does not contain {expected:?}");
    }
    assert_eq!(model.predict(&images(varied(1))).unwrap().len(), 1);
}

#[test]
fn models_can_be_used_on_several_threads_at_once() {
    let expected = probabilities(load("mnist-cnn.onnx", &Options::default()).as_mut(), varied(5));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut model = load("mnist-cnn.onnx", &Options::default());
            let expected = &expected;
            scope.spawn(move || {
                (0..20)
                    .for_each(|_| assert_eq!(&probabilities(model.as_mut(), varied(5)), expected))
            });
        }
    });
}
