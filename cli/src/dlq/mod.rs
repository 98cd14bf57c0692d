//! `forebay dlq`: what was put aside, why, and what becomes of it.
//!
//! A topic is a log: a letter in its midst cannot be taken out. So a group of its own,
//! `forebay-dlq`, says by its positions what was dealt with: everything before them. To deal
//! with a letter is to settle everything up to it. A letter that stands before it and was not
//! chosen is published once more at the end of the topic, as it is, and so waits there for
//! another day; its position changes, and its id and its headers do not.
//!
//! What is published (the retried to their source, the passed over to the end) is durable
//! before anything is settled, in one transaction where the broker has them. A crash between
//! the two repeats letters and loses none.

mod letter;
mod list;
mod selection;
mod settle;
mod show;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Delivery, ErrorKind, Event, Group, Limit, Subscription, Topic};
use model_server::process::{Common, Failure, Reason};

use crate::connection::{Place, Store};

/// The group whose positions tell what was dealt with.
const GROUP: &str = "forebay-dlq";
/// How many messages one `receive` takes.
const BATCH: usize = 256;
/// How long one `receive` waits.
const WAIT: Duration = Duration::from_secs(1);

/// What `forebay dlq` does.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::Arguments),
    Show(show::Arguments),
    Retry(settle::Retry),
    Drop(settle::Drop),
}

/// Where the dead letters are.
#[derive(Debug, Clone, clap::Args)]
struct Where {
    #[command(flatten)]
    common: Common,
    /// The dead-letter topic [default: that of the ini file, else dead-letters]
    #[arg(long, short)]
    topic: Option<Topic>,
    /// Report as JSON, one object a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::List(arguments) => list::run(arguments).await?,
        Command::Show(arguments) => show::run(arguments).await?,
        Command::Retry(arguments) => settle::retry(arguments).await?,
        Command::Drop(arguments) => settle::drop(arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The dead letters of a broker.
struct Letters {
    broker: Arc<dyn Broker>,
    topic: Topic,
    group: Group,
}

impl Letters {
    async fn open(place: &Where) -> Result<Self, Failure> {
        let read = Place::read(&place.common)?;
        let topic = place.topic.clone().unwrap_or_else(|| read.dead_letters.clone());
        let broker = read.connect(Store::MustExist).await?;
        Ok(Self { broker, topic, group: Group::new(GROUP)? })
    }

    /// Where the open letters of each partition begin. Where the broker cannot tell, all are
    /// taken for open.
    async fn settled(&self) -> Result<Vec<(u32, u64)>, Failure> {
        match self.broker.lag(&self.topic, &self.group).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Vec::new()),
            Err(error) => Err(error.into()),
            Ok(lags) => {
                let settled = |lag: broker::PartitionLag| (lag.partition, lag.committed);
                let settled = lags.into_iter().map(settled);
                Ok(settled.filter_map(|(number, at)| Some((number, at?))).collect())
            }
        }
    }

    /// Shows every letter that is there now to `see`, or only those that are open.
    async fn read(
        &self,
        only_open: bool,
        mut see: impl FnMut(&Delivery) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let settled = if only_open { self.settled().await? } else { Vec::new() };
        let is_open = |delivery: &Delivery| {
            let position = delivery.position();
            let settled = settled.iter().find(|(number, _)| *number == position.partition());
            settled.is_none_or(|(_, at)| position.offset() >= *at)
        };
        let mut reader = self.broker.subscribe(Subscription::reader(&self.topic)).await?;
        let mut caught_up = false;
        while !caught_up {
            let deliveries = reader.receive(Limit::new(BATCH, WAIT)).await?;
            deliveries.iter().filter(|delivery| is_open(delivery)).try_for_each(&mut see)?;
            caught_up = reader.events().contains(&Event::CaughtUp);
        }
        Ok(())
    }

    async fn close(self) -> Result<(), Failure> {
        Ok(self.broker.shutdown().await?)
    }
}

/// Names that were given and that no letter has.
fn no_such(names: &[String], topic: &Topic) -> Failure {
    let names: Vec<String> = names.iter().map(|name| crate::escape::text(name)).collect();
    let problem = format!("no open dead letter in {topic} is {}", names.join(" or "));
    Failure::new(Reason::Unexpected, problem)
}
