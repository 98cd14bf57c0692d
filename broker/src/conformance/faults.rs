//! Bad input, and one that takes more than its share.

use super::Harness;
use super::stage::{PATIENCE, Stage, failure, numbers, text};
use crate::contract::Published;
use crate::error::ErrorKind;
use crate::message::Message;
use crate::partition::partition_of;
use crate::subscription::Subscription;

/// A header's value is bytes, also those that end a text in C.
pub async fn a_nul_in_a_headers_value_is_kept(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let value = b"before\0after\0";
    stage.publish(vec![Message::new("body").with_header("name", value)]).await;
    let received = stage.everything().await;
    assert_eq!(received[0].headers.get("name"), Some(&value[..]));
}

/// A header's name is text, in which a NUL may be refused but never cuts the rest off.
pub async fn a_nul_in_a_headers_name_is_kept_or_refused(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let message = Message::new("body").with_header("before\0after", "value");
    let results = stage.broker.publish(&stage.topic, vec![message.clone()]).await.unwrap();
    let received = stage.everything().await;
    match &results[..] {
        [Published::Written(_)] => assert_eq!(received[0].headers, message.headers),
        [Published::NotWritten(error)] => {
            assert!(!error.is_retryable(), "{error:?}");
            assert!(received.is_empty(), "{received:?}");
        }
        _ => panic!("{results:?}"),
    }
}

/// The limit holds for the key too, and harms nobody else in the batch.
pub async fn a_key_over_the_limit_is_refused_while_the_rest_is_written(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let size = stage.broker.capabilities().message_bytes_max;
    let batch = vec![
        Message::new("before"),
        Message::new("body").with_key(vec![7; size + 1]),
        Message::new("after"),
    ];
    let mut results = stage.broker.publish(&stage.topic, batch).await.unwrap();
    let refused = results.remove(1);
    assert!(matches!(refused, Published::NotWritten(_)), "{refused:?}");
    let error = failure(refused.position());
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(!error.is_retryable(), "{error}");
    assert!(results.iter().all(|r| matches!(r, Published::Written(_))), "{results:?}");
    let mut received: Vec<String> = stage.everything().await.iter().map(text).collect();
    received.sort();
    assert_eq!(received, ["after", "before"]);
}

/// A key whose messages are in the partition of two, or any key where there are none.
fn key_of(partition: u32) -> String {
    let mut keys = (0..).map(|number| format!("key-{number}"));
    keys.find(|key| partition_of(key.as_bytes(), 2) == partition).expect("keys spread evenly")
}

/// Who is far behind in one partition still gets what comes to the others.
pub async fn a_backlog_in_one_partition_starves_no_other(harness: &dyn Harness) {
    let stage = Stage::new(harness, 2).await;
    let has_partitions = stage.broker.capabilities().partitions;
    // Without partitions a key has an order of its own and may be slow.
    let backlog = if has_partitions { 5_000 } else { 300 };
    let messages = |key: String, texts: Vec<String>| -> Vec<Message> {
        texts.into_iter().map(|text| Message::new(text).with_key(key.clone())).collect()
    };
    stage.publish(messages(key_of(0), numbers(backlog))).await;
    let narrow = Subscription { in_flight_max: 50, ..stage.subscription() };
    let mut member = stage.subscribe(narrow).await;
    let first = member.take(20).await;
    member.ack(first).await;
    stage.publish(messages(key_of(1), vec!["the other".into()])).await;
    let begun = tokio::time::Instant::now();
    let mut came = 20;
    loop {
        let deliveries = member.glance(20).await;
        let is_there = deliveries.iter().any(|delivery| text(delivery) == "the other");
        came += deliveries.len();
        member.ack(deliveries).await;
        if is_there {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the other partition's message does not come");
    }
    assert!(came <= backlog, "the other partition's message came behind the whole backlog");
}
