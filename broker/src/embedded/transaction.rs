//! Publishing and settling in one database transaction.
//!
//! Nothing is written before `commit`, so an abort only forgets what was gathered.

use async_trait::async_trait;

use super::consumer::EmbeddedConsumer;
use super::membership;
use super::store::Failure;
use crate::contract::Transaction;
use crate::delivery::{AckToken, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

pub(super) struct EmbeddedTransaction<'a> {
    consumer: &'a mut EmbeddedConsumer,
    messages: Vec<(Topic, Vec<Message>)>,
    outcomes: Vec<(AckToken, Outcome)>,
    committed: bool,
}

impl<'a> EmbeddedTransaction<'a> {
    pub(super) fn new(consumer: &'a mut EmbeddedConsumer) -> Self {
        Self { consumer, messages: Vec::new(), outcomes: Vec::new(), committed: false }
    }

    async fn write(&mut self) -> Result<()> {
        let Some(membership) = &self.consumer.membership else { return Ok(()) };
        let group = membership.group.clone();
        let mut appends = Vec::with_capacity(self.messages.len());
        for (topic, messages) in &self.messages {
            appends.push(self.consumer.inner.encode_whole(topic, messages).await?);
        }
        self.apply_outcomes()?;
        let commits = self.consumer.commits();
        let job = commits.clone();
        let written = self.consumer.inner.writer.write(move |connection| {
            if let Some(partition) = membership::fenced(connection, group.as_str(), &job)?.first() {
                return Err(Failure::Refused(fenced(*partition)));
            }
            for append in &appends {
                append.check(connection)?;
                append.check_room(connection)?;
            }
            for append in &appends {
                append.write(connection, false)?;
            }
            membership::commit(connection, group.as_str(), &job)
        });
        let none = written.await?;
        self.consumer.committed(&commits, &none);
        Ok(())
    }

    fn apply_outcomes(&mut self) -> Result<()> {
        for (token, outcome) in &self.outcomes {
            if !self.consumer.apply(token, outcome) {
                return Err(fenced(token.position.partition()));
            }
        }
        let acked = self.outcomes.iter().filter(|(_, o)| !matches!(o, Outcome::Retry { .. }));
        for (token, _) in acked {
            let partition = &self.consumer.partitions[&token.position.partition()];
            if partition.window.settled() <= token.position.offset() {
                let message = "a transaction must settle all that precedes its last delivery, \
                               else a crash would bring published work again";
                let error = Error::new(ErrorKind::Unsupported, "commit", message);
                return Err(error.with("position", token.position));
            }
        }
        Ok(())
    }
}

fn fenced(partition: u32) -> Error {
    let message = "the delivery came again since, or its partition went elsewhere";
    Error::new(ErrorKind::Fenced, "commit", message).with("partition", partition)
}

#[async_trait]
impl Transaction for EmbeddedTransaction<'_> {
    async fn publish(&mut self, topic: &Topic, batch: Vec<Message>) -> Result<()> {
        self.messages.push((topic.clone(), batch));
        Ok(())
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Result<()> {
        self.outcomes.extend(outcomes);
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.write().await?;
        self.committed = true;
        Ok(())
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for EmbeddedTransaction<'_> {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        for (token, _) in &self.outcomes {
            let position = token.position;
            if let Some(assigned) = self.consumer.partitions.get_mut(&position.partition())
                && assigned.assignment == token.assignment
            {
                assigned.window.reopen(position.offset(), token.attempt);
            }
        }
    }
}
