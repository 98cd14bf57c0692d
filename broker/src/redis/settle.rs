//! What a consumer tells the server of its deliveries: how often they were made, and that they
//! are done.

use std::collections::BTreeMap;

use futures::future::join_all;
use redis::Cmd;
use tokio::time::Instant;

use super::consumer::RedisConsumer;
use super::keys;
use super::membership::Member;
use super::position::EntryId;
use super::scripts;
use crate::delivery::{AckToken, Outcome};
use crate::error::{Error, ErrorKind, Result};

impl RedisConsumer {
    /// Counts deliveries that are not the first, before anyone sees them.
    pub(super) async fn count(&mut self) -> Result<()> {
        let mut counts: BTreeMap<u32, Vec<(u64, u32)>> = BTreeMap::new();
        for delivery in self.uncounted.iter().filter(|d| d.attempt() > 1 && self.is_current(d)) {
            let position = delivery.position();
            let counts = counts.entry(position.partition()).or_default();
            counts.push((position.offset(), delivery.attempt()));
        }
        let numbers: Vec<u32> = counts.keys().copied().collect();
        let consumer = &*self;
        let counted = join_all(counts.into_iter().map(|(number, counts)| async move {
            let arguments = |command: &mut Cmd| {
                for (offset, attempt) in &counts {
                    command.arg(EntryId::of(*offset).to_string()).arg(*attempt);
                }
            };
            consumer.run("receive", &scripts::COUNT, number, &arguments).await
        }));
        let counted: Vec<Result<()>> = counted.await;
        self.lose_fenced(numbers.into_iter().zip(counted))
    }

    /// Runs a script of this consumer's own on a partition that it has.
    pub(super) async fn run(
        &self,
        operation: &'static str,
        script: &scripts::Script,
        number: u32,
        arguments: &(dyn Fn(&mut Cmd) + Sync),
    ) -> Result<()> {
        let stream = &self.topic.streams[number as usize];
        let (Some(membership), Some(assigned)) = (&self.membership, self.partitions.get(&number))
        else {
            return Ok(());
        };
        let Member { name, group, .. } = &*membership.member;
        let lease = keys::lease(stream, group);
        let arguments = |command: &mut Cmd| {
            command.arg(name).arg(assigned.generation).arg(group.as_str());
            arguments(command);
        };
        self.inner.link.run(operation, script, &[&lease, stream], &arguments).await.map(drop)
    }

    /// Drops partitions that another owns by now; returns the first other error.
    pub(super) fn lose_fenced(
        &mut self,
        results: impl Iterator<Item = (u32, Result<()>)>,
    ) -> Result<()> {
        let (mut lost, mut failure) = (Vec::new(), None);
        for (number, result) in results {
            match result {
                Err(error) if error.kind() == ErrorKind::Fenced => lost.push(number),
                Err(error) => failure = failure.or(Some(error)),
                Ok(()) => {}
            }
        }
        self.lose(&lost);
        failure.map_or(Ok(()), Err)
    }

    /// Applies an outcome to its window; one of another assignment does nothing.
    pub(super) fn apply(&mut self, token: &AckToken, outcome: &Outcome) {
        let offset = token.position.offset();
        let Some(assigned) = self.assigned(token) else { return };
        match outcome {
            // The delivery layer has stored the dead letter before it settles a rejection.
            Outcome::Ack | Outcome::Reject { .. } => {
                assigned.window.ack(offset, token.attempt);
            }
            Outcome::Retry { after } => {
                assigned.window.retry(offset, token.attempt, Instant::now() + *after);
            }
        }
    }

    /// Acknowledges the settled prefix of every partition where it moved; returns the
    /// partitions where that failed.
    pub(super) async fn acknowledge(&mut self) -> BTreeMap<u32, Error> {
        let moved: Vec<(u32, Vec<u64>)> = self
            .partitions
            .iter()
            .map(|(number, assigned)| (*number, assigned.acknowledgeable()))
            .filter(|(_, offsets)| !offsets.is_empty())
            .collect();
        let consumer = &*self;
        let done = join_all(moved.into_iter().map(|(number, offsets)| async move {
            let arguments = |command: &mut Cmd| {
                for offset in &offsets {
                    command.arg(EntryId::of(*offset).to_string());
                }
            };
            let done = consumer.run("settle", &scripts::ACKNOWLEDGE, number, &arguments).await;
            (number, offsets.len(), done)
        }))
        .await;
        let (mut failed, mut lost) = (BTreeMap::new(), Vec::new());
        for (number, count, done) in done {
            match done {
                Ok(()) => {
                    self.partitions.entry(number).and_modify(|a| a.acknowledged(count));
                }
                Err(error) if error.kind() == ErrorKind::Fenced => lost.push(number),
                Err(error) => drop(failed.insert(number, error)),
            }
        }
        self.lose(&lost);
        failed
    }

    /// Takes an outcome back that did not reach the server, so that its token may be settled
    /// again.
    pub(super) fn restore(&mut self, token: &AckToken) {
        let until = Instant::now() + self.subscription.ack_deadline;
        if let Some(assigned) = self.assigned(token) {
            assigned.window.restore(token.position.offset(), token.attempt, until);
        }
    }
}
