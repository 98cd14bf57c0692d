//! The delivery layer: what can't be processed is put aside, and the stream goes on.

use std::time::Duration;

use super::Harness;
use super::stage::{QUIET, Stage, Tap, make_topic, outcomes, text, texts, unique_topic};
use crate::delivery::{Delivery, Outcome};
use crate::error::ErrorKind;
use crate::message::Message;
use crate::name::Topic;
use crate::policy::Policy;
use crate::subscription::Subscription;

/// A stage on the delivery layer with a topic for its dead letters, named in each
/// subscription; the layer's own default has none.
struct Morgue {
    stage: Stage,
    policy: Policy,
    dead_letters: Topic,
}

impl Morgue {
    async fn new(harness: &dyn Harness, attempts_max: u32) -> Self {
        let stage = Stage::layered(harness, Policy::default()).await;
        let dead_letters = make_topic(&stage.broker, 1).await;
        let policy = Policy::default().with_attempts(attempts_max).with_dead_letters(&dead_letters);
        Self { stage, policy, dead_letters }
    }

    fn subscription(&self) -> Subscription {
        self.stage.subscription().with_policy(self.policy.clone())
    }

    async fn member(&self) -> Tap {
        self.stage.subscribe(self.subscription()).await
    }

    /// All dead letters.
    async fn dead(&self) -> Vec<Delivery> {
        let reader = self.stage.broker.subscribe(Subscription::reader(&self.dead_letters));
        Tap::new(reader.await.unwrap()).until_caught_up().await
    }

    /// Asserts that `source` alone is dead, unchanged but for the headers that tell of it.
    async fn assert_dead(&self, source: &Delivery, reason: &str, attempts: u32) {
        let dead = self.dead().await;
        assert_eq!(dead.len(), 1, "{dead:?}");
        let headers = &dead[0].headers;
        let told = |name: &str| headers.get_str(name).unwrap_or("absent").to_owned();
        assert!(told("dead-letter-reason").contains(reason), "{headers:?}");
        assert_eq!(told("dead-letter-topic"), source.topic().as_str());
        assert_eq!(told("dead-letter-partition"), source.position().partition().to_string());
        assert_eq!(told("dead-letter-offset"), source.position().offset().to_string());
        assert_eq!(told("dead-letter-attempts"), attempts.to_string());
        assert_eq!((&dead[0].key, &dead[0].payload), (&source.key, &source.payload));
        let own = headers.iter().filter(|(name, _)| !name.starts_with("dead-letter-"));
        assert!(own.eq(source.headers.iter()), "{headers:?}");
    }
}

fn reject(reason: &str) -> Outcome {
    Outcome::Reject { reason: reason.into() }
}

/// A copy of what a token tells, to compare with after it was settled.
async fn rejected(morgue: &Morgue, member: &mut Tap, reason: &str) -> Delivery {
    let delivery = member.next().await;
    let original = morgue.stage.everything().await.remove(0);
    assert_eq!(original.position(), delivery.position());
    member.settle([delivery], reject(reason)).await;
    original
}

/// The cause, the attempts and the source are told; all else is as it was.
pub async fn a_rejected_message_goes_to_the_dead_letters_as_it_was(harness: &dyn Harness) {
    let morgue = Morgue::new(harness, 5).await;
    let message = Message::new([0, 255, 128].as_slice())
        .with_key([1, 254].as_slice())
        .with_header("id", "seven")
        .with_header("bytes", [0, 200])
        .with_header("id", "again");
    morgue.stage.publish(vec![message]).await;
    let mut member = morgue.member().await;
    let source = rejected(&morgue, &mut member, "no such ünit").await;
    morgue.assert_dead(&source, "no such ünit", 1).await;
}

/// The source is settled, for its key too, and stays so.
pub async fn the_stream_goes_on_behind_a_rejected_message(harness: &dyn Harness) {
    let morgue = Morgue::new(harness, 5).await;
    let bodies = ["good", "bad", "better"];
    morgue.stage.publish(bodies.map(|body| Message::new(body).with_key("key")).to_vec()).await;
    let mut member = morgue.member().await;
    let mut deliveries = member.take(2).await;
    let bad = deliveries.pop();
    member.ack(deliveries).await;
    member.settle(bad, reject("bad")).await;
    let last = member.next().await;
    assert_eq!(text(&last), "better");
    member.ack([last]).await;
    morgue.stage.wait_committed(3).await;
    drop(member);
    morgue.stage.assert_all_settled().await;
    assert_eq!(texts(&morgue.dead().await), ["bad"]);
}

