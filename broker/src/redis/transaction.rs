//! Publishing and settling by one script.
//!
//! Nothing is written before `commit`, so an abort only forgets what was gathered. The script
//! checks the lease of every partition and that each entry is still out, then adds and
//! acknowledges. On a cluster all keys must share a slot, as they do with a prefix that holds a
//! hash tag.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use redis::Cmd;
use tokio::time::Instant;

use super::consumer::RedisConsumer;
use super::convert;
use super::keys::{self, TopicKeys};
use super::position::EntryId;
use super::producer::{check_size, partition_for};
use super::scripts;
use crate::contract::Transaction;
use crate::delivery::{AckToken, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::{Group, Topic};

/// The most messages and bytes that one script adds: it holds up everyone else's commands.
const MESSAGES_MAX: usize = 10_000;
const BYTES_MAX: usize = 64 << 20;

pub(super) struct RedisTransaction<'a> {
    consumer: &'a mut RedisConsumer,
    messages: Vec<(Arc<TopicKeys>, usize, Vec<Message>)>,
    outcomes: Vec<(AckToken, Outcome)>,
    bytes: usize,
    count: usize,
    committed: bool,
}

/// What a transaction settles of one partition.
struct Source {
    lease: String,
    stream: Arc<str>,
    generation: u64,
    ids: Vec<String>,
}

fn fenced(partition: u32) -> Error {
    let message = "the delivery came again, or its partition went elsewhere";
    Error::new(ErrorKind::Fenced, "commit", message).with("partition", partition)
}

impl<'a> RedisTransaction<'a> {
    pub(super) fn new(consumer: &'a mut RedisConsumer) -> Self {
        let (messages, outcomes) = (Vec::new(), Vec::new());
        Self { consumer, messages, outcomes, bytes: 0, count: 0, committed: false }
    }

    /// What is acknowledged, by partition; `Fenced` where a token is stale.
    fn sources(&mut self, group: &Group) -> Result<BTreeMap<u32, Source>> {
        let mut sources: BTreeMap<u32, Source> = BTreeMap::new();
        for (token, outcome) in &self.outcomes {
            let (number, offset) = (token.position.partition(), token.position.offset());
            let assigned = self.consumer.assigned(token).ok_or_else(|| fenced(number))?;
            if !assigned.window.is_open(offset, token.attempt) {
                return Err(fenced(number));
            }
            if matches!(outcome, Outcome::Retry { .. }) {
                continue;
            }
            let generation = assigned.generation;
            let stream = self.consumer.topic.streams[number as usize].clone();
            let source = sources.entry(number).or_insert_with(|| {
                let lease = keys::lease(&stream, group);
                Source { lease, stream, generation, ids: Vec::new() }
            });
            source.ids.push(EntryId::of(offset).to_string());
        }
        Ok(sources)
    }

    async fn write(&mut self) -> Result<()> {
        let Some(membership) = &self.consumer.membership else { return Ok(()) };
        let member = membership.member.clone();
        let sources: Vec<Source> = self.sources(&member.group)?.into_values().collect();
        let mut keys: Vec<&str> = Vec::new();
        sources.iter().for_each(|source| keys.extend([source.lease.as_str(), &source.stream]));
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for (topic, spread, batch) in &self.messages {
            for message in batch {
                let stream = &topic.streams[partition_for(message, topic.streams.len(), *spread)];
                places.entry(stream).or_insert_with(|| {
                    keys.push(stream);
                    keys.len()
                });
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        let arguments = |command: &mut Cmd| {
            command.arg(&member.name).arg(sources.len());
            for source in &sources {
                command.arg(member.group.as_str()).arg(source.generation);
                command.arg(source.ids.len()).arg(&source.ids);
            }
            for (topic, spread, batch) in &self.messages {
                for message in batch {
                    let number = partition_for(message, topic.streams.len(), *spread);
                    command.arg(places[&*topic.streams[number]]);
                    command.arg(convert::field_count(message));
                    convert::write_fields(command, message);
                }
            }
        };
        let link = &self.consumer.inner.link;
        link.run("commit", &scripts::COMMIT, &keys, &arguments).await?;
        Ok(())
    }

    /// Takes note of what the script did.
    fn settle_windows(&mut self) {
        for (token, outcome) in &self.outcomes {
            let offset = token.position.offset();
            let Some(assigned) = self.consumer.assigned(token) else { continue };
            match outcome {
                Outcome::Ack | Outcome::Reject { .. } => {
                    assigned.window.ack(offset, token.attempt);
                    if let Ok(index) = assigned.pending.binary_search(&offset) {
                        assigned.pending.remove(index);
                    }
                }
                Outcome::Retry { after } => {
                    assigned.window.retry(offset, token.attempt, Instant::now() + *after);
                }
            }
            assigned.window.advance();
            assigned.window.release(offset);
        }
    }
}

#[async_trait]
impl Transaction for RedisTransaction<'_> {
    async fn publish(&mut self, topic: &Topic, batch: Vec<Message>) -> Result<()> {
        let inner = self.consumer.inner.clone();
        let keys = inner.topic("publish", topic).await?;
        for message in &batch {
            check_size(topic, message, inner.config.message_bytes_max)?;
            self.bytes += message.size();
        }
        self.count += batch.len();
        if self.count > MESSAGES_MAX || self.bytes > BYTES_MAX {
            let problem = format!(
                "a transaction of {} messages and {} bytes is over the limits of {MESSAGES_MAX} \
                 and {BYTES_MAX}",
                self.count, self.bytes
            );
            return Err(Error::new(ErrorKind::TooLarge, "publish", problem));
        }
        self.messages.push((keys, inner.producer.spread(), batch));
        Ok(())
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Result<()> {
        self.outcomes.extend(outcomes);
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.consumer.inner.check_open("commit")?;
        self.write().await?;
        self.settle_windows();
        self.committed = true;
        Ok(())
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for RedisTransaction<'_> {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        for (token, _) in &self.outcomes {
            if let Some(assigned) = self.consumer.assigned(token) {
                assigned.window.reopen(token.position.offset(), token.attempt);
            }
        }
    }
}
