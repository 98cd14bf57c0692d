//! What a service developer meets first: the examples run, and one feature brings one backend.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that can't be set up fails")]

mod dependencies;
mod examples;

use std::process::Command;

/// The cargo that builds these tests.
fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.arg("--offline");
    cargo
}

/// What a command prints; it must succeed.
fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed:\n{out}{err}");
    out.into_owned()
}
