//! The newest requests of this face with their answers: bodies only, so never a token.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

const KEPT_MAX: usize = 500;
/// Longer pairs are not kept, bytes.
const PAIR_MAX: usize = 256 << 10;

#[derive(Clone, Debug)]
pub struct Exchange {
    pub request: String,
    pub response: String,
    pub status: u16,
}

#[derive(Default)]
pub struct Exchanges {
    kept: Mutex<VecDeque<Exchange>>,
    epoch: AtomicU64,
}

impl Exchanges {
    /// The oldest first, at most 500.
    pub fn all(&self) -> Vec<Exchange> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Every SyncState that was given out stands for nothing from now on.
    pub fn forget_sync_states(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// A SyncState of another one is unknown.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    pub(super) fn keep(&self, request: &str, response: &str, status: u16) {
        if request.len() + response.len() > PAIR_MAX {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Exchange { request: request.to_owned(), response: response.to_owned(), status });
    }
}
