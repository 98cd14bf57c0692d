//! The harness of the system tests: the real programs as processes, each test with a directory
//! and topics of its own.
//!
//! Nothing is built here: the programs are those beside the test's own target directory. What a
//! test starts ends with it, whichever way the test ends.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a harness that cannot be set up fails its test"
)]

mod account;
mod ini;
mod own_server;
mod pipeline;
mod program;
mod servers;
mod stage;
mod waiting;

use std::path::{Path, PathBuf};

pub use account::Account;
pub use ini::Ini;
pub use own_server::OwnServer;
pub use pipeline::{Load, Pipeline};
pub use program::{Running, command};
pub use servers::{Paused, Redis, Turn, cannot_run, kafka};
pub use stage::{Record, Row, Stage, unique};
pub use waiting::{HANG, wait_beside, wait_until};

/// The four programs of the pipeline, in the order in which an image meets them.
pub const PIPELINE: [&str; 4] = ["app1", "model_server_sub", "model_server_pub", "app2"];

/// The programs that have work where `[model] exactly_once = true`.
pub const EXACTLY_ONCE: [&str; 3] = ["app1", "model_server_sub", "app2"];

/// How many times the usual load: `FOREBAY_SCALE`, 1 where it is unset.
pub fn scale() -> usize {
    let scale = std::env::var("FOREBAY_SCALE").ok();
    scale.map_or(1, |scale| scale.parse().expect("FOREBAY_SCALE is a number"))
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is a folder of the workspace")
}

/// The model file that the repository ships; `extension` is `onnx` or `safetensors`.
pub fn model(extension: &str) -> PathBuf {
    repository().join("modelling/models/mnist-cnn/mnist-cnn").with_extension(extension)
}

/// The folder of the four MNIST files, where this machine has it.
pub fn mnist() -> Option<PathBuf> {
    let data = std::env::var_os("FOREBAY_DATA").map(PathBuf::from);
    let data = data.unwrap_or_else(|| repository().join("../shared/data"));
    Some(data.join("mnist")).filter(|folder| folder.is_dir())
}
