//! Publishing and settling under one lock.
//!
//! Nothing is written before `commit`, so an abort only forgets what was gathered.

use async_trait::async_trait;

use super::broker::check;
use super::consumer::MemoryConsumer;
use super::store::State;
use crate::contract::Transaction;
use crate::delivery::{AckToken, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

pub(super) struct MemoryTransaction<'a> {
    consumer: &'a mut MemoryConsumer,
    messages: Vec<(Topic, Vec<Message>)>,
    outcomes: Vec<(AckToken, Outcome)>,
    committed: bool,
}

impl<'a> MemoryTransaction<'a> {
    pub(super) fn new(consumer: &'a mut MemoryConsumer) -> Self {
        Self { consumer, messages: Vec::new(), outcomes: Vec::new(), committed: false }
    }

    fn write(&mut self) -> Result<()> {
        let link = self.consumer.link.clone();
        link.check_open("commit")?;
        let mut state = link.store.lock();
        for (topic, batch) in &self.messages {
            let log = state.log(topic, "commit")?;
            batch.iter().try_for_each(|message| check(topic, log, message))?;
        }
        self.settle_all(&state)?;
        for (topic, batch) in self.messages.drain(..) {
            state.log(&topic, "commit")?.append(batch, link.store.now());
        }
        self.consumer.commit(&mut state);
        drop(state);
        link.store.tell();
        Ok(())
    }

    /// Settles in the windows, after it is sure that all tokens are good.
    fn settle_all(&mut self, state: &State) -> Result<()> {
        let stale = self.outcomes.iter().find(|(token, _)| !self.consumer.owns(state, token));
        if let Some((token, _)) = stale {
            let problem = "the delivery is of an earlier assignment; its partition went elsewhere";
            let error = Error::new(ErrorKind::Fenced, "commit", problem);
            return Err(error.with("position", token.position));
        }
        for (token, outcome) in &self.outcomes {
            self.consumer.apply(token, outcome);
        }
        for (token, outcome) in &self.outcomes {
            let retried = matches!(outcome, Outcome::Retry { .. });
            if !retried && self.consumer.settled(token) <= token.position.offset() {
                let problem = "a transaction must settle all that precedes its last delivery, \
                               else a crash would bring published work again";
                let error = Error::new(ErrorKind::Unsupported, "commit", problem);
                return Err(error.with("position", token.position));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Transaction for MemoryTransaction<'_> {
    async fn publish(&mut self, topic: &Topic, batch: Vec<Message>) -> Result<()> {
        self.messages.push((topic.clone(), batch));
        Ok(())
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Result<()> {
        self.outcomes.extend(outcomes);
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.write()?;
        self.committed = true;
        Ok(())
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for MemoryTransaction<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.outcomes.iter().for_each(|(token, _)| self.consumer.reopen(token));
        }
    }
}
