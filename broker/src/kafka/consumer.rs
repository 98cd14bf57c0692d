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
use super::orphans::Orphans;
use super::start;
use super::state::{Link, Move};
use super::transaction::{self, KafkaTransaction, Source};
use crate::contract::{Consumer, Transaction};
use crate::delivery::{AckToken, Delivery, Outcome, Unsettled};
use crate::error::{Error, ErrorKind, Result};
use crate::subscription::{Event, Limit, Seek, Start, Subscription};
use crate::window::Bounds;

pub(super) struct KafkaConsumer {
    source: Source,
    is_reader: bool,
}

/// Opens a consumer; a topic that is missing is `NotFound`.
pub(super) async fn subscribe(
    inner: Arc<Inner>,
    subscription: Subscription,
) -> Result<KafkaConsumer> {
    let partitions = inner.control.partitions("subscribe", &subscription.topic).await?;
    let link = Arc::new(Link::new(Bounds::from(&subscription), subscription.group.is_none()));
    let group = subscription.group.as_ref().map_or("", |group| group.as_str());
    let id =
        transaction::transactional_id(group, &subscription.topic, subscription.instance.as_deref());
    let topic = subscription.topic.clone();
    let source = Source { inner: inner.clone(), link: link.clone(), topic, id };
    // From here on dropping this closes whatever was opened.
    let consumer = KafkaConsumer { source, is_reader: subscription.group.is_none() };
    let source = consumer.source.clone();
    blocking("subscribe", move || open(source, &subscription, &partitions)).await?;
    Ok(consumer)
}

fn open(source: Source, subscription: &Subscription, partitions: &[u32]) -> Result<()> {
    let topic = &subscription.topic;
    let (inner, link) = (source.inner.clone(), source.link.clone());
    let failed = |error| translate("subscribe", error).with("topic", topic);
    let client = Arc::new(client(&inner, subscription, link.clone()).map_err(failed)?);
    link.client.get_or_init(|| Arc::downgrade(&client));
    let mut plan = Plan {
        topic: topic.clone(),
        start: subscription.start,
        is_reader: subscription.group.is_none(),
        begins: Vec::new(),
        latest: BTreeMap::new(),
        commit_interval: inner.config.commit_interval.max(Duration::from_millis(1)),
        outage_max: inner.config.outage_max,
        heritage: subscription.instance.is_some().then_some(source),
        orphans: orphans(&inner, subscription, partitions),
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

fn orphans(inner: &Inner, subscription: &Subscription, partitions: &[u32]) -> Option<Orphans> {
    let group = subscription.group.as_ref()?;
    let is_classic = !inner.config.is_new_protocol();
    let watches = is_classic && subscription.instance.is_some();
    watches.then(|| Orphans::new(group, &subscription.topic, partitions))
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
    let mut client: BaseConsumer<Context> = {
        let context = Context::new(inner.config.tokens());
        settings.create_with_context(context)?
    };
    client.set_nonempty_callback(move || link.wake());
    Ok(client)
}

/// librdkafka consumes only with a group's name; a reader never joins or commits to it. Members
/// must not be told of ends: taken from a queue, one moves librdkafka's own position (2.12.1,
/// `rd_kafka_q_serve_rkmessages`), and the next rebalance resumes behind the message to come.
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

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn receive(&mut self, limit: Limit) -> Result<Vec<Delivery>> {
        let Source { link, topic, .. } = &self.source;
        let until = Instant::now() + limit.wait;
        loop {
            let (taken, wake, is_starved) = {
                let mut state = link.lock();
                (state.take(topic, limit.messages), state.next_wake(), state.should_wake())
            };
            if is_starved {
                link.wake();
            }
            if let Some(taken) = taken {
                return taken;
            }
            if Instant::now() >= until {
                return Ok(Vec::new());
            }
            let wake = wake.map_or(until, |wake| wake.min(until));
            // Running out of time is answered by looking again.
            let _ = timeout_at(wake, link.arrived.notified()).await;
        }
    }

    async fn settle(&mut self, outcomes: Vec<(AckToken, Outcome)>) -> Vec<Unsettled> {
        let (closed, is_starved) = {
            let mut state = self.source.link.lock();
            if state.is_closed() {
                (state.check_open("settle").err(), false)
            } else {
                state.settle(&outcomes);
                (None, state.should_wake())
            }
        };
        if is_starved {
            self.source.link.wake();
        }
        let Some(error) = closed else { return Vec::new() };
        let unsettled = outcomes.into_iter();
        let unsettled = unsettled.map(|(token, outcome)| Unsettled {
            token,
            outcome,
            error: error.duplicate(),
        });
        unsettled.collect()
    }

    async fn extend(&mut self, tokens: &[&AckToken], by: Duration) -> Result<()> {
        let mut state = self.source.link.lock();
        state.check_open("extend")?;
        state.extend(tokens, Instant::now() + by);
        Ok(())
    }

    async fn seek(&mut self, seek: Seek) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.source.link.lock();
            state.check_open("seek")?;
            state.sought(&seek)?;
            state.moves.push_back(Move { seek, reply });
        }
        self.source.link.wake();
        let gone = |_| Error::new(ErrorKind::Closed, "seek", "the consumer was shut down");
        answer.await.map_err(gone)?
    }

    async fn transaction(&mut self) -> Result<Box<dyn Transaction + '_>> {
        if self.is_reader {
            let problem = "a reader without a group settles nothing and has no transactions";
            return Err(Error::new(ErrorKind::Unsupported, "transaction", problem));
        }
        Ok(Box::new(KafkaTransaction::begin(&self.source).await?))
    }

    fn events(&mut self) -> Vec<Event> {
        self.source.link.lock().take_events()
    }
}

impl fmt::Debug for KafkaConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConsumer").field("topic", &self.source.topic).finish_non_exhaustive()
    }
}

impl Drop for KafkaConsumer {
    /// The thread commits what is settled, leaves the group and ends.
    fn drop(&mut self) {
        self.source.link.close();
    }
}
