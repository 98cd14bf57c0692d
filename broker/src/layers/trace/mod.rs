//! Carries traces over the broker: W3C Trace Context in the headers, and spans around calls.
//!
//! **Place:** outermost, so that all that the other layers do and log for a call stands in its
//! span. **Cancellation:** adds nothing that could be lost; a dropped future ends its span.
//!
//! - A message that continues a trace (header `traceparent`) goes on to do so; [`carry`] makes a
//!   message continue what a delivery continues. A message without gets a trace of its own where
//!   `[trace] start` says so: one for each batch. Where it has no room for the header, it goes
//!   without.
//! - There is a span (target `broker`, level debug) for each published batch, each batch received,
//!   each settlement and each commit. With the feature `opentelemetry` and a subscriber that
//!   exports spans, they continue the trace of their messages where that is one, else they are
//!   linked to them; a published message then continues the span.
//!
//! Dead letters keep the headers of their source, and so its trace.

mod bridge;
mod context;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::{Instrument, Span};

pub use context::{Context, TRACEPARENT, TRACESTATE, carry};

use crate::capabilities::Capabilities;
use crate::config::Section;
use crate::contract::{Admin, Broker, Consumer, PartitionLag, Published, Transaction};
use crate::delivery::{AckToken, Delivery, Outcome, Unsettled};
use crate::error::Result;
use crate::message::Message;
use crate::name::{Group, Topic};
use crate::subscription::{Event, Limit, Seek, Subscription};
use context::HEADER_BYTES;

/// The most messages that one span is linked to.
const LINKS_MAX: usize = 128;

/// Which traces are begun, and where spans go: the section `[trace]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Whether a message that continues no trace gets one.
    pub start: bool,
    /// Where programs export their spans: the address of an OTLP collector (protobuf over
    /// HTTP). The layer leaves this to the program, which owns the subscriber.
    pub otlp_endpoint: Option<String>,
}

impl Config {
    /// Reads the section `[trace]`: `otlp_endpoint` (none) and `start` (true where there is an
    /// endpoint, else false).
    pub fn from_section(mut section: Section) -> Result<Self> {
        let otlp_endpoint: Option<String> = section.take("otlp_endpoint")?;
        let is_address =
            |text: &String| text.starts_with("http://") || text.starts_with("https://");
        if let Some(other) = otlp_endpoint.as_ref().filter(|text| !is_address(text)) {
            let problem = format!("{other:?} is no address such as http://127.0.0.1:4318");
            return Err(section.error("otlp_endpoint", problem));
        }
        let start = section.take_or("start", otlp_endpoint.is_some())?;
        section.finish()?;
        Ok(Self { start, otlp_endpoint })
    }
}

/// Makes a span of the caller's own continue what a message continues, for work on a delivery.
/// Call it before the span is entered. It needs the feature `opentelemetry` to do anything.
pub fn follow(span: &Span, message: &Message) {
    if let Some(context) = Context::of(message) {
        bridge::join(span, &[context]);
    }
}

/// The trace layer around a broker.
#[derive(Debug)]
pub struct Trace {
    inner: Arc<dyn Broker>,
    start: bool,
}

impl Trace {
    /// Puts the layer around a broker.
    pub fn wrap(inner: Arc<dyn Broker>, config: &Config) -> Arc<dyn Broker> {
        Arc::new(Self { inner, start: config.start })
    }

    fn marker(&self) -> Marker {
        Marker { start: self.start, message_bytes_max: self.inner.capabilities().message_bytes_max }
    }
}

/// Puts contexts on messages.
#[derive(Debug, Clone, Copy)]
struct Marker {
    start: bool,
    message_bytes_max: usize,
}

impl Marker {
    /// A span for a batch to be published, whose messages continue it where it is exported.
    fn publish(self, topic: &Topic, batch: &mut [Message]) -> Span {
        let span = tracing::debug_span!(
            target: "broker",
            "publish",
            otel.kind = "producer",
            messaging.destination.name = %topic,
            messaging.batch.message_count = batch.len(),
        );
        if self.start || !span.is_disabled() {
            self.mark(&span, batch);
        }
        span
    }

