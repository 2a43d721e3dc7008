//! Messages that fail: counted, and after `limits::QUARANTINE_TRIES` put aside so that they block nobody. What fails by the
//! server's trouble (trouble.rs) is given `limits::QUARANTINE_PATIENCE` besides.
//!
//! ```text
//! failed once ──▶ twice ──▶ put aside ──replay──▶ handed out again ──imported/duplicate/refused──▶ (forgotten)
//!                               ├──drop──▶ (forgotten)                 └──failed──▶ put aside
//! ```
//! Put aside means: raw bytes and reason lie in the store, the mailbox does with the message what it does with a refused one
//! (`advanced.after_refusal`: error folder), and the cursor counts it as settled. What the server does not give out, and
//! what is larger than a record of the store, has no bytes here; a replay reads it from the mailbox.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Context, cursor::cursor_id, swap::until_it_holds};
use crate::{
    clock::UnixSeconds,
    error::{Error, Kind, Result},
    limits,
    store::Table,
    transport::Key,
};

/// One message that failed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Failed {
    pub tries: u32,
    /// Failures that may have been the server's trouble, and when the first of them was.
    #[serde(default)]
    pub unread: u32,
    #[serde(default)]
    pub unread_first: UnixSeconds,
    pub first: UnixSeconds,
    pub last: UnixSeconds,
    /// Why, the last time; a sentence.
    pub reason: String,
    pub size: u64,
    /// It is no longer fetched.
    pub aside: bool,
    /// Its raw bytes lie in the store.
    pub stored: bool,
    /// The host asked for it again.
    pub replay: bool,
}

impl Failed {
    /// Not counted yet.
    pub fn new(size: u64, reason: &str, now: UnixSeconds) -> Self {
        let reason = reason.chars().take(limits::PROVIDER_TEXT_MAX).collect();
        Self { first: now, last: now, reason, size, ..Self::default() }
    }

    /// As a batch tells of it.
    pub fn to_json(&self, key: &str) -> Value {
        json!({
            "key": key, "reason": self.reason, "tries": self.tries + self.unread, "first": self.first, "last": self.last,
            "size": self.size, "aside": self.aside, "stored": self.stored, "replay": self.replay,
        })
    }
}

/// Those of one folder, by the id of their keys.
pub type Folder = BTreeMap<String, Failed>;

/// # Errors
/// Those of the store.
pub fn read(context: &Context, folder: &str) -> Result<Folder> {
    Ok(read_versioned(context, folder)?.0)
}

/// Counts one more failure of a message. When it was the last one allowed, the caller puts it aside ([`put_aside`]).
///
/// # Errors
/// Those of the store.
pub fn count(context: &Context, key: &Key, size: u64, reason: &str) -> Result<Failed> {
    count_as(context, key, size, reason, false)
}

/// Counts one more failure that may be the server's.
///
/// # Errors
/// Those of the store.
pub fn count_unread(context: &Context, key: &Key, size: u64, reason: &str) -> Result<Failed> {
    count_as(context, key, size, reason, true)
}

fn count_as(context: &Context, key: &Key, size: u64, reason: &str, unread: bool) -> Result<Failed> {
    let now = context.session.clock.now();
    edit(context, &key.folder, |failed| {
        let full = failed.len() >= limits::QUARANTINE_MAX && !failed.contains_key(&key.id);
        if full {
            // What only stumbled once makes room; what is put aside never does.
            let oldest = failed.iter().filter(|(_, one)| !one.aside).min_by_key(|(_, one)| one.last);
            match oldest.map(|(id, _)| id.clone()) {
                Some(id) => drop(failed.remove(&id)),
                // Handed out again and again then: nothing is lost.
                None => return Failed { tries: 1, ..Failed::new(size, reason, now) },
            }
        }
        let one = failed.entry(key.id.clone()).or_insert_with(|| Failed::new(size, reason, now));
        if unread {
            one.unread_first = if one.unread == 0 { now } else { one.unread_first };
            one.unread = one.unread.saturating_add(1);
        } else {
            one.tries = one.tries.saturating_add(1);
        }
        one.last = now;
        one.reason = reason.chars().take(limits::PROVIDER_TEXT_MAX).collect();
        one.size = one.size.max(size);
        one.replay = false;
        one.clone()
    })
}

/// Has it failed often enough?
pub fn is_enough(failed: &Failed) -> bool {
    failed.tries >= limits::QUARANTINE_TRIES
}

