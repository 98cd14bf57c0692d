//! The life of a process: logs, signals, exit codes, progress.
//!
//! A program is started by [`run`], which installs the log, gives the work a [`Shutdown`] to
//! listen to, and turns its failure into a message and an exit code of its own. One that serves
//! for long is started by [`serve`], which adds the admin endpoint and exported spans.

mod admin;
mod failure;
mod logging;
mod meter;
#[cfg(feature = "otlp")]
mod otlp;
mod patience;
mod shutdown;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub use admin::{Admin, AdminArguments};
pub use failure::{Failure, Reason};
pub use logging::log;
pub use meter::Meter;
pub use patience::Patience;
pub use shutdown::Shutdown;

use broker::Event;

use self::logging::Spans;
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
    exit_code(block_on(work))
}

/// Runs a program that serves for long, as [`run`] does, with the settings that it is given, the
/// admin endpoint where it is asked for, and spans exported where the ini file says so.
pub fn serve<W, F>(common: &Common, admin: &AdminArguments, work: W) -> ExitCode
where
    W: FnOnce(Settings, Shutdown) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    exit_code(try_serve(common, admin, work))
}

fn try_serve<W, F>(common: &Common, admin: &AdminArguments, work: W) -> Result<(), Failure>
where
    W: FnOnce(Settings, Shutdown) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let settings = common.settings()?;
    let spans = Spans::start("info", settings.broker.layers.trace.otlp_endpoint.as_deref())?;
    let outcome = block_on(async |shutdown| {
        // It answers until the work is done, so that a probe sees the draining.
        let _admin = match admin.admin_address {
            Some(address) => {
                Some(Admin::start(address, settings.admin_insecure, shutdown.clone()).await?)
            }
            None => None,
        };
        work(settings, shutdown).await
    });
    spans.finish();
    outcome
}

fn block_on<W, F>(work: W) -> Result<(), Failure>
where
    W: FnOnce(Shutdown) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The heavy work has threads of its own; more here only cost switches.
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::start("cannot start the async runtime", error))?;
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::on_signals(GRACE)
            .map_err(|error| Failure::start("cannot listen to signals", error))?;
        work(shutdown).await
    });
    // A thread that hangs in a foreign library must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

fn exit_code(outcome: Result<(), Failure>) -> ExitCode {
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
