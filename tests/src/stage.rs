//! Where a test plays: a directory, an ini file, topics, and eyes on all of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use broker::config::ProcessEnvironment;
use broker::{
    Broker, BrokerExt, Event, Group, Limit, Message, Position, Subscription, Timestamp, Topic,
    TopicSpec,
};
use model_server::settings::Settings;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::ini::Ini;
use crate::model;
use crate::program::{Running, command};
use crate::waiting::HANG;

/// A directory with an ini file for the programs, and a connection to the same broker.
///
/// Fields are dropped in their order: the connection ends before its directory goes.
pub struct Stage {
    /// What the programs were told.
    pub settings: Settings,
    broker: Arc<dyn Broker>,
    runtime: Runtime,
    config: PathBuf,
    directory: TempDir,
}

/// A message that was read.
#[derive(Debug)]
pub struct Record {
    /// Where it stands.
    pub position: Position,
    /// What it is.
    pub message: Message,
}

impl Record {
    /// A header that is text.
    ///
    /// # Panics
    /// Where there is none of that name.
    pub fn header(&self, name: &str) -> &str {
        let headers = &self.message.headers;
        headers.get_str(name).unwrap_or_else(|| panic!("no header {name}: {headers:?}"))
    }
}

/// A stored prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The id of the image.
    pub id: String,
    /// What the model says it is.
    pub label: String,
}

impl Stage {
    /// A stage on the embedded broker, with the ini file changed by `change`.
    pub fn embedded(change: impl FnOnce(&mut Ini)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut ini = Self::ini(directory.path());
        change(&mut ini);
        Self::open(directory, &ini)
    }

    /// A stage on Kafka with topics of its own; the queue is embedded unless `change` says else.
    pub fn kafka(servers: &str, change: impl FnOnce(&mut Ini)) -> Self {
        Self::embedded(|ini| {
            Self::on_kafka(ini, servers);
            change(ini);
        })
    }

    /// What an ini file says with everything in one directory.
    pub fn ini(directory: &Path) -> Ini {
        let mut ini = Ini::default();
        ini.set("broker", "kind", "embedded");
        ini.set("embedded", "directory", directory.join("broker").display());
        ini.set("embedded", "durability", "normal");
        ini.set("model", "path", model("onnx").display());
        ini.set("model", "workers", 1);
        ini.set("app2", "database", directory.join("predictions.db").display());
        ini
    }

    /// Turns an ini file to Kafka, with names that no other test has.
    pub fn on_kafka(ini: &mut Ini, servers: &str) {
        ini.set("broker", "kind", "kafka");
        ini.set("kafka", "bootstrap.servers", servers);
        // A killed member costs its group seconds, not the usual ten.
        ini.set("kafka", "session.timeout.ms", 6000);
        ini.set("kafka", "heartbeat.interval.ms", 500);
        for (key, name) in
            [("images", "images"), ("predictions", "predictions"), ("dead_letters", "dead-letters")]
        {
            ini.set("topics", key, unique(name));
        }
        ini.set("model", "group", unique("model-server"));
        ini.set("app2", "group", unique("app2"));
    }

    fn open(directory: TempDir, ini: &Ini) -> Self {
        let config = directory.path().join("forebay.ini");
        std::fs::write(&config, ini.to_string()).unwrap();
        let settings = Settings::read(&config, &ProcessEnvironment).unwrap();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let broker = runtime.block_on(settings.connect()).unwrap();
        Self { settings, broker, runtime, config, directory }
    }

    /// The directory, which goes with the stage.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The ini file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Where app1 remembers how far it got.
    pub fn resume_file(&self) -> PathBuf {
        self.directory().join("app1.resume")
    }

    /// Starts a program with the ini file and more arguments; its log has the program's name.
    pub fn start_with(&self, program: &str, arguments: &[&str]) -> Running {
        let mut command = command(program);
        command.arg("--config").arg(&self.config).args(arguments);
        Running::start(command, program, self.directory())
    }

