//! The account that other tests trust sees what it must see.

use broker::Message;
use forebay_tests::{Account, Stage, wait_beside};
use model_server::prediction::Prediction;
use modelling::samples;

fn image(id: &str) -> Message {
    let sample = samples::draw(1, 0);
    Message::new(sample.bytes).with_key("one").with_header("id", id)
}

/// A stage on which three images went through.
fn played() -> Stage {
    let stage = Stage::embedded(|_| {});
    let mut servers = stage.start_servers();
    stage.publish(["a", "b", "c"].map(image).to_vec());
    wait_beside(&mut servers, "three rows", || (stage.row_count() == 3).then_some(()));
    drop(servers);
    stage
}

#[test]
fn what_went_well_is_accounted_for() {
    let account = Account::check(&played());
    assert_eq!((account.images, account.persisted, account.dead_lettered), (3, 3, 0));
    assert_eq!((account.repeats_in, account.repeats_out, account.repeats_dead), (0, 0, 0));
}

#[test]
#[should_panic(expected = "1 of 4 are lost: [\"d\"]")]
fn what_is_lost_is_seen() {
    let stage = played();
    stage.publish(vec![image("d")]);
    Account::check(&stage);
}

#[test]
#[should_panic(expected = "stored and dead letters: [\"b\"]")]
fn what_is_stored_and_dead_is_seen() {
    let stage = played();
    stage.publish_to(&stage.settings.topics.dead_letters, vec![image("b")]);
    Account::check(&stage);
}

#[test]
#[should_panic(expected = "1 were never sent: [\"x\"]")]
fn what_was_never_sent_is_seen() {
    let stage = played();
    stage.publish_to(&stage.settings.topics.dead_letters, vec![image("x")]);
    Account::check(&stage);
}

#[test]
#[should_panic(expected = "comes behind that from")]
fn a_key_that_lost_its_order_is_seen() {
    let stage = played();
    let predictions = stage.read(&stage.settings.topics.predictions);
    let mut late: Prediction = serde_json::from_slice(&predictions[0].message.payload).unwrap();
    late.id = "late".into();
    let late = Message::new(serde_json::to_vec(&late).unwrap());
    let late = late.with_key("one").with_header("id", "late");
    stage.publish_to(&stage.settings.topics.predictions, vec![late]);
    Account::check(&stage);
}
