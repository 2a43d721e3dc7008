//! The folder of a special use (RFC 6154), by its attribute or else by its name.

use imap_proto::{MailboxDatum, Response};

use super::{answer, conn::Conn, framer::Budget, names};
use crate::{
    error::Result,
    transport::{Raw, special_use::special_use},
};

/// The folder that `name` (`\Archive`) stands for; `None`: the server has none.
///
/// # Errors
/// `Settings` for a special use that is not known; the server's refusals.
pub fn folder(conn: &mut Conn, name: &str) -> Result<Option<String>> {
    let Some(special) = special_use(name)? else { return Ok(Some(name.to_owned())) };
    let (mut marked, mut named) = (None, None::<(usize, String)>);
    conn.bulk("LIST \"\" \"*\"", Budget::CONTROL, &mut |frame| {
        let Some(Response::MailboxData(MailboxDatum::List { name_attributes, delimiter, name })) =
            answer::parse(&frame.line)
        else {
            return Ok(());
        };
        // A name may come as a literal, which stands beside the line (RFC 3501 section 9: mailbox = astring).
        let folder = match frame.literals.as_slice() {
            [Raw::Memory(literal)] if name.is_empty() || name.as_ref() == "{0}" => {
                names::decoded(&String::from_utf8_lossy(literal))
            }
            _ => names::decoded(&name),
        };
        if folder.is_empty() {
            return Ok(());
        }
        if name_attributes.contains(&special.attribute) {
            marked.get_or_insert_with(|| folder.clone());
        }
        let last = delimiter.as_deref().and_then(|delimiter| folder.rsplit(delimiter).next()).unwrap_or(&folder);
        let rank = special.names.iter().position(|known| *known == last.to_lowercase());
        if let Some(rank) = rank.filter(|rank| named.as_ref().is_none_or(|(best, _)| rank < best)) {
            named = Some((rank, folder));
        }
        Ok(())
    })
    .map_err(|failure| failure.into_error("list its folders"))?;
    Ok(marked.or(named.map(|(_, folder)| folder)))
}
