//! A consumer that a layer can cut off, and that is subscribed anew at its next use.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::contract::{Broker, Consumer};
use crate::error::Result;
use crate::subscription::{Event, Subscription};

/// The most events that are kept for a caller who does not take them.
const EVENTS_MAX: usize = 1024;

/// A consumer below a layer, with all that it takes to have another.
#[derive(Debug)]
pub(super) struct Link {
    broker: Arc<dyn Broker>,
    subscription: Subscription,
    /// Away between a cut and the next use.
    consumer: Option<Box<dyn Consumer>>,
    /// The partitions that the caller is told are its own, or will be once it asks.
    assigned: BTreeSet<u32>,
    events: Vec<Event>,
}

impl Link {
    pub(super) async fn open(broker: Arc<dyn Broker>, subscription: Subscription) -> Result<Self> {
        let consumer = Some(broker.subscribe(subscription.clone()).await?);
        let (assigned, events) = (BTreeSet::new(), Vec::new());
        Ok(Self { broker, subscription, consumer, assigned, events })
    }

    /// The consumer as it is: none after a cut, when every token is stale.
    pub(super) fn current(&mut self) -> Option<&mut (dyn Consumer + 'static)> {
        self.consumer.as_deref_mut()
    }

    /// The consumer, subscribed anew after a cut.
    pub(super) async fn connected(&mut self) -> Result<&mut (dyn Consumer + 'static)> {
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.broker.subscribe(self.subscription.clone()).await?,
        };
        Ok(self.consumer.insert(consumer).as_mut())
    }

    /// Whether a new subscription would go on where this one is. A reader's would not.
    pub(super) fn is_member(&self) -> bool {
        self.subscription.group.is_some()
    }

    /// Drops the consumer: what it had in flight comes again, and its tokens are stale.
    pub(super) fn cut(&mut self) {
        let Some(mut consumer) = self.consumer.take() else { return };
        self.note(consumer.events());
        drop(consumer);
        let lost: Vec<u32> = std::mem::take(&mut self.assigned).into_iter().collect();
        if !lost.is_empty() {
            self.note(vec![Event::Revoked(lost)]);
        }
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        if let Some(consumer) = &mut self.consumer {
            let events = consumer.events();
            self.note(events);
        }
        std::mem::take(&mut self.events)
    }

    fn note(&mut self, events: Vec<Event>) {
        for event in events {
            match &event {
                Event::Assigned(partitions) => self.assigned.extend(partitions),
                Event::Revoked(partitions) => self.assigned.retain(|p| !partitions.contains(p)),
                Event::CaughtUp | Event::OffsetOutOfRange { .. } => {}
            }
            if self.events.len() < EVENTS_MAX {
                self.events.push(event);
            }
        }
    }
}
