//! What a server keeps of what it is given.

use redis::Value;

use super::config::{Config, Durability};
use super::connection::Link;
use super::convert;
use crate::capabilities;
use crate::error::{Error, ErrorKind, Result};

/// The first version whose consumer groups can be taken over without losing count.
const VERSION_MIN: u32 = 7;

/// What was found when connecting. It is what [`Published::Written`](crate::Published) means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Whether there is an append-only file.
    append_only: bool,
    /// `always`, `everysec` or `no`, where the server tells.
    sync: Option<String>,
    replicas: u32,
}

/// Checks every server that answers, and logs what a written message survives.
pub(super) async fn check(link: &Link, config: &Config) -> Result<Found> {
    let info = link.query("connect", redis::cmd("INFO").arg("everything")).await?;
    let mut found = Vec::new();
    for text in texts(info) {
        found.push(check_info(&text, config)?);
    }
    let missing = || convert::unexpected("connect", "the server tells nothing of itself");
    let mut found = found.into_iter().min_by_key(|found| found.append_only).ok_or_else(missing)?;
    if found.append_only {
        // Not every user may ask this, and nothing depends on it.
        let asked = link.query("connect", redis::cmd("CONFIG").arg("GET").arg("appendfsync")).await;
        let pairs = asked.and_then(|answer| convert::pairs("connect", answer));
        found.sync = pairs.ok().and_then(|pairs| convert::text(pairs.into_iter().next()?.1));
    }
    require_sync(&found, config)?;
    tracing::info!(servers = config.addresses(), durability = found.tell(), "redis is connected");
    Ok(found)
}

/// Refuses a server that answers before its file is synced, where that is asked for.
fn require_sync(found: &Found, config: &Config) -> Result<()> {
    if config.durability != Durability::Synced || found.sync.as_deref() == Some("always") {
        return Ok(());
    }
    let setting = found.sync.as_deref().unwrap_or("not told");
    let problem = format!("durability = synced, but the server's appendfsync is {setting}");
    Err(Error::new(ErrorKind::ConfigInvalid, "connect", problem)
        .with("servers", config.addresses()))
}

/// The texts of one server, or of the nodes of a cluster.
fn texts(info: Value) -> Vec<String> {
    match info {
        Value::Map(nodes) => {
            nodes.into_iter().filter_map(|(_, text)| convert::text(text)).collect()
        }
        Value::VerbatimString { text, .. } => vec![text],
        other => convert::text(other).into_iter().collect(),
    }
}

fn check_info(info: &str, config: &Config) -> Result<Found> {
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim()
    };
    let refuse = |problem: String| {
        let error = Error::new(ErrorKind::ConfigInvalid, "connect", problem);
        Err(error.with("servers", config.addresses()))
    };
    let version = field("redis_version");
    let major: u32 = version.split('.').next().and_then(|part| part.parse().ok()).unwrap_or(0);
    if major < VERSION_MIN {
        return refuse(format!("the server is version {version:?}; at least 7.0 is needed"));
    }
    let (policy, maxmemory) = (field("maxmemory_policy"), field("maxmemory"));
    if !matches!(policy, "noeviction" | "") && maxmemory != "0" {
        return refuse(format!(
            "the server may evict messages: its maxmemory-policy is {policy}, not noeviction"
        ));
    }
    let found = Found {
        append_only: field("aof_enabled") == "1",
        sync: None,
        replicas: field("connected_slaves").parse().unwrap_or(0),
    };
    match config.durability {
        Durability::AppendOnly | Durability::Synced if !found.append_only => {
            refuse("the server has appendonly off, which `durability` asks for".to_owned())
        }
        _ => Ok(found),
    }
}

impl Found {
    /// What a written message survives. The server's own buffer goes with its process, which
    /// `everysec` writes late; replicas count where an answer waits for them.
    pub(super) fn survives(&self, config: &Config) -> capabilities::Durability {
        use capabilities::Durability as Survives;
        match (config.durability, self.append_only, self.sync.as_deref()) {
            (Durability::Replicas(_), ..) => Survives::Replicas,
            (_, false, _) => Survives::Memory,
            (_, true, Some("always")) => Survives::Disk,
            (_, true, _) => Survives::Process,
        }
    }

    /// What a written message survives, in words.
    pub(super) fn tell(&self) -> String {
        let file = match (self.append_only, self.sync.as_deref()) {
            (false, _) => "in memory only".to_owned(),
            (true, None) => "in an append-only file".to_owned(),
            (true, Some(sync)) => format!("in an append-only file, synced: {sync}"),
        };
        format!("{file}; {} replicas", self.replicas)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::config::File;

    const GOOD: &str = "redis_version:7.0.15\r\nmaxmemory:100\r\nmaxmemory_policy:noeviction\r\n\
                        aof_enabled:1\r\nconnected_slaves:2\r\n";

    fn check(durability: &str, info: &str) -> Result<Found> {
        let environment: HashMap<&str, &str> = HashMap::new();
        let text = format!("[redis]\nurl = redis://a\ndurability = {durability}\n");
        let file = File::parse(Path::new("redis.ini"), &text, &environment).unwrap();
        check_info(info, &Config::from_section(file.section("redis")).unwrap())
    }

    #[test]
    fn what_is_found_is_told() {
        let found = check("aof", GOOD).unwrap();
        assert_eq!(found.tell(), "in an append-only file; 2 replicas");
        let found = Found { sync: Some("always".into()), ..found };
        assert_eq!(found.tell(), "in an append-only file, synced: always; 2 replicas");
        let found = check("any", &GOOD.replace("aof_enabled:1", "aof_enabled:0")).unwrap();
        assert_eq!(found.tell(), "in memory only; 2 replicas");
    }

    #[test]
    fn a_receipt_says_what_the_server_was_found_to_keep() {
        use capabilities::Durability as Survives;
        let environment: HashMap<&str, &str> = HashMap::new();
        let survives = |durability, append_only, sync: Option<&str>| {
            let text = format!("[redis]\nurl = redis://a\ndurability = {durability}\n");
            let file = File::parse(Path::new("redis.ini"), &text, &environment).unwrap();
            let config = Config::from_section(file.section("redis")).unwrap();
            let sync = sync.map(str::to_owned);
            Found { append_only, sync, replicas: 2 }.survives(&config)
        };
        assert_eq!(survives("any", false, None), Survives::Memory);
        assert_eq!(survives("any", true, None), Survives::Process);
        assert_eq!(survives("aof", true, Some("everysec")), Survives::Process);
        assert_eq!(survives("any", true, Some("always")), Survives::Disk);
        assert_eq!(survives("wait:2", false, None), Survives::Replicas, "an answer waits for them");
    }

    #[test]
    fn a_server_that_keeps_too_little_is_refused() {
        let rows = [
            ("any", GOOD.replace("7.0.15", "6.2.1"), "6.2.1"),
            ("any", GOOD.replace("noeviction", "allkeys-lru"), "allkeys-lru"),
            ("aof", GOOD.replace("aof_enabled:1", "aof_enabled:0"), "appendonly"),
        ];
        for (durability, info, word) in rows {
            let error = check(durability, &info).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
            assert!(error.to_string().contains(word), "{error}");
        }
        let unbounded = GOOD.replace("noeviction", "allkeys-lru").replace(":100", ":0");
        assert!(check("any", &unbounded).is_ok(), "nothing is evicted without a bound");
    }
}
