//! From an ini file to a broker: the only place that knows which kinds there are.
//!
//! `[broker] kind` picks the backend, whose own section is named like it. The layers go on in
//! the order that [`layers`] tells.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::config::File;
#[cfg(feature = "pubsub")]
use crate::config::ProcessEnvironment;
use crate::contract::Broker;
use crate::embedded;
use crate::error::Result;
use crate::layers;
use crate::policy::Policy;

/// A checked choice of backend with its layers, not yet connected.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[broker] kind` and the section that it names.
    pub backend: Backend,
    /// What goes on top.
    pub layers: layers::Config,
}

/// The backends of this build, with their sections.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Backend {
    /// The embedded broker.
    Embedded(embedded::Config),
    /// Apache Kafka.
    #[cfg(feature = "kafka")]
    Kafka(crate::kafka::Config),
    /// Google Cloud Pub/Sub.
    #[cfg(feature = "pubsub")]
    Pubsub(crate::pubsub::Config),
    /// Redis Streams.
    #[cfg(feature = "redis")]
    Redis(crate::redis::Config),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Embedded,
    Kafka,
    Pubsub,
    Redis,
}

const KINDS: [(&str, Kind); 4] = [
    ("embedded", Kind::Embedded),
    ("kafka", Kind::Kafka),
    ("pubsub", Kind::Pubsub),
    ("redis", Kind::Redis),
];

impl Config {
    /// Reads `[broker]`, the section of the kind that it names, and those of the layers. Does
    /// no I/O.
    ///
    /// `ConfigInvalid` for an unknown kind, with the list of those there are, and for one that
    /// this build leaves out, with the feature that brings it.
    pub fn from_file(file: &File) -> Result<Self> {
        Ok(Self { backend: Backend::from_file(file)?, layers: layers::Config::from_file(file)? })
    }

    /// The backend's name.
    pub fn kind(&self) -> &'static str {
        self.backend.kind()
    }

    /// Connects, and puts the layers on; `policy` serves subscriptions without one.
    pub async fn connect(self, policy: Policy) -> Result<Arc<dyn Broker>> {
        Ok(self.layers.wrap(self.backend.connect().await?, policy))
    }
}

impl Backend {
    fn from_file(file: &File) -> Result<Self> {
        let mut section = file.section("broker");
        let kind = section.require::<String>("kind")?;
        let known = KINDS.iter().find(|(name, _)| *name == kind);
        // One file may hold the sections of several kinds; only the chosen one is checked.
        KINDS.iter().for_each(|(name, _)| drop(file.section(name)));
        let config = match known.map(|(_, kind)| kind) {
            Some(Kind::Embedded) => {
                Self::Embedded(embedded::Config::from_section(file.section("embedded"))?)
            }
            #[cfg(feature = "kafka")]
            Some(Kind::Kafka) => {
                Self::Kafka(crate::kafka::Config::from_section(&mut file.section("kafka"))?)
            }
            #[cfg(feature = "pubsub")]
            Some(Kind::Pubsub) => {
                let section = file.section("pubsub");
                Self::Pubsub(crate::pubsub::Config::from_section(section, &ProcessEnvironment)?)
            }
            #[cfg(feature = "redis")]
            Some(Kind::Redis) => {
                Self::Redis(crate::redis::Config::from_section(file.section("redis"))?)
            }
            // Each feature is named like the kind that it brings.
            #[allow(unreachable_patterns, reason = "a build may leave no kind out")]
            Some(_) => {
                let message =
                    format!("{kind:?} is not in this build: built without feature {kind:?}");
                return Err(section.error("kind", message));
            }
            None => {
                let names = KINDS.map(|(name, _)| name).join(", ");
                let message = format!("{kind:?} is unknown; choose from: {names}");
                return Err(section.error("kind", message));
            }
        };
        section.finish()?;
        Ok(config)
    }

    /// Its name, as in `[broker] kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "embedded",
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "kafka",
            #[cfg(feature = "pubsub")]
            Self::Pubsub(_) => "pubsub",
            #[cfg(feature = "redis")]
            Self::Redis(_) => "redis",
        }
    }

    /// Connects to the bare backend, without any layer.
    pub async fn connect(self) -> Result<Arc<dyn Broker>> {
        // Boxed, since the futures of some clients are nested beyond what the compiler follows.
        let connecting: BoxFuture<'_, Result<Arc<dyn Broker>>> = match self {
            Self::Embedded(config) => Box::pin(embedded::open(config)),
            #[cfg(feature = "kafka")]
            Self::Kafka(config) => Box::pin(crate::kafka::connect(config)),
            #[cfg(feature = "pubsub")]
            Self::Pubsub(config) => Box::pin(crate::pubsub::connect(config)),
            #[cfg(feature = "redis")]
            Self::Redis(config) => Box::pin(crate::redis::connect(config)),
        };
        connecting.await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;

    fn complaint(text: &str) -> String {
        let environment: HashMap<&str, &str> = HashMap::new();
        let file = File::parse(Path::new("forebay.ini"), text, &environment).unwrap();
        Config::from_file(&file).unwrap_err().to_string()
    }

    #[test]
    fn a_kind_that_is_unknown_or_left_out_says_what_would_serve() {
        let shown = complaint("[broker]\nkind = rabbit\n");
        assert!(shown.contains("\"rabbit\"") && shown.contains("embedded, kafka"), "{shown}");
        if cfg!(not(feature = "pubsub")) {
            let shown = complaint("[broker]\nkind = pubsub\n");
            assert!(shown.contains("built without feature \"pubsub\""), "{shown}");
        }
        assert!(complaint("[broker]\n").contains("kind"));
        let shown = complaint("[broker]\nkind = embedded\nknd = x\n[embedded]\ndirectory = x\n");
        assert!(shown.contains("did you mean \"kind\""), "{shown}");
    }
}
