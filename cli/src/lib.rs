//! The program `forebay`: the demo, and the tools for topics, groups, messages and dead letters
//! on any broker.
//!
//! It only joins what the other crates do. What it prints of messages is escaped, so that
//! nobody's payload steers the terminal.

mod arguments;
mod attached;
mod bench;
mod calendar;
mod check;
#[cfg(feature = "conformance")]
mod conformance;
mod connection;
mod demo;
mod dlq;
mod escape;
mod groups;
mod lag;
mod output;
mod pace;
mod publish;
mod question;
mod record;
mod signals;
mod tail;
mod topics;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use model_server::process::{self, EXIT_CODES, Failure};

/// Forebay: models on a stream of events, on any broker.
///
/// `forebay demo` shows all of it at work on this machine, with nothing else installed. The tools
/// work on any broker: the ini file of --config or FOREBAY_CONFIG says which, and needs no more
/// than its [broker] section. They show tables on a terminal, bare lines with tabs elsewhere, and
/// JSON with --json.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    /// List, make, delete and describe topics
    #[command(subcommand)]
    Topics(topics::Command),
    /// List, describe, move and delete consumer groups
    #[command(subcommand)]
    Groups(groups::Command),
    Lag(lag::Arguments),
    Publish(publish::Arguments),
    Tail(tail::Arguments),
    /// Look at dead letters, each with its cause, and retry or drop them
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Check ini files
    #[command(subcommand)]
    Config(check::Command),
    Bench(bench::Arguments),
    #[cfg(feature = "conformance")]
    Conformance(conformance::Arguments),
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
        Command::Groups(command) => wait_for(groups::run(&command)),
        Command::Lag(arguments) => wait_for(lag::run(&arguments)),
        Command::Publish(arguments) => wait_for(publish::run(&arguments)),
        Command::Tail(arguments) => wait_for(tail::run(&arguments)),
        Command::Dlq(command) => wait_for(dlq::run(&command)),
        Command::Config(command) => wait_for(check::run(&command)),
        Command::Bench(arguments) => wait_for(bench::run(&arguments)),
        #[cfg(feature = "conformance")]
        Command::Conformance(arguments) => wait_for(conformance::run(&arguments)),
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
