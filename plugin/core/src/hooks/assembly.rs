//! What becomes a batch: messages within the host's bounds, and the header that counts them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Batch, Context, Message, memory::Taken, quarantine, reader::Room};
use crate::error::Result;

/// How much the host takes at once.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub max_messages: usize,
    pub max_bytes: u64,
}

/// A batch in the making.
#[derive(Default)]
pub struct Assembly {
    messages: Vec<Message>,
    bytes: u64,
    pub skipped: Vec<Value>,
    /// By key: told of once, as it is in the end.
    pub quarantined: BTreeMap<String, Value>,
    taken: Vec<Taken>,
}

impl Assembly {
    pub fn push(&mut self, message: Message, taken: Option<Taken>) {
        self.bytes += message.raw.len() as u64;
        self.messages.push(message);
        self.taken.extend(taken);
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.skipped.is_empty() && self.quarantined.is_empty()
    }

    pub fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }

    /// One message larger than the bound travels alone; else the bound holds. What could not be read is listed, too.
    pub fn is_full(&self, bounds: Bounds, next_size: Option<u64>) -> bool {
        self.messages.len() + self.skipped.len() + self.quarantined.len() >= bounds.max_messages
            || (!self.messages.is_empty() && self.bytes + next_size.unwrap_or(0) > bounds.max_bytes)
            || self.bytes >= bounds.max_bytes
    }

    pub fn room(&self, bounds: Bounds) -> Room {
        let messages = bounds.max_messages.saturating_sub(self.messages.len());
        Room { messages, bytes: bounds.max_bytes.saturating_sub(self.bytes) }
    }

    pub fn finish(self, more: bool, remaining: usize, resets: Vec<String>) -> Batch {
        let (delivered, skipped, quarantined) = (self.messages.len(), self.skipped.len(), self.quarantined.len());
        let header = json!({
            "more": more,
            "remaining": remaining,
            "counts": {
                "listed": delivered + skipped + quarantined,
                "delivered": delivered,
                "skipped": skipped,
                "quarantined": quarantined,
            },
            "skipped": self.skipped,
            "quarantined": self.quarantined.into_values().collect::<Vec<_>>(),
            "resets": resets,
        });
        Batch { header: header.to_string(), messages: self.messages, _taken: self.taken }
    }
}

/// An empty batch: another node is at work on this mailbox.
pub fn elsewhere(seconds: i64) -> Batch {
    let header = json!({
        "more": false,
        "remaining": 0,
        "counts": {"listed": 0, "delivered": 0, "skipped": 0, "quarantined": 0},
        "skipped": [],
        "quarantined": [],
        "resets": [],
        "elsewhere_seconds": seconds,
    });
    Batch { header: header.to_string(), messages: Vec::new(), _taken: Vec::new() }
}

/// What was put aside, in the header of an empty batch.
pub fn listed_aside(context: &Context) -> Result<Batch> {
    let header = json!({"more": false, "remaining": 0, "quarantine": quarantine::list(context)?});
    Ok(Batch { header: header.to_string(), messages: Vec::new(), _taken: Vec::new() })
}
