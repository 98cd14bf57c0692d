//! The one owner of attempts and dead letters.
//!
//! A rejected delivery, and one that was delivered more often than its policy allows, goes to
//! the dead letters before its source settles: in one transaction where the backend has them,
//! else published first, so that a crash between the two repeats a dead letter and loses none.
//! Where the dead letter is refused the source stays unsettled. Without a topic for dead
//! letters they are logged with their cause and position, and settled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{count, letter};
use crate::capabilities::Capabilities;
use crate::contract::{Admin, Broker, Consumer, PartitionLag, Published, Transaction};
use crate::delivery::{AckToken, Delivery as Loan, Outcome, Unsettled};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::BrokerExt;
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::policy::Policy;
use crate::subscription::{Event, Limit, Seek, Subscription};

/// How long a dead letter that was refused waits for the next try.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// The delivery layer around a broker.
#[derive(Debug)]
pub struct Delivery {
    inner: Arc<dyn Broker>,
    default: Policy,
}

impl Delivery {
    /// Puts the layer around a broker; `default` serves subscriptions without a policy.
    pub fn wrap(inner: Arc<dyn Broker>, default: Policy) -> Arc<dyn Broker> {
        Arc::new(Self { inner, default })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Broker for Delivery {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, topic: &Topic, batch: Vec<Message>) -> Result<Vec<Published>> {
        self.inner.publish(topic, batch).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        let policy = subscription.policy.clone().unwrap_or_else(|| self.default.clone());
        let is_reader = subscription.group.is_none();
        let consumer = self.inner.subscribe(subscription).await?;
        if is_reader {
            return Ok(consumer);
        }
        let (broker, ready) = (self.inner.clone(), VecDeque::new());
        Ok(Box::new(Member { consumer, morgue: Morgue { broker, policy }, ready }))
    }

    async fn lag(&self, topic: &Topic, group: &Group) -> Result<Vec<PartitionLag>> {
        self.inner.lag(topic, group).await
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }

    fn admin(&self) -> &dyn Admin {
        self.inner.admin()
    }

    async fn shutdown(&self) -> Result<()> {
        self.inner.shutdown().await
    }
}

/// Where the dead go.
#[derive(Debug)]
struct Morgue {
    broker: Arc<dyn Broker>,
    policy: Policy,
}

impl Morgue {
    /// Splits dead letters off; what is settled on the source is an `Ack` instead.
    fn open(&self, outcomes: &mut [(AckToken, Outcome)]) -> Vec<Message> {
        let mut letters = Vec::new();
        for (token, outcome) in outcomes {
            let Outcome::Reject { reason } = outcome else { continue };
            // A delivery beyond the last attempt was never handed to anyone.
            let attempts = token.attempt().min(self.policy.attempts_max);
            if self.policy.dead_letters.is_some() {
                letters.push(letter::of(token, attempts, reason));
            } else {
                let (topic, position) = (token.topic(), token.position());
                tracing::error!(%topic, %position, attempts, reason, "a message is given up");
                count::dead_letters(topic, 1);
            }
            *outcome = Outcome::Ack;
        }
        letters
    }

    fn exhausted(&self, delivery: &Loan) -> bool {
        delivery.attempt() > self.policy.attempts_max
    }

    fn last_words(&self) -> Outcome {
        let times = self.policy.attempts_max;
        Outcome::Reject { reason: format!("not processed in {times} deliveries") }
    }
}

/// A member of a group under the layer.
#[derive(Debug)]
struct Member {
    consumer: Box<dyn Consumer>,
    morgue: Morgue,
    /// Received and not yet returned, so that a dropped `receive` loses nothing.
    ready: VecDeque<Loan>,
}

impl Member {
    /// Gives up what is out of attempts. Where its dead letter is refused it comes again.
    async fn bury(&mut self) {
        let (dead, ready): (Vec<Loan>, Vec<Loan>) =
            self.ready.drain(..).partition(|loan| self.morgue.exhausted(loan));
        self.ready = ready.into();
        if dead.is_empty() {
            return;
        }
        let last = self.morgue.last_words();
        let outcomes = dead.into_iter().map(|loan| (loan.into_token(), last.clone())).collect();
        let refused = self.settle(outcomes).await;
        let Some(first) = refused.first() else { return };
        tracing::error!(error = ?first.error, "a dead letter is refused; its source stays");
        let again = refused.into_iter();
        let again = again.map(|u| (u.token, Outcome::Retry { after: REFUSED_PAUSE })).collect();
        // What fails here too is brought back by its deadline.
        let _ = self.consumer.settle(again).await;
    }

