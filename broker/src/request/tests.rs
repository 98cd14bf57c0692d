//! Questions and answers over the broker in memory, under a paused clock.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;

use super::*;
use crate::contract::{Broker, TopicSpec};
use crate::delivery::Delivery;
use crate::error::ErrorKind;
use crate::ext::BrokerExt;
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::policy::{Failure, Policy};
use crate::router::{Handler, Router};
use crate::subscription::Subscription;
use crate::testing::{Call, Memory};

/// Answers with the number of seconds that it was told to take.
struct Sleeper(Arc<dyn Broker>);

impl Handler for Sleeper {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        let reply = Reply::to(delivery)?;
        let seconds: u64 = std::str::from_utf8(&delivery.payload)?.parse()?;
        sleep(Duration::from_secs(seconds)).await;
        Ok(reply.send(&*self.0, Message::new(seconds.to_string())).await?)
    }
}

struct Stage {
    memory: Memory,
    broker: Arc<dyn Broker>,
    topic: Topic,
}

impl Stage {
    async fn new() -> Self {
        let memory = Memory::new();
        let broker = memory.connect(Policy::default());
        let topic = Topic::new("questions").unwrap();
        broker.ensure_topic(&TopicSpec::new(&topic, 4)).await.unwrap();
        Self { memory, broker, topic }
    }

    async fn requester(&self, options: Options) -> Requester {
        Requester::open(self.broker.clone(), options).await.unwrap()
    }

    /// Plays while questions are answered.
    async fn play(&self, play: impl Future<Output = ()>) {
        let subscription = Subscription::group(&self.topic, &Group::new("sleepers").unwrap());
        let sleeper = Sleeper(self.broker.clone());
        let router = Router::new(self.broker.clone()).concurrency(200);
        router.handle(subscription, sleeper).run_until(play).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_gets_its_own_answer() {
    let stage = Stage::new().await;
    let requester = stage.requester(Options::default()).await;
    let others = stage.requester(Options::default()).await;
    assert_ne!(requester.topic(), others.topic());
    stage
        .play(async {
            let ask = |number: u64| {
                let asker = if number.is_multiple_of(2) { &requester } else { &others };
                asker.request(&stage.topic, Message::new((number % 9).to_string()))
            };
            let answers = join_all((0..100).map(ask)).await;
            for (number, answer) in (0..100_u64).zip(answers) {
                assert_eq!(answer.unwrap().payload, (number % 9).to_string());
            }
        })
        .await;
    assert_eq!(requester.late() + others.late(), 0);
    let topic = requester.topic().clone();
    requester.close().await.unwrap();
    let topics = stage.broker.admin().list().await.unwrap();
    assert!(!topics.contains(&topic) && topics.contains(others.topic()), "{topics:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_late_is_dropped_and_counted() {
    let stage = Stage::new().await;
    let requester = stage.requester(Options::default()).await;
    stage
        .play(async {
            let error = requester.request(&stage.topic, Message::new("11")).await.unwrap_err();
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Timeout, true));
            assert_eq!(requester.late(), 0);
            let answer = requester.request(&stage.topic, Message::new("5")).await.unwrap();
            assert_eq!(answer.payload, "5");
            assert_eq!(requester.late(), 1);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_wait_than_may() {
    let stage = Stage::new().await;
    let requester = stage.requester(Options { pending_max: 2, ..Options::default() }).await;
    let ask = || requester.request(&stage.topic, Message::new("0"));
    let results = join_all((0..3).map(|_| ask())).await;
    let kinds: Vec<ErrorKind> = results.into_iter().map(|it| it.unwrap_err().kind()).collect();
    assert_eq!(kinds, [ErrorKind::Timeout, ErrorKind::Timeout, ErrorKind::Throttled]);
    stage.play(async { assert_eq!(ask().await.unwrap().payload, "0") }).await;
}

#[tokio::test(start_paused = true)]
async fn failures_to_read_answers_are_borne_or_told() {
    let stage = Stage::new().await;
    let requester = stage.requester(Options::default()).await;
    tokio::task::yield_now().await;
    (0..3).for_each(|_| stage.memory.fail_next(Call::Receive, ErrorKind::Unavailable));
    stage
        .play(async {
            let answer = requester.request(&stage.topic, Message::new("1")).await.unwrap();
            assert_eq!(answer.payload, "1");
        })
        .await;
    stage.broker.admin().delete_topic(requester.topic()).await.unwrap();
    for _ in 0..2 {
        let error = requester.request(&stage.topic, Message::new("1")).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Closed), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_rejected() {
    let [id, to] = [(CORRELATION_ID, "7"), (REPLY_TO, "answers")];
    let message = |headers: &[(&str, &str)]| {
        let add = |message: Message, (name, value): &(&str, &str)| message.with_header(name, value);
        headers.iter().fold(Message::new("body"), add)
    };
    assert!(Reply::to(&message(&[id, to])).is_ok());
    for headers in [&[][..], &[id], &[to], &[id, (REPLY_TO, "no topic")]] {
        let failure = Reply::to(&message(headers)).unwrap_err();
        assert!(!failure.is_retryable(), "{failure:?}");
    }
}

#[tokio::test]
async fn an_answer_to_nobody_is_dropped() {
    let stage = Stage::new().await;
    let request = Message::new("1").with_header(REPLY_TO, "gone").with_header(CORRELATION_ID, "1");
    Reply::to(&request).unwrap().send(&*stage.broker, Message::new("1")).await.unwrap();
}
