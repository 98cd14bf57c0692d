//! The one thread of a process that reads and polls for all its consumers.
//!
//! It asks SQLite's `data_version` (a read of shared memory) whether anybody committed, and
//! only then looks at the heads of the partitions that somebody waits for. Idle, it backs
//! off to [`IDLE_MAX`].

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::fetch::{Fetch, Fetched};
use crate::embedded::config::Config;
use crate::embedded::error::{from_io, from_sqlite};
use crate::embedded::schema;
use crate::error::{Error, ErrorKind, Result};

const IDLE_MIN: Duration = Duration::from_micros(50);
const IDLE_MAX: Duration = Duration::from_millis(5);

type Query = Box<dyn FnOnce(&Connection) + Send>;

enum Request {
    Fetch(Fetch, oneshot::Sender<Result<Vec<Fetched>>>),
    Query(Query),
    Wake,
}

/// The handle to the reading thread, which ends with its last handle.
#[derive(Clone)]
pub(in crate::embedded) struct Reader(Sender<Request>);

impl Reader {
    /// Starts the thread with a connection of its own.
    pub(in crate::embedded) fn start(config: &Config) -> Result<Self> {
        let connection = schema::connect(config)?;
        let (sender, requests) = channel();
        std::thread::Builder::new()
            .name("embedded-reader".into())
            .spawn(move || Poller::new(connection).run(&requests))
            .map_err(|error| from_io("open store", error))?;
        Ok(Self(sender))
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

    /// Tells that this process committed something.
    pub(super) fn wake(&self) {
        let _ = self.0.send(Request::Wake);
    }

    fn send(&self, request: Request) -> Result<()> {
        self.0.send(request).map_err(|_| closed())
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "read", "the broker was shut down")
}

struct Poller {
    connection: Connection,
    waiting: VecDeque<(Fetch, oneshot::Sender<Result<Vec<Fetched>>>)>,
    version: i64,
    idle: Duration,
}

impl Poller {
    fn new(connection: Connection) -> Self {
        Self { connection, waiting: VecDeque::new(), version: -1, idle: IDLE_MIN }
    }

    fn run(mut self, requests: &Receiver<Request>) {
        while let Some(mut look) = self.next(requests) {
            while let Ok(request) = requests.try_recv() {
                look |= self.accept(request);
            }
            if self.waiting.is_empty() {
                continue;
            }
            look |= self.changed();
            if look {
                self.idle = IDLE_MIN;
                self.serve();
            } else {
                self.idle = (self.idle * 3 / 2).min(IDLE_MAX);
            }
        }
    }

    /// Waits for a request, or for the next poll where somebody waits for messages; returns
    /// whether to look at once, and nothing when all handles are gone.
    fn next(&mut self, requests: &Receiver<Request>) -> Option<bool> {
        if self.waiting.is_empty() {
            return requests.recv().ok().map(|request| self.accept(request));
        }
        match requests.recv_timeout(self.idle) {
            Ok(request) => Some(self.accept(request)),
            Err(RecvTimeoutError::Timeout) => Some(false),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn accept(&mut self, request: Request) -> bool {
        match request {
            Request::Fetch(fetch, reply) => self.waiting.push_back((fetch, reply)),
            Request::Query(query) => query(&self.connection),
            Request::Wake => {}
        }
        true
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
