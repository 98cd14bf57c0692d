//! `forebay bench`: a quick load on the configured broker, on a topic of its own.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{
    Broker, BrokerExt, Consumer, Delivery, Event, Group, Limit, Message, Outcome, Subscription,
    Timestamp, Topic, TopicSpec,
};
use model_server::process::{Common, Failure, Reason};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::connection::{Place, Store};
use crate::output;
use crate::pace::Pace;
use crate::signals::Signals;

/// The most messages of a run: each leaves a number of eight bytes behind.
const MESSAGES_MAX: u64 = 10_000_000;
/// The bytes of a payload that tell when it was published.
const STAMP: usize = 8;
/// How long one `receive` waits.
const WAIT: Duration = Duration::from_secs(1);
/// After so long without a message the run has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publish and consume at once, and tell how fast that was
///
/// It makes a topic of its own and deletes it afterwards. Rates are over the whole run. The
/// latency of a publish call is that of a batch; that of a message is from the call to its
/// delivery, so a run at full speed shows how long messages queue: give a --rate to see how
/// fast one travels.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  forebay bench --config config/kafka.ini
  forebay bench --messages 10000 --batch 1 --rate 1000")]
pub(crate) struct Arguments {
    /// How many messages
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MESSAGES_MAX))]
    messages: u64,
    /// The bytes of each payload; at least 8
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(STAMP as i64..))]
    size: u32,
    /// How many messages one call publishes
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// How many calls are under way at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// The partitions of the topic
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// At most so many messages in a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    common: Common,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    broker: &'static str,
    messages: u64,
    size: u32,
    batch: u32,
    in_flight: u32,
    partitions: u32,
    publish: Speed,
    consume: Speed,
}

/// One side of the run.
#[derive(Debug, Serialize)]
struct Speed {
    seconds: f64,
    messages_per_second: f64,
    megabytes_per_second: f64,
    latency_p50_us: u64,
    latency_p90_us: u64,
    latency_p99_us: u64,
    latency_max_us: u64,
}

impl Speed {
    fn new(arguments: &Arguments, time: Duration, mut latencies: Vec<u64>) -> Self {
        latencies.sort_unstable();
        let percentile = |percent| percentile(&latencies, percent);
        let messages_per_second = arguments.messages as f64 / time.as_secs_f64().max(1e-9);
        Self {
            seconds: time.as_secs_f64(),
            messages_per_second,
            megabytes_per_second: messages_per_second * f64::from(arguments.size) / 1e6,
            latency_p50_us: percentile(50),
            latency_p90_us: percentile(90),
            latency_p99_us: percentile(99),
            latency_max_us: percentile(100),
        }
    }

    fn describe(&self, what: &str) -> String {
        let millis = |micros: u64| format!("{:.2} ms", micros as f64 / 1e3);
        format!(
            "{what:<8} {:>9.0} messages/s  {:>7.1} MB/s  p50 {}  p90 {}  p99 {}  max {}\n",
            self.messages_per_second,
            self.megabytes_per_second,
            millis(self.latency_p50_us),
            millis(self.latency_p90_us),
            millis(self.latency_p99_us),
            millis(self.latency_max_us),
        )
    }
}

/// The value that so many percent do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let broker = Place::read(&arguments.common)?.connect(Store::MayBeMade).await?;
    let has_partitions = broker.capabilities().partitions;
    let partitions = if has_partitions { arguments.partitions } else { 1 };
    let name = format!("forebay-bench-{:x}-{}", Timestamp::now().as_micros(), std::process::id());
    let (topic, group) = (Topic::new(&name)?, Group::new(&name)?);
    broker.admin().create_topic(&TopicSpec::new(&topic, partitions)).await?;
    let outcome = tokio::select! {
        biased;
        () = signals.next() => Err(Failure::new(Reason::Unexpected, "the run was ended early")),
        outcome = measure(arguments, &broker, &topic, &group, partitions) => outcome,
    };
    // The topic goes, whatever came of the run; the group goes with it or holds nothing.
    let deleted = broker.admin().delete_topic(&topic).await;
    let _ = broker.admin().delete_group(&group).await;
    let report = outcome?;
    deleted?;
    show(arguments, &report)?;
    broker.shutdown().await?;
    Ok(ExitCode::SUCCESS)
}

fn show(arguments: &Arguments, report: &Report) -> Result<(), Failure> {
    if arguments.json {
        return output::print(&output::json(report)?);
    }
    let Report { broker, messages, size, batch, in_flight, partitions, .. } = report;
    output::print(&format!(
        "{messages} messages of {size} bytes on {broker}, in batches of {batch}, {in_flight} calls \
         in flight, {partitions} partitions\n{}{}",
        report.publish.describe("publish"),
        report.consume.describe("consume"),
    ))
}

