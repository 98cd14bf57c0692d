//! Asks the broker and the database how far the images are; the same on every broker.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Delivery, Event, Group, Limit, Subscription, Topic};
use model_server::prediction;
use model_server::process::{Failure, Reason};
use model_server::settings::{Settings, Topics};
use rusqlite::{Connection, OpenFlags};

use super::stages::Counts;
use super::tally::Tally;
use crate::connection;

/// How many messages one `receive` takes.
const BATCH: usize = 1000;
/// How long the database may be busy.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// Looks and touches nothing.
pub(super) struct Observer {
    broker: Arc<dyn Broker>,
    topics: Topics,
    model_server: Group,
    app2: Group,
    database: PathBuf,
    /// Open once the database is there.
    connection: Option<Connection>,
    /// Predictions, dead letters and images, where the broker tells no lengths.
    tallies: Option<[Tally; 3]>,
}

impl Observer {
    pub(super) fn new(broker: Arc<dyn Broker>, settings: &Settings) -> Result<Self, Failure> {
        Ok(Self {
            broker,
            topics: settings.topics.clone(),
            model_server: settings.model.group.clone(),
            app2: settings.app2_group.clone(),
            database: settings.database.clone(),
            connection: None,
            tallies: None,
        })
    }

    /// Counts from the last stage to the first, so that no stage seems ahead of the one before.
    pub(super) async fn look(&mut self) -> Result<Counts, Failure> {
        let persisted = self.persisted()?;
        let offsets_count = connection::count(&self.broker, 0, 0).is_some();
        if !self.broker.capabilities().lag || !offsets_count {
            return self.read(persisted).await;
        }
        let forwarded = self.messages(&self.topics.predictions).await?;
        let lag = self.broker.lag(&self.topics.images, &self.model_server).await?;
        let behind: u64 = lag.iter().map(|partition| partition.behind).sum();
        let published = lag.iter().map(|partition| partition.end).sum::<u64>();
        let dead_lettered = self.messages(&self.topics.dead_letters).await?;
        let settled = published.saturating_sub(behind);
        Ok(Counts { published, settled, forwarded, persisted, dead_lettered })
    }

    /// Counts on a broker that does not tell how long its topics are, or whose offsets tell no
    /// counts. What the model server
    /// settled shows only by what it made.
    async fn read(&mut self, persisted: u64) -> Result<Counts, Failure> {
        let [predictions, dead_letters, images] = match &mut self.tallies {
            Some(tallies) => tallies,
            unread => {
                let Topics { images, predictions, dead_letters, .. } = &self.topics;
                unread.insert([
                    Tally::of(&*self.broker, predictions).await?,
                    Tally::of(&*self.broker, dead_letters).await?,
                    Tally::of(&*self.broker, images).await?,
                ])
            }
        };
        let (forwarded, dead_lettered) = (predictions.count().await?, dead_letters.count().await?);
        let published = images.count().await?;
        let settled = (forwarded + dead_lettered).min(published);
        Ok(Counts { published, settled, forwarded, persisted, dead_lettered })
    }

    /// How many items were published, each counted once however often it was sent.
    pub(super) async fn published_ids(&self) -> Result<u64, Failure> {
        self.ids(&self.topics.images, source_id).await
    }

    /// How many items were dead-lettered, each counted once.
    pub(super) async fn dead_ids(&self) -> Result<u64, Failure> {
        self.ids(&self.topics.dead_letters, dead_id).await
    }

    /// Whether both groups have a member or a position.
    pub(super) async fn is_served(&self) -> Result<bool, Failure> {
        let there = self.broker.admin().groups().await?;
        Ok(there.contains(&self.model_server) && there.contains(&self.app2))
    }

    async fn messages(&self, topic: &Topic) -> Result<u64, Failure> {
        let description = self.broker.admin().describe(topic).await?;
        Ok(description.partitions.iter().map(|partition| partition.end - partition.start).sum())
    }

    fn persisted(&mut self) -> Result<u64, Failure> {
        if self.connection.is_none() && self.database.exists() {
            self.connection = Some(self.open().map_err(|error| self.unreadable(error))?);
        }
        let Some(connection) = &self.connection else { return Ok(0) };
        count(connection).map_err(|error| self.unreadable(error))
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.database, flags)?;
        connection.busy_timeout(BUSY_MAX)?;
        Ok(connection)
    }

    fn unreadable(&self, error: rusqlite::Error) -> Failure {
        let message = format!("cannot read the database {:?}", self.database);
        Failure::new(Reason::Start, message).because(error)
    }

    async fn ids(&self, topic: &Topic, id: fn(&Delivery) -> String) -> Result<u64, Failure> {
        let mut reader = self.broker.subscribe(Subscription::reader(topic)).await?;
        let mut ids = HashSet::new();
        loop {
            let deliveries = reader.receive(Limit::new(BATCH, Duration::from_secs(1))).await?;
            ids.extend(deliveries.iter().map(id));
            if reader.events().contains(&Event::CaughtUp) {
                return Ok(ids.len() as u64);
            }
        }
    }
}

/// The rows; none before app2 has made its table.
fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'predictions'";
    let number = |query| connection.query_row(query, [], |row| row.get::<_, i64>(0));
    let rows = match number(table)? {
        0 => 0,
        _ => number("SELECT count(*) FROM predictions")?,
    };
    Ok(u64::try_from(rows).unwrap_or(0))
}

/// The id of a published image, or its place where its header is no id.
fn source_id(delivery: &Delivery) -> String {
    let position = delivery.position();
    let place = format!("{}:{position}", delivery.topic());
    prediction::id_of(delivery).unwrap_or(place)
}

/// The id that the dead letter's source had.
fn dead_id(delivery: &Delivery) -> String {
    if delivery.headers.get(prediction::ID).is_some() {
        return source_id(delivery);
    }
    let header = |name| delivery.headers.get_str(name).unwrap_or_default();
    let topic = header("dead-letter-topic");
    format!("{topic}:{}:{}", header("dead-letter-partition"), header("dead-letter-offset"))
}
