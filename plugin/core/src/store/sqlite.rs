//! One SQLite file, shared by any number of threads and processes of one machine.
//!
//! Write-ahead log with `synchronous = FULL`: a commit is on the disk when it returns. Every change runs in a
//! `BEGIN IMMEDIATE` transaction, so that compare-and-swap holds among processes. The journal is replayed at the next
//! open, whatever moment the last process was killed at.

#[path = "sqlite_file.rs"]
mod file;

use std::{
    ops::{Deref, DerefMut},
    path::Path,
    sync::{Arc, MutexGuard},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use self::file::{Opened, StoreFile};

use super::{
    Record, Store, Table, fault,
    reseal::{self, Resealed, Row, Rows},
    sealed::{KEY_CHECK, Place, SealingKey},
};
use crate::{
    call,
    error::{About, Error, Kind, Result},
    limits, machine, seam,
};

/// `PRAGMA user_version` of the layout below.
const SCHEMA_VERSION: i64 = 2;
/// `PRAGMA application_id`: "OAML".
const APPLICATION_ID: i64 = 0x4f41_4d4c;
const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE record (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        version INTEGER NOT NULL,
        sealed BLOB NOT NULL,
        written_at INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (kind, id)
    ) STRICT, WITHOUT ROWID;";
/// From layout 1, which did not say when a record was written.
const UPGRADE_1: &str = "
    ALTER TABLE record ADD COLUMN written_at INTEGER NOT NULL DEFAULT 0;
    UPDATE record SET written_at = unixepoch();";

pub struct SqliteStore {
    file: Arc<StoreFile>,
    key: SealingKey,
}

impl SqliteStore {
    /// Opens the file at `path`, and creates it (mode 0600) when there is none. Of one process, all
    /// who open the same file share one connection.
    ///
    /// # Errors
    /// `Settings`: the path cannot be used, is no store of this library, or belongs to another key. `Unsupported`:
    /// a newer version of the library wrote it. `Transient`: another process keeps it locked.
    pub fn open(path: &Path, key: SealingKey) -> Result<Self> {
        Self::prepare(StoreFile::open(path)?, key)
    }

    /// A store that lives and dies with this value: for tests and one-shot tools.
    ///
    /// # Errors
    /// `Internal` when SQLite has no memory.
    pub fn in_memory(key: SealingKey) -> Result<Self> {
        Self::prepare(StoreFile::in_memory().map_err(|error| failed(None, error))?, key)
    }

    fn prepare(file: Arc<StoreFile>, key: SealingKey) -> Result<Self> {
        let store = Self { file, key };
        let checked = store.make_ready(&mut store.file.lock().connection);
        checked?;
        store.file.watch();
        // Consents that nobody completed, left by processes that are gone.
        store.forget_old(Table::Consent, limits::CONSENT_KEPT, u32::MAX)?;
        Ok(store)
    }

    fn make_ready(&self, connection: &mut Connection) -> Result<()> {
        let place = self.file.path();
        check_ours(connection, place)?;
        configure(connection, place.is_some()).map_err(|error| failed(place, error))?;
        create_schema(connection, &self.key, place)?;
        // Older versions of this library do without it.
        connection
            .execute_batch("CREATE INDEX IF NOT EXISTS record_by_age ON record (kind, written_at)")
            .map_err(|error| failed(place, error))?;
        check_key(connection, &self.key, place)
    }

    /// The connection, to the file that is under the name now.
    fn lock(&self) -> Result<Locked<'_>> {
        let mut opened = self.file.lock();
        self.file.check(&mut opened, |connection| self.make_ready(connection))?;
        Ok(Locked(opened))
    }

    fn failed(&self, error: rusqlite::Error) -> Error {
        failed(self.file.path(), error)
    }

    /// Runs `work` in a write transaction; commits what `work` returns `Ok` for.
    fn change<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.lock()?;
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| self.failed(error))?;
        let done = work(&transaction)?;
        transaction.commit().map_err(|error| self.failed(error))?;
        Ok(done)
    }

    fn load(&self, connection: &Connection, table: Table, id: &str) -> Result<Option<Record>> {
        let row = connection
            .prepare_cached("SELECT version, sealed FROM record WHERE kind = ?1 AND id = ?2")
            .and_then(|mut query| {
                query
                    .query_row(params![table.name(), id], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
                    .optional()
            })
            .map_err(|error| self.failed(error))?;
        let Some((version, sealed)) = row else { return Ok(None) };
        let place = Place { table: table.name(), id, version: version as u64 };
        let bytes = self.key.open(place, &sealed).map_err(|broken| broken.into_error(place))?;
        Ok(Some(Record { version: place.version, bytes }))
    }

    fn version(&self, connection: &Connection, table: Table, id: &str) -> Result<Option<u64>> {
        connection
            .prepare_cached("SELECT version FROM record WHERE kind = ?1 AND id = ?2")
            .and_then(|mut query| query.query_row(params![table.name(), id], |row| row.get::<_, i64>(0)).optional())
            .map(|version| version.map(|version| version as u64))
            .map_err(|error| self.failed(error))
    }

    /// The highest version that a deleted record of this table ever had. New records begin above it, so that a slow
    /// writer that still expects a version of the deleted one never meets its number again.
    fn floor(&self, connection: &Connection, table: Table) -> Result<u64> {
        connection
            .prepare_cached("SELECT value FROM meta WHERE name = ?1")
            .and_then(|mut query| query.query_row([floor_name(table)], |row| row.get::<_, Vec<u8>>(0)).optional())
            .map(|value| value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
            .map_err(|error| self.failed(error))
    }

    fn remove(&self, transaction: &Transaction<'_>, table: Table, id: &str, version: u64) -> Result<()> {
        self.raise_floor(transaction, table, version)?;
        transaction
            .execute("DELETE FROM record WHERE kind = ?1 AND id = ?2", params![table.name(), id])
            .map(|_| ())
            .map_err(|error| self.failed(error))
    }

    fn raise_floor(&self, transaction: &Transaction<'_>, table: Table, version: u64) -> Result<()> {
        let floor = self.floor(transaction, table)?.max(version);
        transaction
            .execute(
                "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
                params![floor_name(table), floor.to_be_bytes()],
            )
            .map(|_| ())
            .map_err(|error| self.failed(error))
    }
}

impl Store for SqliteStore {
    fn read(&self, table: Table, id: &str) -> Result<Option<Record>> {
        self.load(&*self.lock()?, table, id)
    }

    fn write(&self, table: Table, id: &str, expected: Option<u64>, bytes: &[u8]) -> Result<Option<u64>> {
        super::check_size(table, bytes)?;
        self.change(|transaction| {
            if self.version(transaction, table, id)? != expected {
                return Ok(None);
            }
            let version = match expected {
                Some(version) => version.saturating_add(1),
                None => self.floor(transaction, table)?.saturating_add(1),
            };
            let sealed = self.key.seal(Place { table: table.name(), id, version }, bytes)?;
            transaction
                .prepare_cached(
                    "INSERT INTO record (kind, id, version, sealed, written_at) VALUES (?1, ?2, ?3, ?4, unixepoch())
                     ON CONFLICT (kind, id) DO UPDATE SET version = ?3, sealed = ?4, written_at = unixepoch()",
                )
                .and_then(|mut statement| statement.execute(params![table.name(), id, version as i64, sealed]))
                .map_err(|error| self.failed(error))?;
            Ok(Some(version))
        })
    }

    fn take(&self, table: Table, id: &str) -> Result<Option<Record>> {
        self.change(|transaction| {
            let record = self.load(transaction, table, id)?;
            if let Some(record) = &record {
                self.remove(transaction, table, id, record.version)?;
            }
            Ok(record)
        })
    }

    fn delete(&self, table: Table, id: &str) -> Result<()> {
        self.change(|transaction| match self.version(transaction, table, id)? {
            Some(version) => self.remove(transaction, table, id, version),
            None => Ok(()),
        })
    }

    fn forget_old(&self, table: Table, seconds: i64, most: u32) -> Result<u32> {
        self.change(|transaction| {
            let old: Vec<(String, i64)> = transaction
                .prepare_cached(
                    "SELECT id, version FROM record WHERE kind = ?1 AND written_at < unixepoch() - ?2 LIMIT ?3",
                )
                .and_then(|mut query| {
                    let rows =
                        query.query_map(params![table.name(), seconds, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
                    rows.collect()
                })
                .map_err(|error| self.failed(error))?;
            let Some(last) = old.iter().map(|(_, version)| *version).max() else { return Ok(0) };
            self.raise_floor(transaction, table, last as u64)?;
            for (id, _) in &old {
                transaction
                    .prepare_cached("DELETE FROM record WHERE kind = ?1 AND id = ?2")
                    .and_then(|mut statement| statement.execute(params![table.name(), id]))
                    .map_err(|error| self.failed(error))?;
            }
            Ok(old.len() as u32)
        })
    }

    fn reseal(&self) -> Result<Resealed> {
        reseal::reseal(self, &self.key)
    }

    fn epoch(&self) -> u64 {
        self.file.epoch()
    }

    fn events(&self) -> Vec<String> {
        self.file.events()
    }
}

/// The connection, for one operation.
struct Locked<'a>(MutexGuard<'a, Opened>);

impl Deref for Locked<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0.connection
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0.connection
    }
}

