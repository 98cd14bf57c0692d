//! `forebay lag`: how far groups are behind.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, ErrorKind, Group, GroupDescription, Topic};
use model_server::process::Failure;
use serde::Serialize;

use crate::connection::{At, connect};
use crate::output::{self, Row};
use crate::signals::Signals;
use crate::{arguments, groups};

/// Clears a terminal and puts the cursor at its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Show how many messages groups have before them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  forebay lag
  forebay lag model-server --topic images --watch")]
pub(crate) struct Arguments {
    /// The group [default: all]
    group: Option<Group>,
    /// Only this topic; it need not be one that the group has a position in
    #[arg(long, short)]
    topic: Option<Topic>,
    /// Look again and again until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// How long to wait between two looks
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = arguments::duration)]
    interval: Duration,
    #[command(flatten)]
    at: At,
}

/// How far a group is behind in one partition.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Lag {
    group: String,
    topic: String,
    pub(crate) partition: u32,
    /// The first offset that the group has not settled; none where it never settled any.
    position: Option<u64>,
    end: u64,
    pub(crate) behind: u64,
}

impl Row for Lag {
    const HEADS: &'static [&'static str] =
        &["group", "topic", "partition", "position", "end", "behind"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.group.clone(),
            self.topic.clone(),
            self.partition.to_string(),
            output::cell(self.position),
            self.end.to_string(),
            self.behind.to_string(),
        ]
    }
}

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let broker = connect(&arguments.at.common).await?;
    loop {
        let rows = look(arguments, &broker).await?;
        if arguments.watch && output::is_terminal() && !arguments.at.json {
            output::print(CLEAR)?;
        }
        output::report(&rows, arguments.at.json)?;
        if !arguments.watch {
            break;
        }
        tokio::select! {
            biased;
            () = signals.next() => break,
            () = tokio::time::sleep(arguments.interval) => {}
        }
    }
    broker.shutdown().await?;
    Ok(ExitCode::SUCCESS)
}

async fn look(arguments: &Arguments, broker: &Arc<dyn Broker>) -> Result<Vec<Lag>, Failure> {
    if let (Some(group), Some(topic)) = (&arguments.group, &arguments.topic) {
        return of(broker, group, topic).await;
    }
    let shown = match &arguments.group {
        Some(group) => vec![broker.admin().describe_group(group).await?],
        None => groups::all(broker).await?,
    };
    let mut rows = Vec::new();
    for group in &shown {
        rows.extend(of_group(broker, group, arguments.topic.as_ref()).await?);
    }
    Ok(rows)
}

/// How far a group is in its topics, or in one of them.
pub(crate) async fn of_group(
    broker: &Arc<dyn Broker>,
    group: &GroupDescription,
    only: Option<&Topic>,
) -> Result<Vec<Lag>, Failure> {
    let mut rows = Vec::new();
    for topic in group.topics.iter().filter(|topic| only.is_none_or(|only| only == *topic)) {
        rows.extend(of_kept(broker, &group.group, topic).await?);
    }
    Ok(rows)
}

/// The same of one topic; nothing where it was deleted, as positions may outlive it.
async fn of_kept(
    broker: &Arc<dyn Broker>,
    group: &Group,
    topic: &Topic,
) -> Result<Vec<Lag>, Failure> {
    match broker.lag(topic, group).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        lags => Ok(rows(group, topic, lags?)),
    }
}

/// How far a group is in one topic.
pub(crate) async fn of(
    broker: &Arc<dyn Broker>,
    group: &Group,
    topic: &Topic,
) -> Result<Vec<Lag>, Failure> {
    Ok(rows(group, topic, broker.lag(topic, group).await?))
}

fn rows(group: &Group, topic: &Topic, lags: Vec<broker::PartitionLag>) -> Vec<Lag> {
    let row = |lag: broker::PartitionLag| Lag {
        group: group.to_string(),
        topic: topic.to_string(),
        partition: lag.partition,
        position: lag.committed,
        end: lag.end,
        behind: lag.behind,
    };
    lags.into_iter().map(row).collect()
}
