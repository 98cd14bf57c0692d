//! The section `[kafka]`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::error::translate;
use super::log;
use super::oauth::Tokens;
use crate::config::{ByteSize, Section};
use crate::error::Result;
use crate::name::Group;

/// Bytes beyond `message_bytes_max` that librdkafka lets pass, for the headers of a dead
/// letter. With the default maximum the whole still fits into 1,048,588 bytes, which brokers
/// accept unless told otherwise.
const DEAD_LETTER_ROOM: usize = 48_000;

/// Keys of librdkafka that carry the contract, with what serves instead.
const REFUSED: &[(&str, &str)] = &[
    ("enable.auto.commit", "positions are committed every commit_interval"),
    ("enable.auto.offset.store", "a delivery counts once it is settled"),
    ("isolation.level", "only what was committed is ever delivered"),
    ("group.id", "the subscription names the group"),
    ("group.instance.id", "the subscription names the instance"),
    ("auto.offset.reset", "the subscription says where it starts"),
    ("transactional.id", "it is made from the subscription's group and instance"),
    ("transaction.timeout.ms", "use transaction_timeout"),
    ("enable.idempotence", "it is always on"),
    ("enable.partition.eof", "a reader gets the event caught up"),
    ("message.max.bytes", "use message_bytes_max"),
    ("message.copy.max.bytes", "messages are always copied"),
    ("plugin.library.paths", "the broker's layers serve instead of plugins"),
];

/// What `[kafka]` says.
///
/// `bootstrap.servers` (required), `commit_interval` (100ms: how soon a settled prefix is
/// committed), `connect_timeout` (10s), `outage_max` (30s: how long all brokers may be gone
/// before `receive` fails, and with `transaction_timeout` for how long the commit of a
/// transaction is tried again), `transaction_timeout` (10s: after which brokers give up the
/// transaction of a process that died, which holds up its readers so long), `message_bytes_max` (1000000: the most bytes of key, payload and
/// headers), `oauth_token_file` (none: where the token of OAUTHBEARER stands; it is read again
/// every minute). All other keys are handed to librdkafka.
#[derive(Clone)]
pub struct Config {
    pub(super) servers: String,
    pub(super) commit_interval: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) outage_max: Duration,
    pub(super) transaction_timeout: Duration,
    oauth_token_file: Option<PathBuf>,
    pub(super) message_bytes_max: usize,
    rest: BTreeMap<String, String>,
}

impl Config {
    /// Reads the section and lets librdkafka check the keys that are its own.
    pub fn from_section(section: &mut Section) -> Result<Self> {
        let ByteSize(bytes) = section.take_or("message_bytes_max", ByteSize(1_000_000))?;
        let Some(message_bytes_max) = usize::try_from(bytes).ok().filter(|bytes| *bytes > 0) else {
            return Err(section.error("message_bytes_max", format!("{bytes} is out of range")));
        };
        let config = Self {
            servers: section.require("bootstrap.servers")?,
            commit_interval: section.take_or("commit_interval", Duration::from_millis(100))?,
            connect_timeout: section.take_or("connect_timeout", Duration::from_secs(10))?,
            outage_max: section.take_or("outage_max", Duration::from_secs(30))?,
            transaction_timeout: section.take_or("transaction_timeout", Duration::from_secs(10))?,
            oauth_token_file: section.take("oauth_token_file")?,
            message_bytes_max,
            rest: section.take_rest(),
        };
        for (key, instead) in REFUSED {
            if config.rest.contains_key(*key) {
                return Err(section.error(key, format!("the key can't be set: {instead}")));
            }
        }
        for key in config.rest.keys() {
            config.check(key).map_err(|problem| section.error(key, problem))?;
        }
        Ok(config)
    }

    /// librdkafka's verdict on one key alone, so that the right one is named.
    fn check(&self, key: &str) -> Result<(), String> {
        let mut alone = ClientConfig::new();
        alone.set(key, &self.rest[key]);
        match alone.create_native_config() {
            Ok(_) => Ok(()),
            Err(error) => Err(translate("read config", error).to_string()),
        }
    }

    /// The tokens of OAUTHBEARER.
    pub(super) fn tokens(&self) -> Tokens {
        Tokens::new(self.oauth_token_file.as_deref())
    }

