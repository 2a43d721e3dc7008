//! What must survive a crash: grants, consent states, cursors. Small sealed records, each replaced atomically.

mod bounded;
mod known;
#[cfg(feature = "test-seam")]
mod observed;
pub mod postgres;
mod reseal;
pub mod sealed;
pub mod sqlite;

use std::{path::Path, sync::Arc};

use zeroize::Zeroizing;

use crate::{
    clock::UnixSeconds,
    error::{Error, Fault, Kind, Result},
    limits,
    log::Logger,
};

pub use postgres::PostgresStore;
pub use reseal::Resealed;
pub use sealed::SealingKey;
pub use sqlite::SqliteStore;

/// Opens the store that a URL names: `sqlite:PATH` for one machine, `postgres://USER:PASSWORD@HOST/DATABASE` for many,
/// `sqlite::memory:` for tests.
///
/// # Errors
/// `Settings` for a URL that cannot be meant or used; and those of [`SqliteStore::open`] and [`PostgresStore::open`].
pub fn open(url: &str, key: SealingKey) -> Result<Arc<dyn Store>> {
    open_logging(url, key, Logger::silent())
}

/// As [`open`]; what is noticed of the store goes into `log`.
///
/// # Errors
/// As [`open`].
pub fn open_logging(url: &str, key: SealingKey, log: Logger) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(known::Known::new(open_database(url, key)?, log)))
}

fn open_database(url: &str, key: SealingKey) -> Result<Arc<dyn Store>> {
    match url.split_once(':') {
        Some(("sqlite", ":memory:")) => Ok(observed(Arc::new(SqliteStore::in_memory(key)?))),
        Some(("sqlite", path)) if !path.is_empty() => {
            // `sqlite:///var/lib/x` is what people write who think of it as a URL.
            let path = path.strip_prefix("//").unwrap_or(path);
            let store = observed(Arc::new(SqliteStore::open(Path::new(path), key)?));
            Ok(Arc::new(bounded::Bounded::new(store, path.to_owned())?))
        }
        Some(("postgres" | "postgresql", _)) => Ok(observed(Arc::new(PostgresStore::open(url, key)?))),
        // The URL is not repeated: it may hold a password.
        _ => Err(fault("The store must be written as sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE.")),
    }
}

fn observed(store: Arc<dyn Store>) -> Arc<dyn Store> {
    #[cfg(feature = "test-seam")]
    let store: Arc<dyn Store> = Arc::new(observed::Observed(store));
    store
}

/// The kinds of record. The name goes into the database and into the seal, so that a record moved to another place
/// cannot be opened there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Tokens and identity of one grant. Id: `oauth::grant_id`.
    Grant,
    /// A consent that was started and waits for its redirect. Id: the state parameter's SHA-256. Single use.
    Consent,
    /// What was settled in one folder of one mailbox. Id: mailbox + folder.
    Cursor,
    /// What became of a message that was sent under an idempotency key. Id: SHA-256 of mailbox and key.
    Sent,
    /// Keys of the library's own. Id: what the key is for.
    Key,
    /// How many automatic mails one correspondent got. Id: SHA-256 of mailbox and correspondent.
    Brake,
    /// Messages of one folder that failed, and how often. Id: mailbox + folder.
    Quarantine,
    /// The raw bytes of a quarantined message. Id: SHA-256 of its key.
    Quarantined,
    /// Which node fetches a mailbox, and until when. Id: mailbox.
    Lease,
    /// At which servers a login name was met, and under which name. Id: direction and login.
    Mailbox,
}

impl Table {
    pub const ALL: [Self; 10] = [
        Self::Grant,
        Self::Consent,
        Self::Cursor,
        Self::Sent,
        Self::Key,
        Self::Brake,
        Self::Quarantine,
        Self::Quarantined,
        Self::Lease,
        Self::Mailbox,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Consent => "consent",
            Self::Cursor => "cursor",
            Self::Sent => "sent",
            Self::Key => "key",
            Self::Brake => "brake",
            Self::Quarantine => "quarantine",
            Self::Quarantined => "quarantined",
            Self::Lease => "lease",
            Self::Mailbox => "mailbox",
        }
    }
}