    /// Everything in one transaction, or an error with which nothing happened.
    async fn bury_at_once(
        &mut self,
        topic: &Topic,
        letters: Vec<Message>,
        outcomes: Vec<(AckToken, Outcome)>,
    ) -> Result<()> {
        let mut transaction = self.consumer.transaction().await?;
        transaction.publish(topic, letters).await?;
        transaction.settle(outcomes).await?;
        transaction.commit().await
    }

    async fn settle_with_letters(
        &mut self,
        topic: &Topic,
        letters: Vec<Message>,
        acked: Vec<(AckToken, Outcome)>,
    ) -> Result<Vec<Unsettled>, (Error, Vec<(AckToken, Outcome)>)> {
        if self.morgue.broker.capabilities().transactions {
            let copies = acked.iter().map(|(token, o)| (token.duplicate(), o.clone())).collect();
            match self.bury_at_once(topic, letters.clone(), copies).await {
                Ok(()) => return Ok(Vec::new()),
                // Gaps in the settled prefix, or stale tokens among good ones.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Fenced) => {}
                Err(error) => return Err((error, acked)),
            }
        }
        match self.morgue.broker.publish_all(topic, letters).await {
            Ok(_) => Ok(self.consumer.settle(acked).await),
            Err(error) => Err((error, acked)),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Consumer for Member {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Loan>> {
        let until = Instant::now() + limit.wait;
        loop {
            if self.ready.is_empty() {
                let wait = until.saturating_duration_since(Instant::now());
                self.ready = self.consumer.receive(Limit { wait, ..limit }).await?.into();
            }
            let none_dead = !self.ready.iter().any(|loan| self.morgue.exhausted(loan));
            if none_dead {
                let count = self.ready.len().min(limit.messages);
                return Ok(self.ready.drain(..count).collect());
            }
            self.bury().await;
            if self.ready.is_empty() && Instant::now() >= until {
                return Ok(Vec::new());
            }
        }
    }

    async fn settle(&mut self, mut outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        let asked: Vec<Outcome> = outcomes.iter().map(|(_, outcome)| outcome.clone()).collect();
        let letters = self.morgue.open(&mut outcomes);
        let topic = self.morgue.policy.dead_letters.clone();
        let Some(topic) = topic.filter(|_| !letters.is_empty()) else {
            return self.consumer.settle(outcomes).await;
        };
        let (source, given_up) = (outcomes[0].0.topic().clone(), letters.len());
        match self.settle_with_letters(&topic, letters, outcomes).await {
            Ok(unsettled) => {
                count::dead_letters(&source, given_up);
                unsettled
            }
            Err((error, tokens)) => {
                let tokens = tokens.into_iter().map(|(token, _)| token).zip(asked);
                let unsettled = |(token, outcome)| {
                    let error = error.duplicate().with("dead letters", &topic);
                    Unsettled { token, outcome, error }
                };
                tokens.map(unsettled).collect()
            }
        }
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        self.consumer.extend(tokens, by).await
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        self.consumer.seek(seek).await?;
        // What was received before is stale where the position moved.
        self.ready.retain(|loan| seek.partition.is_some_and(|p| p != loan.position().partition()));
        Ok(())
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        let inner = self.consumer.transaction().await?;
        Ok(Box::new(Step { inner, morgue: &self.morgue }))
    }

    fn events(&mut self) -> Vec<Event> {
        self.consumer.events()
    }
}

/// A transaction under the layer: its dead letters are part of it.
struct Step<'a> {
    inner: Box<dyn Transaction + 'a>,
    morgue: &'a Morgue,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transaction for Step<'_> {
    async fn publish(&mut self, topic: &Topic, batch: Vec<Message>) -> Result<()> {
        self.inner.publish(topic, batch).await
    }

    async fn settle(&mut self, mut outcomes: Vec<(AckToken, Outcome)>) -> Result<()> {
        let letters = self.morgue.open(&mut outcomes);
        if let Some(topic) = &self.morgue.policy.dead_letters
            && !letters.is_empty()
        {
            let (source, given_up) = (outcomes[0].0.topic(), letters.len());
            self.inner.publish(topic, letters).await?;
            count::dead_letters(source, given_up);
        }
        self.inner.settle(outcomes).await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.inner.commit().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}
