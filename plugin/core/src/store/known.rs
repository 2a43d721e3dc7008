//! What this process knows of the store, held against what the store says: a store that was deleted,
//! replaced, restored from a backup or failed over to a standby that was behind is noticed before
//! what it says is used.
//!
//! A claim that this process wrote and that is gone, or is older than what was written, is written
//! back: the message of that key is not sent again. Sign-ins are mended by `oauth::refresh`, which
//! has the newer tokens. Of all else it is told, in the log and in the health of mailboxes.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Instant, UNIX_EPOCH},
};

use zeroize::Zeroizing;

use super::{Record, Store, Table};
use crate::{clock::UnixSeconds, error::Result, limits, log::Logger, seam};

pub struct Known {
    store: Arc<dyn Store>,
    log: Logger,
    records: Mutex<Records>,
    /// Times that a record was found to have gone back.
    regressions: AtomicU64,
    /// When it was noticed last, Unix seconds; 0: never.
    back_at: AtomicI64,
}

#[derive(Default)]
struct Records {
    newest: HashMap<(Table, String), Newest>,
    /// For the bound: the oldest goes first.
    order: VecDeque<(Table, String)>,
}

/// The last state of a record that this process wrote or read.
#[derive(Clone)]
struct Newest {
    version: u64,
    epoch: u64,
    since: Instant,
    /// What this process wrote of a claim.
    claim: Option<Arc<Zeroizing<Vec<u8>>>>,
}

impl Known {
    pub fn new(store: Arc<dyn Store>, log: Logger) -> Self {
        let (regressions, back_at) = (AtomicU64::new(0), AtomicI64::new(0));
        Self { store, log, records: Mutex::default(), regressions, back_at }
    }

    /// Before and after each operation: what the store below has noticed by itself.
    fn hear(&self) {
        for event in self.store.events() {
            self.noticed();
            self.log.error(format_args!("{event}"));
        }
    }

    fn noticed(&self) {
        let now = seam::wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        self.back_at.store(now, Ordering::Relaxed);
    }

    fn newest(&self, table: Table, id: &str) -> Option<Newest> {
        seam::lock("store.known", &self.records).newest.get(&(table, id.to_owned())).cloned()
    }

    fn remember(&self, table: Table, id: &str, version: u64, claim: Option<&[u8]>) {
        if !is_remembered(table) {
            return;
        }
        let key = (table, id.to_owned());
        let epoch = self.epoch();
        let mut records = seam::lock("store.known", &self.records);
        let written = claim.filter(|_| table == Table::Sent).map(|bytes| Arc::new(Zeroizing::new(bytes.to_vec())));
        let (claim, since) = match (written, records.newest.get(&key).filter(|known| known.version == version)) {
            // What was read is what was written, as long as its version is the same; and as old.
            (None, Some(known)) => (known.claim.clone(), known.since),
            (written, _) => (written, seam::instant()),
        };
        let newest = Newest { version, epoch, since, claim };
        if records.newest.insert(key.clone(), newest).is_none() {
            records.order.push_back(key);
            if records.order.len() > limits::STORE_REMEMBERED
                && let Some(oldest) = records.order.pop_front()
            {
                records.newest.remove(&oldest);
            }
        }
    }

    /// Deleted here: nothing is missed any more.
    fn forget(&self, table: Table, id: &str) {
        let key = (table, id.to_owned());
        let mut records = seam::lock("store.known", &self.records);
        if records.newest.remove(&key).is_some() {
            records.order.retain(|one| *one != key);
        }
    }

    /// Did this record go back since this process saw it last?
    fn is_behind(&self, known: &Newest, found: Option<&Record>) -> bool {
        match found {
            Some(record) => record.version < known.version,
            None if known.epoch < self.epoch() => true,
            // A claim is deleted when it is old; else nobody deletes one.
            None => {
                let age = seam::instant().saturating_duration_since(known.since);
                known.claim.is_some() && age < limits::STORE_CLAIM_LOST
            }
        }
    }

