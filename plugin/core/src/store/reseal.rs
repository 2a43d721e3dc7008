//! Changing the key of a store: every record that a previous key sealed is sealed anew, one at a time.
//!
//! Each step is one atomic change after which every record opens under the present key or a previous one, so that the
//! process may be killed anywhere. The key check comes last: as long as it needs the previous key, a store that is
//! opened without it is refused.

use super::sealed::{KEY_CHECK, Place, SealingKey};
use crate::error::Result;

/// What became of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Were under a previous key and are under the present one now.
    pub changed: u64,
    /// Open under no key: left as they are.
    pub unreadable: u64,
}

/// One record as it is stored.
pub(super) struct Row {
    pub kind: String,
    pub id: String,
    pub version: u64,
    pub sealed: Vec<u8>,
}

/// A store, one row at a time.
pub(super) trait Rows {
    /// The first row behind this place, in the order of kind and id; `""`, `""` begins.
    fn next_after(&self, kind: &str, id: &str) -> Result<Option<Row>>;

    /// `false`: somebody wrote the row since it was read, with a key of their own.
    fn replace(&self, row: &Row, sealed: &[u8]) -> Result<bool>;

    fn key_check(&self) -> Result<Vec<u8>>;

    fn replace_key_check(&self, sealed: &[u8]) -> Result<()>;
}

/// Does nothing, and reads nothing, when there is no previous key.
pub(super) fn reseal(rows: &dyn Rows, key: &SealingKey) -> Result<Resealed> {
    let mut done = Resealed::default();
    if !key.has_previous() {
        return Ok(done);
    }
    let (mut kind, mut id) = (String::new(), String::new());
    while let Some(row) = rows.next_after(&kind, &id)? {
        match key.reseal(Place { table: &row.kind, id: &row.id, version: row.version }, &row.sealed) {
            Ok(None) => {}
            Ok(Some(sealed)) => {
                if !rows.replace(&row, &sealed)? {
                    // Read again: the writer may still use the previous key.
                    continue;
                }
                done.changed += 1;
            }
            Err(_) => done.unreadable += 1,
        }
        (kind, id) = (row.kind, row.id);
    }
    if let Some(sealed) = key.reseal(KEY_CHECK, &rows.key_check()?)? {
        rows.replace_key_check(&sealed)?;
    }
    Ok(done)
}

#[cfg(test)]
#[path = "reseal_tests.rs"]
mod tests;
