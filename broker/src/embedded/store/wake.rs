//! How the reading thread learns at once that there is something to do: a request of its own
//! process, or a commit of any process.
//!
//! Requests come by a socket pair. Writers touch a file after each commit, and on Linux the
//! reader is told of that by inotify; elsewhere, and where inotify has no watch left, it polls.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::embedded::error::from_io;
use crate::error::Result;

fn path(directory: &Path) -> PathBuf {
    directory.join("commits")
}

/// Tells the readers of all processes that something was committed.
pub(super) struct Bell(File);

impl Bell {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let file = File::options().create(true).truncate(false).write(true).open(path(directory));
        file.map(Self).map_err(|error| from_io("open store", error))
    }

    pub(super) fn ring(&self) {
        // A reader that is not told, as with a full disk, looks by itself a little later.
        let _ = self.0.write_at(&[0], 0);
    }
}

/// Wakes the reader of this process; the last one that is dropped wakes it too.
#[derive(Clone)]
pub(super) struct Waker(Arc<Line>);

struct Line {
    socket: UnixStream,
    is_ringing: AtomicBool,
}

impl Waker {
    pub(super) fn wake(&self) {
        if !self.0.is_ringing.swap(true, Ordering::AcqRel) {
            // A full socket wakes as well as one byte more.
            let _ = (&self.0.socket).write(&[0]);
        }
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.wake();
    }
}

/// What the reading thread waits on.
pub(super) struct Ear {
    requests: UnixStream,
    line: Arc<Line>,
    commits: Option<OwnedFd>,
}

impl Ear {
    /// The ear, and what wakes it.
    pub(super) fn open(directory: &Path) -> Result<(Self, Waker)> {
        let io = |error| from_io("open store", error);
        let (requests, socket) = UnixStream::pair().map_err(io)?;
        requests.set_nonblocking(true).map_err(io)?;
        socket.set_nonblocking(true).map_err(io)?;
        let line = Arc::new(Line { socket, is_ringing: AtomicBool::new(false) });
        Bell::open(directory)?;
        let commits = watch(&path(directory));
        Ok((Self { requests, line: line.clone(), commits }, Waker(line)))
    }

    /// Whether commits of other processes are heard; else they must be looked for.
    pub(super) fn hears_commits(&self) -> bool {
        self.commits.is_some()
    }

    /// Waits for a request, and with a `limit` for a commit or the limit too.
    pub(super) fn wait(&mut self, limit: Option<Duration>) {
        let commits = self.commits.as_ref().filter(|_| limit.is_some());
        let fds = [Some(self.requests.as_fd()), commits.map(AsFd::as_fd)];
        let mut fds: Vec<PollFd<'_>> = fds
            .into_iter()
            .flatten()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        // An interrupted wait is a wait that ended early.
        let _ = poll(&mut fds, limit.as_ref());
        self.hear();
    }

    /// Forgets what woke the reader, before it looks.
    fn hear(&mut self) {
        let mut bytes = [0; 4096];
        while matches!(self.requests.read(&mut bytes), Ok(1..)) {}
        // Cleared behind the reading: whoever rings from now on leaves a byte.
        self.line.is_ringing.swap(false, Ordering::AcqRel);
        if let Some(commits) = &self.commits {
            while matches!(rustix::io::read(commits, &mut bytes), Ok(1..)) {}
        }
    }
}

#[cfg(target_os = "linux")]
fn watch(path: &Path) -> Option<OwnedFd> {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    let watch = || {
        let commits = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        add_watch(&commits, path, WatchFlags::MODIFY)?;
        Ok(commits)
    };
    let watched: Result<OwnedFd, std::io::Error> = watch();
    if let Err(error) = &watched {
        tracing::warn!(%error, "commits cannot be watched and are polled for");
    }
    watched.ok()
}

#[cfg(not(target_os = "linux"))]
fn watch(_: &Path) -> Option<OwnedFd> {
    None
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// How long to wait for what must come; only a broken machine reaches it.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Waits on the ear until `act` has woken it from another thread.
    fn assert_wakes(ear: &mut Ear, act: impl FnOnce() + Send) {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(act);
            ear.wait(Some(PATIENCE));
        });
        assert!(begun.elapsed() < PATIENCE, "nothing woke the ear");
    }

    #[test]
    fn a_request_a_commit_and_the_last_handle_wake_the_reader() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ear, waker) = Ear::open(directory.path()).unwrap();
        for _ in 0..100 {
            assert_wakes(&mut ear, || waker.wake());
            if ear.hears_commits() {
                let bell = Bell::open(directory.path()).unwrap();
                assert_wakes(&mut ear, || bell.ring());
            }
        }
        assert_wakes(&mut ear, || drop(waker));
    }

    #[test]
    fn what_rang_while_nobody_waited_is_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ear, waker) = Ear::open(directory.path()).unwrap();
        waker.wake();
        waker.wake();
        assert_wakes(&mut ear, || {});
        let begun = Instant::now();
        ear.wait(Some(Duration::from_millis(50)));
        assert!(begun.elapsed() >= Duration::from_millis(50), "one wait hears all that rang");
    }
}
