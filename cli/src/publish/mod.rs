//! `forebay publish`.

mod input;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use broker::{Broker, Message, Published, Topic};
use model_server::process::Failure;
use serde::Serialize;

use self::input::{BATCH, Bytesource, Cut, Input};
use crate::connection::{At, connect};
use crate::output::{self, Row};
use crate::pace::Pace;
use crate::{arguments, escape};

/// Publish messages to a topic
///
/// One message is the TEXT, a whole file, or all of standard input. With --lines each line is
/// a message, published as it comes; with --json-lines each line is an object as `forebay tail
/// --json` writes it. It is done when every message is durable.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  forebay publish images --key 7 --header content-type=image/png --file seven.png
  forebay publish greetings hello --count 1000 --rate 100
  tail -f app.log | forebay publish logs --lines
  forebay tail images --from earliest --follow=false --json | forebay publish copy --json-lines

A JSON line has payload or payload_base64, and may have key or key_base64, time_us, and headers:
{\"name\": \"value\"}, or [{\"name\": ..., \"value\": ... or \"value_base64\": ...}] in order.")]
pub(crate) struct Arguments {
    /// The topic
    topic: Topic,
    /// The payload; - reads standard input
    #[arg(conflicts_with = "file")]
    text: Option<String>,
    /// Read the payload, or the lines, from a file; - is standard input
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The key: messages with equal keys keep their order
    #[arg(long, short)]
    key: Option<String>,
    /// Add a header; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE", value_parser = arguments::header)]
    headers: Vec<(String, String)>,
    /// Each line is a message
    #[arg(long, short, conflicts_with = "json_lines")]
    lines: bool,
    /// Each line is a message as a JSON object
    #[arg(long, conflicts_with_all = ["key", "headers"])]
    json_lines: bool,
    /// Publish the one message so often
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1)]
    #[arg(conflicts_with_all = ["lines", "json_lines"])]
    count: u64,
    /// At most so many messages in a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    at: At,
}

/// Where a message was written.
#[derive(Debug, Serialize)]
struct Receipt {
    topic: String,
    partition: u32,
    offset: u64,
}

impl Row for Receipt {
    const HEADS: &'static [&'static str] = &["topic", "partition", "offset"];

    fn cells(&self) -> Vec<String> {
        vec![self.topic.clone(), self.partition.to_string(), self.offset.to_string()]
    }
}

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let source = Bytesource::from_arguments(arguments.text.as_deref(), arguments.file.as_deref())?;
    let broker = connect(&arguments.at.common).await?;
    let input = input(arguments, source, &broker)?;
    let mut written = 0;
    let published = publish(arguments, &broker, input, &mut written).await;
    if let Err(failure) = published {
        eprintln!("{written} messages were written to {} before:", arguments.topic);
        return Err(failure);
    }
    if !arguments.at.json && written != 1 {
        output::print(&format!("{written} messages are written to {}\n", arguments.topic))?;
    }
    broker.shutdown().await?;
    Ok(ExitCode::SUCCESS)
}

fn input(
    arguments: &Arguments,
    source: Bytesource,
    broker: &Arc<dyn Broker>,
) -> Result<Input, Failure> {
    let bytes_max = broker.capabilities().message_bytes_max as u64;
    let key = arguments.key.clone().map(Into::into);
    let mut envelope = Message { key, ..Message::default() };
    for (name, value) in &arguments.headers {
        envelope.headers.push(name, value.as_bytes());
    }
    let cut = match (arguments.lines, arguments.json_lines) {
        (true, _) => Cut::Lines,
        (_, true) => Cut::JsonLines,
        _ => Cut::Whole,
    };
    if cut != Cut::Whole {
        return source.lines(cut, envelope, bytes_max);
    }
    let message = Message { payload: source.whole(bytes_max)?, ..envelope };
    Ok(Input::Repeated { message, left: arguments.count })
}

/// Publishes everything; `written` counts even where it fails.
async fn publish(
    arguments: &Arguments,
    broker: &Arc<dyn Broker>,
    mut input: Input,
    written: &mut u64,
) -> Result<(), Failure> {
    let mut pace = Pace::new(arguments.rate);
    loop {
        let batch = input.next(pace.wait(BATCH).await).await?;
        if batch.is_empty() {
            return Ok(());
        }
        pace.went(batch.len());
        let results = broker.publish(&arguments.topic, batch).await?;
        let (receipts, failure) = receipts(&arguments.topic, results);
        *written += receipts.len() as u64;
        if arguments.at.json {
            output::report(&receipts, true)?;
        } else if let ([receipt], 1) = (&receipts[..], arguments.count)
            && !arguments.lines
            && !arguments.json_lines
        {
            let Receipt { topic, partition, offset } = receipt;
            output::print(&format!("{}\t{partition}\t{offset}\n", escape::text(topic)))?;
        }
        failure.map_or(Ok(()), Err)?;
    }
}

/// What was written of a batch, and the first failure.
fn receipts(topic: &Topic, results: Vec<Published>) -> (Vec<Receipt>, Option<Failure>) {
    let (mut receipts, mut failure) = (Vec::new(), None);
    for result in results {
        match result {
            Published::Written(position) => receipts.push(Receipt {
                topic: topic.to_string(),
                partition: position.partition(),
                offset: position.offset(),
            }),
            Published::NotWritten(error) => {
                failure.get_or_insert_with(|| error.into());
            }
            Published::Unknown(error) => {
                let unknown = || Failure::from(error.with("written", "unknown"));
                failure.get_or_insert_with(unknown);
            }
        }
    }
    (receipts, failure)
}
