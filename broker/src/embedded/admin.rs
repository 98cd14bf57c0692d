//! Topics and groups.

use async_trait::async_trait;

use super::broker::{Embedded, Inner};
use super::{groups, log, membership};
use crate::contract::{
    Admin, Broker, GroupDescription, PartitionDescription, TopicDescription, TopicSpec,
};
use crate::delivery::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Group, Topic};
use crate::subscription::Start;

#[async_trait]
impl Admin for Embedded {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<()> {
        self.inner.check_open()?;
        if spec.partitions == 0 {
            let message = "a topic needs at least one partition";
            let error = Error::new(ErrorKind::ConfigInvalid, "create topic", message);
            return Err(error.with("topic", &spec.topic));
        }
        let capabilities = self.capabilities();
        capabilities.require(capabilities.compaction || !spec.compacted, "compaction")?;
        let config = &self.inner.config;
        let retention = spec.retention.unwrap_or(config.retention).as_millis();
        let retention = i64::try_from(retention).unwrap_or(i64::MAX / 2);
        let bytes = spec.retention_bytes.unwrap_or(config.retention_bytes);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let spec = spec.clone();
        self.inner.writer.write(move |c| log::create_topic(c, &spec, retention, bytes)).await
    }

    async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.inner.check_open()?;
        self.inner.forget(topic);
        let topic = topic.clone();
        self.inner.writer.write(move |connection| log::delete_topic(connection, &topic)).await
    }

    async fn describe(&self, topic: &Topic) -> Result<TopicDescription> {
        let row = self.inner.look_up(topic).await?;
        let partitions = self.inner.reader.query(move |connection| {
            connection
                .prepare_cached(
                    "SELECT number, start, next FROM partitions WHERE topic = ?1 ORDER BY number",
                )?
                .query_map([row.id], |row| {
                    let (start, end): (i64, i64) = (row.get(1)?, row.get(2)?);
                    let partition = row.get(0)?;
                    Ok(PartitionDescription { partition, start: start as u64, end: end as u64 })
                })?
                .collect()
        });
        Ok(TopicDescription { topic: topic.clone(), partitions: partitions.await? })
    }

    async fn list(&self) -> Result<Vec<Topic>> {
        self.inner.check_open()?;
        let names = self.inner.names("SELECT name FROM topics ORDER BY name").await?;
        names.iter().map(|name| Topic::new(name)).collect()
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        self.inner.check_open()?;
        let query = "SELECT grp FROM positions UNION SELECT grp FROM members ORDER BY 1";
        let names = self.inner.names(query).await?;
        names.iter().map(|name| Group::new(name)).collect()
    }

    async fn describe_group(&self, group: &Group) -> Result<GroupDescription> {
        self.inner.check_open()?;
        let name = group.clone();
        let rows = self.inner.reader.query(move |c| groups::rows(c, &name)).await?;
        if rows.is_empty() {
            let error = Error::new(ErrorKind::NotFound, "describe group", "there is no such group");
            return Err(error.with("group", group));
        }
        rows.describe(group, &self.inner.config.directory, &self.inner.boot)
    }

    async fn resolve(&self, topic: &Topic, start: Start) -> Result<Vec<Position>> {
        let row = self.inner.look_up(topic).await?;
        let resolved = self.inner.writer.write(move |connection| {
            let numbered = (0..).zip(&row.partitions);
            let resolve = |(number, partition): (u32, &i64)| {
                let offset = membership::resolve(connection, *partition, start)?;
                Ok(Position::new(number, offset))
            };
            numbered.map(resolve).collect()
        });
        resolved.await
    }

    async fn reset_group(&self, group: &Group, topic: &Topic, to: &[Position]) -> Result<()> {
        let row = self.inner.look_up(topic).await?;
        let (group, to) = (group.clone(), to.to_vec());
        let (directory, boot) = (self.inner.config.directory.clone(), self.inner.boot.clone());
        let reset = self.inner.writer.write(move |connection| {
            groups::require_stopped(connection, &group, Some(row.id), &directory, &boot)?;
            groups::reset(connection, &group, &row, &to)
        });
        reset.await
    }

    async fn delete_group(&self, group: &Group) -> Result<()> {
        self.inner.check_open()?;
        let group = group.clone();
        let (directory, boot) = (self.inner.config.directory.clone(), self.inner.boot.clone());
        let delete = self.inner.writer.write(move |connection| {
            groups::require_stopped(connection, &group, None, &directory, &boot)?;
            groups::delete(connection, &group)
        });
        delete.await
    }
}

impl Inner {
    async fn names(&self, query: &'static str) -> Result<Vec<String>> {
        let names = self.reader.query(move |connection| {
            connection.prepare_cached(query)?.query_map([], |row| row.get(0))?.collect()
        });
        names.await
    }
}
