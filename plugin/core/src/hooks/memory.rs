//! One budget of memory for the large messages of all handles of a plugin: twenty mailboxes that each fetch 150 MB at once
//! must not take 3 GB.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    limits, seam,
};

pub struct Memory(Arc<Budget>);

struct Budget {
    left: Mutex<u64>,
    freed: Condvar,
    most: u64,
}

/// Memory that one message takes until its batch is freed.
pub struct Taken {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Memory {
    pub fn new(most: u64) -> Self {
        Self(Arc::new(Budget { left: Mutex::new(most), freed: Condvar::new(), most }))
    }

    /// For a message of `bytes`; small ones are free. Waits until other batches are freed. A message larger than the whole
    /// budget takes all of it, and so travels alone.
    ///
    /// # Errors
    /// `Transient` at the deadline.
    pub fn take(&self, bytes: u64, deadline: Deadline) -> Result<Option<Taken>> {
        if bytes <= limits::SPOOL_THRESHOLD as u64 {
            return Ok(None);
        }
        let bytes = bytes.min(self.0.most);
        let mut left = seam::lock("hooks.memory", &self.0.left);
        while *left < bytes {
            let wait = deadline.check("memory that large messages of other mailboxes take").map_err(|error| {
                Error::new(Kind::Transient, error.message())
                    .remedy("Free batches as soon as they are stored; \"memory_mb\" of the plugin configuration says how much there is.")
            })?;
            left = self.0.freed.wait_timeout(left, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        *left -= bytes;
        Ok(Some(Taken { budget: self.0.clone(), bytes }))
    }
}

impl Taken {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *seam::lock("hooks.memory", &self.budget.left) += self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn twenty_large_messages_never_take_more_than_the_budget() {
        let memory = Memory::new(200 * MB);
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let taken = memory.take(90 * MB, Deadline::after(Duration::from_secs(60))).unwrap().unwrap();
                    most.fetch_max(now.fetch_add(taken.bytes, Ordering::SeqCst) + taken.bytes, Ordering::SeqCst);
                    thread::yield_now();
                    now.fetch_sub(taken.bytes, Ordering::SeqCst);
                    drop(taken);
                });
            }
        });
        assert!(most.into_inner() <= 200 * MB);
    }

    #[test]
    fn larger_than_all_travels_alone_and_small_ones_are_free() {
        let memory = Memory::new(10 * MB);
        let soon = || Deadline::after(Duration::from_millis(20));
        let all = memory.take(500 * MB, soon()).unwrap();
        assert!(all.is_some() && memory.take(1000, soon()).unwrap().is_none());
        assert_eq!(memory.take(2 * MB, soon()).err().unwrap().kind(), Kind::Transient);
        drop(all);
        assert!(memory.take(2 * MB, soon()).unwrap().is_some());
    }
}
