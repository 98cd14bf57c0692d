//! Google's clients, all with one address, one identity and the same bound on a request.

use std::io;
use std::path::PathBuf;

use google_cloud_auth::credentials::{
    Builder as DefaultCredentials, Credentials, anonymous, service_account,
};
use google_cloud_gax::retry_policy::{LimitedElapsedTime, NeverRetry, RetryPolicyExt};
use google_cloud_pubsub::client::{BasePublisher, Subscriber, SubscriptionAdmin, TopicAdmin};
use serde_json::Value;

use super::config::Config;
use super::error::{translate, unbuilt};
use crate::error::{Error, ErrorKind, Result};

pub(super) struct Clients {
    pub(super) topics: TopicAdmin,
    pub(super) subscriptions: SubscriptionAdmin,
    pub(super) publisher: BasePublisher,
    address: Option<String>,
    credentials: Credentials,
}

impl Clients {
    /// Builds the clients; nobody is asked yet.
    pub(super) async fn new(config: &Config) -> Result<Self> {
        // Google's crates leave the choice to us; who has made one already keeps it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (address, credentials) = (config.address(), credentials(config).await?);
        let mut topics = TopicAdmin::builder();
        let mut subscriptions = SubscriptionAdmin::builder();
        let mut publisher = BasePublisher::builder();
        if let Some(address) = &address {
            topics = topics.with_endpoint(address);
            subscriptions = subscriptions.with_endpoint(address);
            publisher = publisher.with_endpoint(address);
        }
        let topics = topics.with_credentials(credentials.clone());
        let subscriptions = subscriptions.with_credentials(credentials.clone());
        let publisher = publisher.with_credentials(credentials.clone());
        Ok(Self {
            topics: topics.with_retry_policy(once(config)).build().await.map_err(unbuilt)?,
            subscriptions: subscriptions
                .with_retry_policy(once(config))
                .build()
                .await
                .map_err(unbuilt)?,
            publisher: publisher.with_retry_policy(once(config)).build().await.map_err(unbuilt)?,
            address,
            credentials,
        })
    }

    /// A client for one consumer. A connection of its own ends with it, so that the service
    /// sees at once that nobody listens any more.
    pub(super) async fn subscriber(&self) -> Result<Subscriber> {
        let builder = Subscriber::builder().with_credentials(self.credentials.clone());
        let builder = match &self.address {
            Some(address) => builder.with_endpoint(address),
            None => builder,
        };
        builder.build().await.map_err(unbuilt)
    }

    /// Asks whether the service answers.
    pub(super) async fn ping(&self, operation: &'static str, config: &Config) -> Result<()> {
        let topics = self.topics.list_topics().set_project(config.project.path());
        let answer = topics.set_page_size(1).send().await;
        answer.map(drop).map_err(|error| translate(operation, error))
    }
}

/// Backends do not retry. The bound on the retries is the bound on the only attempt.
fn once(config: &Config) -> LimitedElapsedTime<NeverRetry> {
    NeverRetry.with_time_limit(config.request_timeout)
}

async fn credentials(config: &Config) -> Result<Credentials> {
    if config.emulator.is_some() {
        return Ok(anonymous::Builder::new().build());
    }
    let built = match &config.credentials {
        Some(path) => service_account::Builder::new(read_key(path.clone()).await?).build(),
        None => DefaultCredentials::default().build(),
    };
    built.map_err(|error| {
        let problem = "there are no credentials that can be used";
        Error::new(ErrorKind::ConfigInvalid, "connect", problem).with_source(error)
    })
}

async fn read_key(path: PathBuf) -> Result<Value> {
    let wrong = |problem| {
        let error = Error::new(ErrorKind::ConfigInvalid, "connect", problem);
        error.with("credentials", path.display())
    };
    let file = path.clone();
    let unread = |error: io::Error| wrong("the key file cannot be read").with_source(error);
    let read = tokio::task::spawn_blocking(move || std::fs::read(file)).await;
    let text = read.map_err(|error| unread(error.into()))?.map_err(unread)?;
    // A parser's message would show a part of the key.
    serde_json::from_slice(&text).map_err(|_| wrong("the key file is no JSON"))
}