/// `attempts_max` deliveries, and no more.
pub async fn a_message_out_of_attempts_goes_to_the_dead_letters(harness: &dyn Harness) {
    let morgue = Morgue::new(harness, 3).await;
    let bodies = ["body", "next"];
    morgue.stage.publish(bodies.map(|body| Message::new(body).with_key("key")).to_vec()).await;
    let mut member = morgue.member().await;
    for attempt in 1..=3 {
        let delivery = member.next().await;
        assert_eq!((text(&delivery), delivery.attempt()), ("body".to_owned(), attempt));
        member.settle([delivery], Outcome::Retry { after: Duration::ZERO }).await;
    }
    let next = member.next().await;
    assert_eq!(text(&next), "next");
    member.ack([next]).await;
    let source = morgue.stage.everything().await.remove(0);
    morgue.assert_dead(&source, "", 3).await;
    morgue.stage.wait_committed(2).await;
    drop(member);
    morgue.stage.assert_all_settled().await;
}

/// A message on which every consumer hangs is dead as well.
pub async fn a_message_that_meets_silence_runs_out_of_attempts_too(harness: &dyn Harness) {
    let morgue = Morgue::new(harness, 2).await;
    morgue.stage.publish_texts(["body"]).await;
    let deadline = Duration::from_secs(1);
    let subscription = morgue.subscription().with_ack_deadline(deadline);
    let mut member = morgue.stage.subscribe(subscription).await;
    for attempt in 1..=2 {
        let silent = member.next().await;
        assert_eq!((text(&silent), silent.attempt()), ("body".to_owned(), attempt));
    }
    morgue.stage.publish_texts(["next"]).await;
    let next = member.next().await;
    assert_eq!(text(&next), "next");
    member.ack([next]).await;
    member.assert_quiet(deadline + QUIET).await;
    let source = morgue.stage.everything().await.remove(0);
    morgue.assert_dead(&source, "", 2).await;
}

/// Limits reserve room for what a dead letter adds.
pub async fn the_largest_message_fits_as_a_dead_letter(harness: &dyn Harness) {
    let morgue = Morgue::new(harness, 5).await;
    let size = morgue.stage.broker.capabilities().message_bytes_max;
    morgue.stage.publish(vec![Message::new(vec![7; size])]).await;
    let mut member = morgue.member().await;
    let reason = "a long reason ".repeat(50);
    let source = rejected(&morgue, &mut member, &reason).await;
    morgue.assert_dead(&source, "a long reason", 1).await;
}

/// Better twice than lost: the token comes back and the message stays.
pub async fn a_dead_letter_that_is_refused_leaves_its_source_unsettled(harness: &dyn Harness) {
    let stage = Stage::layered(harness, Policy::default()).await;
    let policy = Policy::default().with_dead_letters(&unique_topic());
    stage.publish_texts(["bad", "next"]).await;
    let mut member = stage.subscribe(stage.subscription().with_policy(policy)).await;
    let both = outcomes(member.take(2).await, &reject("bad"));
    let bad = both.into_iter().next();
    let mut unsettled = member.consumer.settle(bad.into_iter().collect()).await;
    let unsettled = unsettled.pop().expect("the missing topic of the dead letters is told");
    assert_eq!(unsettled.error.kind(), ErrorKind::NotFound, "{}", unsettled.error);
    assert_eq!(unsettled.outcome, reject("bad"));
    let after = Duration::ZERO;
    let again = vec![(unsettled.token, Outcome::Retry { after })];
    assert!(member.consumer.settle(again).await.is_empty());
    let bad = member.next().await;
    assert_eq!((text(&bad), bad.attempt()), ("bad".to_owned(), 2));
}

/// One policy for a whole process, with exceptions where they are asked for.
pub async fn the_default_policy_serves_where_the_subscription_has_none(harness: &dyn Harness) {
    let dead_letters = make_topic(&harness.broker().await, 1).await;
    let default = Policy::default().with_attempts(1).with_dead_letters(&dead_letters);
    let stage = Stage::layered(harness, default).await;
    let bodies = ["body", "next"];
    stage.publish(bodies.map(|body| Message::new(body).with_key("key")).to_vec()).await;
    let mut member = stage.member().await;
    let delivery = member.next().await;
    member.settle([delivery], Outcome::Retry { after: Duration::ZERO }).await;
    assert_eq!(text(&member.next().await), "next");
    let reader = stage.broker.subscribe(Subscription::reader(&dead_letters)).await.unwrap();
    assert_eq!(texts(&Tap::new(reader).take(1).await), ["body"]);
}
