//! The SDK on Redis Streams against the bare client.

use anyhow::{Context, Result};

use super::Arguments;
use super::bare_redis::Bare;
use super::contest::{Contest, Size};
use crate::report::Row;

const VARIABLE: &str = "FOREBAY_TEST_REDIS";
const GOAL: f64 = 0.95;

/// Few enough of the large ones that all rounds fit into memory.
const SIZES: [Size; 3] = [
    Size { name: "100 B", bytes: 100, batches: 400, singles: 100_000 },
    Size { name: "1 KB", bytes: 1_000, batches: 100, singles: 50_000 },
    Size { name: "20 KB", bytes: 20_000, batches: 8, singles: 4_000 },
];

pub(super) async fn rows(given: &Arguments) -> Result<Vec<Row>> {
    let url = std::env::var(VARIABLE).with_context(|| {
        format!("{VARIABLE} is not set: run this by `scripts/servers run kafka redis -- COMMAND`")
    })?;
    let ini = format!("[broker]\nkind = redis\n[redis]\nurl = {url}\n");
    let bare = Bare { url };
    let contest = Contest { given, backend: "Redis", ini, bare: &bare, partitions: 1, goal: GOAL };
    contest.rows(&SIZES).await
}
