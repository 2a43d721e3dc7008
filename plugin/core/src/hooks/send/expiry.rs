//! Records of sending do not stay for ever: a claim for `limits::CLAIM_KEPT`, a count for `limits::BRAKE_KEPT`, since they
//! were written last, by the store's clock.

use std::sync::atomic::{AtomicI64, Ordering};

use super::super::Context;
use crate::{clock::UnixSeconds, limits, store::Table};

/// When old records were looked for last, by this process.
#[derive(Default)]
pub struct Expiry {
    sent: AtomicI64,
    brake: AtomicI64,
}

impl Expiry {
    /// After a record was written: takes some old ones away. Never more than a few, so that the one message that meets an
    /// old store does not wait, and not at each message, because mostly there is none.
    pub fn sweep(&self, context: &Context, table: Table) {
        let (last, kept) = match table {
            Table::Sent => (&self.sent, limits::CLAIM_KEPT),
            Table::Brake => (&self.brake, limits::BRAKE_KEPT),
            _ => return,
        };
        let now: UnixSeconds = context.session.clock.now();
        let before = last.load(Ordering::Relaxed);
        let is_due = !(before..before + limits::EXPIRY_INTERVAL).contains(&now);
        // Whoever is slower leaves it to the other.
        if !is_due || last.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        match context.store.forget_old(table, kept, limits::EXPIRY_BATCH) {
            // There may be more.
            Ok(limits::EXPIRY_BATCH) => last.store(0, Ordering::Relaxed),
            Ok(_) => {}
            Err(error) => context.session.log.info(format_args!("Old records of sending were not deleted: {error}")),
        }
    }
}
