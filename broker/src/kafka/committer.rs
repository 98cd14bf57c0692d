//! Commits positions on a thread of its own, which waits for the answers: the wrapper tells
//! nothing of commits that nobody waits for, and the fetching thread has no time to wait.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaResult;

use super::context::Client;
use super::start;
use super::state::{Commit, Link};
use crate::name::Topic;

/// The thread; dropping this waits for its last commit.
pub(super) struct Committer {
    jobs: Option<mpsc::Sender<Vec<Commit>>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn start(client: Arc<Client>, link: Arc<Link>, topic: Topic) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Vec<Commit>>();
        let thread = thread::Builder::new().name("kafka-commits".into()).spawn(move || {
            for commits in queue {
                let result = commit(&client, &topic, &commits);
                if let Err(error) = &result {
                    tracing::debug!(%error, %topic, "a commit failed and is repeated");
                }
                link.committed(&commits, result.is_ok());
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Commits soon; one call at a time, until the link's `committing` is false again.
    pub(super) fn commit(&self, commits: Vec<Commit>) {
        if let Some(jobs) = &self.jobs {
            // It fails only after a panic of the thread, and then the messages come again.
            let _ = jobs.send(commits);
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Commits and waits for the answer.
pub(super) fn commit(client: &Client, topic: &Topic, commits: &[Commit]) -> KafkaResult<()> {
    client.commit(&list(topic, commits)?, CommitMode::Sync)
}

/// The positions with their counts of starts.
pub(super) fn list(topic: &Topic, commits: &[Commit]) -> KafkaResult<TopicPartitionList> {
    start::places(topic.as_str(), commits.iter().map(|commit| (commit.number, commit.place)))
}
