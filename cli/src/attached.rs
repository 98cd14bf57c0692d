//! Becoming another program that ends with the process which asked for it.
//!
//! On Linux the kernel signals a process whose parent died, once the process itself has asked
//! for that. Between fork and exec such a call would need unsafe code; so the demo starts
//! this very program instead, which asks in the open and then becomes the wanted one.

use std::path::{Path, PathBuf};
use std::process::Command;

use model_server::process::Failure;

/// What `forebay attached` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The process whose end ends this one
    #[arg(long)]
    parent: u32,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    command: Vec<std::ffi::OsString>,
}

/// A command that starts `program`, ended by SIGTERM when this process is gone.
#[cfg(target_os = "linux")]
pub(crate) fn command(own: &Path, program: &Path) -> Command {
    let mut command = Command::new(own);
    command.args(["attached", "--parent", &std::process::id().to_string(), "--"]).arg(program);
    command
}

/// A command that starts `program`; only Linux ties it to this process.
#[cfg(not(target_os = "linux"))]
pub(crate) fn command(_own: &Path, program: &Path) -> Command {
    Command::new(program)
}

/// Ties this process to its parent and becomes the program; returns only if that fails.
pub(crate) fn become_program(arguments: &Arguments) -> Failure {
    use std::os::unix::process::CommandExt;
    if let Err(failure) = tie(arguments.parent) {
        return failure;
    }
    let Some((program, rest)) = arguments.command.split_first() else {
        return Failure::start("cannot start a program", "none is named");
    };
    let error = Command::new(program).args(rest).exec();
    Failure::start(format!("cannot start {:?}", PathBuf::from(program)), error)
}

#[cfg(target_os = "linux")]
fn tie(parent: u32) -> Result<(), Failure> {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| Failure::start("cannot ask for a signal at the parent's end", error))?;
    // A parent that died before the call sends nothing any more.
    let alive = getppid().map(Pid::as_raw_pid).is_some_and(|pid| pid.cast_unsigned() == parent);
    match alive {
        true => Ok(()),
        false => Err(Failure::start("cannot start a program", format!("{parent} is gone"))),
    }
}

#[cfg(not(target_os = "linux"))]
fn tie(_parent: u32) -> Result<(), Failure> {
    Ok(())
}