/// Is the next failure the last one allowed?
pub fn is_last_try(failed: Option<&Failed>) -> bool {
    failed.map_or(0, |failed| failed.tries) + 1 >= limits::QUARANTINE_TRIES
}

/// The same as [`is_enough`] of one that may be well, were the server.
pub fn is_long_enough(failed: &Failed) -> bool {
    failed.unread >= limits::QUARANTINE_TRIES && failed.last - failed.unread_first >= limits::QUARANTINE_PATIENCE
}

/// Writes down the bytes, then that it is put aside: a crash in between leaves bytes that the next try writes over.
///
/// # Errors
/// Those of the store.
pub fn put_aside(context: &Context, key: &Key, raw: Option<&[u8]>) -> Result<Failed> {
    let stored = match raw.filter(|raw| raw.len() <= limits::STORE_RECORD_MAX) {
        Some(raw) => {
            let id = raw_id(context, key)?;
            let version = context.store.read(Table::Quarantined, &id)?.map(|record| record.version);
            context.store.write(Table::Quarantined, &id, version, raw)?;
            true
        }
        None => false,
    };
    edit(context, &key.folder, |failed| {
        let one = failed.entry(key.id.clone()).or_default();
        one.aside = true;
        one.stored |= stored;
        one.clone()
    })
}

/// `false`: it is not put aside.
///
/// # Errors
/// Those of the store.
pub fn replay(context: &Context, key: &Key) -> Result<bool> {
    edit(context, &key.folder, |failed| match failed.get_mut(&key.id).filter(|one| one.aside) {
        Some(one) => {
            one.replay = true;
            true
        }
        None => false,
    })
}

/// Its story is over: the bytes go, too. `false`: nothing was known of it.
///
/// # Errors
/// Those of the store.
pub fn forget(context: &Context, key: &Key) -> Result<bool> {
    let was = edit(context, &key.folder, |failed| failed.remove(&key.id))?;
    if was.as_ref().is_some_and(|was| was.stored) {
        context.store.delete(Table::Quarantined, &raw_id(context, key)?)?;
    }
    Ok(was.is_some())
}

/// The bytes of one that was put aside; `None`: they are not in the store.
///
/// # Errors
/// Those of the store.
pub fn raw(context: &Context, key: &Key) -> Result<Option<Vec<u8>>> {
    Ok(context.store.read(Table::Quarantined, &raw_id(context, key)?)?.map(|record| record.bytes.to_vec()))
}

/// All that were put aside, by their keys as the host knows them.
///
/// # Errors
/// Those of the store.
pub fn list(context: &Context) -> Result<Vec<Value>> {
    let account = &context.session.account;
    let mut all = Vec::new();
    for folder in account.fetching.iter().flat_map(|fetching| &fetching.folders) {
        for (id, failed) in read(context, folder)?.into_iter().filter(|(_, failed)| failed.aside) {
            let key = Key { folder: folder.clone(), id };
            all.push(failed.to_json(&context.name()?.key(&key)));
        }
    }
    Ok(all)
}

fn read_versioned(context: &Context, folder: &str) -> Result<(Folder, Option<u64>)> {
    let Some(record) = context.store.read(Table::Quarantine, &cursor_id(context, folder)?)? else {
        return Ok(Default::default());
    };
    let failed = serde_json::from_slice(&record.bytes)
        .map_err(|e| Error::new(Kind::Internal, format!("The quarantine of {folder} is damaged.")).source_error(e))?;
    Ok((failed, Some(record.version)))
}

fn edit<T>(context: &Context, folder: &str, change: impl Fn(&mut Folder) -> T) -> Result<T> {
    let busy = || {
        Error::new(Kind::Transient, "Other processes keep changing the quarantine of this mailbox.")
            .remedy("The same call can be repeated.")
    };
    until_it_holds(busy, || {
        let (mut failed, version) = read_versioned(context, folder)?;
        let result = change(&mut failed);
        let bytes = serde_json::to_vec(&failed)
            .map_err(|e| Error::new(Kind::Internal, "A quarantine could not be written.").source_error(e))?;
        let written = context.store.write(Table::Quarantine, &cursor_id(context, folder)?, version, &bytes)?;
        Ok(written.map(|_| result))
    })
}

fn raw_id(context: &Context, key: &Key) -> Result<String> {
    let name = context.name()?;
    Ok(name.record_id(&name.key(key)))
}
