//! A whole pipeline in a folder of its own: four programs, topics that no other run has, and
//! the database in which the images end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use broker::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::Bench;
use super::programs::Program;
use crate::measure::cpu_of;

/// Of every topic, as the programs make them.
pub(super) const PARTITIONS: u32 = 4;
/// Images that go through before the clock starts, so that groups are complete by then.
const WARM: usize = 512;
const PAUSE: Duration = Duration::from_millis(4);
/// A pipeline that persists nothing for so long is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    /// The embedded broker with this durability.
    Embedded(&'static str),
    /// Kafka; the result queue is embedded with the default durability.
    Kafka,
}

impl Backend {
    pub(super) const ALL: [Self; 3] =
        [Self::Embedded("normal"), Self::Embedded("full"), Self::Kafka];

    pub(super) fn name(self) -> String {
        match self {
            Self::Embedded(durability) => format!("embedded, durability {durability}"),
            Self::Kafka => "Kafka".to_owned(),
        }
    }
}

/// A folder with an ini file.
pub(super) struct Stage<'a> {
    bench: &'a Bench<'a>,
    backend: Backend,
    pub(super) folder: PathBuf,
    pub(super) ini: PathBuf,
    pub(super) topics: Topics,
    /// Whether the topic of images is this stage's own.
    owns_images: bool,
}

/// The names in the section of that name.
pub(super) struct Topics {
    pub(super) images: String,
    pub(super) predictions: String,
    pub(super) dead_letters: String,
}

impl Topics {
    fn unique() -> Self {
        let [images, predictions, dead_letters] =
            ["images", "predictions", "dead"].map(crate::unique);
        Self { images, predictions, dead_letters }
    }
}

/// What a run took.
pub(super) struct Measured {
    /// From the first publication until the last row.
    pub(super) images_per_second: f64,
    /// Microseconds of CPU for each image, by program.
    pub(super) cpu: Vec<(&'static str, f64)>,
    /// The same of Kafka's process.
    pub(super) kafka_us: f64,
}

impl<'a> Stage<'a> {
    /// A stage with topics of its own.
    pub(super) fn new(bench: &'a Bench<'a>, backend: Backend) -> Result<Self> {
        Self::with_topics(bench, backend, Topics::unique(), true)
    }

    /// A stage whose images are in a topic that is there already.
    pub(super) fn on_images(bench: &'a Bench<'a>, images: &str) -> Result<Self> {
        let topics = Topics { images: images.to_owned(), ..Topics::unique() };
        Self::with_topics(bench, Backend::Kafka, topics, false)
    }

