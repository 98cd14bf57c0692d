//! Makes batches of messages from the catalogue.

use std::ops::Range;
use std::sync::Arc;

use broker::{Headers, Message};
use bytes::Bytes;
use model_server::prediction::{CONTENT_TYPE, ID, LABEL};

use crate::catalogue::{Catalogue, Item, too_large};

/// The header with the name of the file that an image came from.
const FILE_NAME: &str = "file-name";
/// A batch ends early where its payloads get larger than this.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Which messages to make, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) run_id: String,
    /// The indices to publish.
    pub(crate) range: Range<u64>,
    pub(crate) keys: u32,
    pub(crate) batch_max: usize,
    pub(crate) message_bytes_max: usize,
}

/// Messages to be published at once.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Message>,
    /// The index of each message.
    pub(crate) indices: Vec<u64>,
    /// The index behind the batch.
    pub(crate) next: u64,
    /// What no message can be made of, with the reason.
    pub(crate) refused: Vec<(u64, String)>,
}

/// An iterator over batches.
pub(crate) struct Feed {
    catalogue: Arc<Catalogue>,
    plan: Plan,
    keys: Vec<Bytes>,
    id: String,
}

impl Feed {
    pub(crate) fn new(catalogue: Arc<Catalogue>, plan: Plan) -> Self {
        let keys = (0..plan.keys).map(|key| format!("key-{key}").into()).collect();
        Self { catalogue, plan, keys, id: String::new() }
    }

    fn message(&mut self, index: u64) -> Result<Message, String> {
        let bytes_max = self.plan.message_bytes_max;
        let item = self.catalogue.item(index, bytes_max)?;
        id(&mut self.id, &self.plan.run_id, index);
        let message = Message {
            key: Some(self.keys[(index % self.keys.len() as u64) as usize].clone()),
            headers: headers(&self.id, &item),
            payload: item.payload,
            timestamp: None,
        };
        match message.size() {
            size if size > bytes_max => Err(too_large(size, bytes_max)),
            _ => Ok(message),
        }
    }
}

impl Iterator for Feed {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let next = self.plan.range.start;
        let left = self.plan.range.end.saturating_sub(next);
        if left == 0 {
            return None;
        }
        let capacity = self.plan.batch_max.min(usize::try_from(left).unwrap_or(usize::MAX));
        let (messages, indices) = (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
        let mut batch = Batch { messages, indices, next, refused: Vec::new() };
        let mut bytes = 0;
        for index in next..next + capacity as u64 {
            match self.message(index) {
                Ok(message) => {
                    bytes += message.payload.len();
                    batch.messages.push(message);
                    batch.indices.push(index);
                }
                Err(reason) => batch.refused.push((index, reason)),
            }
            batch.next = index + 1;
            if bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        self.plan.range.start = batch.next;
        Some(batch)
    }
}

/// Writes the id of a message over what `text` holds.
fn id(text: &mut String, run_id: &str, index: u64) {
    use std::fmt::Write;
    text.clear();
    // Writing to a string cannot fail.
    let _ = write!(text, "{run_id}-{index:08}");
}

fn headers(id: &str, item: &Item) -> Headers {
    let optional = [
        item.content_type.map(|value| (CONTENT_TYPE, value.as_bytes())),
        item.label.map(|value| (LABEL, value.as_bytes())),
        item.file_name.as_deref().map(|value| (FILE_NAME, value)),
    ];
    let id = [(ID, id.as_bytes())];
    id.into_iter().chain(optional.into_iter().flatten()).collect()
}
