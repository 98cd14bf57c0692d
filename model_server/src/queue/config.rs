//! The section `[queue]`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use broker::config::{File, Section};
use broker::{Broker, Result, Topic, embedded, factory};

use super::embedded::{In, Out, Store};
use super::{Inlet, Outlet};

/// Shorter leases would run out between two looks at the queue.
#[cfg(feature = "redis")]
const LEASE_MIN: Duration = Duration::from_millis(100);

/// Where the queue is.
#[derive(Debug, Clone)]
pub struct Config {
    /// The topic in the embedded store, and the beginning of the keys in Redis.
    pub name: Topic,
    /// The backend.
    pub kind: Kind,
}

/// A backend of the queue.
#[derive(Clone)]
#[non_exhaustive]
pub enum Kind {
    /// The embedded store that is the broker too.
    Broker,
    /// An embedded store beside another broker.
    Embedded(embedded::Config),
    /// Redis.
    Redis {
        /// Its address, with the password where there is one.
        url: String,
        /// How long a publisher that stalls keeps the others waiting.
        lease: Duration,
    },
}

#[derive(Clone, Copy)]
enum Choice {
    Embedded,
    Redis,
}

impl Config {
    /// Reads and checks the section; `kind = embedded` uses `[embedded]`. Does no I/O.
    pub fn from_file(file: &File) -> Result<Self> {
        let mut section = file.section("queue");
        let choices = [("embedded", Choice::Embedded), ("redis", Choice::Redis)];
        let name = section.take_or("name", Topic::new("results-queue")?)?;
        let kind = match section.choose("kind", Choice::Embedded, &choices)? {
            Choice::Embedded if is_broker(file)? => Kind::Broker,
            Choice::Embedded => {
                Kind::Embedded(embedded::Config::from_section(file.section("embedded"))?)
            }
            Choice::Redis => redis(&mut section)?,
        };
        section.finish()?;
        Ok(Self { name, kind })
    }

    /// Opens the end where entries go in.
    pub async fn inlet(&self, broker: &Arc<dyn Broker>) -> Result<Box<dyn Inlet>> {
        match &self.kind {
            Kind::Broker => {
                Ok(Box::new(In::open(broker.clone(), &self.name, Store::Shared).await?))
            }
            Kind::Embedded(config) => {
                let store = embedded::open(config.clone()).await?;
                Ok(Box::new(In::open(store, &self.name, Store::Apart).await?))
            }
            #[cfg(feature = "redis")]
            Kind::Redis { url, .. } => {
                Ok(Box::new(super::redis::RedisInlet::open(url, &self.name).await?))
            }
            #[cfg(not(feature = "redis"))]
            Kind::Redis { .. } => Err(left_out()),
        }
    }

    /// Asks a queue in Redis whether it answers; the others have no server of their own.
    pub async fn health(&self) -> Result<()> {
        match &self.kind {
            #[cfg(feature = "redis")]
            Kind::Redis { url, .. } => {
                super::redis::RedisInlet::open(url, &self.name).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Opens the end where entries come out.
    pub async fn outlet(&self, broker: &Arc<dyn Broker>) -> Result<Box<dyn Outlet>> {
        match &self.kind {
            Kind::Broker => {
                Ok(Box::new(Out::open(broker.clone(), &self.name, Store::Shared).await?))
            }
            Kind::Embedded(config) => {
                let store = embedded::open(config.clone()).await?;
                Ok(Box::new(Out::open(store, &self.name, Store::Apart).await?))
            }
            #[cfg(feature = "redis")]
            Kind::Redis { url, lease } => {
                Ok(Box::new(super::redis::RedisOutlet::open(url, &self.name, *lease).await?))
            }
            #[cfg(not(feature = "redis"))]
            Kind::Redis { .. } => Err(left_out()),
        }
    }
}

#[cfg(not(feature = "redis"))]
fn left_out() -> broker::Error {
    broker::Error::new(
        broker::ErrorKind::Unsupported,
        "open queue",
        "built without feature \"redis\"",
    )
}

#[cfg(not(feature = "redis"))]
fn redis(section: &mut Section) -> Result<Kind> {
    Err(section.error("kind", "\"redis\" is not in this build: built without feature \"redis\""))
}

#[cfg(feature = "redis")]
fn redis(section: &mut Section) -> Result<Kind> {
    let lease = section.take_or("lease", Duration::from_secs(5))?;
    if lease < LEASE_MIN {
        return Err(section.error("lease", format!("{lease:?} is below {LEASE_MIN:?}")));
    }
    let url: String = section.require("url")?;
    super::redis::check(&url).map_err(|problem| section.error("url", problem))?;
    Ok(Kind::Redis { url, lease })
}

fn is_broker(file: &File) -> Result<bool> {
    Ok(matches!(factory::Config::from_file(file)?.backend, factory::Backend::Embedded(_)))
}

impl fmt::Debug for Kind {
    /// The address may hold a password: it is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker => f.write_str("Broker"),
            Self::Embedded(config) => f.debug_tuple("Embedded").field(config).finish(),
            Self::Redis { lease, .. } => {
                f.debug_struct("Redis").field("lease", lease).finish_non_exhaustive()
            }
        }
    }
}
