//! Each layer around the embedded broker, and all of them as the factory puts them on: no rule
//! may tell the difference. Chaos has rates of zero.

use std::sync::Arc;

use async_trait::async_trait;
use broker::conformance::Harness;
use broker::layers::{self, Chaos, Retry, Timeout, Trace, chaos, retry, timeout, trace};
use broker::{Broker, Consumer, Policy, Subscription};

use super::embedded::Embedded;

/// The embedded broker under something.
struct Under {
    embedded: Embedded,
    layer: fn(Arc<dyn Broker>) -> Arc<dyn Broker>,
}

fn under(layer: fn(Arc<dyn Broker>) -> Arc<dyn Broker>) -> Option<Under> {
    Some(Under { embedded: Embedded::new(), layer })
}

#[async_trait]
impl Harness for Under {
    async fn broker(&self) -> Arc<dyn Broker> {
        (self.layer)(self.embedded.broker().await)
    }

    async fn restart_server(&self) {
        self.embedded.restart_server().await;
    }

    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer> {
        self.embedded.usurp(subscription).await
    }
}

mod chaos_layer {
    use super::*;

    broker::conformance_tests!(under(|inner| Chaos::wrap(inner, chaos::Config::default())));
}

mod timeout_layer {
    use super::*;

    broker::conformance_tests!(under(|inner| Timeout::wrap(inner, timeout::Config::default())));
}

mod retry_layer {
    use super::*;

    broker::conformance_tests!(under(|inner| Retry::wrap(inner, retry::Config::default())));
}

#[cfg(feature = "metrics")]
mod metrics_layer {
    use super::*;

    broker::conformance_tests!(under(layers::Metrics::wrap));
}

mod trace_layer {
    use super::*;

    broker::conformance_tests!(under(|inner| Trace::wrap(inner, &trace::Config::default())));
}

/// The stack of the factory. Its delivery layer is the only one: rules that bring a policy of
/// their own get it in place of the default.
struct Stack(Embedded);

#[async_trait]
impl Harness for Stack {
    async fn broker(&self) -> Arc<dyn Broker> {
        self.delivery_layer(Policy::default()).await
    }

    async fn delivery_layer(&self, default: Policy) -> Arc<dyn Broker> {
        layers::Config::default().wrap(self.0.broker().await, default)
    }

    async fn restart_server(&self) {
        self.0.restart_server().await;
    }

    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer> {
        self.0.usurp(subscription).await
    }
}

mod all_layers {
    use super::*;

    broker::conformance_tests!(Some(Stack(Embedded::new())));
}
