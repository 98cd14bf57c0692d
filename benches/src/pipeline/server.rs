//! Our model server on a topic that is full already: the job of the Python peers, and the check
//! that all sides found the same.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use broker::{BrokerExt, Event, Limit, Message, Subscription, Timestamp, Topic, TopicSpec};
use model_server::prediction::{CONTENT_TYPE, ID};
use serde_json::Value;

use super::Bench;
use super::programs::Program;
use super::stage::{PARTITIONS, Stage};
use crate::measure::cpu_of;

const PUBLISH_BATCH: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(10);
/// A topic that gets nothing for so long will get nothing.
const STUCK: Duration = Duration::from_secs(60);
const RECEIVE: Limit = Limit::new(1_000, Duration::from_secs(5));

/// What was found in a topic of predictions.
pub(super) struct Found {
    /// The label of each image.
    pub(super) labels: Vec<String>,
    /// When the first image was taken up, in microseconds; only ours tell.
    first_taken_us: i64,
}

/// Makes a topic with all images in it.
pub(super) fn fill(bench: &Bench) -> Result<Topic> {
    let topic = Topic::new(&crate::unique("shared"))?;
    bench.runtime.block_on(async {
        bench.broker.ensure_topic(&TopicSpec::new(&topic, PARTITIONS)).await?;
        for first in (0..bench.count).step_by(PUBLISH_BATCH) {
            let batch = first..bench.count.min(first + PUBLISH_BATCH);
            let message = |index: usize| {
                Message::new(bench.images.get(index).0.clone())
                    .with_key(index.to_string())
                    .with_header(ID, index.to_string())
                    .with_header(CONTENT_TYPE, "application/octet-stream")
            };
            bench.broker.publish_all(&topic, batch.map(message).collect()).await?;
        }
        Ok(topic)
    })
}

/// What one side made of a full topic.
pub(super) struct Served {
    /// From the first image that is taken up to the last prediction.
    pub(super) images_per_second: f64,
    /// Microseconds of CPU of its own processes for each image.
    pub(super) cpu_us: f64,
    /// The same of Kafka's process.
    pub(super) kafka_us: f64,
    pub(super) found: Found,
}

/// Runs `model_server_sub` and `model_server_pub` over the topic.
pub(super) fn run(bench: &Bench, images: &Topic) -> Result<Served> {
    let stage = Stage::on_images(bench, images.as_str())?;
    let topic = Topic::new(&stage.topics.predictions)?;
    let kafka = cpu_of(bench.kafka.pid)?;
    let mut programs = stage.start(&["model_server_pub", "model_server_sub"])?;
    let before = cpu(&programs)?;
    let last = wait(bench, &topic, &mut programs)?;
    let kafka_us = bench.kafka_us_since(kafka)?;
    let cpu = cpu(&programs)?.saturating_sub(before);
    programs.into_iter().try_for_each(Program::stop)?;
    let found = read(bench, &topic)?;
    stage.clear()?;
    let seconds = (last.as_micros() - found.first_taken_us) as f64 / 1e6;
    Ok(Served {
        images_per_second: bench.count as f64 / seconds,
        cpu_us: cpu.as_secs_f64() * 1e6 / bench.count as f64,
        kafka_us,
        found,
    })
}

fn cpu(programs: &[Program]) -> Result<Duration> {
    programs.iter().map(Program::cpu).sum()
}

/// Waits until the topic has a prediction for each image: the time by which it had.
fn wait(bench: &Bench, topic: &Topic, programs: &mut [Program]) -> Result<Timestamp> {
    let (mut before, mut grown) = (0, Instant::now());
    loop {
        let described = bench.runtime.block_on(bench.broker.admin().describe(topic))?;
        let count: u64 = described.partitions.iter().map(|p| p.end - p.start).sum();
        if count >= bench.count as u64 {
            return Ok(Timestamp::now());
        }
        if count > before {
            (before, grown) = (count, Instant::now());
        }
        ensure!(grown.elapsed() < STUCK, "only {count} of {} predictions came", bench.count);
        programs.iter_mut().try_for_each(Program::check)?;
        std::thread::sleep(PAUSE);
    }
}

/// Reads the predictions of a topic; fails unless each image has exactly one.
pub(super) fn read(bench: &Bench, topic: &Topic) -> Result<Found> {
    let mut labels = vec![None; bench.count];
    let mut first_taken_us = i64::MAX;
    bench.runtime.block_on(async {
        let mut reader = bench.broker.subscribe(Subscription::reader(topic)).await?;
        loop {
            for delivery in reader.receive(RECEIVE).await? {
                let prediction: Value = serde_json::from_slice(&delivery.payload)?;
                let (index, label) = of(&prediction)?;
                let slot = labels.get_mut(index);
                let slot = slot.with_context(|| format!("there is no image {index}"))?;
                ensure!(slot.is_none(), "image {index} was predicted twice");
                *slot = Some(label);
                first_taken_us = first_taken_us.min(taken_us(&prediction));
            }
            if reader.events().contains(&Event::CaughtUp) {
                return anyhow::Ok(());
            }
        }
    })?;
    let missing = labels.iter().filter(|label| label.is_none()).count();
    ensure!(missing == 0, "{missing} of {} images were not predicted", bench.count);
    Ok(Found { labels: labels.into_iter().flatten().collect(), first_taken_us })
}

/// The image and its label, which is text or a number.
fn of(prediction: &Value) -> Result<(usize, String)> {
    let index = prediction["id"].as_str().and_then(|id| id.parse().ok());
    let label = match &prediction["outputs"]["label"] {
        Value::String(label) => Some(label.clone()),
        Value::Number(label) => Some(label.to_string()),
        _ => None,
    };
    index.zip(label).with_context(|| format!("no prediction: {prediction}"))
}

fn taken_us(prediction: &Value) -> i64 {
    let published = prediction["input"]["published_us"].as_i64();
    let queued = prediction["times"]["queued_us"].as_i64();
    published.zip(queued).map_or(i64::MAX, |(published, queued)| published + queued)
}
