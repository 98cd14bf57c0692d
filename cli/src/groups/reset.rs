//! `forebay groups reset`: first the plan, then the deed.

use std::sync::Arc;

use broker::{Broker, ErrorKind, Group, Position, Topic};
use model_server::process::{Failure, Reason};
use serde::Serialize;

use crate::arguments::When;
use crate::connection::{self, At, connect};
use crate::output::{self, Row};
use crate::question::Leave;

/// Move a group to another place in a topic
///
/// It shows its plan first: for each partition where the group is, where it goes, and how many
/// messages it skips or sees again. On a terminal it then asks; elsewhere it wants --yes. The
/// group must have stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  forebay groups reset model-server --topic images --to earliest --dry-run
  forebay groups reset model-server --topic images --to -1h --yes
  forebay groups reset model-server --topic images --to 4200 --partition 3")]
pub(crate) struct Arguments {
    /// The group
    group: Group,
    /// The topic
    #[arg(long, short)]
    topic: Topic,
    /// earliest, latest, an offset, a time such as 2026-11-21T06:43:20Z, or a while ago such
    /// as -1h
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    to: When,
    /// Move only this partition; may be repeated
    #[arg(long, short, value_name = "N")]
    partition: Vec<u32>,
    /// Show the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    leave: Leave,
    #[command(flatten)]
    at: At,
}

/// What happens to one partition.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Move {
    group: String,
    topic: String,
    partition: u32,
    /// None where the group has no position yet.
    from: Option<u64>,
    to: u64,
    /// None where offsets do not tell, or there was no position.
    skipped: Option<u64>,
    replayed: Option<u64>,
}

impl Row for Move {
    const HEADS: &'static [&'static str] = &["partition", "from", "to", "skipped", "replayed"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.partition.to_string(),
            output::cell(self.from),
            self.to.to_string(),
            output::cell(self.skipped),
            output::cell(self.replayed),
        ]
    }
}

impl Move {
    /// `count` tells how many messages there are between two offsets.
    fn new(
        (group, topic): (&Group, &Topic),
        from: Option<u64>,
        to: Position,
        count: impl Fn(u64, u64) -> Option<u64>,
    ) -> Self {
        let offset = to.offset();
        Self {
            group: group.to_string(),
            topic: topic.to_string(),
            partition: to.partition(),
            from,
            to: offset,
            skipped: from.and_then(|from| count(from, offset)),
            replayed: from.and_then(|from| count(offset, from)),
        }
    }
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let broker = connect(&arguments.at.common).await?;
    let (group, topic) = (&arguments.group, &arguments.topic);
    let to = targets(arguments, &broker).await?;
    let plan = plan(arguments, &broker, &to).await?;
    output::report(&plan, arguments.at.json)?;
    if !arguments.dry_run {
        require_stopped(&broker, group, topic).await?;
        let question = format!("Type yes to move {group} in {topic} as shown:");
        arguments.leave.obtain(&question, "yes")?;
        broker.admin().reset_group(group, topic, &to).await?;
        eprintln!("{group} is moved in {topic}");
    }
    Ok(broker.shutdown().await?)
}

/// Where the chosen partitions go.
async fn targets(
    arguments: &Arguments,
    broker: &Arc<dyn Broker>,
) -> Result<Vec<Position>, Failure> {
    let mut to = broker.admin().resolve(&arguments.topic, arguments.to.start()).await?;
    let chosen = &arguments.partition;
    let known = |partition: &u32| to.iter().any(|position| position.partition() == *partition);
    if let Some(unknown) = chosen.iter().find(|partition| !known(partition)) {
        let (topic, count) = (&arguments.topic, to.len());
        let problem = format!("{topic} has no partition {unknown}: it has {count}, from 0");
        return Err(Failure::new(Reason::Config, problem));
    }
    to.retain(|position| chosen.is_empty() || chosen.contains(&position.partition()));
    Ok(to)
}

async fn plan(
    arguments: &Arguments,
    broker: &Arc<dyn Broker>,
    to: &[Position],
) -> Result<Vec<Move>, Failure> {
    let (group, topic) = (&arguments.group, &arguments.topic);
    let lags = broker.lag(topic, group).await?;
    let from = |to: &Position| {
        lags.iter().find(|lag| lag.partition == to.partition()).and_then(|lag| lag.committed)
    };
    let count = |from, to| connection::count(broker, from, to);
    Ok(to.iter().map(|to| Move::new((group, topic), from(to), *to, count)).collect())
}

/// Tells of members before the question; the broker has the last word when it is done.
async fn require_stopped(
    broker: &Arc<dyn Broker>,
    group: &Group,
    topic: &Topic,
) -> Result<(), Failure> {
    let described = match broker.admin().describe_group(group).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        described => described?,
    };
    let owns = |(owned, _): &(Topic, u32)| owned == topic;
    let members = described.members.iter().filter(|member| member.partitions.iter().any(owns));
    let count = members.count();
    if count == 0 {
        return Ok(());
    }
    let problem = format!("{group} has {count} members on {topic}: stop them first");
    Err(Failure::new(Reason::Unexpected, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_tells_what_it_skips_and_what_comes_again() {
        let (group, topic) = (Group::new("g").unwrap(), Topic::new("t").unwrap());
        let check = |from, to, skipped, replayed| {
            let count = |from: u64, to: u64| Some(to.saturating_sub(from));
            let it = Move::new((&group, &topic), from, Position::new(2, to), count);
            assert_eq!((it.partition, it.skipped, it.replayed), (2, skipped, replayed));
        };
        check(Some(10), 25, Some(15), Some(0));
        check(Some(10), 3, Some(0), Some(7));
        check(Some(10), 10, Some(0), Some(0));
        check(None, 5, None, None);
    }
}
