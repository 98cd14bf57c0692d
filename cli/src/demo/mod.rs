//! `forebay demo`: all of Forebay at work on one machine, as real processes.
//!
//! The demo only sets up, watches and tells: the images go through the four programs as they
//! would anywhere. How far they are it asks the broker and the database, so that it works the
//! same on every broker.

mod broken;
mod display;
mod ending;
mod fleet;
mod images;
mod ini;
mod observer;
mod place;
mod stages;
mod tally;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use app2::report::Report;
use clap::value_parser;
use model_server::process::{Failure, Reason};

use crate::output;
use crate::signals::Signals;
use display::Display;
use ending::Summary;
use fleet::{Fleet, PUBLISHER, Programs, SERVING};
use images::Images;
use observer::Observer;
use place::Place;
use stages::Counts;

/// How often the stages are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long no stage may move.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long publishing waits for the others to be ready; they catch up in any case, but images
/// that wait for a model to load would make latency look worse than it is.
const READY_MAX: Duration = Duration::from_secs(15);
/// The exit code after Ctrl-C or SIGTERM.
const STOPPED: u8 = 130;

/// Watch images go through a broker, a CNN, a queue and a database
///
/// Makes a fresh directory, starts the four programs of the pipeline in it as processes, and
/// publishes digits that it draws itself: in many sizes, strokes, slants, colours and file
/// formats. Where MNIST is at hand, its 10,000 test images follow. Progress is shown stage by
/// stage until every image is persisted or dead-lettered; then come the report and what to try
/// next. Nothing needs to be installed or running.
///
/// Ctrl-C ends all processes in good order; a second one kills them.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Arguments {
    /// The ini file to start from, such as config/kafka.ini; default: the embedded broker and
    /// the CNN that come with this program. The run gets a copy with paths and topics of its own
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object on standard output in place of the report: published, persisted,
    /// dead_lettered, duplicates, accuracy, images_per_second, latency_ms {p50, p99}
    #[arg(long)]
    json: bool,
    /// The directory of the run, missing or empty; default: demo-YYYYMMDD-HHMMSS (in UTC) here
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How many digits to draw
    #[arg(long, value_name = "N", default_value_t = 240)]
    #[arg(value_parser = value_parser!(u64).range(1..))]
    samples: u64,
    /// Which digits to draw: the same seed gives the same ones
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// MNIST's test images: the file t10k-images-idx3-ubyte, plain or gzip, or its directory;
    /// default: the directory mnist in $FOREBAY_DATA, else in ../shared/data, if it is there
    #[arg(long, value_name = "PATH")]
    mnist: Option<PathBuf>,
    /// Also publish this many broken inputs, to see them among the dead letters
    #[arg(long, value_name = "N", default_value_t = 0)]
    broken: u64,
}

/// How a run came out that was not interrupted.
struct Outcome {
    published: u64,
    dead_lettered: u64,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let programs = Programs::find()?;
    let images = Images::find(arguments)?;
    let place = Place::make(arguments)?;
    let mut signals = Signals::listen()?;
    let mut fleet = Fleet::default();
    eprintln!("{}", ending::introduction(&place, &images));
    let outcome = tokio::select! {
        outcome = drive(&mut fleet, &programs, &place, &images) => Some(outcome),
        () = signals.next() => None,
    };
    if outcome.is_none() {
        eprintln!("\nstopping the processes; Ctrl-C again kills them");
    }
    let ended = fleet.stop(&mut signals).await;
    let killed = ending::killed(&ended);
    match outcome {
        Some(Ok(outcome)) => conclude(arguments, &programs, &place, &outcome, &killed),
        Some(Err(failure)) => {
            eprintln!(
                "\nthe processes have ended{killed}; their logs are in {}/logs",
                place.shown()
            );
            Err(failure)
        }
        None => {
            eprintln!("the processes have ended{killed}; what they wrote is in {}", place.shown());
            Ok(ExitCode::from(STOPPED))
        }
    }
}

/// Starts the processes and watches until everything has arrived.
async fn drive(
    fleet: &mut Fleet,
    programs: &Programs,
    place: &Place,
    images: &Images,
) -> Result<Outcome, Failure> {
    let broker = place.settings.connect().await?;
    let mut observer = Observer::new(broker.clone(), &place.settings)?;
    for name in SERVING {
        fleet.start(programs, place, name, &[])?;
    }
    wait_until_ready(fleet, &observer).await?;
    fleet.start(programs, place, PUBLISHER, &images.arguments(&place.run))?;
    let topic = &place.settings.topics.images;
    broken::publish(broker.as_ref(), topic, &place.run, images.broken()).await?;
    let mut display = Display::new(images.total());
    let watched = watch(fleet, &mut observer, &mut display).await;
    broker.shutdown().await?;
    watched
}

async fn wait_until_ready(fleet: &mut Fleet, observer: &Observer) -> Result<(), Failure> {
    let until = Instant::now() + READY_MAX;
    while !observer.is_served().await? && Instant::now() < until {
        fleet.is_all_published()?;
        tokio::time::sleep(TICK).await;
    }
    Ok(())
}

async fn watch(
    fleet: &mut Fleet,
    observer: &mut Observer,
    display: &mut Display,
) -> Result<Outcome, Failure> {
    let (mut counts, mut changed) = (Counts::default(), Instant::now());
    let mut published = None;
    loop {
        // Asked before looking, so that a look after the publisher's end sees all it published.
        let all_published = fleet.is_all_published()?;
        match observer.look().await {
            Ok(seen) if seen == counts => {}
            Ok(seen) => (counts, changed) = (seen, Instant::now()),
            // It may pass; if it does not, the programs end of it, or nothing moves any more.
            Err(failure) if failure.reason() == Reason::Broker => {}
            Err(failure) => return Err(failure),
        }
        display.show(&counts);
        if all_published && published.is_none() {
            published = Some(observer.published_ids().await?);
        }
        if let Some(published) = published.filter(|all| counts.covers(*all, counts.dead_lettered)) {
            let dead_lettered = match counts.dead_lettered {
                0 => 0,
                _ => observer.dead_ids().await?,
            };
            if counts.covers(published, dead_lettered) {
                display.finish(&counts);
                return Ok(Outcome { published, dead_lettered });
            }
        }
        if changed.elapsed() > STALL_MAX {
            display.finish(&counts);
            let standing = counts.standing(all_published);
            let message = format!("nothing has moved for {STALL_MAX:?}: {standing}");
            return Err(Failure::new(Reason::Unexpected, message));
        }
        tokio::time::sleep(TICK).await;
    }
}

fn conclude(
    arguments: &Arguments,
    programs: &Programs,
    place: &Place,
    outcome: &Outcome,
    killed: &str,
) -> Result<ExitCode, Failure> {
    let report = Report::read(&place.settings.database)?;
    let summary = Summary::new(outcome, &report);
    if !killed.is_empty() {
        eprintln!("all images have arrived{killed}");
    }
    match arguments.json {
        true => output::print(&output::json(&summary)?)?,
        false => {
            let picture = place.draw_picture(arguments.seed, arguments.samples)?;
            let next = ending::next_steps(programs, place, &picture);
            output::print(&format!("\n{report}\n\n{summary}\n{next}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
