//! Was a message sent? Its Message-ID is looked for in the sent folder. EXAMINE and SEARCH change nothing.

use imap_proto::{MailboxDatum, Response};

use super::{answer, conn::Conn, framer::Budget, special};
use crate::{
    error::{Error, Kind, Result},
    limits,
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
    let Some(folder) = special::folder(conn, special::SENT)? else { return Ok(None) };
    let selected = conn.examine(&folder)?;
    let mut found = 0;
    if selected.exists > 0 {
        conn.bulk(&format!("UID SEARCH HEADER Message-ID \"{id}\""), Budget::CONTROL, &mut |frame| {
            if let Some(Response::MailboxData(MailboxDatum::Search(uids))) = answer::parse(&frame.line) {
                found += uids.len();
            }
            Ok(())
        })
        .map_err(|failure| failure.into_error("search the sent folder"))?;
    }
    Ok(Some((folder, found)))
}
