//! The program `forebay`: the demo, and a look into topics and dead letters.
//!
//! It only joins what the other crates do. What it prints of messages is escaped, so that
//! nobody's payload steers the terminal.

mod attached;
mod calendar;
mod demo;
mod dlq;
mod escape;
mod output;
mod signals;
mod topics;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use model_server::process::{self, EXIT_CODES, Failure};

/// Forebay: models on a stream of events, on any broker.
///
/// `forebay demo` shows all of it at work on this machine, with nothing else installed.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    /// Look at the broker's topics.
    #[command(subcommand)]
    Topics(topics::Command),
    /// Look at the dead letters: messages that could not be processed, each with its cause.
    #[command(subcommand)]
    Dlq(dlq::Command),
    #[command(hide = true)]
    Attached(attached::Arguments),
}

/// Does what the command line asks for; the exit code tells how it went.
pub fn run(cli: Cli) -> ExitCode {
    match execute(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.reason().into()
        }
    }
}

fn execute(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Demo(arguments) => wait_for(demo::run(&arguments)),
        Command::Topics(command) => wait_for(topics::run(&command)),
        Command::Dlq(command) => wait_for(dlq::run(&command)),
        Command::Attached(arguments) => Err(attached::become_program(&arguments)),
    }
}

/// Runs on this thread, as processes that are tied to their parent are tied to the thread that
/// started them.
fn wait_for(work: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    // These commands speak for themselves.
    process::log("error");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::start("cannot start the async runtime", error))?;
    let outcome = runtime.block_on(work);
    // A thread that hangs in a foreign library must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}
