//! The life of a process: logs, signals, exit codes, progress.
//!
//! A program is started by [`run`], which installs the log, gives the work a [`Shutdown`] to
//! listen to, and turns its failure into a message and an exit code of its own.

mod failure;
mod meter;
mod patience;
mod shutdown;

use std::future::Future;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub use failure::{Failure, Reason};
pub use meter::Meter;
pub use patience::Patience;
pub use shutdown::Shutdown;

use broker::Event;

use crate::settings::Settings;

/// How long a program may drain after the first signal.
const GRACE: Duration = Duration::from_secs(30);

/// The end of every program's help.
pub const EXIT_CODES: &str = "Exit codes: 0 done, 1 unexpected, 2 wrong arguments, 3 wrong \
    configuration, 4 model or own file unusable, 5 broker or queue unreachable or lost, 6 disk \
    full, 7 input unreadable, 8 draining took too long. FOREBAY_LOG sets the log level.";

/// What every program takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// The ini file with broker, topics, queue and model; see config/
    #[arg(long, env = "FOREBAY_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
}

impl Common {
    /// Reads and checks the ini file.
    pub fn settings(&self) -> Result<Settings, Failure> {
        Ok(Settings::read(&self.config, &broker::config::ProcessEnvironment)?)
    }
}

/// Runs a program to its exit code: 0 for success, else that of the [`Reason`].
pub fn run<W, F>(work: W) -> ExitCode
where
    W: FnOnce(Shutdown) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    log("info");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The heavy work has threads of its own; more here only cost switches.
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::start("cannot start the async runtime", error)),
    };
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::on_signals(GRACE)
            .map_err(|error| Failure::start("cannot listen to signals", error))?;
        work(shutdown).await
    });
    // A thread that hangs in a foreign library must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    eprintln!("error: {failure}");
    failure.reason().into()
}

/// Logs what happened to a consumer's share of its topic.
pub fn note(events: Vec<Event>) {
    for event in events {
        match event {
            Event::OffsetOutOfRange { partition, wanted, resumed } => {
                tracing::warn!(partition, wanted, resumed, "retention deleted unread messages");
            }
            event => tracing::debug!(?event, "the assignment changed"),
        }
    }
}

/// Logs go to standard error; `FOREBAY_LOG` takes levels and modules, such as `broker=debug`,
/// and stands in for the `default`.
pub fn log(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FOREBAY_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A test that runs two programs in one process keeps the first log.
    let _ = log.try_init();
}
