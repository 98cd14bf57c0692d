//! Servers that are killed or suspended, and connections that are cut.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::conformance::{Harness, failure, lifecycle};
use broker::{
    Broker, BrokerExt, Delivery, Limit, Message, Outcome, Published, Subscription, Topic,
};

use super::Redis;
use super::faults::{Own, PATIENCE, ack, make_topic, receive, texts};

/// With less, a server that is killed while its disk is slow loses what it has answered.
const SYNCED: &[&str] = &["--appendfsync", "always"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_resumes_from_the_committed_point() {
    let Some(own) = Own::start(SYNCED) else { return };
    failure::a_restart_resumes_from_the_committed_point(&own).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_keeps_what_was_written() {
    let Some(own) = Own::start(SYNCED) else { return };
    failure::a_restart_keeps_what_was_written(&own).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_flushes_on_a_server_of_its_own() {
    let Some(own) = Own::start(SYNCED) else { return };
    lifecycle::shutdown_flushes_what_was_published(&own).await;
}

/// Publishes numbers until told to stop; returns those written and those that may be.
async fn publish(
    broker: Arc<dyn Broker>,
    topic: Topic,
    stop: Arc<tokio::sync::Notify>,
) -> (Vec<u32>, Vec<u32>) {
    let (mut written, mut unknown) = (Vec::new(), Vec::new());
    for number in 0.. {
        let message = Message::new(number.to_string()).with_key("key");
        match broker.publish(&topic, vec![message]).await.map(|mut all| all.remove(0)) {
            Ok(Published::Written(_)) => written.push(number),
            Ok(Published::Unknown(error)) => {
                assert!(error.is_retryable(), "{error:?}");
                unknown.push(number);
            }
            Ok(Published::NotWritten(error)) | Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
            }
        }
        let pause = Duration::from_millis(2);
        if tokio::time::timeout(pause, stop.notified()).await.is_ok() {
            break;
        }
    }
    (written, unknown)
}

/// What was written comes in order, and nothing comes that was never published.
async fn check(own: &Own, trouble: impl AsyncFnOnce(&Own)) {
    let broker = own.redis.open("timeout = 500ms\n").await.unwrap();
    let (topic, group) = make_topic(&broker).await;
    let mut member = broker.subscribe(Subscription::group(&topic, &group)).await.unwrap();
    let stop = Arc::new(tokio::sync::Notify::new());
    let publisher = tokio::spawn(publish(broker.clone(), topic.clone(), stop.clone()));
    let mut seen: Vec<u32> = Vec::new();
    let mut note = |deliveries: &[Delivery]| {
        for text in texts(deliveries) {
            let number = text.parse().unwrap();
            // What was not settled before the trouble may come again.
            if !seen.contains(&number) {
                seen.push(number);
            }
        }
    };
    let deliveries = receive(&mut *member, 50).await;
    note(&deliveries);
    ack(&mut *member, deliveries).await;
    trouble(own).await;
    let deliveries = receive(&mut *member, 100).await;
    note(&deliveries);
    stop.notify_one();
    let (written, unknown) = publisher.await.unwrap();
    let last = Message::new(u32::MAX.to_string());
    broker.publish_one(&topic, last).await.unwrap();
    while !deliveries.is_empty() {
        let deliveries = receive(&mut *member, 1).await;
        if texts(&deliveries) == [u32::MAX.to_string()] {
            break;
        }
        note(&deliveries);
    }
    assert!(seen.is_sorted(), "out of order: {seen:?}");
    let missing: Vec<_> = written.iter().filter(|n| !seen.contains(n)).collect();
    assert!(missing.is_empty(), "written and never seen: {missing:?}");
    let invented = seen.iter().filter(|n| !written.contains(n) && !unknown.contains(n));
    assert_eq!(invented.count(), 0);
}

/// Cuts all connections but its own, again and again.
async fn cut(redis: Arc<Redis>, stop: Arc<tokio::sync::Notify>) {
    let mut connection = redis.raw().await;
    let pause = Duration::from_millis(15);
    while tokio::time::timeout(pause, stop.notified()).await.is_err() {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
        let _: u32 = kill.query_async(&mut connection).await.unwrap();
    }
}

/// The server may have given out what never arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_lose_nothing() {
    const COUNT: usize = 3000;
    let Some(own) = Own::start(&[]) else { return };
    let broker = own.broker().await;
    let (topic, group) = make_topic(&broker).await;
    let batch = (0..COUNT).map(|n| Message::new(n.to_string()).with_key("key")).collect();
    broker.publish_all(&topic, batch).await.unwrap();
    let narrow = Subscription { in_flight_max: 40, ..Subscription::group(&topic, &group) };
    let mut member = broker.subscribe(narrow).await.unwrap();
    let stop = Arc::new(tokio::sync::Notify::new());
    let redis = Arc::new(Redis::at(own.redis.url.clone()));
    let cutter = tokio::spawn(cut(redis, stop.clone()));
    let (mut seen, start) = (Vec::new(), Instant::now());
    while seen.len() < COUNT {
        assert!(start.elapsed() < PATIENCE, "{} of {COUNT} came", seen.len());
        let deliveries = match member.receive(Limit::new(7, Duration::from_secs(1))).await {
            Ok(deliveries) => deliveries,
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                continue;
            }
        };
        seen.extend(texts(&deliveries).iter().map(|text| text.parse::<usize>().unwrap()));
        let mut open: Vec<_> =
            deliveries.into_iter().map(|d| (d.into_token(), Outcome::Ack)).collect();
        while !open.is_empty() {
            let unsettled = member.settle(open).await;
            open = unsettled.into_iter().map(|u| (u.token, u.outcome)).collect();
        }
    }
    stop.notify_one();
    cutter.await.unwrap();
    assert_eq!(seen, (0..COUNT).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_suspended_loses_nothing() {
    let Some(own) = Own::start(&[]) else { return };
    check(&own, async |own| {
        own.server.lock().unwrap().pause();
        tokio::time::sleep(Duration::from_secs(2)).await;
        own.server.lock().unwrap().resume();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_at_work_loses_nothing() {
    let Some(own) = Own::start(SYNCED) else { return };
    check(&own, async |own| {
        own.server.lock().unwrap().kill();
        tokio::time::sleep(Duration::from_secs(1)).await;
        own.server.lock().unwrap().restart();
    })
    .await;
}
