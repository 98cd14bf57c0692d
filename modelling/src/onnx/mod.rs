//! The runtime `onnx`: ONNX Runtime, whose library is loaded when the first model is.
//!
//! The library is searched in this order: the path in the options, `ORT_DYLIB_PATH`, and `onnxruntime-1.31.1` in `$FOREBAY_CACHE`,
//! `$XDG_CACHE_HOME/forebay` or `~/.cache/forebay`, where `scripts/fetch-onnxruntime` puts it. A process loads it once.

mod graph;
mod library;
mod session;

use crate::{Checkpoint, Error, Model, Options, Precision, Result, Runtime};

/// Checks a model and makes a session of it.
pub(crate) fn load(checkpoint: &Checkpoint, options: &Options) -> Result<Box<dyn Model>> {
    let graph = graph::check(checkpoint)?;
    if options.precision == Precision::Int8 && !graph.quantised {
        let (path, sibling) = (checkpoint.path(), options.file(checkpoint.path()));
        let reason =
            format!("{path:?} computes in fp32; precision int8 needs the quantised {sibling:?}");
        return Err(Error::Unsupported { reason });
    }
    let environment = library::environment(options.onnxruntime.as_deref())?;
    Ok(Box::new(session::Session::new(&environment, checkpoint, options.threads)?))
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::RuntimeFailed { runtime: Runtime::Onnx.name(), reason: error.to_string() }
}
