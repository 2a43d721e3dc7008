//! A folder looked at for the diagnosis. EXAMINE, LIST, MYRIGHTS and a FETCH of sizes: none of them changes anything.

use super::{
    answer,
    conn::{Conn, Failure},
    cursor,
    framer::Budget,
};
use crate::{
    error::{Kind, Result},
    transport::{Entry, FolderLook, Key},
};

/// `None`: the folder is not there.
///
/// # Errors
/// Why a folder that is there cannot be opened.
pub fn look(conn: &mut Conn, folder: &str) -> Result<Option<FolderLook>> {
    let selected = match conn.examine(folder) {
        Ok(selected) => selected,
        Err(refusal) if refusal.kind() == Kind::Refused && !is_listed(conn, folder)? => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut newest = None;
    if selected.exists > 0 {
        let mut ask = |items: &str| {
            conn.bulk(&format!("FETCH {} ({items})", selected.exists), Budget::CONTROL, &mut |frame| {
                newest = answer::fetched(&frame.line).or(newest.take());
                Ok(())
            })
        };
        // A message that cannot be opened has no size, and may have its UID.
        let asked = match ask("UID RFC822.SIZE") {
            Err(Failure::No(_) | Failure::Bad(_)) => ask("UID"),
            asked => asked,
        };
        asked.map_err(|failure| failure.into_error("name the newest message"))?;
    }
    let newest = newest.map(|found| Entry {
        key: Key { folder: folder.to_owned(), id: cursor::id(selected.uidvalidity, found.uid) },
        size: found.size.map_or(0, u64::from),
        received_at: None,
    });
    Ok(Some(FolderLook { messages: selected.exists, newest, rights: rights(conn, folder)? }))
}

fn is_listed(conn: &mut Conn, folder: &str) -> Result<bool> {
    let mut listed = false;
    let name = conn.name_of(folder)?;
    conn.bulk(&format!("LIST \"\" {name}"), Budget::CONTROL, &mut |frame| {
        let line = frame.line.to_ascii_uppercase();
        // A name that only has children is no folder that can be opened.
        listed |= line.starts_with(b"* LIST ")
            && ![&b"\\NOSELECT"[..], b"\\NONEXISTENT"]
                .iter()
                .any(|flag| line.windows(flag.len()).any(|at| at == *flag));
        Ok(())
    })
    .map_err(|failure| failure.into_error("list its folders"))?;
    Ok(listed)
}

/// MYRIGHTS (RFC 4314 section 3.5); `None` without the extension, or when it is refused.
fn rights(conn: &mut Conn, folder: &str) -> Result<Option<String>> {
    if !conn.has("ACL") {
        return Ok(None);
    }
    let mut rights = None;
    let name = conn.name_of(folder)?;
    let outcome = conn.bulk(&format!("MYRIGHTS {name}"), Budget::CONTROL, &mut |frame| {
        let line = String::from_utf8_lossy(&frame.line);
        if line.to_ascii_uppercase().starts_with("* MYRIGHTS ") {
            rights = line.trim_end().rsplit(' ').next().map(|letters| letters.trim_matches('"').to_owned());
        }
        Ok(())
    });
    match outcome {
        Ok(_) | Err(Failure::No(_) | Failure::Bad(_)) => Ok(rights),
        Err(Failure::Fatal(error)) => Err(error),
    }
}
