//! `forebay topics`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Topic, TopicDescription, TopicSpec};
use model_server::process::Failure;
use serde::Serialize;

use crate::connection::{self, At, Place, Store, connect};
use crate::lag::{self, Lag};
use crate::output::{self, Row};
use crate::question::Leave;
use crate::{arguments, groups};

/// What `forebay topics` does.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List all topics, with how many messages each keeps
    List {
        #[command(flatten)]
        at: At,
    },
    Create(Create),
    Delete(Delete),
    Describe(Describe),
}

/// Make a topic
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  forebay topics create images --partitions 8 --retention 7d --retention-bytes 1GiB
  forebay topics create settings --compacted")]
pub(crate) struct Create {
    /// The topic
    topic: Topic,
    /// How many partitions; equal keys share one
    #[arg(long, short, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// How long messages are kept, such as 24h or 7d [default: the broker's]
    #[arg(long, value_name = "TIME", value_parser = arguments::duration)]
    retention: Option<Duration>,
    /// How much each partition keeps, such as 64MiB or 1GiB [default: the broker's]
    #[arg(long, value_name = "SIZE", value_parser = arguments::bytes)]
    retention_bytes: Option<u64>,
    /// Keep the last message of each key, whatever its age
    #[arg(long)]
    compacted: bool,
    #[command(flatten)]
    at: At,
}

/// Delete a topic with all its messages, and the positions of its groups
///
/// On a terminal it asks for the name once more; elsewhere it wants --yes.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// The topic
    topic: Topic,
    #[command(flatten)]
    leave: Leave,
    #[command(flatten)]
    at: At,
}

/// Show the partitions of a topic: the oldest offset kept, and the one the next message gets
#[derive(Debug, clap::Args)]
pub(crate) struct Describe {
    /// The topic
    topic: Topic,
    /// Show how far each group is, too
    #[arg(long)]
    groups: bool,
    #[command(flatten)]
    at: At,
}

pub(crate) async fn run(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::List { at } => list(at).await?,
        Command::Create(arguments) => create(arguments).await?,
        Command::Delete(arguments) => delete(arguments).await?,
        Command::Describe(arguments) => describe(arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A topic in the list.
#[derive(Debug, Serialize)]
struct Listed {
    topic: String,
    partitions: usize,
    /// None where offsets do not tell.
    messages: Option<u64>,
}

impl Row for Listed {
    const HEADS: &'static [&'static str] = &["topic", "partitions", "messages"];

    fn cells(&self) -> Vec<String> {
        vec![self.topic.clone(), self.partitions.to_string(), output::cell(self.messages)]
    }
}

impl Listed {
    fn new(broker: &Arc<dyn Broker>, description: &TopicDescription) -> Self {
        let partitions = description.partitions.iter();
        Self {
            topic: description.topic.to_string(),
            partitions: description.partitions.len(),
            messages: partitions.map(|it| connection::count(broker, it.start, it.end)).sum(),
        }
    }
}

/// A partition of a topic.
#[derive(Debug, Serialize)]
struct Partition {
    topic: String,
    partition: u32,
    start: u64,
    end: u64,
    /// None where offsets do not tell.
    messages: Option<u64>,
    /// With `--groups`: how far each group is.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<Lag>>,
}

impl Row for Partition {
    const HEADS: &'static [&'static str] = &["partition", "start", "end", "messages"];

    fn cells(&self) -> Vec<String> {
        let numbers =
            [Some(self.partition.into()), Some(self.start), Some(self.end), self.messages];
        numbers.map(output::cell).into()
    }
}

async fn list(at: &At) -> Result<(), Failure> {
    let broker = connect(&at.common).await?;
    let mut rows = Vec::new();
    for topic in broker.admin().list().await? {
        rows.push(Listed::new(&broker, &broker.admin().describe(&topic).await?));
    }
    output::report(&rows, at.json)?;
    Ok(broker.shutdown().await?)
}

async fn create(arguments: &Create) -> Result<(), Failure> {
    let Create { topic, partitions, retention, retention_bytes, compacted, at } = arguments;
    let broker = Place::read(&at.common)?.connect(Store::MayBeMade).await?;
    let spec = TopicSpec {
        topic: topic.clone(),
        partitions: *partitions,
        retention: *retention,
        retention_bytes: *retention_bytes,
        compacted: *compacted,
    };
    broker.admin().create_topic(&spec).await?;
    conclude(at, &broker, topic, "created").await
}

async fn delete(arguments: &Delete) -> Result<(), Failure> {
    let Delete { topic, leave, at } = arguments;
    let broker = connect(&at.common).await?;
    let listed = Listed::new(&broker, &broker.admin().describe(topic).await?);
    let count = listed.messages.map_or("all its".to_owned(), |count| count.to_string());
    let question = format!("{topic} goes with {count} messages. Type its name to delete it:");
    leave.obtain(&question, topic.as_str())?;
    broker.admin().delete_topic(topic).await?;
    conclude(at, &broker, topic, "deleted").await
}

/// What was done to a topic.
#[derive(Debug, Serialize)]
struct Done<'a> {
    topic: &'a str,
    done: &'a str,
}

async fn conclude(
    at: &At,
    broker: &Arc<dyn Broker>,
    topic: &Topic,
    done: &str,
) -> Result<(), Failure> {
    output::print(&match at.json {
        true => output::json(&Done { topic: topic.as_str(), done })?,
        false => format!("{topic} is {done}\n"),
    })?;
    Ok(broker.shutdown().await?)
}

async fn describe(arguments: &Describe) -> Result<(), Failure> {
    let Describe { topic, groups: with_groups, at } = arguments;
    let broker = connect(&at.common).await?;
    let description = broker.admin().describe(topic).await?;
    let lags = if *with_groups { lags(&broker, topic).await? } else { Vec::new() };
    let of = |partition: u32| lags.iter().filter(move |lag| lag.partition == partition).cloned();
    let row = |it: &broker::PartitionDescription| Partition {
        topic: topic.to_string(),
        partition: it.partition,
        start: it.start,
        end: it.end,
        messages: connection::count(&broker, it.start, it.end),
        groups: with_groups.then(|| of(it.partition).collect()),
    };
    let rows: Vec<Partition> = description.partitions.iter().map(row).collect();
    output::report(&rows, at.json)?;
    if *with_groups && !at.json {
        output::print("\n")?;
        output::report(&lags, false)?;
    }
    Ok(broker.shutdown().await?)
}

/// How far every group of a topic is.
async fn lags(broker: &Arc<dyn Broker>, topic: &Topic) -> Result<Vec<Lag>, Failure> {
    let mut lags = Vec::new();
    for group in groups::all(broker).await? {
        if group.topics.contains(topic) {
            lags.extend(lag::of(broker, &group.group, topic).await?);
        }
    }
    Ok(lags)
}
