//! Connections that come back by themselves.
//!
//! A [`Link`] opens its connection when it is used first, drops it when it broke and opens
//! another at the next use: it never repeats a command. On a cluster the client library finds
//! the node of a key and follows it when it moves.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, Pipeline, RedisError,
    RedisResult, TlsCertificates, TlsMode, Value,
};

use super::config::{Config, Topology};
use super::error::translate;
use super::scripts::Script;
use crate::error::{Error, ErrorKind, Result};

/// How many commands may queue for one connection before their senders wait.
const QUEUE_LENGTH: usize = 1024;
/// How often the client library follows a key that moved.
const CLUSTER_RETRIES: u32 = 3;

enum Source {
    Server(Client),
    Sentinel(tokio::sync::Mutex<SentinelClient>),
    Cluster(ClusterClient),
}

/// Where connections come from.
pub(super) struct Server {
    source: Source,
    settings: AsyncConnectionConfig,
    addresses: String,
}

#[derive(Clone)]
enum Channel {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A connection, shared by any number of tasks.
pub(super) struct Link {
    server: Arc<Server>,
    /// The connection with its number, by which a broken one is told from its successor.
    current: Mutex<Option<(u64, Channel)>>,
    opening: tokio::sync::Mutex<()>,
    opened: AtomicU64,
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let problem = format!("{} can't be read", path.display());
        Error::new(ErrorKind::ConfigInvalid, "connect", problem).with_source(error)
    })
}

fn certificates(config: &Config) -> Result<Option<TlsCertificates>> {
    let tls = &config.tls;
    let client_tls = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => Some(ClientTlsConfig {
            client_cert: read_file(certificate)?,
            client_key: read_file(key)?,
        }),
        _ => None,
    };
    let root_cert = tls.ca.as_deref().map(read_file).transpose()?;
    let is_set = client_tls.is_some() || root_cert.is_some();
    Ok(is_set.then_some(TlsCertificates { client_tls, root_cert }))
}

fn server_client(config: &Config, tls: Option<TlsCertificates>) -> RedisResult<Client> {
    let server = config.servers[0].clone();
    match tls {
        Some(tls) => Client::build_with_tls(server, tls),
        None => Client::open(server),
    }
}

fn cluster_client(config: &Config, tls: Option<TlsCertificates>) -> RedisResult<ClusterClient> {
    let mut builder = ClusterClient::builder(config.servers.clone())
        .retries(CLUSTER_RETRIES)
        .connection_timeout(config.timeout)
        .response_timeout(config.timeout);
    if let Some(tls) = tls {
        builder = builder.certs(tls);
    }
    builder.build()
}

/// Sentinels are asked, and their master is used, with the same user and certificates.
fn sentinel_client(
    config: &Config,
    master: &str,
    tls: Option<TlsCertificates>,
) -> RedisResult<SentinelClient> {
    let addresses = config.servers.iter().map(|server| server.addr().clone());
    let settings = config.servers[0].redis_settings();
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
        .set_client_to_redis_db(settings.db());
    if matches!(config.servers[0].addr(), ConnectionAddr::TcpTls { .. }) {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    if let Some(tls) = tls {
        builder = builder
            .set_client_to_redis_certificates(tls.clone())
            .set_client_to_sentinel_certificates(tls);
    }
    if let Some(username) = settings.username() {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = settings.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    builder.build()
}

impl Server {
    /// Reads the files for TLS; connects nowhere yet.
    pub(super) fn new(config: &Config) -> Result<Arc<Self>> {
        let tls = certificates(config)?;
        let failed = |error| translate("connect", error);
        let source = match &config.topology {
            Topology::Server => Source::Server(server_client(config, tls).map_err(failed)?),
            Topology::Cluster => Source::Cluster(cluster_client(config, tls).map_err(failed)?),
            Topology::Sentinel(master) => {
                let client = sentinel_client(config, master, tls).map_err(failed)?;
                Source::Sentinel(tokio::sync::Mutex::new(client))
            }
        };
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.timeout))
            .set_response_timeout(Some(config.timeout))
            .set_pipeline_buffer_size(QUEUE_LENGTH);
        Ok(Arc::new(Self { source, settings, addresses: config.addresses() }))
    }

    /// Whether keys live on several nodes.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.source, Source::Cluster(_))
    }

    /// A link of its own, not connected yet.
    pub(super) fn link(self: &Arc<Self>) -> Link {
        Link {
            server: self.clone(),
            current: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            opened: AtomicU64::new(0),
        }
    }

    async fn open(&self) -> RedisResult<Channel> {
        let client = match &self.source {
            Source::Cluster(cluster) => {
                return cluster.get_async_connection().await.map(Channel::Cluster);
            }
            Source::Server(client) => client.clone(),
            Source::Sentinel(sentinel) => sentinel.lock().await.async_get_client().await?,
        };
        let connection = client.get_multiplexed_async_connection_with_config(&self.settings);
        connection.await.map(Channel::Server)
    }
}

