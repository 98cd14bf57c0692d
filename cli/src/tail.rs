//! `forebay tail`.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use broker::{Delivery, Event, Limit, Message, Subscription, Timestamp, Topic};
use model_server::process::Failure;
use regex::bytes::Regex;

use crate::arguments::When;
use crate::calendar::Moment;
use crate::connection::{At, connect};
use crate::record::Record;
use crate::signals::Signals;
use crate::{escape, output};

/// How many messages one `receive` takes.
const BATCH: usize = 256;
/// How long one `receive` waits.
const WAIT: Duration = Duration::from_secs(1);

/// Show the messages of a topic as they come
///
/// It reads beside all groups and moves none of them. Each line has the position, the time, the
/// key and the payload, with everything that could steer a terminal escaped. Ctrl-C ends it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  forebay tail predictions
  forebay tail images --from -10m --filter header=content-type=^image/ --count 5
  forebay tail events --from 2026-11-21T06:00:00Z --follow=false --json > events.jsonl

A --filter is a regular expression over the payload, or key=REGEX, header=NAME, or
header=NAME=REGEX; all that are given must match.")]
pub(crate) struct Arguments {
    /// The topic
    topic: Topic,
    /// earliest, latest, an offset, a time, or a while ago such as -1h [default: latest, or
    /// earliest with --follow=false]
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    from: Option<When>,
    /// Show only messages that match; may be repeated
    #[arg(long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// End after so many messages
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// Wait for more at the end of the topic
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set)]
    follow: bool,
    /// Show headers too
    #[arg(long)]
    headers: bool,
    /// The most bytes of a payload to show; JSON has it whole
    #[arg(long, value_name = "N", default_value_t = 256)]
    bytes: usize,
    #[command(flatten)]
    at: At,
}

/// What a message must match.
#[derive(Debug, Clone)]
enum Filter {
    Payload(Regex),
    Key(Regex),
    Header(String, Option<Regex>),
}

impl FromStr for Filter {
    type Err = regex::Error;

    fn from_str(text: &str) -> Result<Self, regex::Error> {
        if let Some(key) = text.strip_prefix("key=") {
            return Ok(Self::Key(Regex::new(key)?));
        }
        let Some(header) = text.strip_prefix("header=") else {
            return Ok(Self::Payload(Regex::new(text)?));
        };
        Ok(match header.split_once('=') {
            Some((name, value)) => Self::Header(name.to_owned(), Some(Regex::new(value)?)),
            None => Self::Header(header.to_owned(), None),
        })
    }
}

impl Filter {
    fn matches(&self, message: &Message) -> bool {
        match self {
            Self::Payload(regex) => regex.is_match(&message.payload),
            Self::Key(regex) => message.key.as_ref().is_some_and(|key| regex.is_match(key)),
            Self::Header(name, regex) => message.headers.iter().any(|(other, value)| {
                name == other && regex.as_ref().is_none_or(|regex| regex.is_match(value))
            }),
        }
    }
}

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let broker = connect(&arguments.at.common).await?;
    let default = if arguments.follow { When::Latest } else { When::Earliest };
    let start = arguments.from.unwrap_or(default).start();
    let reader = Subscription::reader(&arguments.topic).starting(start);
    let mut reader = broker.subscribe(reader).await?;
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        let received = tokio::select! {
            biased;
            () = signals.next() => break,
            received = reader.receive(Limit::new(BATCH, WAIT)) => received?,
        };
        if !show(arguments, &received, &mut left)? {
            break;
        }
        let events = reader.events();
        note_gaps(&events);
        if !arguments.follow && events.contains(&Event::CaughtUp) {
            break;
        }
    }
    drop(reader);
    broker.shutdown().await?;
    Ok(ExitCode::SUCCESS)
}

fn note_gaps(events: &[Event]) {
    for event in events {
        if let Event::OffsetOutOfRange { partition, wanted, resumed } = event {
            eprintln!("partition {partition}: {wanted} is deleted by now, on from {resumed}");
        }
    }
}

/// Shows what matches; tells whether anyone still reads.
fn show(arguments: &Arguments, deliveries: &[Delivery], left: &mut u64) -> Result<bool, Failure> {
    let mut text = String::new();
    for delivery in deliveries {
        if *left == 0 {
            break;
        }
        if arguments.filter.iter().all(|filter| filter.matches(delivery)) {
            *left -= 1;
            text += &match arguments.at.json {
                true => output::json(&Record::of(delivery))?,
                false => line(arguments, delivery),
            };
        }
    }
    if text.is_empty() {
        return Ok(true);
    }
    output::write(text.as_bytes())
}

fn line(arguments: &Arguments, delivery: &Delivery) -> String {
    let time = delivery.timestamp.map(Timestamp::as_micros).map(Moment::from_micros);
    let key = delivery.key.as_ref().map(|key| text_or_bytes(key, arguments.bytes));
    let mut cells = vec![
        delivery.position().to_string(),
        output::cell(time.map(Moment::rfc3339)),
        output::cell(key),
    ];
    if arguments.headers {
        let header = |(name, value): (&str, &[u8])| {
            format!("{}={}", escape::text(name), text_or_bytes(value, arguments.bytes))
        };
        let headers: Vec<String> = delivery.headers.iter().map(header).collect();
        cells.push(output::cell((!headers.is_empty()).then(|| headers.join(" "))));
    }
    cells.push(text_or_bytes(&delivery.payload, arguments.bytes));
    let between = if output::is_terminal() { "  " } else { "\t" };
    cells.join(between) + "\n"
}

/// Escaped; letters of every script stay as they are where the bytes are text.
fn text_or_bytes(bytes: &[u8], max: usize) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= max => escape::text(text),
        Ok(text) => escape::text(&text[..text.floor_char_boundary(max)]) + "...",
        Err(_) => escape::bytes(bytes, max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_look_at_payload_key_and_headers() {
        let message =
            Message::new(&b"seven \xff"[..]).with_key("7").with_header("type", "image/png");
        let check = |filter: &str, expected: bool| {
            assert_eq!(filter.parse::<Filter>().unwrap().matches(&message), expected, "{filter}");
        };
        check("^sev", true);
        check(r"(?-u:\xff)$", true);
        check("eight", false);
        check("key=^7$", true);
        check("key=8", false);
        check("header=type", true);
        check("header=id", false);
        check("header=type=^image/", true);
        check("header=type=^text/", false);
        assert!("(".parse::<Filter>().is_err());
        assert!(!"key=.*".parse::<Filter>().unwrap().matches(&Message::new("no key")));
    }

    #[test]
    fn long_payloads_are_cut_between_letters() {
        assert_eq!(text_or_bytes("größer".as_bytes(), 3), "gr...");
        assert_eq!(text_or_bytes("größer\n".as_bytes(), 20), "größer\\n");
        assert_eq!(text_or_bytes(b"\xff\x00", 20), "\\xff\\x00");
    }
}
