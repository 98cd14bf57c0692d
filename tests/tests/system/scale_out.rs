//! Several of each program share the work.

use forebay_tests::{Load, PIPELINE, Pipeline, Stage, Turn, kafka, scale};

const IMAGES: u64 = 3000;

/// Two of each serving program; one of each pair dies half-way, and the other goes on alone.
fn share(stage: &Stage) {
    let images = IMAGES * scale() as u64;
    let mut pipeline = Pipeline::start(stage, Load { images, batch: 16, rate: None });
    let mut others = stage.start_servers();
    for (turn, program) in PIPELINE[1..].iter().enumerate() {
        let far = images * (turn as u64 + 1) / 6;
        pipeline.wait_for(program, far);
        pipeline.ensure_work(IMAGES);
        assert!(others[turn].kill(), "the second {program} died by itself");
        pipeline.check_alive();
    }
    println!("{:?}", pipeline.finish());
}

#[test]
fn pairs_share_the_work_and_survive_each_other_on_embedded() {
    let _turn = Turn::take();
    share(&Stage::embedded(|_| {}));
}

#[test]
fn pairs_share_the_work_and_survive_each_other_on_kafka() {
    let Some(servers) = kafka() else { return };
    let _turn = Turn::take();
    share(&Stage::kafka(&servers, |_| {}));
}
