//! Records of sending do not stay for ever: claims of idempotency keys and counts of automatic mail are forgotten so many days
//! after they were written last, by the store's clock.

use std::sync::atomic::{AtomicI64, Ordering};

use super::super::Context;
use crate::{clock::UnixSeconds, limits, store::Table};

/// When old records were looked for last, by this process.
pub struct Expiry {
    sent: AtomicI64,
    brake: AtomicI64,
    idempotency_days: u16,
    automatic_mail_days: u16,
}

impl Expiry {
    pub fn new(idempotency_days: u16, automatic_mail_days: u16) -> Self {
        Self { sent: AtomicI64::new(0), brake: AtomicI64::new(0), idempotency_days, automatic_mail_days }
    }

    /// After a record was written: takes some old ones away. Never more than a few, so that the one message that meets an
    /// old store does not wait, and not at each message, because mostly there is none.
    pub fn sweep(&self, context: &Context, table: Table) {
        let (last, days) = match table {
            Table::Sent => (&self.sent, self.idempotency_days),
            Table::Brake => (&self.brake, self.automatic_mail_days),
            _ => return,
        };
        let kept = i64::from(days) * limits::DAY;
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
