//! The section `[redis]`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use crate::config::{ByteSize, Section};
use crate::error::Result;

/// The most bytes that `message.max.bytes` may allow: half of what Redis takes as one value.
const MESSAGE_BYTES_LIMIT: u64 = 256 << 20;

/// What the server must keep for a message to count as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Whatever the server is set to; it is logged when connecting.
    Any,
    /// The server writes an append-only file. How much of it a crash may take is the server's
    /// `appendfsync`: up to two seconds with `everysec`, also where only the process dies.
    AppendOnly,
    /// The server syncs its append-only file before it answers (`appendfsync always`): a
    /// message survives a power loss.
    Synced,
    /// So many replicas have it: a message survives the loss of the master.
    Replicas(u32),
}

/// How the addresses are to be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topology {
    /// One server.
    Server,
    /// Nodes of a cluster, which tell of the others.
    Cluster,
    /// Sentinels that know the master of this name.
    Sentinel(String),
}

/// Files for TLS.
#[derive(Debug, Clone, Default)]
pub(super) struct Tls {
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

/// What `[redis]` says.
///
/// `url` (required: `redis://` or `rediss://`; several, separated by commas, are nodes of a
/// cluster or sentinels), `cluster` (false; true for a single `url` of a cluster), `sentinel`
/// (the master's name, where the URLs are those of sentinels), `username`, `password`, `tls.ca`,
/// `tls.certificate` and `tls.key` (PEM files), `prefix` (`forebay:`), `durability` (`any`,
/// `aof`, `synced` or `wait:N`), `timeout` (10s), `session.timeout` (10s), `message.max.bytes`
/// (1MiB), `retention` (7d), `retention.bytes` (1GiB).
#[derive(Clone)]
pub struct Config {
    pub(super) servers: Vec<ConnectionInfo>,
    pub(super) topology: Topology,
    pub(super) tls: Tls,
    pub(super) prefix: String,
    pub(super) durability: Durability,
    pub(super) timeout: Duration,
    pub(super) session_timeout: Duration,
    pub(super) message_bytes_max: usize,
    pub(super) retention: Duration,
    pub(super) retention_bytes: u64,
}

impl Config {
    /// Reads and checks the section; does no I/O.
    pub fn from_section(mut section: Section) -> Result<Self> {
        let servers = servers(&mut section)?;
        let config = Self {
            topology: topology(&mut section, servers.len())?,
            servers,
            tls: tls(&mut section)?,
            prefix: section.take_or("prefix", "forebay:".to_owned())?,
            durability: durability(&mut section)?,
            timeout: positive(&mut section, "timeout", Duration::from_secs(10))?,
            session_timeout: positive(&mut section, "session.timeout", Duration::from_secs(10))?,
            message_bytes_max: message_bytes_max(&mut section)?,
            retention: section.take_or("retention", Duration::from_secs(7 * 24 * 3600))?,
            retention_bytes: section.take_or("retention.bytes", ByteSize(1 << 30))?.0,
        };
        section.finish()?;
        Ok(config)
    }

