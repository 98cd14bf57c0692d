//! Finding ONNX Runtime's library and loading it once.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::{Error, Result, Runtime};

const FOLDER: &str = "onnxruntime-1.31.1";

/// The library and its settings belong to the process, so there is one of them; it is never unloaded.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// The process's environment; made by the first call that finds the library.
pub(super) fn environment(given: Option<&Path>) -> Result<Environment> {
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = environment.as_ref() {
        return Ok(environment.clone());
    }
    let path = find(given)?;
    let builder = ort::init_from(&path).map_err(|error| missing(error.to_string()))?;
    let built =
        builder.with_telemetry(false).build().map_err(|error| missing(error.to_string()))?;
    // What goes wrong comes back as an error; below that the library reports, for example, that a machine has no graphics card.
    built.set_log_level(LogLevel::Fatal);
    Ok(environment.insert(built).clone())
}

/// The library's path: as given, else from the environment, else from the cache.
fn find(given: Option<&Path>) -> Result<PathBuf> {
    let named = given.map(Path::to_owned).or_else(|| variable("ORT_DYLIB_PATH"));
    if let Some(path) = named {
        return check(path);
    }
    let cache = variable("FOREBAY_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("forebay")))
        .or_else(|| variable("HOME").map(|path| path.join(".cache/forebay")))
        .unwrap_or_default();
    check(cache.join(FOLDER).join(format!("libonnxruntime{}", env::consts::DLL_SUFFIX)))
}

fn check(path: PathBuf) -> Result<PathBuf> {
    match path.is_file() {
        true => Ok(path),
        false => Err(missing(format!("{path:?} does not exist"))),
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn missing(reason: String) -> Error {
    let reason = format!("{reason}; run scripts/fetch-onnxruntime");
    Error::RuntimeMissing { runtime: Runtime::Onnx.name(), reason }
}
