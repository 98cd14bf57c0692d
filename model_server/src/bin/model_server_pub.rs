//! The program; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use model_server::process::{self, AdminArguments, Common};
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
    #[command(flatten)]
    admin: AdminArguments,
}

fn main() -> ExitCode {
    let Arguments { common, admin } = Arguments::parse();
    process::serve(&common, &admin, async move |settings, shutdown| {
        publisher::run(&settings, shutdown).await
    })
}
