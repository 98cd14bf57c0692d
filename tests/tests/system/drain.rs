//! SIGTERM: each program finishes what it is in, ends well, and goes on where it was.

use forebay_tests::{Load, PIPELINE, Pipeline, Stage, Turn, kafka, scale, wait_until};

const IMAGES: u64 = 3000;

/// Ends each program once while all have work, and starts it again.
fn drain(stage: &Stage) {
    let images = IMAGES * scale() as u64;
    let mut pipeline = Pipeline::start(stage, Load { images, batch: 16, rate: None });
    for (turn, program) in PIPELINE.iter().enumerate() {
        let far = images * (turn as u64 + 1) / 8;
        pipeline.wait_for(program, far);
        pipeline.ensure_work(IMAGES);
        let running = pipeline.program(program);
        assert!(running.ended().is_none(), "{program} had no work left");
        let status = running.terminate();
        let log = running.log();
        assert!(status.success(), "{program} ended with {status}");
        assert!(log.contains("draining"), "{program} does not say that it drains: {log}");
        pipeline.restart(program);
    }
    let account = pipeline.finish();
    // Whoever ends in an orderly way leaves nothing to be repeated.
    let repeats = [account.repeats_in, account.repeats_out, account.repeats_dead];
    assert_eq!(repeats, [0; 3], "{account:?}");
    assert_eq!(stage.repeats(), 0);
}

#[test]
fn each_program_drains_on_embedded() {
    let _turn = Turn::take();
    drain(&Stage::embedded(|_| {}));
}

#[test]
fn each_program_drains_on_kafka() {
    let Some(servers) = kafka() else { return };
    let _turn = Turn::take();
    drain(&Stage::kafka(&servers, |_| {}));
}

/// An idle program ends too: nothing that it waits for holds it.
#[test]
fn idle_programs_end_at_once() {
    let stage = Stage::embedded(|_| {});
    let mut servers = stage.start_servers();
    for running in &mut servers {
        wait_until("the program", || {
            running.check_alive();
            running.log().contains("ready").then_some(())
        });
    }
    for running in &mut servers {
        assert!(running.terminate().success(), "{}", running.log());
    }
}
