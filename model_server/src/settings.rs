//! One ini file for all programs: every one of them reads and checks the whole of it, so that
//! a mistake shows at the first start, whichever program it concerns.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker::config::{Environment, File, Section};
use broker::{Broker, BrokerExt, Group, Policy, Result, Topic, TopicSpec, factory};
use modelling::{Labels, Options, Precision, Runtime};

use crate::queue::{self, Inlet};

/// The largest `[model] batch`: its results still fit into one message of the queue.
const BATCH_MAX: usize = 1024;

/// What the ini file says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[broker]` and the section of its kind.
    pub broker: factory::Config,
    /// `[topics]`.
    pub topics: Topics,
    /// `[delivery]`: how failures are treated.
    pub policy: Policy,
    /// `[queue]`.
    pub queue: queue::Config,
    /// `[model]`.
    pub model: Model,
    /// `[app2] database`: the SQLite file of the predictions.
    pub database: PathBuf,
    /// `[app2] group`: the group that shares out the predictions.
    pub app2_group: Group,
    /// `[admin] insecure`: the admin endpoint may listen off loopback.
    pub admin_insecure: bool,
}

/// The names of the topics, and how many partitions a topic gets when it is made.
#[derive(Debug, Clone)]
pub struct Topics {
    /// Where images come in.
    pub images: Topic,
    /// Where predictions leave.
    pub predictions: Topic,
    /// Where messages go that can't be processed.
    pub dead_letters: Topic,
    /// The partitions of a topic that a program makes because it is missing.
    pub partitions: u32,
}

/// Which model serves, and how.
#[derive(Debug, Clone)]
pub struct Model {
    /// The group that shares out the images.
    pub group: Group,
    /// The model file; for `precision = int8` the sibling `NAME.int8.onnx` serves.
    pub path: PathBuf,
    /// Its name in results; the file's stem where absent.
    pub name: Option<String>,
    /// Its version in results; the beginning of its digest where absent.
    pub version: Option<String>,
    /// What its classes mean.
    pub labels: Labels,
    /// Runtime, precision and threads of each worker.
    pub options: Options,
    /// How many copies of the model compute at once, each on a thread of its own.
    pub workers: usize,
    /// The most images that are predicted at once.
    pub batch_max: usize,
    /// Whether predictions skip the queue: they are published in the transaction that settles
    /// their images.
    pub exactly_once: bool,
}

impl Settings {
    /// Reads and checks a file; does no other I/O. `ConfigInvalid` names file, section and key.
    pub fn read(path: &Path, environment: &dyn Environment) -> Result<Self> {
        Self::from_file(&File::read(path, environment)?)
    }

    /// Checks a file that was read.
    pub fn from_file(file: &File) -> Result<Self> {
        let (database, app2_group) = app2(file.section("app2"))?;
        let settings = Self {
            broker: factory::Config::from_file(file)?,
            topics: Topics::from_section(file.section("topics"))?,
            policy: Policy::from_section(file.section("delivery"))?,
            queue: queue::Config::from_file(file)?,
            model: Model::from_section(file.section("model"))?,
            database,
            app2_group,
            admin_insecure: admin(file.section("admin"))?,
        };
        file.finish()?;
        Ok(settings)
    }

    /// Connects to the broker and makes the topics that are missing.
    pub async fn connect(&self) -> Result<Arc<dyn Broker>> {
        let policy = self.policy.clone().with_dead_letters(&self.topics.dead_letters);
        let broker = self.broker.clone().connect(policy).await?;
        self.topics.ensure(broker.as_ref()).await?;
        Ok(broker)
    }

    /// Opens the end where predictions go in: the queue's, or straight to their topic.
    pub async fn inlet(&self, broker: &Arc<dyn Broker>) -> Result<Box<dyn Inlet>> {
        if self.model.exactly_once {
            return queue::skip(broker.as_ref(), &self.topics.predictions);
        }
        self.queue.inlet(broker).await
    }
}

impl Topics {
    fn from_section(mut section: Section) -> Result<Self> {
        let default = |name| Topic::new(name);
        let partitions = NonZeroU32::MIN.saturating_add(3);
        let topics = Self {
            images: section.take_or("images", default("images")?)?,
            predictions: section.take_or("predictions", default("predictions")?)?,
            dead_letters: section.take_or("dead_letters", default("dead-letters")?)?,
            partitions: section.take_or("partitions", partitions)?.get(),
        };
        let names = [&topics.images, &topics.predictions, &topics.dead_letters];
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                let message = format!("the name {name:?} is given to two topics");
                return Err(section.error("images, predictions, dead_letters", message));
            }
        }
        section.finish()?;
        Ok(topics)
    }

    async fn ensure(&self, broker: &dyn Broker) -> Result<()> {
        let partitions = if broker.capabilities().partitions { self.partitions } else { 1 };
        broker.ensure_topic(&TopicSpec::new(&self.images, partitions)).await?;
        broker.ensure_topic(&TopicSpec::new(&self.predictions, partitions)).await?;
        broker.ensure_topic(&TopicSpec::new(&self.dead_letters, 1)).await
    }
}

impl Model {
    fn from_section(mut section: Section) -> Result<Self> {
        let default = Options::default();
        let precisions = Precision::ALL.map(|precision| (precision.name(), precision));
        let runtimes = Runtime::ALL.map(|runtime| (runtime.name(), runtime));
        let labels = Labels::ALL.map(|labels| (labels.name(), labels));
        let (two, batch) =
            (NonZeroUsize::MIN.saturating_add(1), NonZeroUsize::MIN.saturating_add(63));
        let model = Self {
            group: section.take_or("group", Group::new("model-server")?)?,
            path: section.require("path")?,
            name: section.take("name")?,
            version: section.take("version")?,
            labels: section.choose("labels", Labels::default(), &labels)?,
            options: Options {
                runtime: section.choose("runtime", default.runtime, &runtimes)?,
                precision: section.choose("precision", default.precision, &precisions)?,
                threads: section.take_or("threads", NonZeroUsize::MIN)?.get(),
                onnxruntime: section.take("onnxruntime")?,
            },
            workers: section.take_or("workers", two)?.get(),
            batch_max: section.take_or("batch", batch)?.get(),
            exactly_once: section.take_or("exactly_once", false)?,
        };
        if model.batch_max > BATCH_MAX {
            let message = format!("{} is over the limit of {BATCH_MAX}", model.batch_max);
            return Err(section.error("batch", message));
        }
        section.finish()?;
        Ok(model)
    }
}

fn admin(mut section: Section) -> Result<bool> {
    let insecure = section.take_or("insecure", false)?;
    section.finish()?;
    Ok(insecure)
}

fn app2(mut section: Section) -> Result<(PathBuf, Group)> {
    let database = section.take_or("database", PathBuf::from("forebay-data/predictions.db"))?;
    let group = section.take_or("group", Group::new("app2")?)?;
    section.finish()?;
    Ok((database, group))
}
