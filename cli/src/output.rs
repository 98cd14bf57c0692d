//! Writing to standard output, which may be a pipe that nobody reads any more.

use std::io::{ErrorKind, Write};

use model_server::process::{Failure, Reason};
use serde::Serialize;

/// Writes a text; a reader that went away, such as `head`, is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let failure = Failure::new(Reason::Unexpected, "cannot write to standard output");
            Err(failure.because(error))
        }
        _ => Ok(()),
    }
}

/// A value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    let line = serde_json::to_string(value).map_err(|error| {
        Failure::new(Reason::Unexpected, "cannot write the result as JSON").because(error)
    })?;
    Ok(line + "\n")
}
