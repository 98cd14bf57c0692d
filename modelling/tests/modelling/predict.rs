//! The binary `predict`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use modelling::samples;
use tempfile::TempDir;

use crate::trained;

fn predict(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_predict"));
    command
        .current_dir(folder)
        .env("FOREBAY_MODEL", trained("mnist-cnn.onnx"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A folder with a three, a text, and a file whose name would steer a terminal.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let three = (0..)
        .map(|index| samples::draw(3, index))
        .find(|sample| sample.label == 3 && sample.width > 28)
        .unwrap();
    fs::write(folder.path().join("three"), &three.bytes).unwrap();
    fs::write(folder.path().join("text.png"), "no image").unwrap();
    fs::write(folder.path().join("red\u{1b}[31m\u{9b}\u{202e}"), &three.bytes).unwrap();
    folder
}

#[test]
fn a_table_names_label_and_probability() {
    let folder = folder();
    let output = predict(folder.path(), &["three"]);
    let lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert!(output.status.success());
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["file", "label", "probability"]);
    let [file, label, probability] =
        lines[1].split_whitespace().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((file, label, lines.len()), ("three", "3", 2));
    assert!((0.5..=1.0).contains(&probability.parse::<f64>().unwrap()));
}

#[test]
fn a_bad_file_is_reported_and_the_others_go_on() {
    let folder = folder();
    let output = predict(folder.path(), &["text.png", "none.png", "three"]);
    let (table, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(
        errors.contains("predict: text.png: bad image: the payload is no image: 8 bytes"),
        "{errors}"
    );
    assert!(errors.contains("\"none.png\" does not exist"), "{errors}");
    let output = predict(folder.path(), &["text.png"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn json_holds_one_object_a_line() {
    let folder = folder();
    let output =
        predict(folder.path(), &["--json", "three", "text.png", "red\u{1b}[31m\u{9b}\u{202e}"]);
    let printed = text(&output.stdout);
    let objects: Vec<serde_json::Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&objects[0]["file"], &objects[0]["label"], &objects[0]["class"]),
        (&"three".into(), &"3".into(), &3.into())
    );
    assert_eq!(objects[1]["file"], "text.png");
    assert!(objects[1]["error"].as_str().unwrap().contains("no image"));
    assert_eq!(objects[2]["file"], "red\u{1b}[31m\u{9b}\u{202e}");
    assert!(!printed.contains(['\u{1b}', '\u{9b}', '\u{202e}']));
}

#[test]
fn names_can_not_steer_a_terminal() {
    let folder = folder();
    let output = predict(folder.path(), &["red\u{1b}[31m\u{9b}\u{202e}", "none\u{1b}[2J"]);
    let (table, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(table.contains(r"red\u{1b}[31m\u{9b}\u{202e}"), "{table}");
    assert!(errors.contains(r"none\u{1b}[2J"), "{errors}");
    assert!(!format!("{table}{errors}").contains(['\u{1b}', '\u{9b}', '\u{202e}']));
}

#[test]
fn explain_shows_what_the_model_sees() {
    let folder = folder();
    let output = predict(folder.path(), &["--explain", "--precision", "int8", "three"]);
    let printed = text(&output.stdout);
    let rows: Vec<&str> = printed.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 28);
    assert!(rows.iter().all(|row| row.len() == 58));
    assert!(rows[..3].iter().all(|row| row.trim_matches('|').trim().is_empty()), "{printed}");
    assert!(rows.iter().any(|row| row.contains("@@")), "{printed}");
}

#[test]
fn a_model_that_can_not_be_loaded_has_an_exit_code_of_its_own() {
    let folder = folder();
    let check = |arguments: &[&str], code, expected: &str| {
        let output = predict(folder.path(), arguments);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(expected), "{errors:?} does not contain {expected:?}");
    };
    check(
        &["--onnxruntime", "none.so", "three"],
        3,
        "\"none.so\" does not exist; run scripts/fetch-onnxruntime",
    );
    check(&["--onnxruntime", "three", "three"], 3, "run scripts/fetch-onnxruntime");
    check(&["--model", "none.onnx", "three"], 3, "\"none.onnx\" does not exist");
    check(&["--model", "text.png", "three"], 3, "neither ONNX nor safetensors");
    check(&["--precision", "bf16", "three"], 3, "precision bf16 needs runtime torch");
    check(&["--runtime", "jax", "three"], 2, "unknown runtime \"jax\"; accepted: onnx, torch");
    check(&[], 2, "<FILE>...");
}