/// A record as it was read. `version` counts its writes, from 1; one that was deleted and written anew goes on above
/// the deleted one's, so that a version is never used twice.
pub struct Record {
    pub version: u64,
    pub bytes: Zeroizing<Vec<u8>>,
}

/// Durable records with compare-and-swap. Every method returns only when what it did would survive a power loss.
///
/// # Errors
/// `Transient` when the database cannot be reached or is busy; `Internal` for a record that is damaged, that stands
/// in another's place, or was sealed with another key (the sentence says which).
pub trait Store: Send + Sync {
    fn read(&self, table: Table, id: &str) -> Result<Option<Record>>;

    /// Writes when the stored version is `expected` (`None`: when there is no record yet) and returns the new version;
    /// `Ok(None)` says that somebody else was faster, and nothing was written.
    fn write(&self, table: Table, id: &str, expected: Option<u64>, bytes: &[u8]) -> Result<Option<u64>>;

    /// Reads and deletes in one step: of any number of callers at most one gets the record.
    fn take(&self, table: Table, id: &str) -> Result<Option<Record>>;

    fn delete(&self, table: Table, id: &str) -> Result<()>;

    /// The store behind this one. What is not defined here is asked there, so that no wrapper can forget to pass it on.
    fn behind(&self) -> Option<&dyn Store> {
        None
    }

    /// Deletes records of `table` that were written last more than `seconds` ago by the store's own clock, at most `most`;
    /// how many those were.
    fn forget_old(&self, table: Table, seconds: i64, most: u32) -> Result<u32> {
        self.behind().map_or(Ok(0), |store| store.forget_old(table, seconds, most))
    }

    /// Do several nodes share it, which have to agree on who fetches a mailbox?
    fn is_shared(&self) -> bool {
        self.behind().is_some_and(|store| store.is_shared())
    }

    /// Seconds by which the clock of the store is ahead of this machine's: leases and claims, which
    /// several nodes judge, are judged by the clock of what they share.
    fn ahead(&self) -> i64 {
        self.behind().map_or(0, |store| store.ahead())
    }

    /// Counts how often the store may have gone back to an earlier state: another file came under its
    /// name, another server answers, or a record was older than this process knew it.
    fn epoch(&self) -> u64 {
        self.behind().map_or(0, |store| store.epoch())
    }

    /// What was noticed of the store since the last call, each in a sentence.
    fn events(&self) -> Vec<String> {
        self.behind().map_or_else(Vec::new, |store| store.events())
    }

    /// When it was last seen to have gone back.
    fn went_back(&self) -> Option<UnixSeconds> {
        self.behind()?.went_back()
    }

    /// Copies of the database that may take over; `None`: there is no such thing.
    fn replication(&self) -> Result<Option<Replication>> {
        self.behind().map_or(Ok(None), |store| store.replication())
    }

    /// Seals with the present key what a previous one sealed. May be killed and repeated at any moment, and run on
    /// several nodes at once; without previous keys it does nothing.
    fn reseal(&self) -> Result<Resealed> {
        self.behind().map_or_else(|| Ok(Resealed::default()), |store| store.reseal())
    }
}

/// How the database is copied to standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replication {
    /// Standbys that follow now.
    pub standbys: i64,
    /// A commit waits for one of them (`synchronous_standby_names` is set).
    pub is_synchronous: bool,
}

fn check_size(table: Table, bytes: &[u8]) -> Result<()> {
    if bytes.len() <= limits::STORE_RECORD_MAX {
        return Ok(());
    }
    Err(Error::new(
        Kind::TooLarge,
        format!("A {} record of {} bytes is larger than the store takes.", table.name(), bytes.len()),
    ))
}

fn fault(message: impl Into<String>) -> Error {
    Error::settings(vec![Fault { pointer: "/store".into(), label: "Store".into(), message: message.into() }])
}
