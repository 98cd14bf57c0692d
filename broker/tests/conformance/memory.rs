//! The broker in memory that users test with. Its connections play several processes.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use broker::conformance::Harness;
use broker::testing::Memory;
use broker::{Broker, Consumer, Subscription};

#[derive(Default)]
struct InMemory {
    memory: Memory,
    /// What was opened, to be shut down at a restart.
    opened: Mutex<Vec<Arc<dyn Broker>>>,
}

#[async_trait]
impl Harness for InMemory {
    async fn broker(&self) -> Arc<dyn Broker> {
        let broker = self.memory.connect_bare();
        self.opened.lock().unwrap().push(broker.clone());
        broker
    }

    async fn restart_server(&self) {
        let opened = std::mem::take(&mut *self.opened.lock().unwrap());
        for broker in &opened {
            broker.shutdown().await.unwrap();
        }
    }

    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer> {
        self.memory.evict(subscription.group.as_ref().unwrap());
        self.broker().await.subscribe(subscription.clone()).await.unwrap()
    }
}

broker::conformance_tests!(Some(InMemory::default()));
