//! Publishes batches in their order, again where that may help.

use std::sync::Arc;

use broker::{Broker, Error, ErrorKind, Published, Topic};
use model_server::process::{Failure, Meter, Patience, Shutdown};

use crate::catalogue::Catalogue;
use crate::feed::{Batch, Feed};
use crate::pace::Pace;
use crate::resume::Resume;

pub(crate) struct Publisher {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) topic: Topic,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) resume: Resume,
    pub(crate) pace: Pace,
    pub(crate) meter: Meter,
    pub(crate) patience: Patience,
    pub(crate) shutdown: Shutdown,
    /// How many inputs could not be published.
    pub(crate) skipped: u64,
}

impl Publisher {
    /// Publishes all that the feed gives, or until it is asked to end.
    pub(crate) async fn run(&mut self, feed: Feed) -> Result<(), Failure> {
        let (mut batches, thread) = crate::start(feed);
        let ended = loop {
            let mut shutdown = self.shutdown.clone();
            let batch = tokio::select! {
                biased;
                () = shutdown.wanted() => break Ok(()),
                batch = async {
                    let batch = batches.recv().await?;
                    self.pace.wait(batch.messages.len()).await;
                    Some(batch)
                } => batch,
            };
            let Some(batch) = batch else { break Ok(()) };
            if let Err(failure) = self.take(batch).await {
                break Err(failure);
            }
            // Going round in a loop of which nothing can be published has no end.
            if self.meter.count() == 0 && self.skipped >= self.catalogue.len() {
                break Ok(());
            }
        };
        drop(batches);
        thread.await.map_err(|error| crate::ended_early("reading the images", error))?;
        ended
    }

    async fn take(&mut self, mut batch: Batch) -> Result<(), Failure> {
        for (index, reason) in std::mem::take(&mut batch.refused) {
            self.skip(index, &reason);
        }
        let next = batch.next;
        self.publish(batch).await?;
        self.resume.remember(next)
    }

    /// Publishes a batch. From the first message on that is not known to be written, all are
    /// published again, so that each key keeps its order.
    async fn publish(&mut self, batch: Batch) -> Result<(), Failure> {
        let Batch { mut messages, mut indices, .. } = batch;
        while !messages.is_empty() {
            let results = match self.broker.publish(&self.topic, messages.clone()).await {
                Ok(results) => results,
                Err(error) => {
                    self.patience.bear(error, &self.shutdown).await?;
                    continue;
                }
            };
            let Some((done, error)) = self.settle(results, &indices) else {
                self.patience.reset();
                return Ok(());
            };
            if done > 0 {
                self.patience.reset();
            }
            self.patience.bear(error, &self.shutdown).await?;
            messages.drain(..done);
            indices.drain(..done);
        }
        Ok(())
    }

    /// Counts what is done with, and returns how much that is where an error follows it.
    fn settle(&mut self, results: Vec<Published>, indices: &[u64]) -> Option<(usize, Error)> {
        let mut written = 0;
        let mut failed = None;
        for (at, (result, index)) in results.into_iter().zip(indices).enumerate() {
            match result {
                Published::Written(_) => written += 1,
                Published::NotWritten(error) | Published::Unknown(error)
                    if error.kind() == ErrorKind::TooLarge =>
                {
                    self.skip(*index, &error.to_string());
                }
                Published::NotWritten(error) | Published::Unknown(error) => {
                    failed = Some((at, error));
                    break;
                }
            }
        }
        self.meter.add(written);
        failed
    }

    /// Tells of an input that is passed over; in a loop only the first time.
    fn skip(&mut self, index: u64, reason: &str) {
        self.skipped += 1;
        if index < self.catalogue.len() {
            tracing::error!(index, reason, "cannot publish {}", self.catalogue.name(index));
        }
    }
}
