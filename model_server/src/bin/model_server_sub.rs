//! The program; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use model_server::process::{self, AdminArguments, Common};
use model_server::subscriber;

/// Consumes images, predicts, and queues the results.
///
/// Any number of these share the images: each takes some of the topic's partitions. SIGTERM ends
/// it once what it has taken is predicted and queued.
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
        subscriber::run(&settings, shutdown).await
    })
}