/// While another process writes: waits a little and tries again, at most as long as the call has.
fn wait_for_others(tries: i32) -> bool {
    let pause = Duration::from_millis(u64::try_from(tries).unwrap_or(0).clamp(1, 10));
    let tried = pause * u32::try_from(tries).unwrap_or(u32::MAX);
    if tried >= limits::STORE_BUSY_TIMEOUT || call::left(limits::STORE_BUSY_TIMEOUT) <= pause {
        return false;
    }
    seam::sleep(pause);
    true
}

impl Rows for SqliteStore {
    fn next_after(&self, kind: &str, id: &str) -> Result<Option<Row>> {
        self.lock()?
            .prepare_cached(
                "SELECT kind, id, version, sealed FROM record WHERE (kind, id) > (?1, ?2) ORDER BY kind, id LIMIT 1",
            )
            .and_then(|mut query| {
                let row = |row: &rusqlite::Row<'_>| {
                    Ok(Row {
                        kind: row.get(0)?,
                        id: row.get(1)?,
                        version: row.get::<_, i64>(2)? as u64,
                        sealed: row.get(3)?,
                    })
                };
                query.query_row([kind, id], row).optional()
            })
            .map_err(|error| self.failed(error))
    }

    fn replace(&self, row: &Row, sealed: &[u8]) -> Result<bool> {
        self.change(|transaction| {
            transaction
                .execute(
                    "UPDATE record SET sealed = ?4 WHERE kind = ?1 AND id = ?2 AND version = ?3",
                    params![row.kind, row.id, row.version as i64, sealed],
                )
                .map(|changed| changed > 0)
                .map_err(|error| self.failed(error))
        })
    }

    fn key_check(&self) -> Result<Vec<u8>> {
        read_key_check(&*self.lock()?)
            .and_then(|sealed| sealed.ok_or(rusqlite::Error::QueryReturnedNoRows))
            .map_err(|error| self.failed(error))
    }

    fn replace_key_check(&self, sealed: &[u8]) -> Result<()> {
        self.change(|transaction| {
            transaction
                .execute("UPDATE meta SET value = ?2 WHERE name = ?1", params![KEY_CHECK.id, sealed])
                .map(|_| ())
                .map_err(|error| self.failed(error))
        })
    }
}

