//! `forebay topics`.

use std::process::ExitCode;

use broker::{Policy, Topic, TopicDescription};
use model_server::process::{Common, Failure};

use crate::output;

/// What `forebay topics` does.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List all topics, with how many messages each keeps
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show the partitions of one topic
    Describe {
        /// The topic
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

pub(crate) async fn run(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::List { common } => list(common).await?,
        Command::Describe { name, common } => describe(name, common).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(common: &Common) -> Result<(), Failure> {
    let broker = common.settings()?.broker.connect(Policy::default()).await?;
    let mut text = format!("{:>10} {:>12}  topic\n", "partitions", "messages");
    for topic in broker.admin().list().await? {
        let description = broker.admin().describe(&topic).await?;
        let (partitions, messages) = (description.partitions.len(), messages(&description));
        text += &format!("{partitions:>10} {messages:>12}  {topic}\n");
    }
    output::print(&text)?;
    Ok(broker.shutdown().await?)
}

async fn describe(name: &str, common: &Common) -> Result<(), Failure> {
    let topic = Topic::new(name)?;
    let broker = common.settings()?.broker.connect(Policy::default()).await?;
    let description = broker.admin().describe(&topic).await?;
    let row = |partition: &str, start: &str, end: &str, messages: &str| {
        format!("{partition:>9} {start:>12} {end:>12} {messages:>12}\n")
    };
    let mut text = row("partition", "start", "end", "messages");
    for partition in &description.partitions {
        let numbers = [partition.start, partition.end, partition.end - partition.start];
        let [start, end, messages] = numbers.map(|number| number.to_string());
        text += &row(&partition.partition.to_string(), &start, &end, &messages);
    }
    text += &row("all", "", "", &messages(&description).to_string());
    output::print(&text)?;
    Ok(broker.shutdown().await?)
}

/// How many messages the topic keeps.
fn messages(description: &TopicDescription) -> u64 {
    description.partitions.iter().map(|partition| partition.end - partition.start).sum()
}