    fn tell(&self, table: Table) {
        self.noticed();
        self.regressions.fetch_add(1, Ordering::AcqRel);
        self.log.error(format_args!(
            "The store went back to an earlier state: a {} record is older than what this process knows. Was it \
             restored from a backup, or did a standby take over that was behind?",
            table.name()
        ));
    }
}

fn is_remembered(table: Table) -> bool {
    matches!(table, Table::Grant | Table::Sent | Table::Cursor)
}

impl Store for Known {
    fn behind(&self) -> Option<&dyn Store> {
        Some(&*self.store)
    }

    fn read(&self, table: Table, id: &str) -> Result<Option<Record>> {
        for _ in 0..limits::CLAIM_ATTEMPTS {
            let found = self.store.read(table, id);
            self.hear();
            let found = found?;
            let behind = self.newest(table, id).filter(|known| self.is_behind(known, found.as_ref()));
            let Some(known) = behind else {
                if let Some(record) = &found {
                    self.remember(table, id, record.version, None);
                }
                return Ok(found);
            };
            self.tell(table);
            let Some(claim) = known.claim else {
                self.forget(table, id);
                return Ok(found);
            };
            let expected = found.map(|record| record.version);
            if let Some(version) = self.store.write(table, id, expected, &claim)? {
                self.remember(table, id, version, Some(&claim));
                return Ok(Some(Record { version, bytes: claim.as_ref().clone() }));
            }
            // Somebody else wrote it at this moment: their state is looked at.
        }
        self.store.read(table, id)
    }

    fn write(&self, table: Table, id: &str, expected: Option<u64>, bytes: &[u8]) -> Result<Option<u64>> {
        let written = self.store.write(table, id, expected, bytes);
        self.hear();
        if let Ok(Some(version)) = written {
            self.remember(table, id, version, Some(bytes));
        }
        written
    }

    fn take(&self, table: Table, id: &str) -> Result<Option<Record>> {
        let taken = self.store.take(table, id);
        self.hear();
        if matches!(taken, Ok(Some(_))) {
            self.forget(table, id);
        }
        taken
    }

    fn delete(&self, table: Table, id: &str) -> Result<()> {
        let deleted = self.store.delete(table, id);
        self.hear();
        if deleted.is_ok() {
            self.forget(table, id);
        }
        deleted
    }

    /// Heard already, each into the log.
    fn events(&self) -> Vec<String> {
        Vec::new()
    }

    fn epoch(&self) -> u64 {
        self.store.epoch() + self.regressions.load(Ordering::Acquire)
    }

    fn went_back(&self) -> Option<UnixSeconds> {
        Some(self.back_at.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{SealingKey, SqliteStore};

    fn bed() -> (Arc<SqliteStore>, Known) {
        let below = Arc::new(SqliteStore::in_memory(SealingKey::generate().unwrap()).unwrap());
        let known = Known::new(below.clone(), Logger::silent());
        (below, known)
    }

    /// As a restored backup: what `id` was at an earlier version, or nothing.
    fn roll_back(below: &SqliteStore, id: &str) {
        below.roll_back(Table::Sent, id);
    }

    #[test]
    fn a_claim_that_a_restored_store_has_lost_is_written_back_and_told() {
        let (below, known) = bed();
        known.write(Table::Sent, "k1", None, b"begun").unwrap();
        known.write(Table::Sent, "k1", Some(1), b"sent").unwrap();
        assert_eq!(known.went_back(), None);
        roll_back(&below, "k1");
        let record = known.read(Table::Sent, "k1").unwrap().unwrap();
        assert_eq!(*record.bytes, b"sent");
        assert!(known.went_back().is_some() && known.epoch() > 0);
        // It is in the store again, for everybody.
        assert_eq!(*below.read(Table::Sent, "k1").unwrap().unwrap().bytes, b"sent");
        // What was deleted on purpose stays away.
        known.delete(Table::Sent, "k1").unwrap();
        assert!(known.read(Table::Sent, "k1").unwrap().is_none());
        // A record of another process is no concern of ours.
        below.write(Table::Sent, "k2", None, b"theirs").unwrap();
        assert_eq!(*known.read(Table::Sent, "k2").unwrap().unwrap().bytes, b"theirs");
    }
}