impl Channel {
    async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        }
    }

    async fn send_all(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let count = pipeline.len();
        match self {
            Self::Server(connection) => connection.req_packed_commands(pipeline, 0, count).await,
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, 0, count).await,
        }
    }
}

/// Whether the connection is of no further use, or leads to what is no master any more.
fn is_broken(error: &RedisError) -> bool {
    let has_moved = matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "LOADING"));
    error.is_unrecoverable_error() || error.is_io_error() || has_moved
}

impl Link {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(u64, Channel)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, opened where there is none.
    async fn channel(&self, operation: &'static str) -> Result<(u64, Channel)> {
        if let Some(current) = self.lock().clone() {
            return Ok(current);
        }
        // Opening takes a large future, which not every command should carry along.
        Box::pin(self.open(operation)).await
    }

    async fn open(&self, operation: &'static str) -> Result<(u64, Channel)> {
        let _one_at_a_time = self.opening.lock().await;
        if let Some(current) = self.lock().clone() {
            return Ok(current);
        }
        let failed = |error| translate(operation, error).with("servers", &self.server.addresses);
        let channel = self.server.open().await.map_err(failed)?;
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        *self.lock() = Some((number, channel.clone()));
        Ok((number, channel))
    }

    /// Drops a connection that broke, unless it has a successor already. A cluster's mends
    /// itself.
    fn note(&self, number: u64, error: &RedisError) {
        if self.server.is_cluster() || !is_broken(error) {
            return;
        }
        let mut current = self.lock();
        if current.as_ref().is_some_and(|(known, _)| *known == number) {
            *current = None;
        }
    }

    /// Connects, so that what follows is not delayed by it.
    pub(super) async fn connect(&self, operation: &'static str) -> Result<()> {
        self.channel(operation).await.map(drop)
    }

    /// One command. An error of the server is an error of the call.
    pub(super) async fn query(&self, operation: &'static str, command: &Cmd) -> Result<Value> {
        self.send(operation, command).await?.map_err(|error| translate(operation, error))
    }

    /// One command. The outer error came before anything was sent, the inner one after.
    pub(super) async fn send(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<RedisResult<Value>> {
        let (number, mut channel) = self.channel(operation).await?;
        let answer = match channel.send(command).await {
            Ok(Value::ServerError(error)) => Err(RedisError::from(error)),
            other => other,
        };
        Ok(answer.inspect_err(|error| self.note(number, error)))
    }

    /// Several commands in one go, with the answer of each. On a cluster their keys share a
    /// slot. The outer error came before anything was sent, the inner one after.
    pub(super) async fn query_all(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
    ) -> Result<Result<Vec<Value>>> {
        self.query_all_numbered(operation, pipeline).await.map(|(_, answers)| answers)
    }

    /// The same, with the number of the connection.
    pub(super) async fn query_all_numbered(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
    ) -> Result<(u64, Result<Vec<Value>>)> {
        let (number, channel) = self.channel(operation).await?;
        Ok((number, self.send_all(number, channel, operation, pipeline).await))
    }

    /// The same, but only on the connection of that number.
    pub(super) async fn query_all_on(
        &self,
        number: u64,
        operation: &'static str,
        pipeline: &Pipeline,
    ) -> Result<Option<Result<Vec<Value>>>> {
        let (current, channel) = self.channel(operation).await?;
        if current != number {
            return Ok(None);
        }
        Ok(Some(self.send_all(number, channel, operation, pipeline).await))
    }

    async fn send_all(
        &self,
        number: u64,
        mut channel: Channel,
        operation: &'static str,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>> {
        let answers = channel.send_all(pipeline).await;
        let answers = answers.inspect_err(|error| self.note(number, error));
        answers.map_err(|error| translate(operation, error))
    }

    /// Whether the connection of that number is still the one in use.
    pub(super) fn is_current(&self, number: u64) -> bool {
        self.lock().as_ref().is_some_and(|(current, _)| *current == number)
    }

    /// Runs a script, which is sent whole only where the server does not know it yet.
    pub(super) async fn run(
        &self,
        operation: &'static str,
        script: &Script,
        keys: &[&str],
        arguments: &(dyn Fn(&mut Cmd) + Sync),
    ) -> Result<Value> {
        let answer = self.send(operation, &script.known(keys, arguments)).await?;
        let answer = match answer {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                self.send(operation, &script.whole(keys, arguments)).await?
            }
            other => other,
        };
        answer.map_err(|error| translate(operation, error))
    }
}
