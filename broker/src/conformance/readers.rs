//! Readers have no group: they see everything and leave no trace.

use super::Harness;
use super::stage::{Stage, numbers, text, texts};
use crate::message::Message;

/// The event tells that all was delivered which was there at subscribing.
pub async fn a_reader_sees_everything_and_is_told_that_it_caught_up(harness: &dyn Harness) {
    let stage = Stage::new(harness, 3).await;
    let message = |number: usize| Message::new(number.to_string()).with_key(number.to_string());
    stage.publish((0..50).map(message).collect()).await;
    let mut seen = texts(&stage.reader().await.until_caught_up().await);
    seen.sort_by_key(|text| text.parse::<usize>().unwrap());
    assert_eq!(seen, numbers(50));
}

/// Nothing to read is read at once.
pub async fn a_reader_of_an_empty_topic_is_told_that_it_caught_up(harness: &dyn Harness) {
    let stage = Stage::new(harness, 3).await;
    assert!(stage.reader().await.until_caught_up().await.is_empty());
}

/// A reader follows the topic, and is told only once that it caught up.
pub async fn a_reader_goes_on_after_it_caught_up(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(["0"]).await;
    let mut reader = stage.reader().await;
    assert_eq!(texts(&reader.until_caught_up().await), ["0"]);
    reader.caught_up = false;
    stage.publish_texts(["1", "2"]).await;
    assert_eq!(texts(&reader.take(2).await), ["1", "2"]);
    reader.assert_quiet(super::stage::QUIET).await;
    assert!(!reader.caught_up, "the event came twice");
}

/// Each reader has a position of its own.
pub async fn two_readers_do_not_disturb_each_other(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(6)).await;
    let (mut slow, mut fast) = (stage.reader().await, stage.reader().await);
    assert_eq!(texts(&slow.take(2).await), ["0", "1"]);
    assert_eq!(texts(&fast.take(6).await), numbers(6));
    assert_eq!(texts(&slow.take(4).await), ["2", "3", "4", "5"]);
}

/// Settling does nothing, and silence brings nothing again.
pub async fn a_reader_settles_nothing(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(numbers(2)).await;
    let subscription = crate::Subscription::reader(&stage.topic);
    let deadline = std::time::Duration::from_millis(100);
    let mut reader = stage.subscribe(subscription.with_ack_deadline(deadline)).await;
    let mut both = reader.take(2).await;
    let silent = both.remove(1);
    let after = std::time::Duration::ZERO;
    reader.settle(both, crate::Outcome::Retry { after }).await;
    reader.assert_quiet(super::stage::QUIET).await;
    assert_eq!((silent.attempt(), text(&silent)), (1, "1".to_owned()));
    assert_eq!(texts(&stage.everything().await), numbers(2));
    assert_eq!(texts(&stage.member().await.take(2).await), numbers(2));
}
