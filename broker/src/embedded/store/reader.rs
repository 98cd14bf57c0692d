//! The one thread of a process that reads and polls for all its consumers.
//!
//! Woken by a request or a commit, it asks SQLite's `data_version` (a read of shared memory)
//! whether anybody committed, and only then looks at the heads of the partitions that somebody
//! waits for. Where commits cannot be heard it polls, and idle it backs off to [`POLL_MAX`].

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::fetch::{Fetch, Fetched};
use super::wake::{Ear, Waker};
use crate::embedded::config::Config;
use crate::embedded::error::{from_io, from_sqlite};
use crate::embedded::schema;
use crate::error::{Error, ErrorKind, Result};

const POLL_MIN: Duration = Duration::from_micros(50);
const POLL_MAX: Duration = Duration::from_millis(5);
/// When to look where commits are heard: a process that died just behind its commit, or whose
/// disk is full, tells nobody.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

type Query = Box<dyn FnOnce(&Connection) + Send>;

enum Request {
    Fetch(Fetch, oneshot::Sender<Result<Vec<Fetched>>>),
    Query(Query),
}

/// The handle to the reading thread, which ends with its last handle.
#[derive(Clone)]
pub(in crate::embedded) struct Reader {
    requests: Sender<Request>,
    /// Dropped after `requests`, so that the thread wakes and finds them closed.
    waker: Waker,
}

impl Reader {
    /// Starts the thread with a connection of its own.
    pub(in crate::embedded) fn start(config: &Config) -> Result<Self> {
        let connection = schema::connect(config)?;
        let (sender, requests) = channel();
        let (ear, waker) = Ear::open(&config.directory)?;
        std::thread::Builder::new()
            .name("embedded-reader".into())
            .spawn(move || Poller::new(connection, ear).run(&requests))
            .map_err(|error| from_io("open store", error))?;
        Ok(Self { requests: sender, waker })
    }

    /// Waits until one of the wanted partitions has something, then returns it. Dropping the
    /// future forgets the wish.
    pub(in crate::embedded) async fn fetch(&self, fetch: Fetch) -> Result<Vec<Fetched>> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Fetch(fetch, reply))?;
        answer.await.map_err(|_| closed())?
    }

    /// Runs a query on a consistent view and returns its answer.
    pub(in crate::embedded) async fn query<T, F>(&self, query: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let run = move |connection: &Connection| {
            let _ = reply.send(query(connection));
        };
        self.send(Request::Query(Box::new(run)))?;
        let result = answer.await.map_err(|_| closed())?;
        result.map_err(|error| from_sqlite("read", error))
    }

    fn send(&self, request: Request) -> Result<()> {
        self.requests.send(request).map_err(|_| closed())?;
        self.waker.wake();
        Ok(())
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "read", "the broker was shut down")
}

struct Poller {
    connection: Connection,
    ear: Ear,
    waiting: VecDeque<(Fetch, oneshot::Sender<Result<Vec<Fetched>>>)>,
    version: i64,
    pause: Duration,
}

impl Poller {
    fn new(connection: Connection, ear: Ear) -> Self {
        Self { connection, ear, waiting: VecDeque::new(), version: -1, pause: POLL_MIN }
    }

    fn run(mut self, requests: &Receiver<Request>) {
        while let Some(mut look) = self.next(requests) {
            if self.waiting.is_empty() {
                continue;
            }
            look |= self.changed();
            if look {
                self.pause = POLL_MIN;
                self.serve();
            } else {
                self.pause = (self.pause * 3 / 2).min(POLL_MAX);
            }
        }
    }

    /// Waits for requests, and where somebody waits for messages for a commit too; returns
    /// whether to look though nobody committed, and nothing when all handles are gone.
    fn next(&mut self, requests: &Receiver<Request>) -> Option<bool> {
        let pause = if self.ear.hears_commits() { CHECK_INTERVAL } else { self.pause };
        self.ear.wait((!self.waiting.is_empty()).then_some(pause));
        let mut look = false;
        loop {
            match requests.try_recv() {
                Ok(request) => look |= self.accept(request),
                Err(TryRecvError::Empty) => return Some(look),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
    }

    /// Takes a request; true for one that wants to be looked for.
    fn accept(&mut self, request: Request) -> bool {
        match request {
            Request::Fetch(fetch, reply) => {
                self.waiting.push_back((fetch, reply));
                true
            }
            Request::Query(query) => {
                query(&self.connection);
                false
            }
        }
    }

    fn changed(&mut self) -> bool {
        let version = self
            .connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)));
        // A failing poll looks, so that the failure reaches whoever waits.
        let changed = version.as_ref().map_or(true, |version| *version != self.version);
        self.version = version.unwrap_or(-1);
        changed
    }

    fn serve(&mut self) {
        for _ in 0..self.waiting.len() {
            let Some((fetch, reply)) = self.waiting.pop_front() else { break };
            if reply.is_closed() {
                continue;
            }
            match fetch.run(&self.connection) {
                Ok(fetched) if fetched.is_empty() => self.waiting.push_back((fetch, reply)),
                answer => drop(reply.send(answer)),
            }
        }
    }
}
