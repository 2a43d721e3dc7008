//! What the host keeps besides requests: mailboxes with their sealed settings, administrators and their sessions, the audit
//! trail, and how the rounds of each mailbox went.
//!
//! | file | tables |
//! |---|---|
//! | `schema` | all of them, made once |
//! | `mailboxes` | `mailboxes` |
//! | `audit` | `audit` |
//! | `admins` | `admins`, `sessions`, `pending` |
//! | `runs` | `runs`: due times, leases, results, health |
//!
//! Times are whole seconds since 1970. Every call blocks.

mod admins;
mod audit;
mod mailboxes;
mod runs;
mod schema;
#[cfg(test)]
pub mod tests;

use super::seal::Seal;
use crate::{
    database::Database,
    failure::{Failure, Result},
    helpdesk::Helpdesk,
};

pub use admins::{Pending, Session};
pub use mailboxes::{Change, Mailbox};
pub use runs::{Counts, Due, ELSEWHERE, Finished, LEASE_SECONDS, Run};

/// Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    database: Database,
    seal: Seal,
    pub helpdesk: Helpdesk,
}

impl Storage {
    /// Makes the tables where there are none.
    ///
    /// # Errors
    /// The database cannot be reached or used, or it was written with another key.
    pub fn open(database: Database, seal: Seal) -> Result<Self> {
        database.create(schema::TABLES)?;
        let helpdesk = Helpdesk::on(database.clone())?;
        let storage = Self { database, seal, helpdesk };
        storage.check_key()?;
        Ok(storage)
    }

    /// May other nodes be at work on it?
    pub fn is_shared(&self) -> bool {
        self.database.is_shared()
    }

    /// The clock that all nodes share: the database's.
    pub fn now(&self) -> Result<i64> {
        let row = self.database.first("SELECT {now}", &[])?;
        row.ok_or_else(|| Failure::other("The database does not know the time."))?.integer(0)
    }
}
