//! The embedded broker, bare and under the delivery layer. Each test has a directory of its
//! own, in which several brokers play several processes.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use broker::conformance::Harness;
use broker::embedded::{Config, Durability, open};
use broker::{Broker, Consumer, Subscription};

pub(crate) struct Embedded {
    directory: tempfile::TempDir,
    /// What was opened, to be shut down at a restart.
    opened: Mutex<Vec<Arc<dyn Broker>>>,
}

impl Embedded {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), opened: Mutex::default() }
    }
}

#[async_trait]
impl Harness for Embedded {
    async fn broker(&self) -> Arc<dyn Broker> {
        let config =
            Config { durability: Durability::Normal, ..Config::new(self.directory.path()) };
        let broker = open(config).await.unwrap();
        self.opened.lock().unwrap().push(broker.clone());
        broker
    }

    async fn restart_server(&self) {
        let opened = std::mem::take(&mut *self.opened.lock().unwrap());
        for broker in &opened {
            broker.shutdown().await.unwrap();
        }
    }

    fn compacts_soon(&self) -> bool {
        true
    }

    /// Does to the database what a member does that finds another's lease run out.
    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer> {
        let group = subscription.group.as_ref().unwrap().as_str().to_owned();
        let path = self.directory.path().join("forebay.db");
        let evict = move || {
            let database = rusqlite::Connection::open(path).unwrap();
            database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
            let members = database.execute("DELETE FROM members WHERE grp = ?1", [&group]).unwrap();
            assert_eq!(members, 1, "{group} has one member");
            database.execute("UPDATE positions SET owner = NULL WHERE grp = ?1", [&group]).unwrap();
        };
        tokio::task::spawn_blocking(evict).await.unwrap();
        self.broker().await.subscribe(subscription.clone()).await.unwrap()
    }
}

mod bare {
    use super::*;

    broker::conformance_tests!(Some(Embedded::new()));
}

mod delivery_layer {
    use super::*;
    use crate::layered::Layered;

    broker::conformance_tests!(Some(Layered(Embedded::new())));
}
