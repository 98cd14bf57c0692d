//! What was asked for once is not asked for again, and at one time only once.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use crate::error::{Error, Result};

/// Answers by question, no more than a bound; the oldest goes. Failures are not kept, but all
/// who wait for one answer share its failure.
pub(super) struct Cache<K, V> {
    answers: Mutex<Answers<K, V>>,
    bound: usize,
}

struct Answers<K, V> {
    by_question: HashMap<K, Flight<V>>,
    /// In the order in which they were asked.
    questions: VecDeque<K>,
}

type Flight<V> = Shared<BoxFuture<'static, Result<V, Arc<Error>>>>;

impl<K: Clone + Eq + Hash, V: Clone + Send + Sync + 'static> Cache<K, V> {
    pub(super) fn new(bound: usize) -> Self {
        let answers = Answers { by_question: HashMap::new(), questions: VecDeque::new() };
        Self { answers: Mutex::new(answers), bound: bound.max(1) }
    }

    /// The answer, where need be of `ask`. A dropped future leaves the question to others who
    /// wait for it; where there are none it goes on with the next who asks.
    pub(super) async fn get<F>(&self, question: &K, ask: impl FnOnce() -> F) -> Result<V>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let flight = self.join(question, ask);
        let answer = flight.clone().await;
        answer.map_err(|error| {
            self.forget(question, &flight);
            error.duplicate()
        })
    }

    fn join<F>(&self, question: &K, ask: impl FnOnce() -> F) -> Flight<V>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = answers.by_question.get(question) {
            return flight.clone();
        }
        let asked = ask();
        let flight = async move { asked.await.map_err(Arc::new) }.boxed().shared();
        if answers.questions.len() >= self.bound
            && let Some(oldest) = answers.questions.pop_front()
        {
            answers.by_question.remove(&oldest);
        }
        answers.questions.push_back(question.clone());
        answers.by_question.insert(question.clone(), flight.clone());
        flight
    }

    /// Forgets a failure, unless the question was asked anew meanwhile.
    fn forget(&self, question: &K, failed: &Flight<V>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.by_question.get(question).is_some_and(|flight| flight.ptr_eq(failed)) {
            answers.by_question.remove(question);
            answers.questions.retain(|asked| asked != question);
        }
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("bound", &self.bound).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;

    /// Counts how often it is asked, and answers with the number after a while.
    #[derive(Clone, Default)]
    struct Oracle(Arc<AtomicUsize>);

    impl Oracle {
        async fn ask(self) -> Result<usize> {
            let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(count)
        }

        async fn fail(self) -> Result<usize> {
            let count = self.ask().await?;
            Err(Error::new(ErrorKind::Unavailable, "ask", format!("failure {count}")))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_asked_once() {
        let (cache, oracle) = (Cache::new(10), Oracle::default());
        let asked = (0..100).map(|_| cache.get(&"life", || oracle.clone().ask()));
        let answers = futures::future::join_all(asked).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap() == 1));
        assert_eq!(cache.get(&"life", || oracle.clone().ask()).await.unwrap(), 1);
        assert_eq!(cache.get(&"time", || oracle.clone().ask()).await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_by_those_who_wait_and_then_forgotten() {
        let (cache, oracle) = (Cache::new(10), Oracle::default());
        let asked = (0..20).map(|_| cache.get(&"life", || oracle.clone().fail()));
        for answer in futures::future::join_all(asked).await {
            let error = answer.unwrap_err();
            assert!(error.is_retryable() && error.to_string().contains("failure 1"), "{error}");
        }
        assert_eq!(cache.get(&"life", || oracle.clone().ask()).await.unwrap(), 2);
        assert_eq!(cache.answers.lock().unwrap().questions.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_answer_goes_once_the_bound_is_reached() {
        let (cache, oracle) = (Cache::new(2), Oracle::default());
        for (question, answer) in [(1, 1), (2, 2), (1, 1), (3, 3), (2, 2), (1, 4)] {
            assert_eq!(cache.get(&question, || oracle.clone().ask()).await.unwrap(), answer);
            assert!(cache.answers.lock().unwrap().by_question.len() <= 2);
        }
    }
}
