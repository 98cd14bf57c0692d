//! The binary `train` as its users meet it.
#![cfg(feature = "train")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are no tests to Clippy")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use modelling::train::{Ended, Metrics};
use tempfile::TempDir;

const PIXELS: usize = 28 * 28;

/// Writes a dataset of stripes, whose row names the class.
fn dataset(images: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in ["train", "t10k"] {
        let labels: Vec<u8> = (0..images).map(|index| (index % 10) as u8).collect();
        let mut pixels = vec![0; images * PIXELS];
        for (image, label) in pixels.chunks_mut(PIXELS).zip(&labels) {
            image[(usize::from(*label) * 2 + 4) * 28..][..56].fill(255);
        }
        let path = |name: &str| folder.path().join(format!("{part}-{name}-ubyte"));
        write(&path("images-idx3"), &[0x803, images as u32, 28, 28], &pixels);
        write(&path("labels-idx1"), &[0x801, images as u32], &labels);
    }
    folder
}

fn write(path: &Path, header: &[u32], elements: &[u8]) {
    let header: Vec<u8> = header.iter().flat_map(|number| number.to_be_bytes()).collect();
    fs::write(path, [&header, elements].concat()).unwrap();
}

fn train(data: &Path, output: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command.args(["--threads", "1", "--no-distortion", "--data"]).arg(data);
    command.arg("--output").arg(output).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn metrics(folder: &Path) -> Metrics {
    serde_json::from_slice(&fs::read(folder.join("metrics.json")).unwrap()).unwrap()
}

#[test]
fn it_writes_plain_lines_and_says_where_the_model_is() {
    let (data, output) = (dataset(60), tempfile::tempdir().unwrap());
    let result = train(data.path(), output.path()).args(["--epochs", "2"]).output().unwrap();
    let errors = String::from_utf8(result.stderr).unwrap();
    assert!(result.status.success(), "{errors}");
    assert_eq!(String::from_utf8(result.stdout).unwrap().trim(), output.path().to_str().unwrap());
    assert!(errors.starts_with("epoch  1/2: training loss "), "{errors}");
    assert!(!errors.contains('\r') && !errors.contains('\u{1b}'), "{errors:?}");
    assert_eq!(metrics(output.path()).ended, Ended::EpochsMax);
    assert!(output.path().join("mnist-cnn.safetensors").exists());
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_best_so_far() {
    let (data, output) = (dataset(100), tempfile::tempdir().unwrap());
    let arguments = ["--epochs", "1000000", "--patience", "1000000"];
    let mut child = train(data.path(), output.path()).args(arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("epoch  1/"));
    let interrupted =
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
    let metrics = metrics(output.path());
    assert_eq!(metrics.ended, Ended::Cancelled);
    let best =
        metrics.epochs.iter().map(|epoch| epoch.validation_loss).fold(f64::INFINITY, f64::min);
    assert_eq!(metrics.epochs[metrics.best_epoch - 1].validation_loss, best);
}

#[test]
fn mistakes_are_named_and_fail() {
    let check = |arguments: &[&str], expected: &str| {
        let (data, output) = (dataset(20), tempfile::tempdir().unwrap());
        let result = train(data.path(), output.path()).args(arguments).output().unwrap();
        let errors = String::from_utf8(result.stderr).unwrap();
        assert!(!result.status.success(), "{arguments:?} must fail");
        assert!(errors.contains(expected), "{errors}");
    };
    check(&["--batch-size", "0"], "train: batch size is 0, expected at least 1");
    check(&["--dataset", "cats"], "accepted: mnist, fashion-mnist");
    let missing = Path::new("nowhere");
    let result = train(missing, missing).output().unwrap();
    let errors = String::from_utf8(result.stderr).unwrap();
    assert!(errors.contains("nowhere/train-images-idx3-ubyte"), "{errors}");
}
