//! Publishing and settling in one transaction of Kafka.
//!
//! Nothing is sent before `commit`, so an abort only forgets what was gathered. The commit
//! itself belongs to a job that also takes note of its end: a caller who stops waiting for it
//! neither loses a settlement nor gets a delivery again that was settled.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use rdkafka::consumer::Consumer as _;

use super::broker::Inner;
use super::committer;
use super::control::blocking;
use super::error::translate;
use super::producer;
use super::state::{Commit, Link};
use super::transactor::{Failure, Positions, Transactor, Verdict};
use crate::contract::Transaction;
use crate::delivery::{AckToken, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

/// What a transaction needs of its consumer.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) inner: Arc<Inner>,
    pub(super) link: Arc<Link>,
    pub(super) topic: Topic,
    /// Names the producer, so that a successor fences it.
    pub(super) id: Arc<str>,
}

impl Source {
    /// Connects the producer, where it is not. This fences whoever used its name before, and
    /// ends what that one left open.
    pub(super) fn connect(&self) -> Result<()> {
        let mut transactor = self.link.transactor();
        if transactor.is_none() {
            *transactor = Some(Transactor::new(&self.inner.config, &self.id)?);
        }
        Ok(())
    }
}

pub(super) struct KafkaTransaction<'a> {
    source: &'a Source,
    messages: Vec<(Topic, Vec<Message>)>,
    outcomes: Vec<(AckToken, Outcome)>,
    /// Why a part was refused, and with it the whole.
    refused: Option<Error>,
}

impl<'a> KafkaTransaction<'a> {
    /// Begins a transaction; the consumer's first one connects its producer.
    pub(super) async fn begin(source: &'a Source) -> Result<Self> {
        source.link.lock().check_open("transaction")?;
        let job = source.clone();
        blocking("transaction", move || job.connect()).await?;
        Ok(Self { source, messages: Vec::new(), outcomes: Vec::new(), refused: None })
    }

    /// Finds out now what can be known of a batch before it is sent.
    async fn check(&self, topic: &Topic, batch: &[Message]) -> Result<()> {
        let inner = &self.source.inner;
        inner.check_open("publish")?;
        for message in batch {
            producer::check(message, inner.config.message_bytes_max)
                .map_err(|error| error.with("topic", topic))?;
        }
        inner.require_topic(topic).await
    }
}

#[async_trait]
impl Transaction for KafkaTransaction<'_> {
    async fn publish(&mut self, topic: &Topic, batch: Vec<Message>) -> Result<()> {
        if let Err(error) = self.check(topic, &batch).await {
            self.refused.get_or_insert(error.duplicate());
            return Err(error);
        }
        self.messages.push((topic.clone(), batch));
        Ok(())
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Result<()> {
        self.outcomes.extend(outcomes);
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        let job = Job {
            source: self.source.clone(),
            messages: std::mem::take(&mut self.messages),
            outcomes: std::mem::take(&mut self.outcomes),
        };
        blocking("commit", move || job.run()).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for KafkaTransaction<'_> {
    fn drop(&mut self) {
        let link = &self.source.link;
        link.lock().reopen(&self.outcomes);
        link.arrived.notify_one();
    }
}

/// A commit under way.
struct Job {
    source: Source,
    messages: Vec<(Topic, Vec<Message>)>,
    outcomes: Vec<(AckToken, Outcome)>,
}

impl Job {
    fn run(self) -> Result<()> {
        let link = &self.source.link;
        let mut transactor = link.transactor();
        let prepared = match &*transactor {
            Some(ready) => self.prepare().map(|prepared| (ready, prepared)),
            None => Err(Error::new(ErrorKind::Closed, "commit", "the consumer was shut down")),
        };
        let result = match prepared {
            Ok((ready, (commits, positions))) => {
                let done = ready.commit(&self.messages, positions.as_ref());
                done.map(|()| commits)
            }
            Err(error) => Err(Failure { error, verdict: Verdict::Undone }),
        };
        link.lock().end_transaction(&self.outcomes, result.as_deref().ok());
        link.arrived.notify_one();
        link.wake();
        let Err(failure) = result else { return Ok(()) };
        if failure.verdict != Verdict::Undone {
            *transactor = None;
        }
        drop(transactor);
        Err(self.explain(failure))
    }

    /// The positions that the settlements come to, and the right to commit them. The right is
    /// taken first: what is assigned then can't have gone to another member under it.
    fn prepare(&self) -> Result<(Vec<Commit>, Option<Positions>)> {
        let link = &self.source.link;
        let client = link.client.get().and_then(Weak::upgrade);
        let membership = client.and_then(|client| client.group_metadata());
        let wait_max = self.source.inner.config.outage_max;
        let commits = link.begin_transaction(&self.outcomes, wait_max)?;
        if commits.is_empty() {
            return Ok((commits, None));
        }
        let none = || Error::new(ErrorKind::Closed, "commit", "the consumer was shut down");
        let membership = membership.ok_or_else(none)?;
        let list = committer::list(&self.source.topic, &commits);
        let list = list.map_err(|error| translate("commit", error))?;
        Ok((commits, Some(Positions { list, membership })))
    }

    /// What the failure means to the caller.
    fn explain(&self, Failure { error, verdict }: Failure) -> Error {
        let link = &self.source.link;
        if verdict == Verdict::Unknown {
            // What was settled must not come again from here: the group's position tells.
            let problem = "the outcome of a transaction is unknown; subscribe anew to go on behind \
                           what is committed";
            let ended = Error::new(error.kind(), "commit", problem).with_source(error);
            link.fail(ended.duplicate(), true);
            return ended;
        }
        error
    }
}

/// The name of a consumer's transactions. It lasts over restarts where the instance does, so
/// that a successor ends at once what its predecessor left open.
pub(super) fn transactional_id(group: &str, topic: &Topic, instance: Option<&str>) -> Arc<str> {
    match instance {
        Some(instance) => format!("{group}-{topic}-{instance}").into(),
        None => format!("{group}-{topic}-{:016x}", fastrand::u64(..)).into(),
    }
}
