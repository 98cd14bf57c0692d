//! Subscriptions as consumers need them: found or made, placed at the start, and given up.

use std::time::Duration;

use google_cloud_gax::error::Error as GoogleError;
use google_cloud_gax::error::rpc::Code;
use google_cloud_pubsub::model::{ExpirationPolicy, Subscription as PubsubSubscription};
use google_cloud_wkt::{Duration as WireDuration, Timestamp as WireTimestamp};

use super::broker::Inner;
use super::error::translate;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Timestamp;
use crate::subscription::{Start, Subscription};

/// The topic of a subscription whose own is gone.
const DELETED_TOPIC: &str = "_deleted-topic_";
/// The label that keeps the millisecond before which a group on an emulator wants nothing.
const SINCE: &str = "forebay-since";
/// How long a reader's subscription outlives a process that died; the least that there is.
const READER_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a new start at the latest rests, so that what follows has a later millisecond.
const MOMENT: Duration = Duration::from_millis(2);

/// A subscription to consume from.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    /// Its full name.
    pub(super) path: String,
    /// Messages up to this time, in milliseconds, are passed over.
    pub(super) since: Option<i64>,
}

/// Finds or makes the subscription of a group, or makes one for a reader.
///
/// A start serves only a subscription that is new. `Unsupported` for an offset or a time.
pub(super) async fn take(inner: &Inner, wish: &Subscription) -> Result<Seat> {
    let start = wish.start;
    if !matches!(start, Start::Earliest | Start::Latest) {
        let problem = "pubsub starts at the earliest or the latest alone";
        let error = Error::new(ErrorKind::Unsupported, "subscribe", problem);
        return Err(error.with("start", format!("{start:?}")));
    }
    let project = &inner.config.project;
    let topic = project.topic("subscribe", &wish.topic)?;
    let Some(group) = &wish.group else {
        return make(inner, &topic, project.reader(&wish.topic), wish, READER_EXPIRY.into()).await;
    };
    let path = project.group("subscribe", &wish.topic, group)?;
    if let Some(seat) = find(inner, &path).await? {
        return Ok(seat);
    }
    match make(inner, &topic, path.clone(), wish, None).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let gone = || Error::new(ErrorKind::Unavailable, "subscribe", "the group is deleted");
            find(inner, &path).await?.ok_or_else(gone)
        }
        made => made,
    }
}

/// Deletes a subscription; one that is gone already is fine.
pub(super) async fn give_up(inner: &Inner, path: &str) -> Result<()> {
    let delete = inner.clients.subscriptions.delete_subscription().set_subscription(path);
    match delete.send().await {
        Err(error) if !is_not_found(&error) => Err(translate("delete subscription", error)),
        _ => Ok(()),
    }
}

async fn find(inner: &Inner, path: &str) -> Result<Option<Seat>> {
    let get = inner.clients.subscriptions.get_subscription().set_subscription(path);
    let found = match get.send().await {
        Ok(found) => found,
        Err(error) if is_not_found(&error) => return Ok(None),
        Err(error) => return Err(translate("subscribe", error)),
    };
    if found.topic == DELETED_TOPIC {
        give_up(inner, path).await?;
        return Ok(None);
    }
    let since = found.labels.get(SINCE).and_then(|millis| millis.parse().ok());
    Ok(Some(Seat { path: path.to_owned(), since }))
}

async fn make(
    inner: &Inner,
    topic: &str,
    path: String,
    wish: &Subscription,
    expiry: Option<Duration>,
) -> Result<Seat> {
    // An emulator gives a new subscription all that is retained, where Pub/Sub gives nothing.
    let from_now = wish.start == Start::Latest && inner.config.emulator.is_some();
    let since = from_now.then(|| Timestamp::now().as_micros() / 1000);
    let wanted = PubsubSubscription::new()
        .set_name(&path)
        .set_topic(topic)
        .set_ack_deadline_seconds(i32::try_from(inner.config.lease.as_secs()).unwrap_or(i32::MAX))
        .set_message_retention_duration(wire(inner.config.retention))
        .set_enable_message_ordering(true)
        .set_enable_exactly_once_delivery(inner.config.exactly_once && wish.group.is_some())
        .set_expiration_policy(ExpirationPolicy::new().set_or_clear_ttl(expiry.map(wire)))
        .set_labels(since.map(|millis| (SINCE, millis.to_string())));
    let create = inner.clients.subscriptions.create_subscription().with_request(wanted);
    create
        .send()
        .await
        .map_err(|error| translate("subscribe", error).with("topic", &wish.topic))?;
    if from_now {
        tokio::time::sleep(MOMENT).await;
    }
    let seat = Seat { path, since };
    if wish.start == Start::Earliest && inner.config.emulator.is_none() {
        rewind(inner, &seat).await?;
    }
    Ok(seat)
}

/// Places a new subscription before all that its topic retains.
async fn rewind(inner: &Inner, seat: &Seat) -> Result<()> {
    let seek = inner.clients.subscriptions.seek().set_subscription(&seat.path);
    let Err(error) = seek.set_time(WireTimestamp::clamp(0, 0)).send().await else { return Ok(()) };
    // Made anew it would not be rewound.
    give_up(inner, &seat.path).await?;
    Err(translate("subscribe", error).with("subscription", &seat.path))
}

/// A duration as Pub/Sub's API writes it.
pub(super) fn wire(duration: Duration) -> WireDuration {
    WireDuration::clamp(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), 0)
}

fn is_not_found(error: &GoogleError) -> bool {
    error.status().is_some_and(|status| status.code == Code::NotFound)
}
