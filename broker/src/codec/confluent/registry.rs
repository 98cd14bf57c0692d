//! A client of schema registries that speak Confluent's interface.

use std::fmt;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use super::cache::Cache;
use super::config::{Config, Subjects};
use super::http::{Http, Request};
use super::schema::{Registered, Schema};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::Backoff;

/// The pauses of a call that waits for an outage to end.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(100), max: Duration::from_secs(2), jitter_percent: 50 };
/// How many references are followed of one schema, those of its references included.
const REFERENCES_MAX: usize = 100;

/// A schema registry. Clones share its memory of schemas.
///
/// A call that the registry does not answer is repeated for as long as `patience` says, with
/// growing pauses; then its error is retryable. What is known is answered without a request,
/// whether the registry is there or not.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    http: Http,
    config: Config,
    by_id: Cache<u32, Arc<Schema>>,
    by_version: Cache<(String, u32), Arc<Schema>>,
}

#[derive(Deserialize)]
struct Id {
    id: u32,
}

#[derive(Deserialize)]
struct Compatibility {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<String>,
}

impl Registry {
    /// A client; it connects at its first question.
    pub fn new(config: Config) -> Result<Self> {
        let http = Http::new(&config)?;
        let (by_id, by_version) = (Cache::new(config.cached), Cache::new(config.cached));
        Ok(Self(Arc::new(Inner { http, config, by_id, by_version })))
    }

    /// The schema with an id; `NotFound` where there is none. Remembered for good.
    pub async fn schema(&self, id: u32) -> Result<Arc<Schema>> {
        let read = || get(self, "read schema", format!("/schemas/ids/{id}"));
        self.0.by_id.get(&id, read).await.map_err(|error| error.with("schema", id))
    }

    /// The id of a schema under a subject, where it is registered if it is not there yet.
    ///
    /// `ConfigInvalid` where it is not compatible with what is there, in the registry's words.
    pub async fn register(&self, subject: &str, schema: &Schema) -> Result<u32> {
        self.id("register schema", subject, "/versions", schema).await
    }

    /// The id of a schema under a subject; `NotFound` where it is not registered there.
    pub async fn find(&self, subject: &str, schema: &Schema) -> Result<u32> {
        self.id("find schema", subject, "", schema).await
    }

    /// The latest schema of a subject.
    pub async fn latest(&self, subject: &str) -> Result<Registered> {
        let path = format!("/subjects/{}/versions/latest", escape(subject));
        let request = Request { operation: "read schema", path, body: None };
        self.ask(request).await.map_err(|error| error.with("subject", subject))
    }

    /// Fails with `ConfigInvalid`, in the registry's words, where a schema may not follow the
    /// latest of a subject. Registers nothing. Every schema may be the first one.
    pub async fn check(&self, subject: &str, schema: &Schema) -> Result<()> {
        let operation = "check schema";
        let subject_path = escape(subject);
        let path = format!("/compatibility/subjects/{subject_path}/versions/latest?verbose=true");
        let request = Request { operation, path, body: Some(body(schema)) };
        let answer = match self.ask(request).await {
            Ok(Compatibility { is_compatible: true, .. }) => return Ok(()),
            Ok(Compatibility { messages, .. }) => {
                let refused = "the schema is not compatible with the latest".to_owned();
                let message = [vec![refused], messages].concat().join(": ");
                Error::new(ErrorKind::ConfigInvalid, operation, message)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        Err(answer.with("subject", subject))
    }

    /// The texts of all that a schema refers to, each behind what it refers to itself.
    pub(super) async fn references(&self, schema: &Schema) -> Result<Vec<String>> {
        let mut found: Vec<((String, u32), Arc<Schema>)> = Vec::new();
        let mut wanted: Vec<_> = schema.references.clone();
        for _ in 0..REFERENCES_MAX {
            let Some(reference) = wanted.pop() else {
                return Ok(found.iter().rev().map(|(_, schema)| schema.text.clone()).collect());
            };
            let key = (reference.subject, reference.version);
            let schema = self.version(&key).await?;
            wanted.extend(schema.references.iter().cloned());
            // What several refer to moves behind the last of them, and so, turned around, before
            // the first.
            found.retain(|(known, _)| *known != key);
            found.push((key, schema));
        }
        let message = format!("the schema has {REFERENCES_MAX} references or more");
        Err(Error::new(ErrorKind::TooLarge, "read schema", message))
    }

    pub(super) fn subjects(&self) -> Subjects {
        self.0.config.subjects
    }

    /// The id of a publisher's schema, by the way that the configuration says.
    pub(super) async fn id_of(&self, subject: &str, schema: &Schema) -> Result<u32> {
        match self.0.config.register {
            true => self.register(subject, schema).await,
            false => self.find(subject, schema).await,
        }
    }

    pub(super) fn cached(&self) -> usize {
        self.0.config.cached
    }

    async fn version(&self, key: &(String, u32)) -> Result<Arc<Schema>> {
        let (subject, version) = key;
        let path = format!("/subjects/{}/versions/{version}", escape(subject));
        let read = || get(self, "read schema", path);
        let found = self.0.by_version.get(key, read).await;
        found.map_err(|error| error.with("subject", subject).with("version", version))
    }

    async fn id(
        &self,
        operation: &'static str,
        subject: &str,
        path: &str,
        schema: &Schema,
    ) -> Result<u32> {
        let path = format!("/subjects/{}{path}", escape(subject));
        let id = self.ask(Request { operation, path, body: Some(body(schema)) }).await;
        id.map(|Id { id }| id).map_err(|error| error.with("subject", subject))
    }

    /// Asks until there is an answer or the patience ends.
    async fn ask<A: DeserializeOwned + Send + 'static>(&self, request: Request) -> Result<A> {
        let start = Instant::now();
        let mut attempt = 0;
        loop {
            let error = match self.0.http.ask(&request).await {
                Err(error) if error.is_retryable() => error,
                answer => return answer,
            };
            attempt += 1;
            let pause = PAUSES.pause(attempt);
            if start.elapsed() + pause > self.0.config.patience {
                return Err(error);
            }
            tracing::warn!(%error, attempt, "the schema registry is asked again");
            tokio::time::sleep(pause).await;
        }
    }
}

/// Reads a schema, in a future that owns what it needs.
fn get(
    registry: &Registry,
    operation: &'static str,
    path: String,
) -> impl Future<Output = Result<Arc<Schema>>> + Send + 'static {
    let (registry, request) = (registry.clone(), Request { operation, path, body: None });
    async move { registry.ask::<Schema>(request).await.map(Arc::new) }
}

fn body(schema: &Schema) -> String {
    json!(schema).to_string()
}

/// A subject as one part of a path: it may hold slashes.
fn escape(subject: &str) -> String {
    subject.bytes().fold(String::new(), |mut path, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                path.push(char::from(byte));
            }
            _ => write!(path, "%{byte:02X}").expect("a string takes everything"),
        }
        path
    })
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.0.config).finish()
    }
}
