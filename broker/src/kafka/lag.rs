//! How far groups are behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::config::Config;
use super::control::{Client, Control, Notes, blocking, drain};
use super::error::translate;
use super::start::{self, Bounds};
use crate::contract::PartitionLag;
use crate::error::Result;
use crate::name::{Group, Topic};

/// Clients that ask for a group's position: librdkafka answers only for the client's own
/// group. They never join it.
#[derive(Default)]
pub(super) struct Observers(Mutex<HashMap<Group, Arc<Client>>>);

impl Observers {
    pub(super) fn of(&self, config: &Config, group: &Group) -> Result<Arc<Client>> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(group) {
            return Ok(client.clone());
        }
        let mut settings = config.control();
        settings.set("group.id", group.as_str());
        let client = settings.create_with_context(Notes::new(config.tokens()));
        let client: Arc<Client> = Arc::new(client.map_err(|error| translate("lag", error))?);
        clients.insert(group.clone(), client.clone());
        Ok(client)
    }

    /// Ends all clients.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The lag of each partition.
    pub(super) async fn lag(
        &self,
        config: &Config,
        control: &Control,
        topic: &Topic,
        group: &Group,
    ) -> Result<Vec<PartitionLag>> {
        let partitions = control.partitions("lag", topic).await?;
        let (client, topic) = (self.of(config, group)?, topic.clone());
        blocking("lag", move || {
            drain(&client);
            let failed = |error| translate("lag", error).with("topic", &topic);
            let committed =
                start::committed(&client, topic.as_str(), &partitions).map_err(failed)?;
            let bounds = start::bounds(&client, topic.as_str(), &partitions).map_err(failed)?;
            let lags = bounds.into_iter().map(|(partition, bounds)| {
                let place = committed.get(&partition).copied().flatten();
                lag(partition, place.map(|place| place.offset), bounds)
            });
            Ok(lags.collect())
        })
        .await
    }
}

fn lag(partition: u32, committed: Option<u64>, bounds: Bounds) -> PartitionLag {
    let from = committed.unwrap_or(bounds.low).max(bounds.low);
    let behind = bounds.high.saturating_sub(from);
    PartitionLag { partition, committed, end: bounds.high, behind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_counts_only_what_is_kept() {
        let bounds = Bounds { low: 10, high: 30 };
        for (committed, behind) in [(Some(25), 5), (None, 20), (Some(3), 20), (Some(30), 0)] {
            let lag = lag(1, committed, bounds);
            assert_eq!((lag.committed, lag.end, lag.behind), (committed, 30, behind));
        }
    }
}
