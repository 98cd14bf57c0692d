//! Threads that compute, each with a model of its own.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use broker::{AckToken, Delivery, Message, Outcome};
use modelling::{Checkpoint, Model};
use tokio::sync::oneshot;

use super::classifier::Classifier;
use super::worker_failed;
use crate::process::Failure;
use crate::settings::{self, Settings};

/// How many batches are out for each worker: one that it computes, and enough to go on with
/// while the results of others are being committed.
const JOBS_PER_WORKER: usize = 6;

/// A batch on its way to a worker.
struct Job {
    deliveries: Vec<Delivery>,
    reply: oneshot::Sender<Done>,
}

/// A batch that is computed.
#[derive(Debug, Default)]
pub struct Done {
    /// The predictions, ready to be published, in the order of their inputs.
    pub ready: Vec<Message>,
    /// What became of each input.
    pub outcomes: Vec<(AckToken, Outcome)>,
}

/// The threads and the way to them.
pub struct Workers {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    batch_max: usize,
    model: String,
}

impl Workers {
    /// Loads the model once for each worker, all before the first job.
    pub async fn start(settings: &Settings, message_bytes_max: usize) -> Result<Self, Failure> {
        let model = settings.model.clone();
        let topic = settings.topics.images.clone();
        let load = move || load(&model, topic.as_str(), message_bytes_max);
        let loaded = tokio::task::spawn_blocking(load).await;
        let classifiers =
            loaded.map_err(|error| Failure::start("loading ended early", error))??;
        Self::spawn(classifiers, settings.model.batch_max)
    }

    fn spawn(classifiers: Vec<Loaded>, batch_max: usize) -> Result<Self, Failure> {
        let model = classifiers.first().map(|(c, _)| c.to_string()).unwrap_or_default();
        let (jobs, queue) = sync_channel::<Job>(JOBS_PER_WORKER * classifiers.len());
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::with_capacity(classifiers.len());
        for (index, (classifier, model)) in classifiers.into_iter().enumerate() {
            let queue = queue.clone();
            let thread = std::thread::Builder::new()
                .name(format!("model-{index}"))
                .spawn(move || work(classifier, model, &queue))
                .map_err(|error| Failure::start("no thread can be started", error))?;
            threads.push(thread);
        }
        Ok(Self { jobs: Some(jobs), threads, batch_max, model })
    }

    /// Name, version and digest of the model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The most images in one job.
    pub fn batch_max(&self) -> usize {
        self.batch_max
    }

    /// The most jobs that may be out, so that submitting one never blocks.
    pub fn depth_max(&self) -> usize {
        JOBS_PER_WORKER * self.threads.len()
    }

    /// Hands a batch to a worker.
    pub fn submit(
        &self,
        deliveries: Vec<Delivery>,
    ) -> impl Future<Output = Result<Done, Failure>> + Send + 'static {
        let (reply, done) = oneshot::channel();
        let sent = self.jobs.as_ref().map(|jobs| jobs.try_send(Job { deliveries, reply }));
        async move {
            match sent {
                Some(Ok(())) => done.await.map_err(|_| worker_failed("a model's thread died")),
                _ => Err(worker_failed("the models' threads are gone")),
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A worker that died has been told of by its missing reply.
            let _ = thread.join();
        }
    }
}

type Loaded = (Classifier, Box<dyn Model>);

fn load(
    settings: &settings::Model,
    topic: &str,
    message_bytes_max: usize,
) -> Result<Vec<Loaded>, Failure> {
    let cannot = |error| Failure::start("cannot serve the model", error);
    let path = settings.options.file(&settings.path);
    let mut checkpoint = Checkpoint::open(&path).map_err(cannot)?;
    if let Some(name) = &settings.name {
        checkpoint = checkpoint.with_name(name);
    }
    if let Some(version) = &settings.version {
        checkpoint = checkpoint.with_version(version);
    }
    let load = |_| {
        let model = modelling::load(&checkpoint, &settings.options).map_err(cannot)?;
        let classifier = Classifier::new(&checkpoint, model.signature(), settings.labels, topic)
            .map_err(cannot)?
            .with_message_bytes_max(message_bytes_max);
        Ok((classifier, model))
    };
    (0..settings.workers).map(load).collect()
}

fn work(classifier: Classifier, mut model: Box<dyn Model>, queue: &Mutex<Receiver<Job>>) {
    loop {
        // Taken on a line of its own, so that the lock is not held while computing.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { deliveries, reply }) = job else { return };
        // The subscriber may have gone; its deliveries come again.
        let _ = reply.send(classifier.run(model.as_mut(), deliveries));
    }
}
