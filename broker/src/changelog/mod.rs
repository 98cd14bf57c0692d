//! Keyed state whose truth is a compacted topic: the changelog.
//!
//! A [`Step`] publishes results, settles its input and writes state in one transaction of the
//! broker, so all of them happen once or not at all, whatever crashes. What is read comes from a
//! local store that is only a cache: it follows the changelog's partition and may be deleted at
//! any time. The state of a partition belongs to whoever is assigned the input's partition of
//! the same number; a [`Member`] brings it up to the changelog's end before it hands out the
//! partition's first delivery.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use broker::{changelog::*, Limit, Message, Outcome, Subscription};
//! # async fn example(
//! #     broker: std::sync::Arc<dyn broker::Broker>, words: broker::Topic, counts: broker::Topic,
//! #     group: broker::Group, state: broker::Topic,
//! # ) -> broker::Result<()> {
//! let changelog = Changelog::open(broker, Spec::new(&state, 4), "cache".as_ref()).await?;
//! let mut member = changelog.subscribe(Subscription::group(&words, &group)).await?;
//! loop {
//!     let deliveries = member.receive(Limit::new(100, Duration::from_secs(1))).await?;
//!     let mut step = member.step().await?;
//!     let mut outcomes = Vec::new();
//!     for delivery in deliveries {
//!         let word = delivery.key.clone().unwrap_or_default();
//!         let mut state = step.state(delivery.position().partition())?;
//!         let count = state.get(&word)?.map_or(0, |count| count[0]) + 1;
//!         state.put(word.clone(), vec![count])?;
//!         step.publish(&counts, vec![Message::new(vec![count]).with_key(word)]).await?;
//!         outcomes.push((delivery.into_token(), Outcome::Ack));
//!     }
//!     step.settle(outcomes).await?;
//!     step.commit().await?;
//! }
//! # }
//! ```
//!
//! It needs a broker with transactions. Where that cannot compact, a plain topic is made that
//! keeps everything, and a warning says so.

mod cache;
mod error;
mod member;
mod record;
mod replay;
mod step;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use member::Member;
pub use step::{State, Step, View};

use crate::contract::{Broker, TopicSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::BrokerExt;
use crate::name::Topic;
use crate::subscription::Subscription;
use cache::Cache;

/// How long a topic that cannot be compacted keeps the state: as good as for ever.
const RETENTION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Which topic holds the state.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The changelog; made where it is missing.
    pub topic: Topic,
    /// As many as the input has.
    pub partitions: u32,
    /// A cache that was not in use for so long is built anew. It must be less than the time for
    /// which the topic keeps tombstones, since the cache would miss those that are gone.
    pub cache_age_max: Duration,
}

impl Spec {
    /// A changelog whose cache may rest for 12 hours, half of what tombstones are kept for by
    /// default.
    pub fn new(topic: &Topic, partitions: u32) -> Self {
        let cache_age_max = Duration::from_secs(12 * 3600);
        Self { topic: topic.clone(), partitions, cache_age_max }
    }
}

/// What a changelog and its member share.
#[derive(Debug)]
struct Shared {
    broker: Arc<dyn Broker>,
    spec: Spec,
    cache: Cache,
    /// Held by the one member.
    membership: Arc<tokio::sync::Mutex<()>>,
}

/// Keyed state, ready to be joined to a consumer.
#[derive(Debug, Clone)]
pub struct Changelog(Arc<Shared>);

impl Changelog {
    /// Makes the topic where it is missing and opens the cache below `directory`, which belongs
    /// to this process alone. A cache that cannot be read is dropped with a warning.
    ///
    /// `Unsupported` where the broker lacks transactions, partitions or offsets, `ConfigInvalid`
    /// where the topic has another number of partitions, `InUse` where another process has the
    /// cache.
    pub async fn open(broker: Arc<dyn Broker>, spec: Spec, directory: &Path) -> Result<Self> {
        let capabilities = broker.capabilities();
        capabilities.require(capabilities.transactions, "transactions")?;
        capabilities.require(capabilities.partitions, "partitions")?;
        capabilities.require(capabilities.offset_seek, "offset_seek")?;
        broker.ensure_topic(&topic_spec(&spec, capabilities.compaction)).await?;
        check_partitions(&*broker, &spec.topic, spec.partitions).await?;
        let path = directory.join(format!("{}.cache", spec.topic));
        let cache = tokio::task::spawn_blocking(move || Cache::open(&path)).await;
        let cache = cache.map_err(|error| {
            let message = "opening the cache ended early";
            Error::new(ErrorKind::Unexpected, "open changelog", message).with_source(error)
        })??;
        let membership = Arc::default();
        Ok(Self(Arc::new(Shared { broker, spec, cache, membership })))
    }

    /// Joins a group whose members own the state of the partitions that they are assigned.
    ///
    /// `ConfigInvalid` where the input has another number of partitions, `Unsupported` for a
    /// reader, `InUse` while an earlier member of this changelog lives.
    pub async fn subscribe(&self, subscription: Subscription) -> Result<Member> {
        if subscription.group.is_none() {
            let message = "a reader without a group settles nothing and can own no state";
            return Err(Error::new(ErrorKind::Unsupported, "subscribe", message));
        }
        let broker = &self.0.broker;
        check_partitions(&**broker, &subscription.topic, self.0.spec.partitions).await?;
        let Ok(membership) = self.0.membership.clone().try_lock_owned() else {
            let message = "this changelog has a member already";
            let error = Error::new(ErrorKind::InUse, "subscribe", message);
            return Err(error.with("changelog", &self.0.spec.topic));
        };
        let ack_deadline = subscription.ack_deadline;
        let consumer = broker.subscribe(subscription).await?;
        Ok(Member::new(self.0.clone(), membership, consumer, ack_deadline))
    }
}

/// Without compaction nothing may be deleted: the oldest record may be a key's last.
fn topic_spec(spec: &Spec, compaction: bool) -> TopicSpec {
    let plain = TopicSpec::new(&spec.topic, spec.partitions);
    if compaction {
        return plain.compacted();
    }
    tracing::warn!(
        topic = %spec.topic,
        "the broker has no compaction: the changelog keeps every record and grows for ever"
    );
    TopicSpec { retention: Some(RETENTION), retention_bytes: Some(i64::MAX as u64 / 4), ..plain }
}

async fn check_partitions(broker: &dyn Broker, topic: &Topic, wanted: u32) -> Result<()> {
    let found = broker.admin().describe(topic).await?.partitions.len();
    if found == wanted as usize {
        return Ok(());
    }
    let message = format!("the topic has {found} partitions where the state has {wanted}");
    Err(Error::new(ErrorKind::ConfigInvalid, "open changelog", message).with("topic", topic))
}
