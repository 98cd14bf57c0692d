//! Each program is killed at random moments and started again at once: nothing is lost, nothing
//! is stored twice, and each key keeps its order.

use std::time::{Duration, Instant};

use forebay_tests::{Account, HANG, Load, Pipeline, Redis, Stage, Turn, kafka, scale, unique};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const IMAGES: u64 = 3000;
const KILLS: usize = 6;
/// Kills come before this part of the work, in percent, so that each leaves some.
const LAST_KILL: u64 = 75;
/// A kill is up to this late, so that it hits any place of a step.
const JITTER: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(2);

/// `FOREBAY_SEED`, or one from the clock.
fn seed() -> u64 {
    let seed = std::env::var("FOREBAY_SEED").ok();
    let seed = seed.map(|seed| seed.parse().expect("FOREBAY_SEED is a number"));
    seed.unwrap_or_else(|| broker::Timestamp::now().as_micros() as u64)
}

/// One program and when it dies.
struct Victim {
    program: &'static str,
    /// How often it is still to be killed.
    left: usize,
    killed: usize,
    /// The progress at which it dies next.
    next: u64,
}

impl Victim {
    /// The kills that are left, spread over the progress that is left.
    fn choose_next(&mut self, progress: u64, last: u64, random: &mut StdRng) {
        let room = last.saturating_sub(progress) / self.left.max(1) as u64;
        self.next = progress + random.random_range(1..=room.max(1));
    }
}

struct Killer {
    victims: Vec<Victim>,
    random: StdRng,
}

impl Killer {
    fn new(programs: &[&'static str], images: u64, kills: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let victims = programs.iter().enumerate().map(|(index, program)| {
            let left = (kills + programs.len() - 1 - index) / programs.len();
            let mut victim = Victim { program, left, killed: 0, next: 0 };
            victim.choose_next(0, last(images), &mut random);
            victim
        });
        Self { victims: victims.collect(), random }
    }

    /// Kills until all kills are done; where work runs out before, there is more of it.
    fn run(&mut self, pipeline: &mut Pipeline) {
        let mut moved = Moved { sum: 0, at: Instant::now() };
        while self.victims.iter().any(|victim| victim.left > 0) {
            pipeline.check_alive();
            let is_late = pipeline.progress("app2") > last(pipeline.images());
            let wants_app1 = self.victims[0].left > 0;
            if is_late || wants_app1 {
                pipeline.ensure_work(IMAGES / 2);
            }
            let looks = (0..self.victims.len()).map(|index| self.look_at(index, pipeline));
            moved.check(looks.sum());
            std::thread::sleep(PAUSE);
        }
    }

    /// Kills one program where its time has come; returns its progress.
    fn look_at(&mut self, index: usize, pipeline: &mut Pipeline) -> u64 {
        let Victim { program, left, next, .. } = self.victims[index];
        if left == 0 {
            return 0;
        }
        let progress = pipeline.progress(program);
        if progress < next {
            return progress;
        }
        std::thread::sleep(self.random.random_range(Duration::ZERO..JITTER));
        let has_work = pipeline.progress("app2") < pipeline.images();
        // What has ended by itself cannot be killed: app1, which then gets more work.
        if has_work && pipeline.program(program).kill() {
            pipeline.publish_broken();
            pipeline.restart(program);
            let victim = &mut self.victims[index];
            victim.left -= 1;
            victim.killed += 1;
            victim.choose_next(progress, last(pipeline.images()), &mut self.random);
        }
        progress
    }
}

/// The progress at which kills should be done, so that each leaves some work.
fn last(images: u64) -> u64 {
    images * LAST_KILL / 100
}

/// When anything moved for the last time.
struct Moved {
    sum: u64,
    at: Instant,
}

impl Moved {
    fn check(&mut self, sum: u64) {
        if sum != self.sum {
            *self = Self { sum, at: Instant::now() };
        }
        assert!(self.at.elapsed() < HANG, "nothing moves any more");
    }
}

/// Kills on a stage, and prints one line about it.
fn crash(name: &str, stage: &Stage) -> Account {
    let (images, kills, seed) = (IMAGES * scale() as u64, KILLS * scale(), seed());
    println!("crash on {name}: the kills are those of FOREBAY_SEED={seed}");
    let begun = Instant::now();
    let mut pipeline = Pipeline::start(stage, Load { images, batch: 16, rate: None });
    let mut killer = Killer::new(pipeline.programs(), images, kills, seed);
    killer.run(&mut pipeline);
    let images = pipeline.images();
    let account = pipeline.finish();
    let tell = |victim: &Victim| format!("{} {}", victim.program, victim.killed);
    let killed: Vec<String> = killer.victims.iter().map(tell).collect();
    let total: usize = killer.victims.iter().map(|victim| victim.killed).sum();
    println!(
        "crash on {name}: seed {seed}, {images} images, {total} kills ({}), {} persisted, \
         {} dead letters, repeats: {} in, {} out, {} dead; {:.1} s",
        killed.join(", "),
        account.persisted,
        account.dead_lettered,
        account.repeats_in,
        account.repeats_out,
        account.repeats_dead,
        begun.elapsed().as_secs_f64(),
    );
    assert!(total >= kills, "only {total} of {kills} kills hit");
    assert!(killer.victims.iter().all(|victim| victim.killed > 0), "not all died: {killed:?}");
    account
}

#[test]
fn kills_lose_and_repeat_nothing_on_embedded() {
    let _turn = Turn::take();
    let account = crash("embedded", &Stage::embedded(|_| {}));
    // Each step is one transaction there: only app1 repeats what it did not remember.
    assert!(account.repeats_out <= account.repeats_in, "{account:?}");
    assert_eq!(account.repeats_dead, 0, "{account:?}");
}

#[test]
fn exactly_once_holds_through_kills_on_embedded() {
    let _turn = Turn::take();
    let stage = Stage::embedded(|ini| {
        ini.set("model", "exactly_once", true);
    });
    assert_exactly_once(&crash("embedded, exactly once", &stage));
}

#[test]
fn exactly_once_holds_through_kills_on_kafka() {
    let Some(servers) = kafka() else { return };
    let _turn = Turn::take();
    let stage = Stage::kafka(&servers, |ini| {
        ini.set("model", "exactly_once", true);
    });
    assert_exactly_once(&crash("kafka, exactly once", &stage));
}

/// Each message of the images topic has one prediction or one dead letter, though app1 may have
/// sent an image twice.
fn assert_exactly_once(account: &Account) {
    assert_eq!(account.repeats_of_sources, 0, "{account:?}");
    assert!(account.repeats_out <= account.repeats_in, "{account:?}");
    assert_eq!(account.repeats_dead, 0, "{account:?}");
}

#[test]
fn kills_lose_and_repeat_nothing_on_kafka() {
    let Some(servers) = kafka() else { return };
    let _turn = Turn::take();
    crash("kafka", &Stage::kafka(&servers, |_| {}));
}

#[test]
fn kills_lose_and_repeat_nothing_on_kafka_with_the_queue_in_redis() {
    let _turn = Turn::take();
    let (Some(servers), Some(redis)) = (kafka(), Redis::found(&unique("crash"))) else { return };
    let stage = Stage::kafka(&servers, |ini| redis.serve(ini));
    crash("kafka with the queue in redis", &stage);
}