    /// The servers' addresses, for messages.
    pub(super) fn addresses(&self) -> String {
        let addresses = self.servers.iter().map(|server| server.addr().to_string());
        addresses.collect::<Vec<_>>().join(",")
    }
}

fn servers(section: &mut Section) -> Result<Vec<ConnectionInfo>> {
    let urls = section.require::<String>("url")?;
    let username = section.take::<String>("username")?;
    let password = section.take::<String>("password")?;
    let mut servers = Vec::new();
    for url in urls.split(',').map(str::trim) {
        // The text is not shown: it may hold a password.
        let wrong = |_| section.error("url", "no URL such as redis://127.0.0.1:6379/0");
        let server = url.into_connection_info().map_err(wrong)?;
        let mut settings = server.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        if let Some(username) = &username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &password {
            settings = settings.set_password(password);
        }
        servers.push(server.set_redis_settings(settings));
    }
    Ok(servers)
}

fn topology(section: &mut Section, servers: usize) -> Result<Topology> {
    let is_cluster = section.take::<bool>("cluster")?;
    let sentinel = section.take::<String>("sentinel")?;
    match (sentinel, is_cluster) {
        (Some(_), Some(true)) => {
            Err(section.error("sentinel", "a cluster has no sentinels: set one of both"))
        }
        (Some(master), _) => Ok(Topology::Sentinel(master)),
        (None, Some(false)) if servers > 1 => {
            Err(section.error("cluster", "several URLs need a cluster, or `sentinel`"))
        }
        (None, Some(true)) => Ok(Topology::Cluster),
        (None, _) if servers > 1 => Ok(Topology::Cluster),
        (None, _) => Ok(Topology::Server),
    }
}

fn tls(section: &mut Section) -> Result<Tls> {
    let tls = Tls {
        ca: section.take("tls.ca")?,
        certificate: section.take("tls.certificate")?,
        key: section.take("tls.key")?,
    };
    if tls.certificate.is_some() != tls.key.is_some() {
        return Err(section.error("tls.key", "tls.certificate and tls.key belong together"));
    }
    Ok(tls)
}

fn durability(section: &mut Section) -> Result<Durability> {
    let Some(text) = section.take::<String>("durability")? else { return Ok(Durability::Any) };
    let replicas = text.strip_prefix("wait:").and_then(|count| count.parse().ok());
    match (text.as_str(), replicas) {
        ("any", _) => Ok(Durability::Any),
        ("aof", _) => Ok(Durability::AppendOnly),
        ("synced", _) => Ok(Durability::Synced),
        (_, Some(replicas @ 1..)) => Ok(Durability::Replicas(replicas)),
        _ => {
            let problem = format!("{text:?} is unknown; choose from: any, aof, synced, wait:N");
            Err(section.error("durability", problem))
        }
    }
}

fn positive(section: &mut Section, key: &'static str, default: Duration) -> Result<Duration> {
    let value = section.take_or(key, default)?;
    if value < Duration::from_millis(1) {
        return Err(section.error(key, "must be at least 1ms"));
    }
    Ok(value)
}

fn message_bytes_max(section: &mut Section) -> Result<usize> {
    let ByteSize(bytes) = section.take_or("message.max.bytes", ByteSize(1 << 20))?;
    if !(1..=MESSAGE_BYTES_LIMIT).contains(&bytes) {
        let problem = format!("{bytes} is not from 1 to {MESSAGE_BYTES_LIMIT}");
        return Err(section.error("message.max.bytes", problem));
    }
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

impl fmt::Debug for Config {
    /// URLs may hold passwords: only addresses are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("servers", &self.addresses())
            .field("topology", &self.topology)
            .field("prefix", &self.prefix)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::config::File;

    fn read(text: &str) -> Result<Config> {
        let environment: HashMap<&str, &str> = HashMap::new();
        let text = format!("[redis]\n{text}");
        let file = File::parse(Path::new("redis.ini"), &text, &environment).unwrap();
        Config::from_section(file.section("redis"))
    }

    #[test]
    fn the_addresses_say_what_they_are_of() {
        let rows = [
            ("url = redis://a:1", Topology::Server),
            ("url = redis://a:1\ncluster = true", Topology::Cluster),
            ("url = redis://a:1, redis://b:2", Topology::Cluster),
            ("url = redis://a:1,redis://b:2\nsentinel = main", Topology::Sentinel("main".into())),
        ];
        for (text, topology) in rows {
            assert_eq!(read(text).unwrap().topology, topology, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        let rows = [
            ("", "url"),
            ("url = http://user:secret@a", "url"),
            ("url = redis://a\ndurability = wait:0", "durability"),
            ("url = redis://a\ndurability = maybe", "durability"),
            ("url = redis://a\ntls.key = key.pem", "tls.key"),
            ("url = redis://a\ntimeout = 0s", "timeout"),
            ("url = redis://a\nmessage.max.bytes = 1GiB", "message.max.bytes"),
            ("url = redis://a,redis://b\ncluster = false", "cluster"),
            ("url = redis://a\npasswort = secret", "passwort"),
        ];
        for (text, key) in rows {
            let shown = format!("{:?}", read(text).unwrap_err());
            assert!(shown.contains(&format!("[key: {key}]")), "{shown}");
            assert!(!shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn the_users_name_and_password_win_over_the_urls_and_stay_hidden() {
        let config = read("url = redis://a:b@c:1\nusername = user\npassword = secret").unwrap();
        let settings = config.servers[0].redis_settings();
        assert_eq!((settings.username(), settings.password()), (Some("user"), Some("secret")));
        let shown = format!("{config:?}");
        assert!(shown.contains("c:1") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn durability_is_a_choice() {
        for (text, durability) in [
            ("any", Durability::Any),
            ("aof", Durability::AppendOnly),
            ("synced", Durability::Synced),
            ("wait:2", Durability::Replicas(2)),
        ] {
            let config = read(&format!("url = redis://a\ndurability = {text}")).unwrap();
            assert_eq!(config.durability, durability);
        }
    }
}
