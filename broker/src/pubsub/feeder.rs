//! The task that moves messages from Google's stream into a consumer's window.
//!
//! Google's client opens the stream, opens it anew after an outage for as long as it takes, and
//! extends the lease of every message that it handed over. The task ends when its consumer is
//! dropped, when the broker shuts down, or when the service refuses; then it gives back what is
//! open, waits until acknowledgements are sent, and deletes the subscription of a reader.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Either, select};
use google_cloud_pubsub::client::Subscriber;
use google_cloud_pubsub::model::Message as PubsubMessage;
use google_cloud_pubsub::subscriber::handler::Handler;
use google_cloud_pubsub::subscriber::{MessageStream, ShutdownBehavior};
use tokio::time::timeout;

use super::broker::Inner;
use super::error::translate;
use super::seat::{self, Seat};
use super::state::Link;
use crate::error::{Error, ErrorKind};

/// The most messages that are taken into the window at once.
const TAKE_MAX: usize = 1000;
/// How long the last acknowledgements may take.
const FLUSH_MAX: Duration = Duration::from_secs(10);
/// How long a lease is extended in all: the window says when a message comes again.
const LEASE_TOTAL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(super) struct Feeder {
    inner: Arc<Inner>,
    link: Arc<Link>,
    seat: Seat,
    /// Kept for its connection, which ends with the task.
    _client: Subscriber,
    stream: MessageStream,
}

impl Feeder {
    pub(super) fn new(inner: Arc<Inner>, link: Arc<Link>, seat: Seat, client: Subscriber) -> Self {
        let messages = i64::try_from(link.wish.in_flight_max.max(1)).unwrap_or(i64::MAX);
        // What the caller holds is bounded by the window. Here a larger message must pass too.
        let bytes = link.wish.in_flight_bytes_max.max(inner.config.message_bytes_max);
        let stream = client
            .subscribe(&seat.path)
            .set_max_outstanding_messages(messages)
            .set_max_outstanding_bytes(i64::try_from(bytes).unwrap_or(i64::MAX))
            .set_max_lease_extension(inner.config.lease)
            .set_max_lease(LEASE_TOTAL_MAX)
            .set_shutdown_behavior(ShutdownBehavior::NackImmediately)
            .build();
        Self { inner, link, seat, _client: client, stream }
    }

    pub(super) async fn run(mut self) {
        /// Tells that the task is over, however it ended.
        struct Ended(Arc<Link>);
        impl Drop for Ended {
            fn drop(&mut self) {
                self.0.ended.send_replace(true);
            }
        }
        let ended = Ended(self.link.clone());
        self.feed().await;
        self.leave().await;
        drop(ended);
    }

    async fn feed(&mut self) {
        let link = self.link.clone();
        let mut stop = link.stop.subscribe();
        let mut stop = pin!(stop.wait_for(|stop| *stop));
        loop {
            let room = link.lock().room();
            if room == 0 {
                if let Either::Right(_) = select(pin!(link.room.notified()), &mut stop).await {
                    return;
                }
                continue;
            }
            let came = match select(pin!(self.stream.next()), &mut stop).await {
                Either::Left((came, _)) => came,
                Either::Right(_) => return,
            };
            match came {
                Some(Ok(first)) => {
                    let came = self.gather(first, room.min(TAKE_MAX));
                    link.lock().put(came);
                    link.arrived.notify_one();
                }
                Some(Err(error)) => {
                    let error = translate("receive", error);
                    return link.end(error.with("topic", &link.wish.topic));
                }
                None => {
                    let problem = "the stream has ended";
                    return link.end(Error::new(ErrorKind::Unavailable, "receive", problem));
                }
            }
        }
    }

    /// What is there already, so that a thousand messages take one lock and not a thousand.
    fn gather(
        &mut self,
        first: (PubsubMessage, Handler),
        most: usize,
    ) -> Vec<(PubsubMessage, Handler)> {
        let mut all = vec![first];
        while all.len() < most {
            // An error comes again by itself at the next call.
            let Some(Some(Ok(more))) = self.stream.next().now_or_never() else { break };
            all.push(more);
        }
        all
    }

    async fn leave(self) {
        let Self { inner, link, seat, _client, mut stream } = self;
        link.lock().clear();
        // What waits in the client is behind that; the client itself would mix it up.
        let mut last = 0;
        while let Some(Some(Ok(_))) = stream.next().now_or_never() {
            last += 1;
            if last == TAKE_MAX {
                break;
            }
        }
        let sent = stream.shutdown_token();
        drop(stream);
        if timeout(FLUSH_MAX, sent.shutdown()).await.is_err() {
            tracing::warn!(subscription = seat.path, "the last acknowledgements took too long");
        }
        if link.wish.group.is_none()
            && let Err(error) = seat::give_up(&inner, &seat.path).await
        {
            let expires = "it expires a day after its last use";
            tracing::warn!(
                ?error,
                subscription = seat.path,
                expires,
                "a reader's subscription is left"
            );
        }
    }
}