    fn with_topics(
        bench: &'a Bench<'a>,
        backend: Backend,
        topics: Topics,
        owns_images: bool,
    ) -> Result<Self> {
        let folder = bench.directory.join(crate::unique("stage"));
        std::fs::create_dir(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let ini = folder.join("bench.ini");
        let stage = Self { bench, backend, folder, ini, topics, owns_images };
        std::fs::write(&stage.ini, stage.text())
            .with_context(|| format!("cannot write {}", stage.ini.display()))?;
        Ok(stage)
    }

    /// All that is not said here has its default, or is so in config/kafka.ini.
    fn text(&self) -> String {
        let (kind, durability) = match self.backend {
            Backend::Embedded(durability) => ("embedded", format!("durability = {durability}")),
            Backend::Kafka => ("kafka", String::new()),
        };
        let Topics { images, predictions, dead_letters } = &self.topics;
        format!(
            "[broker]\nkind = {kind}\n\
             [embedded]\ndirectory = {store}\n{durability}\n\
             [kafka]\nbootstrap.servers = {servers}\nlinger.ms = 5\n\
             [topics]\nimages = {images}\npredictions = {predictions}\n\
             dead_letters = {dead_letters}\n\
             [model]\npath = {model}\n\
             [app2]\ndatabase = {database}\n",
            store = self.folder.join("broker").display(),
            servers = self.bench.kafka.servers,
            model = self.bench.model.display(),
            database = self.database().display(),
        )
    }

    pub(super) fn database(&self) -> PathBuf {
        self.folder.join("predictions.db")
    }

    /// The embedded store's database.
    pub(super) fn store(&self) -> PathBuf {
        self.folder.join("broker/forebay.db")
    }

    /// Sends all images through.
    pub(super) fn run(&self) -> Result<Measured> {
        let count = self.bench.count;
        let source = self.folder.join("images-idx3-ubyte");
        self.bench.images.write_idx(&source, count.max(WARM))?;
        let mut programs = self.start(&["app2", "model_server_pub", "model_server_sub"])?;
        let mut rows = Rows::open(&self.database())?;
        self.publish(&source, WARM)?.finish(STUCK)?;
        rows.wait(WARM, &mut programs)?;

        let kafka = cpu_of(self.bench.kafka.pid)?;
        let before = programs.iter().map(Program::cpu).collect::<Result<Vec<_>>>()?;
        let app1 = self.publish(&source, count)?;
        let last = rows.wait(WARM + count, &mut programs)?;
        let mut cpu = vec![("app1", app1.finish(STUCK)?)];
        for (program, before) in programs.iter().zip(before) {
            cpu.push((program.name, program.cpu()?.saturating_sub(before)));
        }
        let kafka_us = self.bench.kafka_us_since(kafka)?;
        let seconds = (last.as_micros() - rows.first_published(WARM)?) as f64 / 1e6;
        programs.into_iter().try_for_each(Program::stop)?;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        Ok(Measured {
            images_per_second: count as f64 / seconds,
            cpu: cpu.into_iter().map(|(name, time)| (name, each(time))).collect(),
            kafka_us,
        })
    }

    /// Starts programs and waits until they work.
    pub(super) fn start(&self, names: &[&'static str]) -> Result<Vec<Program>> {
        let start = |name: &&'static str| self.bench.programs.start(name, &self.ini, &[]);
        let mut programs = names.iter().map(start).collect::<Result<Vec<_>>>()?;
        programs.iter_mut().try_for_each(Program::wait_ready)?;
        Ok(programs)
    }

    fn publish(&self, source: &Path, count: usize) -> Result<Program> {
        let source = source.to_str().context("a path is not UTF-8")?;
        let (count, run) = (count.to_string(), crate::unique("run"));
        let arguments = ["--count", &count, "--run-id", &run, source];
        self.bench.programs.start("app1", &self.ini, &arguments)
    }

    /// Removes the folder, and on Kafka the topics that are its own.
    pub(super) fn clear(self) -> Result<()> {
        std::fs::remove_dir_all(&self.folder)
            .with_context(|| format!("cannot remove {}", self.folder.display()))?;
        if self.backend == Backend::Kafka {
            let Topics { images, predictions, dead_letters } = &self.topics;
            self.bench.delete_topics(&[predictions, dead_letters])?;
            if self.owns_images {
                self.bench.delete_topics(&[images])?;
            }
        }
        Ok(())
    }
}

impl Bench<'_> {
    /// What Kafka's process has used more than `before`, in microseconds for each image.
    pub(super) fn kafka_us_since(&self, before: Duration) -> Result<f64> {
        let used = cpu_of(self.kafka.pid)?.saturating_sub(before);
        Ok(used.as_secs_f64() * 1e6 / self.count as f64)
    }

    /// Deletes those that are there.
    pub(super) fn delete_topics(&self, names: &[&str]) -> Result<()> {
        self.runtime.block_on(async {
            for name in names {
                let topic = broker::Topic::new(name)?;
                match self.broker.admin().delete_topic(&topic).await {
                    Err(error) if error.kind() != broker::ErrorKind::NotFound => {
                        return Err(error.into());
                    }
                    _ => {}
                }
            }
            Ok(())
        })
    }
}

/// The rows that `app2` writes.
struct Rows(Connection);

impl Rows {
    fn open(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = Connection::open_with_flags(path, flags);
        Ok(Self(open.with_context(|| format!("cannot open {}", path.display()))?))
    }

    /// Waits until there are so many: the time by which they were there.
    fn wait(&mut self, count: usize, programs: &mut [Program]) -> Result<Timestamp> {
        let (mut before, mut grown) = (0, Instant::now());
        loop {
            let rows = self.count()?;
            if rows >= count {
                ensure!(rows == count, "{rows} rows came of {count} images");
                return Ok(Timestamp::now());
            }
            if rows > before {
                (before, grown) = (rows, Instant::now());
            } else if grown.elapsed() > Duration::from_secs(1) {
                programs.iter_mut().try_for_each(Program::check)?;
            }
            ensure!(grown.elapsed() < STUCK, "only {rows} of {count} images were persisted");
            std::thread::sleep(PAUSE);
        }
    }

    /// Nothing is ever deleted, so that the last row's number is their count.
    fn count(&self) -> Result<usize> {
        let mut count = self.0.prepare_cached("SELECT COALESCE(MAX(rowid), 0) FROM predictions")?;
        Ok(usize::try_from(count.query_row([], |row| row.get::<_, i64>(0))?)?)
    }

    /// When the first image behind so many rows was published, in microseconds.
    fn first_published(&self, behind: usize) -> Result<i64> {
        let query = "SELECT MIN(published_us) FROM predictions WHERE rowid > ?1";
        Ok(self.0.query_row(query, [i64::try_from(behind)?], |row| row.get(0))?)
    }
}
