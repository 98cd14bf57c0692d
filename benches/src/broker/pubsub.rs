//! The SDK on Google Pub/Sub against Google's own client.

use anyhow::{Context, Result};

use super::Arguments;
use super::bare_pubsub::Bare;
use super::contest::{Contest, Size};
use crate::report::Row;

const VARIABLE: &str = "FOREBAY_TEST_PUBSUB";
const PROJECT: &str = "forebay-bench";
const GOAL: f64 = 0.9;

/// Few messages: the emulator keeps all of them in memory, and is what both sides wait for.
const SIZES: [Size; 3] = [
    Size { name: "100 B", bytes: 100, batches: 8, singles: 4_000 },
    Size { name: "1 KB", bytes: 1_000, batches: 8, singles: 4_000 },
    Size { name: "20 KB", bytes: 20_000, batches: 4, singles: 2_000 },
];

pub(super) async fn rows(given: &Arguments) -> Result<Vec<Row>> {
    let host = std::env::var(VARIABLE).with_context(|| {
        format!("{VARIABLE} is not set: run this by `scripts/servers run kafka pubsub redis --`")
    })?;
    let ini =
        format!("[broker]\nkind = pubsub\n[pubsub]\nproject = {PROJECT}\nemulator = {host}\n");
    let bare = Bare { host, project: PROJECT };
    let contest =
        Contest { given, backend: "Pub/Sub", ini, bare: &bare, partitions: 1, goal: GOAL };
    contest.rows(&SIZES).await
}