fn floor_name(table: Table) -> String {
    format!("floor.{}", table.name())
}

/// SQLite gives the journal files the mode of the database file.
fn create_private(path: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => {
            // The new name must survive a power loss as well as what is written under it.
            #[cfg(unix)]
            if let Some(folder) = path.parent() {
                let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
                std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| {
                    let doing = format!("The store {} cannot be opened.", path.display());
                    machine::or_else(&doing, error, |error| unusable(path).source_error(error))
                })?;
            }
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => {
            Err(machine::or_else(&format!("The store {} cannot be opened.", path.display()), error, |error| {
                unusable(path).source_error(error)
            }))
        }
    }
}

/// Refuses a file of somebody else before anything is written to it.
fn check_ours(connection: &Connection, path: Option<&Path>) -> Result<()> {
    let (application, version, tables) = connection
        .query_row(
            "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
                    (SELECT count(*) FROM sqlite_schema)",
            [],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
        )
        .map_err(|error| failed(path, error))?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(fault(format!("{} is a database of another program.", shown(path))));
    }
    if version > SCHEMA_VERSION {
        return Err(Error::new(
            Kind::Unsupported,
            format!("The store {} was written by a newer version of this library (layout {version}).", shown(path)),
        )
        .remedy("Update the plugin, or name another store."));
    }
    Ok(())
}