    fn client(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.servers);
        client.set("client.id", "forebay");
        client.set("log.connection.close", "false");
        // After an outage clients come back within a second or so.
        client.set("reconnect.backoff.max.ms", "1000");
        for (key, value) in defaults {
            client.set(*key, *value);
        }
        client.extend(self.rest.clone());
        client.set_log_level(log::level());
        client
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut client = self.client(&[
            ("partitioner", "murmur2_random"),
            ("acks", "all"),
            // Batches come whole from the caller; more gather while requests are on their way.
            ("linger.ms", "0"),
            ("message.timeout.ms", "30000"),
            ("queue.buffering.max.kbytes", "65536"),
            // A deleted topic is told of soon, not after half a minute.
            ("topic.metadata.propagation.max.ms", "2000"),
        ]);
        client.set("enable.idempotence", "true");
        client.set("message.max.bytes", (self.message_bytes_max + DEAD_LETTER_ROOM).to_string());
        client
    }

    /// A producer of transactions. Nothing it does may outlast the brokers' patience.
    pub(super) fn transactor(&self, id: &str) -> ClientConfig {
        let mut client = self.producer();
        let millis = self.transaction_timeout.as_millis().clamp(1000, i32::MAX as u128);
        client.set("transactional.id", id);
        client.set("transaction.timeout.ms", millis.to_string());
        client.set("message.timeout.ms", millis.to_string());
        client.set("socket.timeout.ms", (millis - 100).to_string());
        client
    }

    /// A client for questions. Nobody polls it, so it must not log.
    pub(super) fn control(&self) -> ClientConfig {
        let mut client = self.client(&[]);
        // An open transaction hides neither the end of a topic nor a group's position.
        client.set("isolation.level", "read_uncommitted");
        client.set_log_level(RDKafkaLogLevel::Emerg);
        client
    }

    /// A client that consumes.
    pub(super) fn consumer(&self) -> ClientConfig {
        let mut client = self.client(&[
            // Each partition has a queue of its own, so this bounds each of them.
            ("queued.max.messages.kbytes", "16384"),
            // A full queue is looked at again soon, not after a second.
            ("fetch.queue.backoff.ms", "10"),
            // A broker is asked for one thing at a time: a partition whose queue was full, or
            // that is new here, waits until the others' request has run out of time.
            ("fetch.wait.max.ms", "100"),
        ]);
        client.set("enable.auto.commit", "false");
        client.set("enable.auto.offset.store", "false");
        client.set("auto.offset.reset", "error");
        client.set("isolation.level", "read_committed");
        client
    }

    /// Whether the brokers assign partitions themselves, by the group protocol of Kafka 4.
    pub(super) fn is_new_protocol(&self) -> bool {
        self.consumer().get("group.protocol") == Some("consumer")
    }

    /// A client that consumes as a member of a group.
    pub(super) fn member(&self, group: &Group, instance: Option<&str>) -> ClientConfig {
        let mut client = self.consumer();
        client.set("group.id", group.as_str());
        if let Some(instance) = instance {
            client.set("group.instance.id", instance);
        }
        // The new protocol leaves these to the brokers and refuses them here.
        if !self.is_new_protocol() {
            let defaults = [
                ("partition.assignment.strategy", "cooperative-sticky"),
                ("session.timeout.ms", "10000"),
                ("heartbeat.interval.ms", "1000"),
            ];
            for (key, value) in defaults {
                if client.get(key).is_none() {
                    client.set(key, value);
                }
            }
        }
        client
    }
}

impl fmt::Debug for Config {
    /// Values handed to librdkafka may be secrets: only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("servers", &self.servers)
            .field("commit_interval", &self.commit_interval)
            .field("connect_timeout", &self.connect_timeout)
            .field("outage_max", &self.outage_max)
            .field("transaction_timeout", &self.transaction_timeout)
            .field("oauth_token_file", &self.oauth_token_file)
            .field("message_bytes_max", &self.message_bytes_max)
            .field("rest", &self.rest.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::config::File;
    use crate::error::{Error, ErrorKind};

    fn parse(text: &str) -> Result<Config> {
        let environment: HashMap<&str, &str> = HashMap::new();
        let file = File::parse(Path::new("test.ini"), text, &environment)?;
        Config::from_section(&mut file.section("kafka"))
    }

    fn complaint(text: &str) -> Error {
        let error = parse(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{error}");
        error
    }

    #[test]
    fn the_defaults_are_as_documented() {
        let config = parse("[kafka]\nbootstrap.servers = a:1,b:2\n").unwrap();
        assert_eq!(config.servers, "a:1,b:2");
        assert_eq!(config.commit_interval, Duration::from_millis(100));
        assert_eq!(config.message_bytes_max, 1_000_000);
        let producer = config.producer();
        assert_eq!(producer.get("message.max.bytes"), Some("1048000"));
        assert_eq!(producer.get("partitioner"), Some("murmur2_random"));
    }

    #[test]
    fn foreign_keys_reach_librdkafka_over_the_defaults() {
        let text = "[kafka]\nbootstrap.servers = a:1\nlinger.ms = 7\nsession.timeout.ms = 6000\n";
        let config = parse(text).unwrap();
        assert_eq!(config.producer().get("linger.ms"), Some("7"));
        let member = config.member(&Group::new("g").unwrap(), Some("one"));
        assert_eq!(member.get("session.timeout.ms"), Some("6000"));
        assert_eq!(member.get("group.instance.id"), Some("one"));
    }

    #[test]
    fn keys_that_carry_the_contract_are_refused_with_what_serves_instead() {
        for (key, instead) in REFUSED {
            let text = format!("[kafka]\nbootstrap.servers = a:1\n{key} = x\n");
            let shown = complaint(&text).to_string();
            assert!(shown.contains(key) && shown.contains(instead), "{shown}");
        }
    }

    #[test]
    fn librdkafkas_verdict_names_the_key() {
        for (line, key) in [("lingr.ms = 5", "lingr.ms"), ("linger.ms = soon", "linger.ms")] {
            let shown = complaint(&format!("[kafka]\nbootstrap.servers = a:1\n{line}\n"));
            let shown = shown.to_string();
            assert!(shown.contains(&format!("[key: {key}]")), "{shown}");
        }
        let shown = complaint("[kafka]\n").to_string();
        assert!(shown.contains("bootstrap.servers"), "{shown}");
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        let text = "[kafka]\nbootstrap.servers = a:1\nclient.rack = s3cret\n";
        let shown = format!("{:?}", parse(text).unwrap());
        assert!(shown.contains("client.rack") && !shown.contains("s3cret"), "{shown}");
    }
}
