//! Capabilities are honest: what is claimed works, and what is absent says so.

use super::Harness;
use super::stage::{Stage, assert_kind, unique_topic};
use crate::contract::TopicSpec;
use crate::error::{ErrorKind, Result};
use crate::subscription::{Seek, Start};

fn assert_honest<T>(has: bool, result: Result<T>) {
    match result {
        Ok(_) => assert!(has, "the call works although the capability is absent"),
        Err(error) => {
            assert!(!has, "the capability is there, yet: {error:?}");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        }
    }
}

/// `lag`.
pub async fn lag_is_told_or_unsupported(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let lag = stage.broker.lag(&stage.topic, &stage.group).await;
    assert_honest(stage.broker.capabilities().lag, lag);
}

/// `partitions`; none at all is refused everywhere.
pub async fn partitions_are_made_or_unsupported(harness: &dyn Harness) {
    let broker = harness.broker().await;
    let made = broker.admin().create_topic(&TopicSpec::new(&unique_topic(), 3)).await;
    assert_honest(broker.capabilities().partitions, made);
    let none = broker.admin().create_topic(&TopicSpec::new(&unique_topic(), 0)).await;
    assert_kind(none, ErrorKind::ConfigInvalid);
}

/// `offset_seek`.
pub async fn offsets_are_found_or_unsupported(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    let mut reader = stage.reader().await;
    reader.until_caught_up().await;
    let sought = reader.consumer.seek(Seek { partition: None, to: Start::Offset(0) }).await;
    assert_honest(stage.broker.capabilities().offset_seek, sought);
}

/// `transactions`.
pub async fn transactions_begin_or_are_unsupported(harness: &dyn Harness) {
    let stage = Stage::new(harness, 1).await;
    stage.publish_texts(["body"]).await;
    let mut member = stage.member().await;
    member.next().await;
    let has = stage.broker.capabilities().transactions;
    assert_honest(has, member.consumer.transaction().await);
}
