//! Adding messages to streams.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use redis::{Cmd, Pipeline, Value};

use super::config::{Config, Durability};
use super::connection::Link;
use super::convert;
use super::error::{from_server, translate};
use super::keys::TopicKeys;
use super::position::EntryId;
use crate::contract::Published;
use crate::delivery::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::name::Topic;

/// The most messages and bytes that are sent in one go.
const CHUNK_MESSAGES_MAX: usize = 1000;
const CHUNK_BYTES_MAX: usize = 4 << 20;

pub(super) struct Producer {
    link: Link,
    /// How many replicas must have a message, where that is asked for.
    replicas: Option<u32>,
    timeout: Duration,
    message_bytes_max: usize,
    spread: AtomicUsize,
}

/// The messages of a batch that go to one partition, each with its index in the batch.
type Share<'a> = Vec<(usize, &'a Message)>;

/// `TooLarge` for a message over the limit.
pub(super) fn check_size(topic: &Topic, message: &Message, limit: usize) -> Result<()> {
    let size = message.size();
    if size <= limit {
        return Ok(());
    }
    let problem = format!("a message of {size} bytes is over the limit of {limit}");
    Err(Error::new(ErrorKind::TooLarge, "publish", problem).with("topic", topic))
}

/// The partition of a message; those without a key share `spread`.
pub(super) fn partition_for(message: &Message, partitions: usize, spread: usize) -> usize {
    match &message.key {
        Some(key) => crate::partition_of(key, partitions as u32) as usize,
        None => spread % partitions.max(1),
    }
}

fn add(stream: &str, message: &Message) -> Cmd {
    // Room for the names of the command and of all fields.
    let size = stream.len() + message.size() + 100;
    let mut command = Cmd::with_capacity(4 + convert::field_count(message), size);
    // Nothing is written where the topic is gone.
    command.arg("XADD").arg(stream).arg("NOMKSTREAM").arg("*");
    convert::write_fields(&mut command, message);
    command
}

/// Splits a share so that no part is more than one go.
fn chunks<'s, 'a>(share: &'s [(usize, &'a Message)]) -> Vec<&'s [(usize, &'a Message)]> {
    let (mut chunks, mut first, mut bytes) = (Vec::new(), 0, 0);
    for (index, (_, message)) in share.iter().enumerate() {
        bytes += message.size();
        let is_full = index - first >= CHUNK_MESSAGES_MAX || bytes > CHUNK_BYTES_MAX;
        if is_full && index > first {
            chunks.push(&share[first..index]);
            (first, bytes) = (index, message.size());
        }
    }
    if first < share.len() {
        chunks.push(&share[first..]);
    }
    chunks
}

impl Producer {
    pub(super) fn new(link: Link, config: &Config) -> Self {
        let replicas = match config.durability {
            Durability::Replicas(replicas) => Some(replicas),
            _ => None,
        };
        let (timeout, message_bytes_max) = (config.timeout, config.message_bytes_max);
        Self { link, replicas, timeout, message_bytes_max, spread: AtomicUsize::new(0) }
    }

    /// A number that spreads messages without a key, batch by batch.
    pub(super) fn spread(&self) -> usize {
        self.spread.fetch_add(1, Ordering::Relaxed)
    }

    /// Publishes a batch. Partitions go side by side, the messages of one in their order.
    pub(super) async fn publish(&self, topic: &TopicKeys, batch: &[Message]) -> Vec<Published> {
        let spread = self.spread();
        match (batch, self.replicas) {
            ([message], None) => vec![self.publish_one(topic, message, spread).await],
            _ => Box::pin(self.publish_all(topic, batch, spread)).await,
        }
    }

    async fn publish_all(
        &self,
        topic: &TopicKeys,
        batch: &[Message],
        spread: usize,
    ) -> Vec<Published> {
        let mut results: Vec<Option<Published>> = Vec::with_capacity(batch.len());
        let mut shares: Vec<Share<'_>> = vec![Vec::new(); topic.streams.len()];
        for (index, message) in batch.iter().enumerate() {
            let refused = check_size(&topic.topic, message, self.message_bytes_max).err();
            if refused.is_none() {
                let number = partition_for(message, topic.streams.len(), spread);
                shares[number].push((index, message));
            }
            results.push(refused.map(Published::NotWritten));
        }
        let shares = (0..).zip(&shares).filter(|(_, share)| !share.is_empty());
        let written = join_all(shares.map(|(number, share)| self.write(topic, number, share)));
        for (index, result) in written.await.into_iter().flatten() {
            results[index] = Some(result);
        }
        let lost = || Published::Unknown(convert::unexpected("publish", "too few answers"));
        results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }

