//! Runs functions over subscriptions.
//!
//! ```no_run
//! use broker::router::Router;
//! use broker::{Delivery, Failure, Group, Policy, Subscription, Topic};
//! # use std::sync::Arc;
//!
//! async fn greet(delivery: &Delivery) -> Result<(), Failure> {
//!     println!("hello {}", std::str::from_utf8(&delivery.payload)?);
//!     Ok(())
//! }
//!
//! # async fn example(broker: Arc<dyn broker::Broker>, stop: impl Future) -> broker::Result<()> {
//! let greeters = Subscription::group(&Topic::new("names")?, &Group::new("greeters")?);
//! Router::new(broker)
//!     .concurrency(8)
//!     .policy(Policy::default().with_attempts(3))
//!     .handle(greeters, greet)
//!     .run_until(stop)
//!     .await
//! # }
//! ```
//!
//! Of each subscription up to [`concurrency`](Router::concurrency) messages are processed at
//! once. Those of a key keep their order: the next one runs when the one before is settled for
//! good, retries included. Only what is settled without a gap is committed, so that a crash
//! brings back all that was open. The router keeps deadlines from passing while handlers run,
//! takes panics for failures, and connects anew with growing pauses while the broker is away.

mod board;
mod handler;
mod queue;
mod route;
mod work;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;

pub use handler::{BatchHandler, Handler};

use crate::contract::Broker;
use crate::error::Result;
use crate::policy::Policy;
use crate::subscription::Subscription;
use route::{Route, Terms};
use work::{Batches, Singles};

/// How long handlers may go on after the wish to stop, unless told otherwise.
const GRACE: Duration = Duration::from_secs(30);

/// Runs handlers over subscriptions; see the [module](self).
pub struct Router {
    terms: Terms,
    routes: Vec<Route>,
}

impl Router {
    /// A router without handlers, which runs one message at a time of each subscription.
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        let terms = Terms { broker, concurrency: 1, policy: None, grace: GRACE };
        Self { terms, routes: Vec::new() }
    }

    /// Sets how many messages of each subscription are processed at once; at least one.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.terms.concurrency = concurrency.max(1);
        self
    }

    /// Sets what becomes of failures, for subscriptions without a policy of their own.
    ///
    /// Without either, failures are retried as [`Policy::default`] says, and dead letters go
    /// where the broker's own policy sends them.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.terms.policy = Some(policy);
        self
    }

    /// Sets how long handlers may go on after the wish to stop (30 s).
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.terms.grace = grace;
        self
    }

    /// Adds a handler for the messages of a subscription, which must have a group.
    #[must_use]
    pub fn handle(mut self, subscription: Subscription, handler: impl Handler) -> Self {
        let serve = Box::new(Singles(Arc::new(handler)));
        self.routes.push(Route { subscription, serve });
        self
    }

    /// Adds a handler for batches of up to `size` messages: as many as there are, without
    /// waiting for more.
    #[must_use]
    pub fn handle_batch(
        mut self,
        subscription: Subscription,
        size: usize,
        handler: impl BatchHandler,
    ) -> Self {
        let serve = Box::new(Batches(Arc::new(handler), size.max(1)));
        self.routes.push(Route { subscription, serve });
        self
    }

    /// Runs until `shutdown` is ready, then drains: no more is received, handlers at work have
    /// the grace period to end, what they did is settled, and the rest is given back.
    ///
    /// Ends earlier with the first error that no retry helps, such as a missing topic, after it
    /// has drained too. Dropping the future stops everything at once; what was open comes again.
    pub async fn run_until<F: Future>(self, shutdown: F) -> Result<()> {
        let (stop, wanted) = watch::channel(false);
        let run = |route: Route| route.run(self.terms.clone(), wanted.clone());
        let mut routes: FuturesUnordered<_> = self.routes.into_iter().map(run).collect();
        let mut shutdown = pin!(shutdown.map(drop).fuse());
        let mut result = Ok(());
        loop {
            futures::select_biased! {
                ended = routes.next() => match ended {
                    None => return result,
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        stop.send_replace(true);
                        result = result.and(Err(error));
                    }
                },
                () = shutdown => drop(stop.send_replace(true)),
            }
        }
    }

    /// Runs until an error that no retry helps.
    pub async fn run(self) -> Result<()> {
        self.run_until(std::future::pending::<()>()).await
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics: Vec<_> = self.routes.iter().map(|route| &route.subscription.topic).collect();
        f.debug_struct("Router")
            .field("concurrency", &self.terms.concurrency)
            .field("topics", &topics)
            .finish_non_exhaustive()
    }
}