    /// Starts a program that needs no more than the ini file.
    pub fn start(&self, program: &str) -> Running {
        self.start_with(program, &[])
    }

    /// Starts everything behind the images topic.
    pub fn start_servers(&self) -> [Running; 3] {
        ["model_server_sub", "model_server_pub", "app2"].map(|program| self.start(program))
    }

    /// Makes a topic.
    pub fn create(&self, spec: &TopicSpec) {
        self.runtime.block_on(self.broker.admin().create_topic(spec)).unwrap();
    }

    /// Publishes messages to the images topic, all of which must be stored.
    pub fn publish(&self, messages: Vec<Message>) -> Vec<Position> {
        self.publish_to(&self.settings.topics.images, messages)
    }

    /// Publishes messages to any topic, all of which must be stored.
    pub fn publish_to(&self, topic: &Topic, messages: Vec<Message>) -> Vec<Position> {
        self.runtime.block_on(self.broker.publish_all(topic, messages)).unwrap()
    }

    /// Everything that is in a topic, in the order of each partition.
    pub fn read(&self, topic: &Topic) -> Vec<Record> {
        self.runtime.block_on(self.read_all(topic))
    }

    async fn read_all(&self, topic: &Topic) -> Vec<Record> {
        let mut reader = self.broker.subscribe(Subscription::reader(topic)).await.unwrap();
        let begun = std::time::Instant::now();
        let mut records = Vec::new();
        loop {
            let limit = Limit::new(10_000, Duration::from_secs(1));
            let deliveries = reader.receive(limit).await.unwrap();
            let events = reader.events();
            records.extend(deliveries.into_iter().map(|delivery| Record {
                position: delivery.position(),
                message: delivery.message().clone(),
            }));
            if events.contains(&Event::CaughtUp) {
                return records;
            }
            assert!(begun.elapsed() < HANG, "reading {topic} does not end");
        }
    }

    /// How many messages were ever published to a topic.
    pub fn published(&self, topic: &Topic) -> u64 {
        let topic = self.runtime.block_on(self.broker.admin().describe(topic)).unwrap();
        topic.partitions.iter().map(|partition| partition.end).sum()
    }

    /// How many messages of a topic a group has settled.
    pub fn settled(&self, topic: &Topic, group: &str) -> u64 {
        let group = Group::new(group).unwrap();
        let lag = self.runtime.block_on(self.broker.lag(topic, &group)).unwrap();
        lag.iter().map(|partition| partition.committed.unwrap_or(0)).sum()
    }

    /// The rows of app2's database; none where it is not there yet.
    pub fn rows(&self) -> Vec<Row> {
        let Some(database) = self.database() else { return Vec::new() };
        let query = database.prepare("SELECT id, label FROM predictions ORDER BY id");
        let Ok(mut query) = query else { return Vec::new() };
        let rows = query.query_map([], |row| Ok(Row { id: row.get(0)?, label: row.get(1)? }));
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// How many rows app2's database has.
    pub fn row_count(&self) -> u64 {
        let count = |database: Connection| {
            let query = "SELECT count(*) FROM predictions";
            database.query_row(query, [], |row| row.get::<_, i64>(0)).ok()
        };
        self.database().and_then(count).unwrap_or(0) as u64
    }

    /// How often a prediction came to app2 that it had persisted before.
    pub fn repeats(&self) -> u64 {
        let query = "SELECT value FROM counters WHERE name = 'repeats'";
        let database = self.database().expect("app2 made the database");
        database.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap() as u64
    }

    /// A new look at the file each time: it is made by app2, and may be on its way.
    fn database(&self) -> Option<Connection> {
        let path = &self.settings.database;
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        Some(database)
    }
}

/// A name that no other test or run has.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{:x}-{}-{count}", Timestamp::now().as_micros(), std::process::id())
}
