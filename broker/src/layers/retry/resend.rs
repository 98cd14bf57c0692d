//! Which messages of a batch may be published again: the rule alone, without any waiting.

use std::collections::HashSet;

use super::{Duplicates, passes};
use crate::contract::Published;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;

/// The messages of one call, with what became of each so far.
pub(super) struct Resend {
    duplicates: Duplicates,
    messages: Vec<Message>,
    /// Empty until answers came.
    results: Vec<Published>,
    /// The messages of the next try, in their order.
    open: Vec<usize>,
}

impl Resend {
    pub(super) fn new(messages: Vec<Message>, duplicates: Duplicates) -> Self {
        let open = (0..messages.len()).collect();
        Self { duplicates, messages, results: Vec::new(), open }
    }

    /// What to publish next. Keys, payloads and headers are shared, not copied.
    pub(super) fn batch(&self) -> Vec<Message> {
        self.open.iter().map(|index| self.messages[*index].clone()).collect()
    }

    /// Takes the answers of a try; returns the first failure that is worth another.
    pub(super) fn take(&mut self, mut answers: Vec<Published>) -> Option<Error> {
        let is_whole = self.results.is_empty() && answers.len() == self.messages.len();
        if is_whole && answers.iter().all(is_written) {
            self.results = answers;
            return None;
        }
        let open = std::mem::take(&mut self.open);
        answers.truncate(open.len());
        let keys: Vec<Option<&[u8]>> =
            open.iter().map(|index| self.messages[*index].key.as_deref()).collect();
        let again = match self.duplicates {
            Duplicates::Deny => unwritten(&keys, &answers),
            Duplicates::Allow => from_first_failure(&keys, &answers),
        };
        let failed = answers.iter().zip(&again).find(|(_, again)| **again);
        let failed = failed.and_then(|(answer, _)| error_of(answer)).map(Error::duplicate);
        self.open = open.iter().zip(again).filter(|(_, again)| *again).map(|(i, _)| *i).collect();
        self.note(&open, answers);
        failed
    }

    fn note(&mut self, open: &[usize], answers: Vec<Published>) {
        if self.results.is_empty() {
            self.results = self.messages.iter().map(|_| Published::Unknown(no_answer())).collect();
        }
        for (index, answer) in open.iter().zip(answers) {
            // What was written stays so, though its repetition failed.
            if is_written(&answer) || !is_written(&self.results[*index]) {
                self.results[*index] = answer;
            }
        }
    }

    /// What is known of each message, or the error of a call of which nothing was ever tried.
    pub(super) fn give_up(self, error: Error) -> Result<Vec<Published>> {
        if self.results.is_empty() { Err(error) } else { Ok(self.results) }
    }

    /// What became of each message.
    pub(super) fn into_results(self) -> Vec<Published> {
        self.results
    }
}

/// What is not written and may be written now without breaking the order of its key.
fn unwritten(keys: &[Option<&[u8]>], answers: &[Published]) -> Vec<bool> {
    let mut again = vec![false; answers.len()];
    // Backwards: a later message of the key which is or may be written bars those before it.
    let mut beyond = HashSet::new();
    for (place, answer) in answers.iter().enumerate().rev() {
        match (answer, keys[place]) {
            (Published::NotWritten(error), key) if passes(error) => {
                again[place] = key.is_none_or(|key| !beyond.contains(key));
            }
            (Published::NotWritten(_), _) | (_, None) => {}
            (_, Some(key)) => drop(beyond.insert(key)),
        }
    }
    // Forwards: what is left to the caller keeps all that follows it in its key there too.
    let mut left = HashSet::new();
    for (place, answer) in answers.iter().enumerate() {
        let Some(key) = keys[place] else { continue };
        again[place] &= !left.contains(key);
        let is_undecided = match answer {
            Published::Written(_) => false,
            Published::NotWritten(error) => passes(error),
            Published::Unknown(_) => true,
        };
        if is_undecided && !again[place] {
            left.insert(key);
        }
    }
    again
}

/// What is not known to be written, with all that follows it in its key.
fn from_first_failure(keys: &[Option<&[u8]>], answers: &[Published]) -> Vec<bool> {
    let mut failed = HashSet::new();
    let mut again = Vec::with_capacity(answers.len());
    for (answer, key) in answers.iter().zip(keys) {
        let follows = key.is_some_and(|key| failed.contains(key));
        again.push(match answer {
            Published::NotWritten(error) => passes(error),
            Published::Unknown(error) => passes(error) || follows,
            Published::Written(_) => follows,
        });
        if let (Some(true), Some(key)) = (again.last(), *key) {
            failed.insert(key);
        }
    }
    again
}

fn is_written(published: &Published) -> bool {
    matches!(published, Published::Written(_))
}

fn error_of(published: &Published) -> Option<&Error> {
    match published {
        Published::Written(_) => None,
        Published::NotWritten(error) | Published::Unknown(error) => Some(error),
    }
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Unexpected, "publish", "no result came back")
}
