//! Logs to standard error, and spans to a collector where the ini file names one.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::failure::Failure;

/// Logs go to standard error; `FOREBAY_LOG` takes levels and modules, such as `broker=debug`,
/// and stands in for the `default`.
pub fn log(default: &str) {
    // A test that runs two programs in one process keeps the first log.
    let _ = tracing_subscriber::registry().with(lines(default)).try_init();
}

fn lines<S>(default: &str) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let filter = EnvFilter::try_from_env("FOREBAY_LOG");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_filter(filter)
}

/// Where the process's spans go, until it is finished with.
#[derive(Debug, Default)]
pub(super) struct Spans {
    #[cfg(feature = "otlp")]
    exporter: Option<super::otlp::Exporter>,
}

impl Spans {
    /// Begins to log as [`log`] does, and to export spans to `endpoint`, if there is one.
    pub(super) fn start(default: &str, endpoint: Option<&str>) -> Result<Self, Failure> {
        match endpoint {
            Some(endpoint) => Self::export(default, endpoint),
            None => {
                log(default);
                Ok(Self::default())
            }
        }
    }

    #[cfg(feature = "otlp")]
    fn export(default: &str, endpoint: &str) -> Result<Self, Failure> {
        use tracing_subscriber::filter::{LevelFilter, Targets};

        let exporter = super::otlp::Exporter::start(endpoint, program())?;
        // The broker's spans are of level debug, so that logs don't show them unasked.
        let wanted = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_target("broker", LevelFilter::DEBUG);
        let spans = exporter.layer::<tracing_subscriber::Registry>().with_filter(wanted);
        let _ = tracing_subscriber::registry().with(spans).with(lines(default)).try_init();
        Ok(Self { exporter: Some(exporter) })
    }

    #[cfg(not(feature = "otlp"))]
    fn export(_default: &str, _endpoint: &str) -> Result<Self, Failure> {
        use super::failure::Reason;

        let message = "otlp_endpoint is set in the section [trace], and this program is built \
                       without feature \"otlp\"";
        Err(Failure::new(Reason::Config, message))
    }

    /// Sends what is left. It may block for a while.
    pub(super) fn finish(self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            exporter.finish();
        }
    }
}

/// The program's name, by which a collector knows it.
#[cfg(feature = "otlp")]
fn program() -> String {
    let path = std::env::args_os().next().map(std::path::PathBuf::from);
    let stem = path.as_deref().and_then(std::path::Path::file_stem);
    stem.map_or_else(|| "forebay".to_owned(), |stem| stem.to_string_lossy().into_owned())
}
