//! The program; everything else is in the library.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use app2::report::Report;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use model_server::process::{self, AdminArguments, Common, Failure, Reason};

/// Persists predictions in SQLite, one row for each id and model.
///
/// Any number of these share the predictions: each takes some of the topic's partitions. SIGTERM
/// ends it after the batch that it is in.
#[derive(Parser)]
#[command(version, after_help = process::EXIT_CODES)]
struct Arguments {
    /// The ini file with broker, topics and database; see config/
    #[arg(long, env = "FOREBAY_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Prints what is persisted: counts by label, accuracy, throughput and latency
    Report {
        /// One JSON object in place of the table
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // An argument that is valid in more than one place cannot be required by its declaration.
    let Some(config) = arguments.config else {
        let message = "the argument --config <FILE> is missing, and FOREBAY_CONFIG is not set";
        Arguments::command().error(ErrorKind::MissingRequiredArgument, message).exit();
    };
    let common = Common { config };
    match arguments.command {
        None => process::serve(&common, &arguments.admin, async move |settings, shutdown| {
            app2::run(&settings, shutdown).await
        }),
        Some(Command::Report { json }) => {
            process::run(async move |_| print(&Report::read(&common.settings()?.database)?, json))
        }
    }
}

fn print(report: &Report, json: bool) -> Result<(), Failure> {
    let cannot = |error| Failure::new(Reason::Unexpected, "cannot print the report").because(error);
    let text = match json {
        true => serde_json::to_string(report).map_err(|error| cannot(error.into()))?,
        false => report.to_string(),
    };
    match writeln!(io::stdout(), "{text}") {
        // Whoever reads only the beginning has what they want.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(cannot),
    }
}
