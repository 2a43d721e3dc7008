//! A store on a thread of its own: whoever uses it waits by the deadline of its call, and a disk or a
//! lock that hangs keeps nobody longer.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Record, Store, Table};
use crate::{
    call,
    clock::Deadline,
    error::{About, Error, Kind, Result},
    limits,
    worker::{Missed, Worker},
};

pub struct Bounded {
    store: Arc<dyn Store>,
    worker: Worker<Arc<dyn Store>>,
    shown: String,
}

impl Bounded {
    /// `shown`: how the store is called in a sentence.
    ///
    /// # Errors
    /// `Transient` when no thread can be started.
    pub fn new(store: Arc<dyn Store>, shown: String) -> Result<Self> {
        let worker = Worker::start("oauth-mail-store", store.clone())?;
        Ok(Self { store, worker, shown })
    }

    /// One operation, at most as long as the store's own bound. What its caller gave up before it
    /// began is not begun; what was begun may be done all the same.
    fn run<T: Send + 'static>(&self, work: impl FnOnce(&dyn Store) -> Result<T> + Send + 'static) -> Result<T> {
        let deadline = Deadline::after(call::left(limits::STORE_TIMEOUT));
        let done = self.worker.call_then("the store", deadline, move |store| work(&**store), |_| None);
        done.unwrap_or_else(|missed| Err(self.missed(missed)))
    }

    fn missed(&self, missed: Missed) -> Error {
        match missed {
            Missed::TooLate(_) | Missed::Full => {
                Error::new(Kind::Transient, format!("The store {} gave no answer in time.", self.shown))
                    .remedy("Check the disk that it is on, and who keeps it locked.")
                    .with_about(About::Host)
            }
            other => other.into_error("the store"),
        }
    }
}

/// What is not here goes to the store at once: it is answered from memory, or (`reseal`) no call waits for it.
impl Store for Bounded {
    fn behind(&self) -> Option<&dyn Store> {
        Some(&*self.store)
    }

    fn read(&self, table: Table, id: &str) -> Result<Option<Record>> {
        let id = id.to_owned();
        self.run(move |store| store.read(table, &id))
    }

    fn write(&self, table: Table, id: &str, expected: Option<u64>, bytes: &[u8]) -> Result<Option<u64>> {
        let (id, bytes) = (id.to_owned(), Zeroizing::new(bytes.to_vec()));
        self.run(move |store| store.write(table, &id, expected, &bytes))
    }

    fn take(&self, table: Table, id: &str) -> Result<Option<Record>> {
        let id = id.to_owned();
        self.run(move |store| store.take(table, &id))
    }

    fn delete(&self, table: Table, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.run(move |store| store.delete(table, &id))
    }

    fn forget_old(&self, table: Table, seconds: i64, most: u32) -> Result<u32> {
        self.run(move |store| store.forget_old(table, seconds, most))
    }

    fn replication(&self) -> Result<Option<super::Replication>> {
        self.run(|store| store.replication())
    }
}
