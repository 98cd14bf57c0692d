//! The program; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use model_server::process::{self, Common};
use model_server::publisher;

/// Publishes queued results to the predictions topic, in their order.
///
/// One at a time does the work; others stand by and take over when it dies. SIGTERM ends it after
/// the step that it is in.
#[derive(Parser)]
#[command(version, after_help = process::EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    process::run(async move |shutdown| {
        publisher::run(&arguments.common.settings()?, shutdown).await
    })
}
