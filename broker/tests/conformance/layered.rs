//! A backend under the delivery layer, which must change nothing of the rules.

use std::sync::Arc;

use async_trait::async_trait;
use broker::conformance::Harness;
use broker::{Broker, Consumer, Policy, Subscription};

/// Every broker of a harness under the layer.
pub(crate) struct Layered<H>(pub(crate) H);

#[async_trait]
impl<H: Harness> Harness for Layered<H> {
    async fn broker(&self) -> Arc<dyn Broker> {
        self.delivery_layer(Policy::default()).await
    }

    /// One layer, not two: the bare broker is wrapped.
    async fn delivery_layer(&self, default: Policy) -> Arc<dyn Broker> {
        self.0.delivery_layer(default).await
    }

    async fn restart_server(&self) {
        self.0.restart_server().await;
    }

    fn compacts_soon(&self) -> bool {
        self.0.compacts_soon()
    }

    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer> {
        self.0.usurp(subscription).await
    }
}
