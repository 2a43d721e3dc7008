//! The one connection of this process to a store file, shared by all who open the same file, and its
//! watch over the file: is it still the one under its name?
//!
//! One connection per file, because locks may belong to the open file (see the package `plugin`,
//! sqlite_locks.rs): two connections of one copy of SQLite share their locks in memory.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{APPLICATION_ID, SCHEMA, SCHEMA_VERSION, create_private, failed};
use crate::{
    error::{Error, Kind, Result},
    seam,
};

pub struct StoreFile {
    path: Option<PathBuf>,
    opened: Mutex<Opened>,
    /// Counts how often other content came under the name.
    epoch: AtomicU64,
    events: Mutex<Vec<String>>,
}

pub struct Opened {
    pub connection: Connection,
    identity: Option<Identity>,
}

/// Device and inode of the database and of its journal; `None` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity {
    database: Inode,
    journal: Option<Inode>,
}

type Inode = (u64, u64);

/// By process: a child of fork opens its own.
type Registry = HashMap<(u32, Inode), Weak<StoreFile>>;

static OPEN_FILES: Mutex<Option<Registry>> = Mutex::new(None);

impl StoreFile {
    /// The connection that this process has to the file, or a new one.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        let mut files = seam::lock("sqlite.files", &OPEN_FILES);
        let files = files.get_or_insert_default();
        files.retain(|_, file| file.strong_count() > 0);
        let known = inode(path).and_then(|inode| files.get(&(std::process::id(), inode))).and_then(Weak::upgrade);
        if let Some(file) = known {
            return Ok(file);
        }
        create_private(path)?;
        let opened = Opened { connection: connect(path)?, identity: None };
        let file = Arc::new(Self {
            path: Some(path.to_owned()),
            opened: Mutex::new(opened),
            epoch: AtomicU64::new(0),
            events: Mutex::default(),
        });
        if let Some(inode) = inode(path) {
            files.insert((std::process::id(), inode), Arc::downgrade(&file));
        }
        Ok(file)
    }

    pub fn in_memory() -> rusqlite::Result<Arc<Self>> {
        let opened = Opened { connection: Connection::open_in_memory()?, identity: None };
        let (epoch, events) = (AtomicU64::new(0), Mutex::default());
        Ok(Arc::new(Self { path: None, opened: Mutex::new(opened), epoch, events }))
    }

    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub fn events(&self) -> Vec<String> {
        std::mem::take(&mut *seam::lock("sqlite.events", &self.events))
    }

    /// A panic of another thread cannot have left a transaction open: dropping it rolled back.
    pub fn lock(&self) -> MutexGuard<'_, Opened> {
        seam::lock("sqlite.connection", &self.opened)
    }

    /// It is ready: from now on another file under its name is noticed.
    pub fn watch(&self) {
        let mut opened = self.lock();
        if opened.identity.is_none() {
            opened.identity = self.path.as_deref().and_then(identity);
        }
    }

    /// Before each use. `reopened` checks a file that came under the name.
    ///
    /// # Errors
    /// `Transient`: the file was deleted and cannot be made anew; those of `reopened`.
    pub fn check(&self, opened: &mut Opened, reopened: impl FnOnce(&mut Connection) -> Result<()>) -> Result<()> {
        let (Some(path), Some(before)) = (self.path.as_deref(), opened.identity) else { return Ok(()) };
        let shown = path.display();
        match identity(path) {
            Some(now)
                if now.database == before.database && (now.journal == before.journal || before.journal.is_none()) =>
            {
                return Ok(());
            }
            Some(now) if now.database == before.database && now.journal.is_none() => {
                // Only the names are gone: what the journal holds goes into the file.
                opened
                    .connection
                    .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                    .map_err(|e| failed(Some(path), e))?;
                self.say(format!("The journal of the store {shown} was deleted by another program; nothing is lost."));
            }
            Some(_) => {
                // It may be in use with its own journal: ours must not be written into it.
                let _ = opened.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
                self.say(format!("The store {shown} was replaced by another file while this process used it."));
            }
            None => {
                rescue(&opened.connection, path)?;
                self.say(format!("The store {shown} was deleted while this process used it, and is made anew."));
            }
        }
        // The old connection is closed before the new one is opened: one per file.
        opened.connection = Connection::open_in_memory().map_err(|e| failed(Some(path), e))?;
        create_private(path)?;
        opened.connection = connect(path)?;
        opened.identity = None;
        reopened(&mut opened.connection)?;
        opened.identity = identity(path);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn say(&self, event: String) {
        seam::lock("sqlite.events", &self.events).push(event);
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| failed(Some(path), error))?;
    connection.busy_handler(Some(super::wait_for_others)).map_err(|error| failed(Some(path), error))?;
    Ok(connection)
}

/// The content of a file that has no name any more, under the name again. Whoever else has it open
/// finds the new one there.
fn rescue(connection: &Connection, path: &Path) -> Result<()> {
    let failed_to = |e: io::Error| {
        Error::new(Kind::Transient, format!("The store {} was deleted, and cannot be made anew.", path.display()))
            .remedy("Make its folder exist and writable; what this process knows is written there again.")
            .source_error(e)
    };
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".rescue-{}", std::process::id()));
    let new = PathBuf::from(name);
    let _ = fs::remove_file(&new);
    create_private(&new).map_err(|e| failed_to(io::Error::other(e)))?;
    let copied = copy(connection, &new).map_err(|e| failed(Some(path), e));
    let named = copied.and_then(|()| match fs::hard_link(&new, path) {
        // Another process was faster.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.map_err(failed_to),
    });
    let _ = fs::remove_file(&new);
    named
}

fn copy(connection: &Connection, new: &Path) -> rusqlite::Result<()> {
    connection.execute("ATTACH ?1 AS rescue", [new.to_string_lossy()])?;
    let copied = connection.execute_batch(&format!(
        "PRAGMA rescue.synchronous = FULL;
         BEGIN IMMEDIATE;
         {}
         INSERT INTO rescue.meta SELECT name, value FROM main.meta;
         INSERT INTO rescue.record SELECT kind, id, version, sealed, written_at FROM main.record;
         PRAGMA rescue.application_id = {APPLICATION_ID};
         PRAGMA rescue.user_version = {SCHEMA_VERSION};
         COMMIT;",
        SCHEMA.replace("CREATE TABLE ", "CREATE TABLE rescue.")
    ));
    if copied.is_err() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    connection.execute_batch("DETACH rescue")?;
    copied
}

fn identity(path: &Path) -> Option<Identity> {
    let mut journal = path.as_os_str().to_owned();
    journal.push("-wal");
    Some(Identity { database: inode(path)?, journal: inode(Path::new(&journal)) })
}

#[cfg(unix)]
fn inode(path: &Path) -> Option<Inode> {
    use std::os::unix::fs::MetadataExt;

    // By name: closing any descriptor of the file would drop the locks of all of this process.
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn inode(_: &Path) -> Option<Inode> {
    None
}
