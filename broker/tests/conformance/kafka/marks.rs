//! What transactions leave behind in a topic.

use std::time::{Duration, Instant};

use broker::conformance::Harness;
use broker::{BrokerExt, Group, Message, Subscription};

use super::{Kafka, make_topic, outcomes, receive};

/// The marks of transactions take offsets of their own, also the last one.
#[tokio::test]
async fn a_group_settles_the_marks_of_transactions_too() {
    let Some(kafka) = Kafka::found() else { return };
    let broker = kafka.broker().await;
    let source = make_topic(&broker, "source", 1).await;
    let results = make_topic(&broker, "results", 1).await;
    broker.publish_one(&source, Message::new("body")).await.unwrap();
    let group = Group::new(source.as_str()).unwrap();
    let mut first = broker.subscribe(Subscription::group(&source, &group)).await.unwrap();
    let input = receive(&mut *first, &mut Vec::new()).await;
    let mut transaction = first.transaction().await.unwrap();
    transaction.publish(&results, vec![Message::new("result")]).await.unwrap();
    transaction.settle(outcomes(input)).await.unwrap();
    transaction.commit().await.unwrap();
    let mut second = broker.subscribe(Subscription::group(&results, &group)).await.unwrap();
    let result = receive(&mut *second, &mut Vec::new()).await;
    assert_eq!(result[0].position().offset(), 0);
    assert!(second.settle(outcomes(result)).await.is_empty());
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let lag = broker.lag(&results, &group).await.unwrap()[0];
        if (lag.committed, lag.end, lag.behind) == (Some(2), 2, 0) {
            break;
        }
        assert!(Instant::now() < until, "{lag:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let next = broker.publish_one(&results, Message::new("next")).await.unwrap();
    let came = receive(&mut *second, &mut Vec::new()).await;
    assert_eq!((came[0].position(), next.offset()), (next, 2));
}
