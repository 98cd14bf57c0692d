//! `forebay dlq list`.

use model_server::process::Failure;

use super::letter::Letter;
use super::{Letters, Where};
use crate::output;

/// List dead letters, the oldest first
///
/// Each has its place in the dead-letter topic, why and when it was put aside, where it came
/// from, after how many attempts, and the beginning of its payload.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The most dead letters to show
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: usize,
    /// Show those too that were retried or dropped
    #[arg(long)]
    settled: bool,
    #[command(flatten)]
    place: Where,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let letters = Letters::open(&arguments.place).await?;
    let (json, limit) = (arguments.place.json, arguments.limit);
    let mut seen = 0;
    let show = |delivery: &broker::Delivery| {
        seen += 1;
        if seen > limit {
            return Ok(());
        }
        let letter = Letter::of(delivery);
        output::print(&if json { output::json(&letter)? } else { letter.describe() })
    };
    letters.read(!arguments.settled, show).await?;
    if !json {
        output::print(&conclusion(seen, limit, letters.topic.as_str()))?;
    }
    letters.close().await
}

fn conclusion(seen: usize, limit: usize, topic: &str) -> String {
    match seen {
        0 => format!("no dead letters in {topic}\n"),
        _ if seen > limit => format!("{seen} dead letters in {topic}, the first {limit} shown\n"),
        1 => format!("1 dead letter in {topic}\n"),
        _ => format!("{seen} dead letters in {topic}\n"),
    }
}
