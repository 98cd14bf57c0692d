//! The program; everything else is in the library.

use std::process::ExitCode;

use app1::Options;
use clap::Parser;
use model_server::process::{self, AdminArguments, Common};

/// Publishes images to the images topic.
///
/// A SOURCE is a directory (all files below it, in the order of their paths, hidden ones left
/// out), a file, an IDX file of images (plain or gzip), or - for standard input. SIGTERM ends it
/// after the batch that it is in.
#[derive(Parser)]
#[command(version, after_help = process::EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    admin: AdminArguments,
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let Arguments { common, admin, options } = Arguments::parse();
    process::serve(&common, &admin, async move |settings, shutdown| {
        app1::run(&settings, options, shutdown).await
    })
}
