//! From an ini file to a broker: the only place that knows which kinds there are.
//!
//! `[broker] kind` picks the backend, whose own section is named like it. The layers go on in
//! this order: backend, then [`Delivery`].

use std::sync::Arc;

use crate::config::File;
use crate::contract::Broker;
use crate::embedded;
use crate::error::Result;
use crate::layers::Delivery;
use crate::policy::Policy;

/// A checked choice of backend, not yet connected.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Config {
    /// The embedded broker.
    Embedded(embedded::Config),
    /// Apache Kafka.
    #[cfg(feature = "kafka")]
    Kafka(crate::kafka::Config),
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
    /// Reads `[broker]` and the section of the kind that it names. Does no I/O.
    ///
    /// `ConfigInvalid` for an unknown kind, with the list of those there are, and for one that
    /// this build leaves out, with the feature that brings it.
    pub fn from_file(file: &File) -> Result<Self> {
        let mut section = file.section("broker");
        let kind = section.require::<String>("kind")?;
        let known = KINDS.iter().find(|(name, _)| *name == kind);
        // One file may hold the sections of several kinds; only the chosen one is checked.
        KINDS.iter().for_each(|(name, _)| drop(file.section(name)));
        let missing = |feature| {
            section.error(
                "kind",
                format!("{kind:?} is not in this build: built without feature {feature:?}"),
            )
        };
        let config = match known.map(|(_, kind)| kind) {
            Some(Kind::Embedded) => {
                Self::Embedded(embedded::Config::from_section(file.section("embedded"))?)
            }
            #[cfg(feature = "kafka")]
            Some(Kind::Kafka) => {
                Self::Kafka(crate::kafka::Config::from_section(&mut file.section("kafka"))?)
            }
            #[cfg(not(feature = "kafka"))]
            Some(Kind::Kafka) => return Err(missing("kafka")),
            Some(Kind::Pubsub) => return Err(missing("pubsub")),
            Some(Kind::Redis) => return Err(missing("redis")),
            None => {
                let names = KINDS.map(|(name, _)| name).join(", ");
                let message = format!("{kind:?} is unknown; choose from: {names}");
                return Err(section.error("kind", message));
            }
        };
        section.finish()?;
        Ok(config)
    }

    /// The backend's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "embedded",
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "kafka",
        }
    }

    /// Connects, and puts the layers on; `policy` serves subscriptions without one.
    pub async fn connect(self, policy: Policy) -> Result<Arc<dyn Broker>> {
        let backend = match self {
            Self::Embedded(config) => embedded::open(config).await?,
            #[cfg(feature = "kafka")]
            Self::Kafka(config) => crate::kafka::connect(config).await?,
        };
        Ok(Delivery::wrap(backend, policy))
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
        let shown = complaint("[broker]\nkind = pubsub\n");
        assert!(shown.contains("built without feature \"pubsub\""), "{shown}");
        assert!(complaint("[broker]\n").contains("kind"));
        let shown = complaint("[broker]\nkind = embedded\nknd = x\n[embedded]\ndirectory = x\n");
        assert!(shown.contains("did you mean \"kind\""), "{shown}");
    }
}
