//! Deleting what is old enough.
//!
//! A broker looks after the topics that it uses. Nothing goes that a group has not settled or
//! was not given yet: a group that is needed no more must be deleted for its topic to shrink.

use redis::Cmd;

use super::connection::Link;
use super::convert::{self, pairs};
use super::keys::TopicKeys;
use super::scripts;
use crate::error::Result;

/// What a topic's hash says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) partitions: u32,
    pub(super) retention_millis: u64,
    pub(super) retention_bytes: u64,
}

/// Reads a topic's hash; none where there is no such topic.
pub(super) async fn describe(
    link: &Link,
    operation: &'static str,
    key: &str,
) -> Result<Option<Description>> {
    let answer = link.query(operation, redis::cmd("HGETALL").arg(key)).await?;
    let fields = pairs(operation, answer)?;
    let field = |name: &str| {
        let found = fields.iter().find(|(field, _)| field == name);
        found.and_then(|(_, value)| convert::number(value))
    };
    if fields.is_empty() {
        return Ok(None);
    }
    let partitions = field("partitions").and_then(|count| u32::try_from(count).ok());
    let partitions = partitions.filter(|count| *count > 0);
    Ok(Some(Description {
        partitions: partitions
            .ok_or_else(|| convert::unexpected(operation, "a topic without partitions"))?,
        retention_millis: field("retention.ms").unwrap_or(u64::MAX),
        retention_bytes: field("retention.bytes").unwrap_or(u64::MAX),
    }))
}

/// Deletes what retention lets go of a topic; what fails is tried again later.
pub(super) async fn retain(link: &Link, topic: &TopicKeys, description: Description) {
    for (partition, stream) in topic.numbered() {
        let arguments = |command: &mut Cmd| {
            command.arg(description.retention_millis).arg(description.retention_bytes);
        };
        if let Err(error) = link.run("retain", &scripts::RETAIN, &[stream], &arguments).await {
            tracing::debug!(%error, topic = %topic.topic, partition, "retention failed");
        }
    }
}
