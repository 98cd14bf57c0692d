//! The SDK on Kafka against bare librdkafka.

use anyhow::Result;

use super::bare_kafka::Bare;
use super::contest::{Contest, Size};
use super::{Arguments, router};
use crate::Kafka;
use crate::report::Row;

const PARTITIONS: u32 = 2;
const GOAL: f64 = 0.95;

/// Batches that a router consumes.
const ROUTED: usize = 800;

const SIZES: [Size; 3] = [
    Size { name: "100 B", bytes: 100, batches: 1_000, singles: 200_000 },
    Size { name: "1 KB", bytes: 1_000, batches: 400, singles: 100_000 },
    Size { name: "20 KB", bytes: 20_000, batches: 20, singles: 10_000 },
];

pub(super) async fn rows(given: &Arguments, server: &Kafka) -> Result<Vec<Row>> {
    let bare = Bare { servers: server.servers.clone() };
    let contest = Contest {
        given,
        backend: "Kafka",
        ini: server.ini(),
        bare: &bare,
        partitions: PARTITIONS,
        goal: GOAL,
    };
    let mut rows = contest.rows(&SIZES).await?;
    let broker = server.connect().await?;
    rows.extend(router::rows(given, "Kafka", &broker, ROUTED).await?);
    broker.shutdown().await?;
    Ok(rows)
}
