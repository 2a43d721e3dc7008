//! Was a message sent? Its Message-ID is looked for in the sent folder. EXAMINE and SEARCH change nothing.

use imap_proto::{MailboxDatum, NameAttribute, Response};

use super::{answer, conn::Conn, framer::Budget, names};
use crate::{
    error::{Error, Kind, Result},
    limits,
};

/// How servers without SPECIAL-USE name it (Exchange Online has none), in lower case.
const NAMES: [&str; 9] = [
    "sent items",
    "sent",
    "sent mail",
    "sent messages",
    "gesendete elemente",
    "gesendet",
    "éléments envoyés",
    "elementos enviados",
    "posta inviata",
];

/// The name of the sent folder, and whether the message lies there; `None`: there is no sent folder.
///
/// # Errors
/// `Misuse` for what is no Message-ID; the server's refusals.
pub fn find(conn: &mut Conn, message_id: &str) -> Result<Option<(String, bool)>> {
    let id = message_id.trim();
    if id.is_empty()
        || id.len() > limits::MESSAGE_ID_MAX
        || !id.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    {
        return Err(Error::new(Kind::Misuse, "What is looked for is not a Message-ID."));
    }
    let Some(folder) = sent_folder(conn)? else { return Ok(None) };
    let selected = conn.examine(&folder)?;
    let mut found = false;
    if selected.exists > 0 {
        conn.bulk(&format!("UID SEARCH HEADER Message-ID \"{id}\""), Budget::CONTROL, &mut |frame| {
            if let Some(Response::MailboxData(MailboxDatum::Search(uids))) = answer::parse(&frame.line) {
                found |= !uids.is_empty();
            }
            Ok(())
        })
        .map_err(|failure| failure.into_error("search the sent folder"))?;
    }
    Ok(Some((folder, found)))
}

/// The one marked `\Sent` (RFC 6154), else the one with the best known name.
fn sent_folder(conn: &mut Conn) -> Result<Option<String>> {
    let (mut marked, mut named) = (None, None::<(usize, String)>);
    conn.bulk("LIST \"\" \"*\"", Budget::CONTROL, &mut |frame| {
        let Some(Response::MailboxData(MailboxDatum::List { name_attributes, delimiter, name })) =
            answer::parse(&frame.line)
        else {
            return Ok(());
        };
        let folder = names::decoded(&name);
        if name_attributes.contains(&NameAttribute::Sent) {
            marked.get_or_insert_with(|| folder.clone());
        }
        let last = delimiter.as_deref().and_then(|delimiter| folder.rsplit(delimiter).next()).unwrap_or(&folder);
        let rank = NAMES.iter().position(|known| *known == last.to_lowercase());
        if let Some(rank) = rank.filter(|rank| named.as_ref().is_none_or(|(best, _)| rank < best)) {
            named = Some((rank, folder));
        }
        Ok(())
    })
    .map_err(|failure| failure.into_error("list its folders"))?;
    Ok(marked.or(named.map(|(_, folder)| folder)))
}
