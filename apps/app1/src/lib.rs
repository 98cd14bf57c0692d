//! Publishes images: directories, files, IDX files, standard input, and drawn samples.
//!
//! All that is to be published is numbered through, and message `index` of run `run` has the
//! id `run-index` for good. A thread of its own makes the next batch while one is published.
//!
//! Delivery is at least once: what is not known to be written is published again, and so is,
//! with `--resume`, the batch whose publication was not yet remembered when the program died.
//! Both times the ids are the same, so that consumers can tell repeats.

mod catalogue;
mod feed;
mod options;
mod pace;
mod publisher;
mod resume;

use std::sync::Arc;

use model_server::process::{Failure, Meter, Patience, Reason, Shutdown};
use model_server::settings::Settings;
use tokio::sync::mpsc;

pub use options::Options;

use catalogue::Catalogue;
use feed::{Batch, Feed, Plan};
use pace::Pace;
use publisher::Publisher;
use resume::Resume;

/// How many batches wait while one is published.
const BATCHES_AHEAD: usize = 2;

/// Publishes until all is published, or it is asked to end.
pub async fn run(settings: &Settings, options: Options, shutdown: Shutdown) -> Result<(), Failure> {
    let catalogue = open(settings, options.clone()).await?;
    let resume = Resume::open(options.resume.as_deref(), options.run_id.as_deref())?;
    let broker = settings.connect().await?;
    let (begin, end) = (resume.next(), options.end(catalogue.len()));
    tracing::info!(
        run = resume.run_id(),
        images = catalogue.len(),
        next = begin,
        broker = settings.broker.kind(),
        "ready"
    );
    let plan = Plan {
        run_id: resume.run_id().to_owned(),
        range: begin..end.unwrap_or(u64::MAX),
        keys: options.keys.get(),
        batch_max: options.batch_max(),
        message_bytes_max: broker.capabilities().message_bytes_max,
    };
    shutdown.ready(&broker, &[]);
    let mut publisher = Publisher {
        broker: broker.clone(),
        topic: settings.topics.images.clone(),
        catalogue: catalogue.clone(),
        resume,
        pace: Pace::new(options.rate),
        meter: Meter::new("images published", end.map(|end| end.saturating_sub(begin))),
        patience: Patience::default(),
        shutdown,
        skipped: 0,
    };
    let ended = publisher.run(Feed::new(catalogue, plan)).await;
    publisher.meter.finish();
    let skipped = publisher.skipped;
    drop(publisher);
    broker.shutdown().await?;
    ended?;
    match skipped {
        0 => Ok(()),
        _ => {
            let message = format!("the log names the inputs that were not published: {skipped}");
            Err(Failure::new(Reason::Input, message))
        }
    }
}

/// Looks at all sources, so that one which cannot be read ends the program before it begins.
async fn open(settings: &Settings, options: Options) -> Result<Arc<Catalogue>, Failure> {
    let labels = settings.model.labels;
    let opened = tokio::task::spawn_blocking(move || Catalogue::open(&options.sources(), labels));
    let opened = opened.await.map_err(|error| ended_early("reading the sources", error))?;
    Ok(Arc::new(opened?))
}

/// Starts the thread that makes batches; it ends with them, or once nobody takes them.
fn start(feed: Feed) -> (mpsc::Receiver<Batch>, tokio::task::JoinHandle<()>) {
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    let thread = tokio::task::spawn_blocking(move || {
        for batch in feed {
            if sender.blocking_send(batch).is_err() {
                return;
            }
        }
    });
    (batches, thread)
}

fn ended_early(what: &str, error: tokio::task::JoinError) -> Failure {
    Failure::new(Reason::Unexpected, format!("{what} ended early")).because(error)
}
