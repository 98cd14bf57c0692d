//! Redis at `FOREBAY_TEST_REDIS` (a URL), bare and under the delivery layer. Tests share the
//! server, which goes on, and keep apart by a prefix of their own.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use broker::config::{File, ProcessEnvironment};
use broker::conformance::Harness;
use broker::redis::{Config, connect};
use broker::{Broker, Consumer, Result, Subscription};

mod faults;
mod restart;
mod server;
mod topologies;

pub(crate) struct Redis {
    url: String,
    prefix: String,
}

impl Redis {
    /// The server that the environment names; without one the test can't run.
    pub(crate) fn found() -> Option<Self> {
        let Ok(url) = std::env::var("FOREBAY_TEST_REDIS") else {
            let missing = "FOREBAY_TEST_REDIS is not set: start a server with scripts/servers";
            assert!(std::env::var_os("FOREBAY_REQUIRE_SERVERS").is_none(), "{missing}");
            eprintln!("not run: {missing}");
            return None;
        };
        Some(Self::at(url))
    }

    fn at(url: String) -> Self {
        Self { url, prefix: format!("test-{:016x}:", fastrand::u64(..)) }
    }

    fn config(&self) -> String {
        let Self { url, prefix } = self;
        format!("[redis]\nurl = {url}\nprefix = {prefix}\nsession.timeout = 3s\n")
    }

    /// Opens a broker with further lines of configuration.
    async fn open(&self, lines: &str) -> Result<Arc<dyn Broker>> {
        let text = format!("{}{lines}", self.config());
        let file = File::parse(Path::new("redis.ini"), &text, &ProcessEnvironment)?;
        connect(Config::from_section(file.section("redis"))?).await
    }

    async fn raw(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url.as_str()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// The key of a topic's first partition.
    fn stream(&self, topic: &broker::Topic) -> String {
        format!("{}{{{topic}/0}}", self.prefix)
    }
}

#[async_trait]
impl Harness for Redis {
    async fn broker(&self) -> Arc<dyn Broker> {
        self.open("").await.unwrap()
    }

    /// Other tests need the server to go on.
    async fn restart_server(&self) {}

    /// Does to the hash of the members what a lease does that runs out.
    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer> {
        let key = format!("{}{{{}}}:members", self.prefix, subscription.topic);
        let removed: i32 =
            redis::cmd("DEL").arg(key).query_async(&mut self.raw().await).await.unwrap();
        assert_eq!(removed, 1, "the group has a member");
        self.broker().await.subscribe(subscription.clone()).await.unwrap()
    }
}

mod bare {
    use super::*;

    broker::conformance_tests!(Redis::found());
}

mod delivery_layer {
    use super::*;
    use crate::layered::Layered;

    broker::conformance_tests!(Redis::found().map(Layered));
}
