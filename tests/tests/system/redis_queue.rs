//! The result queue in a real Redis.

use std::process::Command;
use std::time::Duration;

use forebay_tests::{
    Load, Pipeline, Redis, Stage, Turn, cannot_run, repository, scale, unique, wait_until,
};

const IMAGES: u64 = 3000;
/// Images a second, where a test needs time while there is work.
const RATE: u64 = 500;
const KILLS: usize = 5;
/// Longer than the lease of a publisher.
const OUTAGE: Duration = Duration::from_secs(3);

/// A stage with its queue in Redis, where there is one.
fn stage() -> Option<(Stage, Redis)> {
    let redis = Redis::found(&unique("queue"))?;
    let stage = Stage::embedded(|ini| {
        redis.serve(ini);
        ini.set("queue", "lease", "1s");
    });
    Some((stage, redis))
}

fn load() -> Load {
    Load { images: IMAGES * scale() as u64, batch: 64, rate: None }
}

#[test]
fn images_pass_through_it() {
    let _turn = Turn::take();
    let Some((stage, mut redis)) = stage() else { return };
    let account = Pipeline::start(&stage, load()).finish();
    assert_eq!(account.repeats_out, 0, "{account:?}");
    assert_eq!((redis.length("entries"), redis.length("pending")), (0, 0));
}

#[test]
fn a_publisher_that_dies_with_pending_entries_loses_nothing() {
    let _turn = Turn::take();
    let Some((stage, mut redis)) = stage() else { return };
    let mut pipeline = Pipeline::start(&stage, load());
    let mut with_pending = 0;
    for _ in 0..KILLS * scale() {
        // Between the move to the pending list and the removal from it.
        wait_until("pending entries", || {
            pipeline.check_alive();
            pipeline.ensure_work(IMAGES);
            (redis.length("pending") > 0).then_some(())
        });
        assert!(pipeline.program("model_server_pub").kill(), "it died by itself");
        with_pending += u64::from(redis.length("pending") > 0);
        pipeline.restart("model_server_pub");
    }
    assert!(with_pending > 0, "no kill hit between push and removal");
    let account = pipeline.finish();
    println!("{with_pending} kills with pending entries, {account:?}");
    assert_eq!((redis.length("entries"), redis.length("pending")), (0, 0));
}

#[test]
fn a_second_publisher_stands_by_and_takes_over() {
    let _turn = Turn::take();
    let Some((stage, mut redis)) = stage() else { return };
    let mut pipeline = Pipeline::start(&stage, Load { rate: Some(RATE), ..load() });
    let first = pipeline.program("model_server_pub").pid();
    wait_until("the first publisher", || (redis.owner() == Some(first)).then_some(()));
    let second = stage.start("model_server_pub");
    wait_until("the second publisher", || second.log().contains("ready").then_some(()));
    let before = pipeline.progress("model_server_pub");
    pipeline.wait_for("model_server_pub", before + 100);
    assert_eq!(redis.owner(), Some(first), "the second did not stand by");
    assert!(pipeline.program("model_server_pub").kill());
    wait_until("the second to take over", || (redis.owner() == Some(second.pid())).then_some(()));
    assert!(pipeline.progress("app2") < load().images, "no work was left");
    pipeline.restart("model_server_pub");
    let account = pipeline.finish();
    println!("{account:?}");
}

#[test]
fn an_outage_longer_than_the_lease_loses_nothing() {
    let _turn = Turn::take();
    let Some((stage, mut redis)) = stage() else { return };
    let mut pipeline = Pipeline::start(&stage, Load { rate: Some(RATE), ..load() });
    let _second = stage.start("model_server_pub");
    for part in 1..=2 {
        let far = load().images * part / 4;
        pipeline.wait_for("app2", far);
        let paused = redis.pause();
        std::thread::sleep(OUTAGE);
        assert!(pipeline.program("model_server_sub").ended().is_none());
        assert!(pipeline.program("model_server_pub").ended().is_none());
        assert!(pipeline.progress("app2") < load().images, "no work was left");
        drop(paused);
    }
    let account = pipeline.finish();
    println!("{account:?}");
    assert_eq!((redis.length("entries"), redis.length("pending")), (0, 0));
}

/// Its data is in its log; whoever used it connects anew.
#[test]
fn a_restart_of_redis_loses_nothing() {
    let _turn = Turn::take();
    if std::env::var_os("FOREBAY_SERVERS_STATE").is_none() {
        return cannot_run(
            "FOREBAY_SERVERS_STATE is not set: scripts/servers tells where Redis is",
        );
    }
    let Some((stage, redis)) = stage() else { return };
    let mut pipeline = Pipeline::start(&stage, Load { rate: Some(RATE), ..load() });
    for part in 1..=2 {
        let far = load().images * part / 4;
        pipeline.wait_for("app2", far);
        let mut restart = Command::new(repository().join("scripts/servers"));
        let output = restart.args(["restart", "redis"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(pipeline.progress("app2") < load().images, "no work was left");
        pipeline.check_alive();
    }
    let account = pipeline.finish();
    println!("{account:?}");
    let mut redis = redis.again();
    assert_eq!((redis.length("entries"), redis.length("pending")), (0, 0));
}
