//! A transaction's settlements: what they come to before it is committed, and what becomes of
//! them after. In between no other commit moves a position.

use std::collections::{BTreeMap, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::{Commit, Link, State};
use crate::delivery::{AckToken, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::start::Place;

/// No delivery comes again while it is being settled; longer than any commit is tried.
const COMMIT_MAX: Duration = Duration::from_secs(24 * 3600);

impl Link {
    /// The positions that a transaction commits once no other commit is on its way; from then
    /// on there is none until [`State::end_transaction`].
    pub(in crate::kafka) fn begin_transaction(
        &self,
        outcomes: &[(AckToken, Outcome)],
        wait_max: Duration,
    ) -> Result<Vec<Commit>> {
        let waited = self.idle.wait_timeout_while(self.lock(), wait_max, |state| state.committing);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            let problem = format!("no broker took the group's positions for {wait_max:?}");
            return Err(Error::new(ErrorKind::Unavailable, "commit", problem));
        }
        state.begin_transaction(outcomes)
    }
}

impl State {
    fn begin_transaction(&mut self, outcomes: &[(AckToken, Outcome)]) -> Result<Vec<Commit>> {
        self.check_open("commit")?;
        let acks = outcomes.iter().filter(|(_, outcome)| !matches!(outcome, Outcome::Retry { .. }));
        let acks: HashSet<(u32, u64, u32)> = acks.map(|(token, _)| delivery_of(token)).collect();
        let mut commits = BTreeMap::new();
        for (token, outcome) in outcomes {
            let (number, offset, attempt) = delivery_of(token);
            let partition = self.of(token).filter(|p| p.window.is_open(offset, attempt));
            let partition = partition.ok_or_else(|| stale(token))?;
            if matches!(outcome, Outcome::Retry { .. }) {
                continue;
            }
            let commit = commits.entry(number).or_insert_with(|| {
                let settled = |offset, attempt| acks.contains(&(number, offset, attempt));
                let place = Place { offset: partition.window.settled_with(settled), starts: 1 };
                Commit { number, assignment: partition.assignment, place, counts: true }
            });
            if commit.place.offset <= offset {
                return Err(gap(token));
            }
        }
        for (token, _) in outcomes {
            if let Some(partition) = self.of(token) {
                let until = Instant::now() + COMMIT_MAX;
                partition.window.postpone(token.position.offset(), token.attempt, until);
            }
        }
        self.transacting = true;
        Ok(commits.into_values().collect())
    }

    /// Settles what a transaction settled, or brings it again where the transaction failed.
    pub(in crate::kafka) fn end_transaction(
        &mut self,
        outcomes: &[(AckToken, Outcome)],
        committed: Option<&[Commit]>,
    ) {
        self.transacting = false;
        let Some(commits) = committed else { return self.reopen(outcomes) };
        for commit in commits {
            if let Some(partition) = self.assigned(commit.number, commit.assignment) {
                partition.committed = Some(commit.place);
            }
        }
        self.committed(commits);
        self.settle(outcomes);
    }

    /// Brings deliveries again that a transaction was to settle.
    pub(in crate::kafka) fn reopen(&mut self, outcomes: &[(AckToken, Outcome)]) {
        for (token, _) in outcomes {
            if let Some(partition) = self.of(token) {
                partition.window.reopen(token.position.offset(), token.attempt);
            }
        }
    }
}

fn delivery_of(token: &AckToken) -> (u32, u64, u32) {
    (token.position.partition(), token.position.offset(), token.attempt)
}

fn stale(token: &AckToken) -> Error {
    let problem = "the delivery is of an earlier assignment, or came again; its token is stale";
    Error::new(ErrorKind::Fenced, "commit", problem).with("position", token.position)
}

fn gap(token: &AckToken) -> Error {
    let problem = "a transaction must settle all that precedes its last delivery, else a crash \
                   would bring published work again";
    Error::new(ErrorKind::Unsupported, "commit", problem).with("position", token.position)
}
