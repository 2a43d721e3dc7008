//! Was a message sent? Its Message-ID is looked for in the sent folder. EXAMINE and SEARCH change nothing.

use super::{answer, ask, conn::Conn, framer::Budget, special};
use crate::{
    error::{About, Error, Kind, Result},
    limits,
    transport::special_use::SENT,
};

/// The name of the sent folder, and how many copies lie there; `None`: there is no sent folder.
///
/// # Errors
/// `Misuse` for what is no Message-ID; the server's refusals.
pub fn find(conn: &mut Conn, message_id: &str) -> Result<Option<(String, usize)>> {
    let id = message_id.trim();
    if id.is_empty()
        || id.len() > limits::MESSAGE_ID_MAX
        || !id.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    {
        return Err(Error::new(Kind::Misuse, "What is looked for is not a Message-ID."));
    }
    let Some(folder) = special::folder(conn, SENT)? else { return Ok(None) };
    let selected = conn.examine(&folder)?;
    let mut found = 0;
    if selected.exists > 0 {
        let criteria = format!("HEADER Message-ID \"{id}\"");
        let mut is_heard = false;
        let limit = conn
            .bulk(&format!("UID SEARCH {criteria}"), Budget::CONTROL, &mut |frame| {
                if let Some(uids) = answer::search(&frame.line) {
                    is_heard = true;
                    found += uids.len();
                }
                Ok(())
            })
            .map_err(|failure| failure.into_error("search the sent folder"))?;
        // A search that looked at a part of the folder proves nothing about the rest.
        if let Some(limit) = limit {
            let rest = vec![(1, limit.below.map_or(u32::MAX, |uid| uid.saturating_sub(1)).max(1))];
            let rest = ask::search(conn, rest, &format!(" {criteria}"))
                .map_err(|failure| failure.into_error("search the sent folder"))?;
            is_heard &= rest.is_some();
            found += rest.map_or(0, |uids| uids.len());
        }
        if !is_heard {
            return Err(Error::new(
                Kind::ServerMisbehaved,
                "The mail server searched the sent folder and named no result.",
            )
            .with_about(About::Folder)
            .remedy("Look into the sent folder: whether the message was sent is not known."));
        }
    }
    Ok(Some((folder, found)))
}