    fn mark(self, span: &Span, batch: &mut [Message]) {
        let contexts: Vec<Option<Context>> = batch.iter().map(Context::of).collect();
        let own = bridge::join(span, &distinct(contexts.iter().flatten()));
        let mut fresh = own.or_else(|| self.start.then(Context::root));
        for (message, context) in batch.iter_mut().zip(contexts) {
            match (context, own) {
                (None, _) if message.size() + HEADER_BYTES > self.message_bytes_max => {}
                (None, _) => {
                    if let Some(fresh) = &mut fresh {
                        fresh.put_on(message);
                    }
                }
                (Some(context), Some(own)) if context.trace == own.trace => own.put_on(message),
                // Its own trace is not this batch's: the span is linked to it.
                (Some(_), _) => {}
            }
        }
    }
}

/// Each context once, as many as a span may be linked to. Batches hold them in runs.
fn distinct<'a>(contexts: impl Iterator<Item = &'a Context>) -> Vec<Context> {
    let mut distinct: Vec<Context> = Vec::new();
    for context in contexts {
        if distinct.len() == LINKS_MAX {
            break;
        }
        if !distinct.contains(context) {
            distinct.push(*context);
        }
    }
    distinct
}

/// Makes a span of something done with messages continue them, or links it to them.
fn join<'a>(span: &Span, messages: impl Iterator<Item = &'a Message>) {
    if !span.is_disabled() {
        let contexts: Vec<Context> = messages.filter_map(Context::of).collect();
        bridge::join(span, &distinct(contexts.iter()));
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Broker for Trace {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, topic: &Topic, mut batch: Vec<Message>) -> Result<Vec<Published>> {
        let span = self.marker().publish(topic, &mut batch);
        self.inner.publish(topic, batch).instrument(span).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>> {
        let topic = subscription.topic.clone();
        let consumer = self.inner.subscribe(subscription).await?;
        Ok(Box::new(Member { consumer, topic, marker: self.marker() }))
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

/// A consumer under the layer.
#[derive(Debug)]
struct Member {
    consumer: Box<dyn Consumer>,
    topic: Topic,
    marker: Marker,
}

fn settling(topic: &Topic, outcomes: &[(AckToken, Outcome)]) -> Span {
    let span = tracing::debug_span!(
        target: "broker",
        "settle",
        otel.kind = "client",
        messaging.destination.name = %topic,
        messaging.batch.message_count = outcomes.len(),
    );
    join(&span, outcomes.iter().map(|(token, _)| token.message()));
    span
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Consumer for Member {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        let deliveries = self.consumer.receive(limit).await?;
        if !deliveries.is_empty() {
            let span = tracing::debug_span!(
                target: "broker",
                "receive",
                otel.kind = "consumer",
                messaging.destination.name = %self.topic,
                messaging.batch.message_count = deliveries.len(),
            );
            join(&span, deliveries.iter().map(Delivery::message));
        }
        Ok(deliveries)
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        let span = settling(&self.topic, &outcomes);
        self.consumer.settle(outcomes).instrument(span).await
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        self.consumer.extend(tokens, by).await
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        self.consumer.seek(seek).await
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        let inner = self.consumer.transaction().await?;
        Ok(Box::new(Step { inner, topic: &self.topic, marker: self.marker }))
    }

    fn events(&mut self) -> Vec<Event> {
        self.consumer.events()
    }
}

/// A transaction under the layer.
struct Step<'a> {
    inner: Box<dyn Transaction + 'a>,
    topic: &'a Topic,
    marker: Marker,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transaction for Step<'_> {
    async fn publish(&mut self, topic: &Topic, mut batch: Vec<Message>) -> Result<()> {
        let span = self.marker.publish(topic, &mut batch);
        self.inner.publish(topic, batch).instrument(span).await
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Result<()> {
        let span = settling(self.topic, &outcomes);
        self.inner.settle(outcomes).instrument(span).await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        let topic = self.topic;
        let span = tracing::debug_span!(
            target: "broker",
            "commit",
            otel.kind = "client",
            messaging.destination.name = %topic,
        );
        self.inner.commit().instrument(span).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}
