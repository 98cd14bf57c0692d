//! Persists predictions in SQLite, once each, and reports on them.
//!
//! A batch is one transaction, committed and synced before any of it is settled. A crash between
//! the two brings the batch again, and each of its predictions is found to be there already: it
//! is counted as a repeat and changes nothing. One of the same id and model for another input is
//! a conflict and goes to the dead letters, as does what is no prediction.

pub mod database;
pub mod report;

use std::time::Duration;

use broker::{AckToken, Consumer, Delivery, Limit, Outcome, Subscription};
use database::{Database, Verdict};
use model_server::process::{self, Failure, Meter, Patience, Reason, Shutdown};
use model_server::settings::Settings;

/// The most predictions in one transaction.
const BATCH_MAX: usize = 512;
/// How long one `receive` waits; shutdown wakes it earlier.
const RECEIVE_WAIT: Duration = Duration::from_secs(1);

/// Runs until it is asked to end; the batch that it is in comes to its end first.
pub async fn run(settings: &Settings, shutdown: Shutdown) -> Result<(), Failure> {
    let path = settings.database.clone();
    let database = blocking(move || Database::open(&path)).await??;
    let broker = settings.connect().await?;
    tracing::info!(database = ?settings.database, broker = settings.broker.kind(), "ready");
    let subscription = Subscription::group(&settings.topics.predictions, &settings.app2_group);
    let consumer = broker.subscribe(subscription).await?;
    shutdown.ready(&broker, &[(&settings.topics.predictions, &settings.app2_group)]);
    let mut persister = Persister {
        consumer,
        database: Some(database),
        meter: Meter::new("predictions persisted", None),
        patience: Patience::default(),
        shutdown,
    };
    let ended = persister.serve().await;
    persister.meter.finish();
    drop(persister);
    broker.shutdown().await?;
    ended
}

struct Persister {
    consumer: Box<dyn Consumer>,
    /// Away only while a thread writes to it.
    database: Option<Database>,
    meter: Meter,
    patience: Patience,
    shutdown: Shutdown,
}

impl Persister {
    async fn serve(&mut self) -> Result<(), Failure> {
        while !self.shutdown.is_wanted() {
            let limit = Limit::new(BATCH_MAX, RECEIVE_WAIT);
            let received = tokio::select! {
                biased;
                () = self.shutdown.wanted() => return Ok(()),
                received = self.consumer.receive(limit) => received,
            };
            match received {
                Ok(deliveries) => self.persist(deliveries).await?,
                Err(error) => self.patience.bear(error, &self.shutdown).await?,
            }
            process::note(self.consumer.events());
        }
        Ok(())
    }

    /// Commits a batch, then settles it.
    async fn persist(&mut self, deliveries: Vec<Delivery>) -> Result<(), Failure> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let verdicts = self.write(&deliveries).await?;
        let mut persisted = 0;
        let mut outcomes = Vec::with_capacity(deliveries.len());
        for (delivery, verdict) in deliveries.into_iter().zip(verdicts) {
            persisted += u64::from(verdict == Verdict::Persisted);
            outcomes.push((delivery.into_token(), outcome(verdict)));
        }
        self.settle(outcomes).await?;
        self.meter.add(persisted);
        Ok(())
    }

    /// Writes on a thread where blocking is no harm.
    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Verdict>, Failure> {
        let Some(mut database) = self.database.take() else {
            return Err(Failure::new(Reason::Unexpected, "the database is gone"));
        };
        let payloads: Vec<_> = deliveries.iter().map(|delivery| delivery.payload.clone()).collect();
        let write = move || {
            let verdicts = database.persist(&payloads);
            (database, verdicts)
        };
        let (database, verdicts) = blocking(write).await?;
        self.database = Some(database);
        verdicts
    }

    async fn settle(&mut self, mut outcomes: Vec<(AckToken, Outcome)>) -> Result<(), Failure> {
        loop {
            let mut unsettled = self.consumer.settle(outcomes).await.into_iter();
            let Some(first) = unsettled.next() else {
                self.patience.reset();
                return Ok(());
            };
            outcomes = unsettled.map(|failed| (failed.token, failed.outcome)).collect();
            outcomes.insert(0, (first.token, first.outcome));
            self.patience.bear(first.error, &self.shutdown).await?;
        }
    }
}

fn outcome(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Persisted | Verdict::Repeated => Outcome::Ack,
        Verdict::Refused(reason) => {
            tracing::warn!(reason, "a prediction goes to the dead letters");
            Outcome::Reject { reason }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Failure::new(Reason::Unexpected, "the database's thread died").because(error)
    })
}
