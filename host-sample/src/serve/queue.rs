//! Which mailboxes this node is at. [`Queue::tick`] renews their leases and claims those that are due; who is claimed is
//! worked on, and ends with [`Queue::end`]. Time comes in from outside.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::storage::{Due, Finished, LEASE_SECONDS, Storage};
use crate::failure::Result;

/// Leases are renewed three times before they end.
const RENEW_SECONDS: i64 = LEASE_SECONDS / 3;

pub struct Queue {
    storage: Storage,
    pub node: String,
    /// Rounds at the same time.
    threads: usize,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    rounds: BTreeMap<i64, Due>,
    renewed: i64,
}

/// What a tick decided.
#[derive(Debug, Default)]
pub struct Tick {
    /// To be begun.
    pub claimed: Vec<Due>,
    /// Another node has them now: their rounds must end.
    pub lost: Vec<i64>,
}

impl Queue {
    pub fn new(storage: Storage, node: String, threads: usize) -> Self {
        Self { storage, node, threads: threads.max(1), running: Mutex::default() }
    }

    pub fn running(&self) -> Vec<i64> {
        self.lock().rounds.keys().copied().collect()
    }

    /// Mailboxes that failed or were slow get at most half of the threads, so that the others stay on time.
    pub fn tick(&self, now: i64) -> Result<Tick> {
        let mut tick = Tick { lost: self.renew(now)?, claimed: Vec::new() };
        let (free, free_for_troubled) = {
            let running = self.lock();
            let troubled = running.rounds.values().filter(|due| due.troubled).count();
            let free = self.threads.saturating_sub(running.rounds.len());
            (free, free.min(self.threads.div_ceil(2).saturating_sub(troubled)))
        };
        if free == 0 {
            return Ok(tick);
        }
        for due in self.storage.due(now, &self.node, free, free_for_troubled)? {
            if tick.claimed.len() < free && self.begin(now, due.clone())? {
                tick.claimed.push(due);
            }
        }
        Ok(tick)
    }

    /// Claims one mailbox. `false`: somebody is at it.
    pub fn begin(&self, now: i64, due: Due) -> Result<bool> {
        let mailbox = due.mailbox;
        if self.lock().rounds.contains_key(&mailbox) || !self.storage.claim(now, &self.node, mailbox)? {
            return Ok(false);
        }
        self.lock().rounds.insert(mailbox, due);
        Ok(true)
    }

    /// `None`: the round was stopped and says nothing; it is due as before.
    pub fn end(&self, due: &Due, finished: Option<&Finished>) -> Result<()> {
        let done = match finished {
            Some(finished) => self.storage.finish(&self.node, due.mailbox, due.next_run, finished),
            None => self.storage.release(&self.node, due.mailbox),
        };
        // If it could not be written, the lease ends by itself.
        self.lock().rounds.remove(&due.mailbox);
        done
    }

    fn renew(&self, now: i64) -> Result<Vec<i64>> {
        let mailboxes: Vec<i64> = {
            let running = self.lock();
            if now < running.renewed + RENEW_SECONDS && now >= running.renewed {
                return Ok(Vec::new());
            }
            running.rounds.keys().copied().collect()
        };
        let lost = match mailboxes.is_empty() {
            true => Vec::new(),
            false => self.storage.renew(now, &self.node, &mailboxes)?,
        };
        self.lock().renewed = now;
        // One that ended meanwhile was not lost.
        let running = self.lock();
        Ok(lost.into_iter().filter(|mailbox| running.rounds.contains_key(mailbox)).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
