//! The queue in Redis: a list of entries, a pending list, and a fenced lease.
//!
//! Keys, all beginning with the queue's name in braces so that a cluster keeps them together:
//! `:entries` (pushed at its tail), `:pending` (what the publisher works on), `:owner` (the
//! publisher's token, which expires) and `:fence` (gives each publisher a token of its own).
//! Only the owner removes from the pending list, which a script checks in the same step; it
//! always publishes from the list's head, so whatever a stalled predecessor still moved there
//! keeps its place.

use std::time::Duration;

use async_trait::async_trait;
use broker::{
    AckToken, Broker, BrokerExt, Consumer, Error, ErrorKind, Message, Outcome, Result, Topic,
};
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, RedisError, Script, cmd};

use super::{Entry, Inlet, Outlet};

/// Redis takes more, but an entry is one batch of results.
const ENTRY_BYTES_MAX: usize = 8 << 20;
/// The most entries that are forwarded as one step.
const ENTRIES_MAX: isize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes or renews the lease; 1 where it is ours.
const LEASE: &str = "
    local owner = redis.call('GET', KEYS[1])
    if owner and owner ~= ARGV[1] then return 0 end
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 1";
/// Removes what was published from the head of the pending list; 0 where the lease is lost.
const REMOVE: &str = "
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    redis.call('LTRIM', KEYS[2], ARGV[2], -1)
    return 1";

/// What is wrong with an address, if anything.
pub(super) fn check(url: &str) -> Result<(), String> {
    // The address may hold a password, so the message does not repeat it.
    Client::open(url).map(drop).map_err(|error| format!("the address is not valid: {error}"))
}

struct Keys {
    entries: String,
    pending: String,
    owner: String,
    fence: String,
}

impl Keys {
    fn new(name: &Topic) -> Self {
        let key = |part: &str| format!("{{{name}}}:{part}");
        Self {
            entries: key("entries"),
            pending: key("pending"),
            owner: key("owner"),
            fence: key("fence"),
        }
    }
}

fn translate(error: RedisError) -> Error {
    let full = error.code() == Some("OOM");
    let kind = if full {
        ErrorKind::StorageFull
    } else if error.is_timeout() {
        ErrorKind::Timeout
    } else if error.is_io_error()
        || error.is_connection_dropped()
        || error.is_cluster_error()
        || error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::BusyLoading)
    {
        ErrorKind::Unavailable
    } else if error.kind() == redis::ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
    {
        ErrorKind::PermissionDenied
    } else {
        ErrorKind::Unexpected
    };
    Error::new(kind, "use result queue", "redis failed").with_source(error)
}

/// A connection that is made anew after a failure.
struct Connection {
    client: Client,
    config: AsyncConnectionConfig,
    open: Option<MultiplexedConnection>,
}

impl Connection {
    async fn open(url: &str, response: Option<Duration>) -> Result<Self> {
        let client = Client::open(url).map_err(translate)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(response);
        let mut connection = Self { client, config, open: None };
        connection.get().await?;
        Ok(connection)
    }

    async fn get(&mut self) -> Result<&mut MultiplexedConnection> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let connect =
                    self.client.get_multiplexed_async_connection_with_config(&self.config);
                connect.await.map_err(|error| {
                    let address = self.client.get_connection_info().addr().to_string();
                    translate(error).with("address", address)
                })?
            }
        };
        Ok(self.open.insert(open))
    }

    async fn query<T: redis::FromRedisValue>(&mut self, command: &Cmd) -> Result<T> {
        let answer = command.query_async(self.get().await?).await;
        answer.map_err(|error| self.failed(error))
    }

    /// After any failure the next call connects anew, so that no stale answer is read.
    fn failed(&mut self, error: RedisError) -> Error {
        self.open = None;
        translate(error)
    }
}

/// Where entries go in.
pub(super) struct RedisInlet {
    connection: Connection,
    keys: Keys,
}

impl RedisInlet {
    pub(super) async fn open(url: &str, name: &Topic) -> Result<Self> {
        let connection = Connection::open(url, Some(RESPONSE_TIMEOUT)).await?;
        Ok(Self { connection, keys: Keys::new(name) })
    }
}

#[async_trait]
impl Inlet for RedisInlet {
    fn entry_bytes_max(&self) -> usize {
        ENTRY_BYTES_MAX
    }

