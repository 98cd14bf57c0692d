//! `forebay dlq`: what was put aside, and why.

use std::process::ExitCode;
use std::time::Duration;

use broker::{Delivery, Event, Limit, Policy, Subscription};
use model_server::prediction;
use model_server::process::{Common, Failure};
use serde::Serialize;

use crate::calendar::Moment;
use crate::{escape, output};

/// How many bytes of a payload are shown.
const SHOWN_BYTES_MAX: usize = 48;
/// How many messages one `receive` takes.
const BATCH: usize = 256;

/// What `forebay dlq` does.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List dead letters, the oldest first
    ///
    /// Each has its place in the dead-letter topic, why and when it was put aside, where it
    /// came from, after how many attempts, and the beginning of its payload.
    List {
        #[command(flatten)]
        common: Common,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        /// The most dead letters to show
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
}

/// A dead letter as it is shown.
#[derive(Debug, Serialize)]
struct Letter {
    partition: u32,
    offset: u64,
    id: Option<String>,
    reason: Option<String>,
    source_topic: Option<String>,
    source_partition: Option<u32>,
    source_offset: Option<u64>,
    attempts: Option<u32>,
    time_us: Option<i64>,
    payload_bytes: usize,
    payload_start: String,
}

impl Letter {
    fn of(delivery: &Delivery) -> Self {
        let text = |name| delivery.headers.get_str(name).map(escape::text);
        Self {
            partition: delivery.position().partition(),
            offset: delivery.position().offset(),
            id: text(prediction::ID),
            reason: text("dead-letter-reason"),
            source_topic: text("dead-letter-topic"),
            source_partition: text("dead-letter-partition").and_then(|text| text.parse().ok()),
            source_offset: text("dead-letter-offset").and_then(|text| text.parse().ok()),
            attempts: text("dead-letter-attempts").and_then(|text| text.parse().ok()),
            time_us: text("dead-letter-time").and_then(|text| text.parse().ok()),
            payload_bytes: delivery.payload.len(),
            payload_start: escape::bytes(&delivery.payload, SHOWN_BYTES_MAX),
        }
    }

    fn describe(&self) -> String {
        let unknown = "unknown";
        let number = |number: Option<u64>| number.map_or("?".into(), |number| number.to_string());
        let moment = |micros| Moment::from_micros(micros).readable();
        format!(
            "{:<8} {}\n{:8} from {} {}:{}, attempts {}, {}, id {}\n{:8} {} bytes: {}\n",
            format!("{}:{}", self.partition, self.offset),
            self.reason.as_deref().unwrap_or(unknown),
            "",
            self.source_topic.as_deref().unwrap_or(unknown),
            number(self.source_partition.map(u64::from)),
            number(self.source_offset),
            number(self.attempts.map(u64::from)),
            self.time_us.map_or("time unknown".into(), moment),
            self.id.as_deref().unwrap_or("none"),
            "",
            self.payload_bytes,
            self.payload_start,
        )
    }
}

pub(crate) async fn run(command: &Command) -> Result<ExitCode, Failure> {
    let Command::List { common, json, limit } = command;
    let settings = common.settings()?;
    let topic = &settings.topics.dead_letters;
    let broker = settings.broker.clone().connect(Policy::default()).await?;
    let mut reader = broker.subscribe(Subscription::reader(topic)).await?;
    let (mut seen, mut caught_up) = (0, false);
    while !caught_up {
        let deliveries = reader.receive(Limit::new(BATCH, Duration::from_secs(1))).await?;
        for delivery in &deliveries {
            seen += 1;
            if seen <= *limit {
                let letter = Letter::of(delivery);
                output::print(&if *json { output::json(&letter)? } else { letter.describe() })?;
            }
        }
        caught_up = reader.events().contains(&Event::CaughtUp);
    }
    if !json {
        output::print(&conclusion(seen, *limit, topic.as_str()))?;
    }
    drop(reader);
    broker.shutdown().await?;
    Ok(ExitCode::SUCCESS)
}

fn conclusion(seen: usize, limit: usize, topic: &str) -> String {
    match seen {
        0 => format!("no dead letters in {topic}\n"),
        _ if seen > limit => format!("{seen} dead letters in {topic}, the first {limit} shown\n"),
        1 => format!("1 dead letter in {topic}\n"),
        _ => format!("{seen} dead letters in {topic}\n"),
    }
}
