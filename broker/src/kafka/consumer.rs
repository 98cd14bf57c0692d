//! The async side of a consumer: it delivers from the windows that the thread fills.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::broker::Inner;
use super::context::{Client, Context};
use super::control::blocking;
use super::error::translate;
use super::fetcher::{Fetcher, Plan};
use super::start;
use super::state::{Link, Move};
use crate::contract::{Consumer, Transaction};
use crate::delivery::{AckToken, Delivery, Outcome, Unsettled};
use crate::error::{Error, ErrorKind, Result};
use crate::name::Topic;
use crate::subscription::{Event, Limit, Seek, Start, Subscription};
use crate::window::Bounds;

pub(super) struct KafkaConsumer {
    topic: Topic,
    link: Arc<Link>,
    inner: Arc<Inner>,
}

/// Opens a consumer; a topic that is missing is `NotFound`.
pub(super) async fn subscribe(
    inner: Arc<Inner>,
    subscription: Subscription,
) -> Result<KafkaConsumer> {
    let partitions = inner.control.partitions("subscribe", &subscription.topic).await?;
    let link = Arc::new(Link::new(Bounds::from(&subscription), subscription.group.is_none()));
    // From here on dropping this closes whatever was opened.
    let consumer = KafkaConsumer { topic: subscription.topic.clone(), link: link.clone(), inner };
    let inner = consumer.inner.clone();
    blocking("subscribe", move || open(&inner, &subscription, &partitions, link)).await?;
    Ok(consumer)
}

fn open(
    inner: &Inner,
    subscription: &Subscription,
    partitions: &[u32],
    link: Arc<Link>,
) -> Result<()> {
    let topic = &subscription.topic;
    let failed = |error| translate("subscribe", error).with("topic", topic);
    let client = Arc::new(client(inner, subscription, link.clone()).map_err(failed)?);
    let mut plan = Plan {
        topic: topic.clone(),
        start: subscription.start,
        is_reader: subscription.group.is_none(),
        begins: Vec::new(),
        latest: BTreeMap::new(),
        commit_interval: inner.config.commit_interval.max(Duration::from_millis(1)),
        outage_max: inner.config.outage_max,
    };
    if plan.is_reader {
        plan.begins =
            start::resolve(&client, topic.as_str(), partitions, plan.start).map_err(failed)?;
    } else {
        if plan.start == Start::Latest {
            let bounds = start::bounds(&client, topic.as_str(), partitions).map_err(failed)?;
            plan.latest = bounds.into_iter().map(|(number, b)| (number, b.high)).collect();
        }
        client.subscribe(&[topic.as_str()]).map_err(failed)?;
    }
    inner.enrol(&link)?;
    spawn(client, link, plan).map_err(|error| {
        let problem = "no thread can be started";
        Error::new(ErrorKind::Unexpected, "subscribe", problem).with_source(error)
    })
}

fn client(
    inner: &Inner,
    subscription: &Subscription,
    link: Arc<Link>,
) -> Result<Client, rdkafka::error::KafkaError> {
    let settings = match &subscription.group {
        Some(group) => inner.config.member(group, subscription.instance.as_deref()),
        None => reader(inner.config.consumer()),
    };
    let mut client: BaseConsumer<Context> = settings.create_with_context(Context::default())?;
    client.set_nonempty_callback(move || link.wake());
    Ok(client)
}

/// librdkafka consumes only with a group's name; a reader never joins or commits to it.
fn reader(mut settings: ClientConfig) -> ClientConfig {
    settings.set("group.id", "forebay-reader");
    settings.set("enable.partition.eof", "true");
    settings
}

fn spawn(client: Arc<Client>, link: Arc<Link>, plan: Plan) -> io::Result<()> {
    /// Tells that the thread is over, however it ended.
    struct Ended(Arc<Link>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.ended.send_replace(true);
        }
    }
    let ended = Ended(link.clone());
    let fetcher = Fetcher::new(client, link, plan)?;
    let thread = thread::Builder::new().name("kafka-consumer".into());
    let work = move || {
        let _ended = ended;
        fetcher.run();
    };
    thread.spawn(work).map(drop)
}

impl KafkaConsumer {
    fn wake_thread(&self) {
        let is_starved = self.link.lock().should_wake();
        if is_starved {
            self.link.wake();
        }
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        let until = Instant::now() + limit.wait;
        loop {
            let (taken, wake) = {
                let mut state = self.link.lock();
                (state.take(&self.topic, limit.messages), state.next_wake())
            };
            if let Some(taken) = taken {
                self.wake_thread();
                return taken;
            }
            if Instant::now() >= until {
                return Ok(Vec::new());
            }
            let wake = wake.map_or(until, |wake| wake.min(until));
            // Running out of time is answered by looking again.
            let _ = timeout_at(wake, self.link.arrived.notified()).await;
        }
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        let closed = {
            let mut state = self.link.lock();
            if state.is_closed() {
                state.check_open("settle").err()
            } else {
                state.settle(&outcomes);
                None
            }
        };
        let Some(error) = closed else {
            self.wake_thread();
            return Vec::new();
        };
        let unsettled = outcomes.into_iter();
        let unsettled = unsettled.map(|(token, outcome)| Unsettled {
            token,
            outcome,
            error: error.duplicate(),
        });
        unsettled.collect()
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        let mut state = self.link.lock();
        state.check_open("extend")?;
        state.extend(tokens, Instant::now() + by);
        Ok(())
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.link.lock();
            state.check_open("seek")?;
            state.sought(&seek)?;
            state.moves.push_back(Move { seek, reply });
        }
        self.link.wake();
        let gone = |_| Error::new(ErrorKind::Closed, "seek", "the consumer was shut down");
        answer.await.map_err(gone)?
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        let has = self.inner.capabilities();
        has.require(has.transactions, "transactions")?;
        Err(Error::new(ErrorKind::Unsupported, "transaction", "the kafka broker has none"))
    }

    fn events(&mut self) -> Vec<Event> {
        self.link.lock().take_events()
    }
}

impl fmt::Debug for KafkaConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConsumer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Drop for KafkaConsumer {
    /// The thread commits what is settled, leaves the group and ends.
    fn drop(&mut self) {
        self.link.close();
    }
}
