//! The one thread of a process that writes: it commits what is queued as one group.

use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::wake::Bell;
use crate::embedded::config::Config;
use crate::embedded::error::{from_io, from_sqlite};
use crate::embedded::schema;
use crate::error::{Error, ErrorKind, Result};

/// The most jobs that one commit holds.
const GROUP_MAX: usize = 1024;
/// How many jobs may wait before callers wait too.
const QUEUE_MAX: usize = 1024;

/// Why a job wrote nothing.
#[derive(Debug)]
pub(in crate::embedded) enum Failure {
    /// The job checked before it wrote, and refused; the others of its group go on.
    Refused(Error),
    /// SQLite failed: the whole group is rolled back.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// A refusal with a kind and words.
pub(in crate::embedded) fn refuse(
    kind: ErrorKind,
    operation: &'static str,
    message: impl Into<String>,
) -> Failure {
    Failure::Refused(Error::new(kind, operation, message))
}

trait Job: Send {
    /// Writes; `Err` asks for the group's rollback.
    fn apply(&mut self, connection: &Connection) -> Result<(), rusqlite::Error>;
    /// Answers the caller, once the group is committed or failed.
    fn finish(self: Box<Self>, group: Result<(), Error>);
}

struct Task<F, T> {
    work: Option<F>,
    done: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Job for Task<F, T>
where
    F: FnOnce(&Connection) -> Result<T, Failure> + Send,
    T: Send,
{
    fn apply(&mut self, connection: &Connection) -> Result<(), rusqlite::Error> {
        let Some(work) = self.work.take() else { return Ok(()) };
        match work(connection) {
            Ok(value) => self.done = Some(Ok(value)),
            Err(Failure::Refused(error)) => self.done = Some(Err(error)),
            Err(Failure::Sqlite(error)) => return Err(error),
        }
        Ok(())
    }

    fn finish(self: Box<Self>, group: Result<(), Error>) {
        let done = match (group, self.done) {
            (Ok(()), Some(done)) => done,
            (Ok(()), None) => Err(closed()),
            (Err(error), _) => Err(error),
        };
        // The caller may be gone; what was written stands all the same.
        let _ = self.reply.send(done);
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "write", "the broker was shut down")
}

/// The handle to the writing thread. When the last one is dropped the thread ends after
/// what is queued.
#[derive(Clone)]
pub(in crate::embedded) struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
    thread: Arc<std::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl Writer {
    /// Starts the thread with a connection of its own.
    pub(in crate::embedded) fn start(config: &Config) -> Result<Self> {
        let connection = schema::connect(config)?;
        let lock = schema::lock_file(&config.directory)?;
        let bell = Bell::open(&config.directory)?;
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("embedded-writer".into())
            .spawn(move || run(&connection, &lock, queue, &bell))
            .map_err(|error| from_io("open store", error))?;
        Ok(Self { jobs, thread: Arc::new(std::sync::Mutex::new(Some(thread))) })
    }

    /// Runs `work` in the next commit and returns its answer once that is durable. Dropping
    /// the future does not take the work back.
    pub(in crate::embedded) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Task { work: Some(work), done: None, reply };
        self.jobs.send(Box::new(task)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Queues `work` without waiting; dropped where the queue is full.
    pub(in crate::embedded) fn write_later<F>(&self, work: F)
    where
        F: FnOnce(&Connection) -> Result<(), Failure> + Send + 'static,
    {
        let (reply, _) = oneshot::channel();
        let task = Task { work: Some(work), done: None, reply };
        if self.jobs.try_send(Box::new(task)).is_err() {
            tracing::debug!("the writer is busy or gone; work that can wait was dropped");
        }
    }
}

fn run(connection: &Connection, lock: &File, mut queue: mpsc::Receiver<Box<dyn Job>>, bell: &Bell) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(job) = queue.try_recv()
        {
            group.push(job);
        }
        let committed = commit(connection, lock, &mut group);
        bell.ring();
        for job in group {
            let result = committed.as_ref().copied().map_err(Error::duplicate);
            job.finish(result);
        }
    }
}

fn commit(connection: &Connection, lock: &File, group: &mut [Box<dyn Job>]) -> Result<()> {
    lock.lock().map_err(|error| from_io("write", error))?;
    let done = apply(connection, group).map_err(|error| {
        // A rollback fails only where SQLite has rolled back by itself.
        let _ = connection.execute_batch("ROLLBACK");
        from_sqlite("write", error)
    });
    // Closing the file would release the lock too; failing to here cannot be acted on.
    let _ = lock.unlock();
    done
}

fn apply(connection: &Connection, group: &mut [Box<dyn Job>]) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    for job in group {
        job.apply(connection)?;
    }
    connection.prepare_cached("COMMIT")?.execute([]).map(drop)
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The last handle waits for the thread, so that the files are closed when the
        // broker is gone.
        if Arc::strong_count(&self.thread) > 1 {
            return;
        }
        let (closed, _) = mpsc::channel(1);
        self.jobs = closed;
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}