    async fn push(
        &mut self,
        entries: &[Entry],
        consumer: &mut dyn Consumer,
        outcomes: Vec<(AckToken, Outcome)>,
    ) -> Result<()> {
        if !entries.is_empty() {
            let mut push = cmd("RPUSH");
            push.arg(&self.keys.entries);
            for entry in entries {
                push.arg(&entry.encode()[..]);
            }
            self.connection.query::<u64>(&push).await?;
        }
        super::settle(consumer, outcomes).await
    }
}

/// Where entries come out.
pub(super) struct RedisOutlet {
    /// For calls that answer at once.
    connection: Connection,
    /// For the one that waits.
    waiting: Connection,
    keys: Keys,
    lease: Duration,
    token: String,
}

impl RedisOutlet {
    pub(super) async fn open(url: &str, name: &Topic, lease: Duration) -> Result<Self> {
        let mut connection = Connection::open(url, Some(RESPONSE_TIMEOUT)).await?;
        let waiting = Connection::open(url, None).await?;
        let keys = Keys::new(name);
        let fence: u64 = connection.query(cmd("INCR").arg(&keys.fence)).await?;
        let token = format!("{fence}-{}", std::process::id());
        Ok(Self { connection, waiting, keys, lease, token })
    }

    /// Takes or renews the lease.
    async fn lead(&mut self) -> Result<bool> {
        let millis = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        let script = Script::new(LEASE);
        let mut call = script.key(&self.keys.owner);
        call.arg(&self.token).arg(millis);
        let led: Result<u8, _> = call.invoke_async(self.connection.get().await?).await;
        led.map(|led| led == 1).map_err(|error| self.connection.failed(error))
    }

    async fn pending(&mut self) -> Result<Vec<Bytes>> {
        let mut range = cmd("LRANGE");
        range.arg(&self.keys.pending).arg(0).arg(ENTRIES_MAX - 1);
        self.connection.query(&range).await
    }

    /// Moves the oldest entry to the pending list, and more where there are more.
    async fn fill(&mut self, wait: Duration) -> Result<()> {
        let mut first = cmd("BLMOVE");
        first.arg(&self.keys.entries).arg(&self.keys.pending).arg("LEFT").arg("RIGHT");
        // Waiting must end well before the lease does.
        first.arg(wait.min(self.lease / 4).as_secs_f64().max(0.001));
        let moved: Option<Bytes> = self.waiting.query(&first).await?;
        if moved.is_none() {
            return Ok(());
        }
        let mut more = redis::pipe();
        for _ in 1..ENTRIES_MAX {
            more.cmd("LMOVE").arg(&self.keys.entries).arg(&self.keys.pending);
            more.arg("LEFT").arg("RIGHT").ignore();
        }
        let done: Result<(), _> = more.query_async(self.connection.get().await?).await;
        done.map_err(|error| self.connection.failed(error))
    }

    async fn remove(&mut self, count: usize) -> Result<()> {
        let script = Script::new(REMOVE);
        let mut call = script.key(&self.keys.owner);
        call.key(&self.keys.pending).arg(&self.token).arg(count);
        let removed: Result<u8, _> = call.invoke_async(self.connection.get().await?).await;
        match removed.map_err(|error| self.connection.failed(error))? {
            1 => Ok(()),
            _ => {
                tracing::warn!("the lease of the result queue went to another publisher");
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Outlet for RedisOutlet {
    async fn forward(
        &mut self,
        broker: &dyn Broker,
        topic: &Topic,
        wait: Duration,
    ) -> Result<usize> {
        if !self.lead().await? {
            tokio::time::sleep(wait.min(self.lease / 4)).await;
            return Ok(0);
        }
        let mut pending = self.pending().await?;
        if pending.is_empty() {
            self.fill(wait).await?;
            // The wait took part of the lease.
            if !self.lead().await? {
                return Ok(0);
            }
            pending = self.pending().await?;
        }
        let count = pending.len();
        let mut messages: Vec<Message> = Vec::new();
        for bytes in pending {
            messages.extend(Entry::decode(bytes)?.messages);
        }
        if count == 0 {
            return Ok(0);
        }
        let published = messages.len();
        broker.publish_all(topic, messages).await?;
        self.remove(count).await?;
        Ok(published)
    }
}
