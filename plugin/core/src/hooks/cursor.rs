//! Where a folder's fetching stands, in the store.

use super::Context;
use crate::{
    error::{Error, Kind, Result},
    store::Table,
    transport::Cursor,
};

/// The cursor of a folder and its version, if the folder was ever fetched.
pub fn read_cursor(context: &Context, folder: &str) -> Result<Option<(Cursor, u64)>> {
    let Some(record) = context.store.read(Table::Cursor, &cursor_id(context, folder)?)? else { return Ok(None) };
    let cursor = serde_json::from_slice(&record.bytes)
        .map_err(|e| Error::new(Kind::Internal, format!("The cursor of {folder} is damaged.")).source_error(e))?;
    Ok(Some((cursor, record.version)))
}

/// `false`: somebody else wrote in the meantime.
pub fn write_cursor(context: &Context, id: &str, version: Option<u64>, cursor: &Cursor) -> Result<bool> {
    let bytes = serde_json::to_vec(cursor)
        .map_err(|e| Error::new(Kind::Internal, "A cursor could not be written.").source_error(e))?;
    Ok(context.store.write(Table::Cursor, id, version, &bytes)?.is_some())
}

pub fn cursor_id(context: &Context, folder: &str) -> Result<String> {
    Ok(context.name()?.folder_id(folder))
}