async fn measure(
    arguments: &Arguments,
    broker: &Arc<dyn Broker>,
    topic: &Topic,
    group: &Group,
    partitions: u32,
) -> Result<Report, Failure> {
    let mut consumer = broker.subscribe(Subscription::group(topic, group)).await?;
    if broker.capabilities().partitions {
        until_assigned(consumer.as_mut(), partitions).await?;
    }
    let begun = Instant::now();
    let published = publish(arguments, broker, topic, begun);
    let consumed = consume(arguments, consumer.as_mut(), begun);
    let (publish, consume) = tokio::try_join!(published, consumed)?;
    Ok(Report {
        broker: broker.capabilities().backend,
        messages: arguments.messages,
        size: arguments.size,
        batch: arguments.batch,
        in_flight: arguments.in_flight,
        partitions,
        publish,
        consume,
    })
}

/// Joining a group may take seconds, which are no part of the run.
async fn until_assigned(consumer: &mut dyn Consumer, partitions: u32) -> Result<(), Failure> {
    let (begun, mut assigned) = (Instant::now(), 0);
    while assigned < partitions as usize && begun.elapsed() < PATIENCE {
        consumer.receive(Limit::new(1, Duration::from_millis(100))).await?;
        for event in consumer.events() {
            if let Event::Assigned(partitions) = event {
                assigned += partitions.len();
            }
        }
    }
    Ok(())
}

async fn publish(
    arguments: &Arguments,
    broker: &Arc<dyn Broker>,
    topic: &Topic,
    begun: Instant,
) -> Result<Speed, Failure> {
    let (mut calls, mut latencies) = (JoinSet::new(), Vec::new());
    let (mut left, mut pace) = (arguments.messages, Pace::new(arguments.rate));
    while left > 0 || !calls.is_empty() {
        if left == 0 || calls.len() >= arguments.in_flight as usize {
            latencies.extend(calls.join_next().await.map(ended).transpose()?);
            continue;
        }
        let most = u64::from(arguments.batch).min(left) as usize;
        let count = pace.wait(most).await;
        pace.went(count);
        left -= count as u64;
        let (broker, topic, size) = (broker.clone(), topic.clone(), arguments.size as usize);
        calls.spawn(async move {
            let called = Instant::now();
            let message = || Message::new(stamped(size, begun.elapsed()));
            broker.publish_all(&topic, (0..count).map(|_| message()).collect()).await?;
            Ok(micros(called.elapsed()))
        });
    }
    Ok(Speed::new(arguments, begun.elapsed(), latencies))
}

fn ended(call: Result<broker::Result<u64>, tokio::task::JoinError>) -> Result<u64, Failure> {
    Ok(call.map_err(|error| Failure::start("a publish call died", error))??)
}

async fn consume(
    arguments: &Arguments,
    consumer: &mut dyn Consumer,
    begun: Instant,
) -> Result<Speed, Failure> {
    let mut latencies = Vec::new();
    let mut last = Instant::now();
    while (latencies.len() as u64) < arguments.messages {
        let deliveries = consumer.receive(Limit::new(1000, WAIT)).await?;
        let now = begun.elapsed();
        if !deliveries.is_empty() {
            last = Instant::now();
        } else if last.elapsed() > PATIENCE {
            let missing = arguments.messages - latencies.len() as u64;
            return Err(Failure::new(Reason::Broker, format!("{missing} messages never came")));
        }
        latencies.extend(deliveries.iter().map(|delivery| age(delivery, now)));
        let tokens = deliveries.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack));
        if let Some(unsettled) = consumer.settle(tokens.collect()).await.into_iter().next() {
            return Err(unsettled.error.into());
        }
    }
    Ok(Speed::new(arguments, begun.elapsed(), latencies))
}

/// A payload that says when it was made.
fn stamped(size: usize, now: Duration) -> Vec<u8> {
    let mut payload = vec![b'.'; size.max(STAMP)];
    payload[..STAMP].copy_from_slice(&micros(now).to_le_bytes());
    payload
}

fn age(delivery: &Delivery, now: Duration) -> u64 {
    let stamp =
        delivery.payload.first_chunk::<STAMP>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    micros(now).saturating_sub(stamp)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<u64> = (1..=100).collect();
        let shown = [50, 90, 99, 100].map(|percent| percentile(&hundred, percent));
        assert_eq!(shown, [50, 90, 99, 100]);
        assert_eq!([percentile(&[7], 50), percentile(&[7], 99), percentile(&[], 50)], [7, 7, 0]);
    }
}
