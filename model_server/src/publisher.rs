//! The second half of the model server: from the queue to the predictions topic, in order.

use std::time::Duration;

use crate::process::{Failure, Meter, Patience, Shutdown};
use crate::settings::Settings;

/// How long one look at the queue waits, and so how late the wish to end may be seen.
const WAIT: Duration = Duration::from_millis(250);

/// Runs until it is asked to end; the step that it is in comes to its end first. Where
/// predictions skip the queue it only waits for that.
pub async fn run(settings: &Settings, mut shutdown: Shutdown) -> Result<(), Failure> {
    if settings.model.exactly_once {
        tracing::info!("[model] exactly_once = true: model_server_sub publishes by itself");
        shutdown.wanted().await;
        return Ok(());
    }
    let broker = settings.connect().await?;
    let mut outlet = settings.queue.outlet(&broker).await?;
    let mut meter = Meter::new("predictions published", None);
    let mut patience = Patience::default();
    tracing::info!(queue = ?settings.queue.kind, broker = settings.broker.kind(), "ready");
    shutdown.ready(&broker, &[]);
    while !shutdown.is_wanted() {
        let topic = &settings.topics.predictions;
        match outlet.forward(broker.as_ref(), topic, WAIT).await {
            Ok(count) => {
                meter.add(count as u64);
                patience.reset();
            }
            Err(error) => patience.bear(error, &shutdown).await?,
        }
    }
    meter.finish();
    drop(outlet);
    Ok(broker.shutdown().await?)
}
