//! `forebay groups`.

mod reset;

use std::process::ExitCode;
use std::sync::Arc;

use broker::{Broker, ErrorKind, Group, GroupDescription, MemberDescription};
use model_server::process::Failure;
use serde::Serialize;

use crate::connection::{At, connect};
use crate::lag::{self, Lag};
use crate::output::{self, Row};
use crate::question::Leave;

/// What `forebay groups` does.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List all groups, with their members and how far they are behind
    List {
        #[command(flatten)]
        at: At,
    },
    /// Show a group's members with their partitions, its positions and its lag
    Describe {
        /// The group
        group: Group,
        #[command(flatten)]
        at: At,
    },
    Reset(reset::Arguments),
    Delete(Delete),
}

/// Forget a group with all its positions
///
/// A group that comes later under this name starts anew. The group must have stopped. On a
/// terminal it asks for the name once more; elsewhere it wants --yes.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// The group
    group: Group,
    #[command(flatten)]
    leave: Leave,
    #[command(flatten)]
    at: At,
}

pub(crate) async fn run(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::List { at } => list(at).await?,
        Command::Describe { group, at } => describe(group, at).await?,
        Command::Reset(arguments) => reset::run(arguments).await?,
        Command::Delete(arguments) => delete(arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Every group that there is. One that goes away meanwhile is left out.
pub(crate) async fn all(broker: &Arc<dyn Broker>) -> Result<Vec<GroupDescription>, Failure> {
    let mut all = Vec::new();
    for group in broker.admin().groups().await? {
        match broker.admin().describe_group(&group).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            described => all.push(described?),
        }
    }
    Ok(all)
}

/// A group in the list.
#[derive(Debug, Serialize)]
struct Listed {
    group: String,
    members: usize,
    /// None where the broker knows no lag.
    behind: Option<u64>,
    topics: Vec<String>,
}

impl Row for Listed {
    const HEADS: &'static [&'static str] = &["group", "members", "behind", "topics"];

    fn cells(&self) -> Vec<String> {
        let behind = output::cell(self.behind);
        vec![self.group.clone(), self.members.to_string(), behind, self.topics.join(",")]
    }
}

/// A group as a whole, for JSON.
#[derive(Debug, Serialize)]
struct Described {
    group: String,
    members: Vec<Member>,
    positions: Vec<Lag>,
}

/// A member of a group.
#[derive(Debug, Serialize)]
struct Member {
    name: String,
    partitions: Vec<Owned>,
}

/// A partition that a member has.
#[derive(Debug, Serialize)]
struct Owned {
    topic: String,
    partition: u32,
}

impl Row for Member {
    const HEADS: &'static [&'static str] = &["member", "partitions"];

    fn cells(&self) -> Vec<String> {
        let owned = |Owned { topic, partition }: &Owned| format!("{topic}:{partition}");
        let owned: Vec<String> = self.partitions.iter().map(owned).collect();
        vec![self.name.clone(), output::cell((!owned.is_empty()).then(|| owned.join(",")))]
    }
}

impl From<&MemberDescription> for Member {
    fn from(member: &MemberDescription) -> Self {
        let owned = member.partitions.iter();
        let owned = owned.map(|(topic, it)| Owned { topic: topic.to_string(), partition: *it });
        Self { name: member.name.clone(), partitions: owned.collect() }
    }
}

/// How far a group is in each partition; nothing where the broker does not know.
async fn lags(
    broker: &Arc<dyn Broker>,
    group: &GroupDescription,
) -> Result<Option<Vec<Lag>>, Failure> {
    match broker.capabilities().lag {
        true => Ok(Some(lag::of_group(broker, group, None).await?)),
        false => Ok(None),
    }
}

async fn list(at: &At) -> Result<(), Failure> {
    let broker = connect(&at.common).await?;
    let mut rows = Vec::new();
    for group in all(&broker).await? {
        let lags = lags(&broker, &group).await?;
        rows.push(Listed {
            group: group.group.to_string(),
            members: group.members.len(),
            behind: lags.map(|lags| lags.iter().map(|lag| lag.behind).sum()),
            topics: group.topics.iter().map(ToString::to_string).collect(),
        });
    }
    output::report(&rows, at.json)?;
    Ok(broker.shutdown().await?)
}

async fn describe(group: &Group, at: &At) -> Result<(), Failure> {
    let broker = connect(&at.common).await?;
    let group = broker.admin().describe_group(group).await?;
    let described = Described {
        group: group.group.to_string(),
        members: group.members.iter().map(Member::from).collect(),
        positions: lags(&broker, &group).await?.unwrap_or_default(),
    };
    if at.json {
        output::print(&output::json(&described)?)?;
    } else {
        output::report(&described.members, false)?;
        output::print("\n")?;
        output::report(&described.positions, false)?;
    }
    Ok(broker.shutdown().await?)
}

async fn delete(arguments: &Delete) -> Result<(), Failure> {
    let Delete { group, leave, at } = arguments;
    let broker = connect(&at.common).await?;
    let described = broker.admin().describe_group(group).await?;
    let topics: Vec<&str> = described.topics.iter().map(broker::Topic::as_str).collect();
    let topics = if topics.is_empty() { "none".to_owned() } else { topics.join(", ") };
    let question = format!("{group} has positions in: {topics}. Type its name to forget them:");
    leave.obtain(&question, group.as_str())?;
    broker.admin().delete_group(group).await?;
    output::print(&match at.json {
        true => output::json(&serde_json::json!({ "group": group.as_str(), "done": "deleted" }))?,
        false => format!("{group} is deleted\n"),
    })?;
    Ok(broker.shutdown().await?)
}