fn configure(connection: &Connection, on_disk: bool) -> rusqlite::Result<()> {
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    if !on_disk {
        return Ok(());
    }
    // The change to WAL needs the file alone for a moment, and SQLite does not call the busy handler for it.
    let give_up = seam::instant() + limits::STORE_BUSY_TIMEOUT;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(_) => return Ok(()),
            Err(error) if is_busy(&error) && seam::instant() < give_up => seam::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error),
        }
    }
}

fn create_schema(connection: &mut Connection, key: &SealingKey, path: Option<&Path>) -> Result<()> {
    let failed = |error| failed(path, error);
    if layout(connection).map_err(failed)? == SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Another process may have been faster.
    match layout(&transaction).map_err(failed)? {
        SCHEMA_VERSION => {}
        1 => transaction.execute_batch(UPGRADE_1).map_err(failed)?,
        _ => {
            transaction.execute_batch(SCHEMA).map_err(failed)?;
            transaction
                .execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", params![KEY_CHECK.id, key.seal_check()?])
                .map_err(failed)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        }
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
    transaction.commit().map_err(failed)
}

fn layout(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn check_key(connection: &Connection, key: &SealingKey, path: Option<&Path>) -> Result<()> {
    let sealed = read_key_check(connection).map_err(|error| failed(path, error))?;
    key.check(sealed.as_deref(), &shown(path))
}

fn read_key_check(connection: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    connection.query_row("SELECT value FROM meta WHERE name = ?1", [KEY_CHECK.id], |row| row.get(0)).optional()
}

fn failed(path: Option<&Path>, error: rusqlite::Error) -> Error {
    let code = error.sqlite_error_code();
    // SQLite does not say that there was no descriptor left.
    let may_lack = matches!(code, Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::CannotOpen));
    if let Some(lack) = machine::Lack::of_now().filter(|_| may_lack) {
        return lack.error(&format!("The store {} could not be used.", shown(path))).source_error(error);
    }
    let mapped = match code {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::new(Kind::Transient, format!("Another process keeps the store {} locked.", shown(path)))
                .remedy("It is tried again at the next call; if it keeps happening, find the process that holds it.")
        }
        Some(ErrorCode::DiskFull) => {
            Error::new(Kind::Transient, format!("The disk of the store {} is full.", shown(path)))
                .remedy("Free some space; nothing was lost.")
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => {
            Error::new(Kind::Transient, format!("The store {} could not be read or written.", shown(path)))
                .remedy("Check the disk it is on.")
        }
        Some(ErrorCode::NotADatabase) => fault(format!("{} is not a store: it is no SQLite file.", shown(path))),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            path.map_or_else(|| fault("The store cannot be opened."), unusable)
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            Error::new(Kind::Internal, format!("The store {} is damaged.", shown(path)))
                .remedy("Restore it from a backup, or name a new store and give consent again.")
        }
        _ => Error::new(Kind::Internal, format!("The store {} refused a command.", shown(path))),
    };
    mapped.with_about(About::Host).source_error(error)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn unusable(path: &Path) -> Error {
    fault(format!("The store {} cannot be opened for writing.", path.display()))
        .remedy("Make its folder exist and writable for the user this program runs as.")
}

fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| "in memory".to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
impl SqliteStore {
    /// As a backup from before the record was written.
    pub(super) fn roll_back(&self, table: Table, id: &str) {
        let connection = self.lock().unwrap();
        connection.execute("DELETE FROM record WHERE kind = ?1 AND id = ?2", params![table.name(), id]).unwrap();
    }
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