    /// A message alone, without what a batch costs.
    async fn publish_one(&self, topic: &TopicKeys, message: &Message, spread: usize) -> Published {
        if let Err(error) = check_size(&topic.topic, message, self.message_bytes_max) {
            return Published::NotWritten(error);
        }
        let number = partition_for(message, topic.streams.len(), spread);
        let (stream, number) = (&topic.streams[number], number as u32);
        let named = |error: Error| error.with("topic", &topic.topic);
        let answer = match self.link.send("publish", &add(stream, message)).await {
            Err(error) => return Published::NotWritten(named(error)),
            Ok(Err(error)) if error.is_io_error() => {
                return Published::Unknown(named(translate("publish", error)));
            }
            Ok(Err(error)) => Err(translate("publish", error)),
            Ok(Ok(answer)) => written(number, answer),
        };
        let result = [answer.map_err(named)];
        if result.iter().flatten().any(|id| id.is_crowded()) {
            Box::pin(self.make_room(stream, &result)).await;
        }
        let [result] = result;
        self.receipt(number, result, true)
    }

    async fn write(
        &self,
        topic: &TopicKeys,
        number: u32,
        share: &[(usize, &Message)],
    ) -> Vec<(usize, Published)> {
        let mut results = Vec::with_capacity(share.len());
        let mut failure: Option<Error> = None;
        for chunk in chunks(share) {
            let indexes = chunk.iter().map(|(index, _)| *index);
            if let Some(error) = &failure {
                // What follows a failure is not tried, so that keys keep their order.
                results.extend(indexes.map(|i| (i, Published::NotWritten(error.duplicate()))));
                continue;
            }
            let published = self.write_chunk(topic, number, chunk).await;
            failure = published.iter().find_map(|result| match result {
                Published::Written(_) => None,
                Published::NotWritten(error) | Published::Unknown(error) => Some(error.duplicate()),
            });
            results.extend(indexes.zip(published));
        }
        results
    }

    async fn write_chunk(
        &self,
        topic: &TopicKeys,
        number: u32,
        chunk: &[(usize, &Message)],
    ) -> Vec<Published> {
        let stream = &topic.streams[number as usize];
        let named = |error: Error| error.with("topic", &topic.topic);
        let all = |result: fn(Error) -> Published, error: Error| {
            let error = named(error);
            chunk.iter().map(|_| result(error.duplicate())).collect()
        };
        let mut pipeline = Pipeline::with_capacity(chunk.len() + 1);
        for (_, message) in chunk {
            pipeline.add_command(add(stream, message));
        }
        if let Some(replicas) = self.replicas {
            let millis = self.timeout.as_millis() as u64 / 2;
            pipeline.cmd("WAIT").arg(replicas).arg(millis.max(1));
        }
        let mut answers = match self.link.query_all("publish", &pipeline).await {
            Err(error) => return all(Published::NotWritten, error),
            Ok(Err(error)) => return all(Published::Unknown, error),
            Ok(Ok(answers)) => answers,
        };
        let copied = self.replicas.map(|_| answers.pop().as_ref().and_then(convert::number));
        let results: Vec<_> =
            answers.into_iter().map(|answer| written(number, answer).map_err(named)).collect();
        self.make_room(stream, &results).await;
        let enough = copied.is_none_or(|copied| copied >= self.replicas.map(u64::from));
        results.into_iter().map(|result| self.receipt(number, result, enough)).collect()
    }

    fn receipt(&self, number: u32, result: Result<EntryId>, enough: bool) -> Published {
        let offset = result.and_then(|id| id.offset());
        match offset {
            Err(error) => Published::NotWritten(error),
            Ok(offset) if enough => Published::Written(Position::new(number, offset)),
            Ok(_) => {
                let replicas = self.replicas.unwrap_or(0);
                let problem = format!("it is written, but not yet on {replicas} replicas");
                Published::Unknown(Error::new(ErrorKind::Timeout, "publish", problem))
            }
        }
    }

    /// Moves a stream to the next millisecond where its clock stands still, as it does when the
    /// server's clock was set back, long before its offsets would run out.
    async fn make_room(&self, stream: &str, results: &[Result<EntryId>]) {
        let Some(id) = results.iter().rev().find_map(|result| result.as_ref().ok()) else { return };
        if !id.is_crowded() {
            return;
        }
        let next = EntryId::first_of(id.millis + 1).to_string();
        // Another publisher may have done it already, which is refused.
        let mut command = redis::cmd("XSETID");
        let _ = self.link.query("publish", command.arg(stream).arg(next)).await;
    }
}

fn written(number: u32, answer: Value) -> Result<EntryId> {
    match answer {
        Value::Nil => {
            let error = Error::new(ErrorKind::NotFound, "publish", "the topic does not exist");
            Err(error.with("partition", number))
        }
        Value::ServerError(error) => Err(from_server("publish", error).with("partition", number)),
        answer => convert::id("publish", &answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_bounded_and_keep_every_message() {
        let check = |sizes: Vec<usize>, expected: &[usize]| {
            let batch: Vec<Message> =
                sizes.iter().map(|size| Message::new(vec![7; *size])).collect();
            let share: Share<'_> = batch.iter().enumerate().collect();
            let lengths: Vec<usize> = chunks(&share).iter().map(|chunk| chunk.len()).collect();
            assert_eq!(lengths, expected);
        };
        check(vec![], &[]);
        check(vec![1; 2500], &[1000, 1000, 500]);
        check(vec![3 << 20, 3 << 20, 1 << 20], &[1, 2]);
        check(vec![9 << 20, 1], &[1, 1]);
    }
}
