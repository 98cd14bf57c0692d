//! The wish to end: the first signal asks for draining, the second ends at once. And the word
//! that a program has begun to serve, which the admin endpoint passes on.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use broker::{Broker, Group, Topic};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::failure::Reason;

/// The exit code of a process that a person stopped twice.
const STOPPED: i32 = 130;

/// Tells whether the process should end. Clones tell the same.
#[derive(Debug, Clone)]
pub struct Shutdown {
    wanted: watch::Receiver<bool>,
    served: Arc<OnceLock<Served>>,
}

/// What a program that is ready serves.
pub(super) struct Served {
    pub(super) broker: Arc<dyn Broker>,
    /// The groups that the program is in, whose lag is of interest.
    pub(super) groups: Vec<(Topic, Group)>,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl Shutdown {
    /// Listens to SIGTERM and SIGINT. Draining that takes longer than `grace` ends the process.
    pub(super) fn on_signals(grace: Duration) -> io::Result<Self> {
        let (ask, wanted) = watch::channel(false);
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // It lives as long as the process, whose end it may be.
        tokio::spawn(listen(term, int, ask, grace));
        Ok(Self { wanted, served: Arc::default() })
    }

    /// One that its owner asks for: for programs that run inside another.
    pub fn manual() -> (watch::Sender<bool>, Self) {
        let (ask, wanted) = watch::channel(false);
        (ask, Self { wanted, served: Arc::default() })
    }

    /// Says that the program has begun to serve, with the groups that it is in.
    pub fn ready(&self, broker: &Arc<dyn Broker>, groups: &[(&Topic, &Group)]) {
        let groups = groups.iter().map(|(topic, group)| ((*topic).clone(), (*group).clone()));
        let served = Served { broker: broker.clone(), groups: groups.collect() };
        // A program that says so twice is as ready as before.
        let _ = self.served.set(served);
    }

    pub(super) fn served(&self) -> Option<&Served> {
        self.served.get()
    }

    /// Whether the process should end.
    pub fn is_wanted(&self) -> bool {
        *self.wanted.borrow()
    }

    /// Returns once the process should end.
    pub async fn wanted(&mut self) {
        if self.wanted.wait_for(|wanted| *wanted).await.is_err() {
            // Nobody is left to ask.
            std::future::pending::<()>().await;
        }
    }
}

async fn listen(mut term: Signal, mut int: Signal, ask: watch::Sender<bool>, grace: Duration) {
    either(&mut term, &mut int).await;
    tracing::info!("draining; a second signal ends at once");
    ask.send_replace(true);
    let second = tokio::time::timeout(grace, either(&mut term, &mut int)).await;
    if second.is_ok() {
        std::process::exit(STOPPED);
    }
    eprintln!("error: draining took longer than {grace:?}");
    std::process::exit(Reason::Grace as i32);
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
