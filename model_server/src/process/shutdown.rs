//! The wish to end: the first signal asks for draining, the second ends at once.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::failure::Reason;

/// The exit code of a process that a person stopped twice.
const STOPPED: i32 = 130;

/// Tells whether the process should end. Clones tell the same.
#[derive(Debug, Clone)]
pub struct Shutdown {
    wanted: watch::Receiver<bool>,
}

impl Shutdown {
    /// Listens to SIGTERM and SIGINT. Draining that takes longer than `grace` ends the process.
    pub(super) fn on_signals(grace: Duration) -> io::Result<Self> {
        let (ask, wanted) = watch::channel(false);
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // It lives as long as the process, whose end it may be.
        tokio::spawn(listen(term, int, ask, grace));
        Ok(Self { wanted })
    }

    /// One that its owner asks for: for programs that run inside another.
    pub fn manual() -> (watch::Sender<bool>, Self) {
        let (ask, wanted) = watch::channel(false);
        (ask, Self { wanted })
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
