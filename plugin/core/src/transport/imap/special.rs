//! Folders by what they are for (RFC 6154), whatever the server calls them: `\Sent`, `\Archive`, `\Junk`, `\Trash`, `\Drafts`.

use imap_proto::{MailboxDatum, NameAttribute, Response};

use super::{answer, conn::Conn, framer::Budget, names};
use crate::{
    error::{Error, Kind, Result},
    transport::Raw,
};

/// The attribute, and how servers that do not announce it name such a folder (Exchange Online announces none), in lower case;
/// the best name first.
struct Use {
    name: &'static str,
    attribute: NameAttribute<'static>,
    names: &'static [&'static str],
}

const USES: [Use; 5] = [
    Use {
        name: "\\Sent",
        attribute: NameAttribute::Sent,
        names: &[
            "sent items",
            "sent",
            "sent mail",
            "sent messages",
            "gesendete elemente",
            "gesendet",
            "éléments envoyés",
            "elementos enviados",
            "posta inviata",
        ],
    },
    Use { name: "\\Archive", attribute: NameAttribute::Archive, names: &["archive", "archiv", "archives", "archivo"] },
    Use {
        name: "\\Junk",
        attribute: NameAttribute::Junk,
        names: &[
            "junk email",
            "junk e-mail",
            "junk",
            "spam",
            "junk-e-mail",
            "courrier indésirable",
            "correo no deseado",
        ],
    },
    Use {
        name: "\\Trash",
        attribute: NameAttribute::Trash,
        names: &[
            "deleted items",
            "trash",
            "gelöschte elemente",
            "papierkorb",
            "éléments supprimés",
            "elementos eliminados",
        ],
    },
    Use {
        name: "\\Drafts",
        attribute: NameAttribute::Drafts,
        names: &["drafts", "entwürfe", "brouillons", "borradores", "bozze"],
    },
];

/// The sent folder's special use.
pub const SENT: &str = "\\Sent";

/// The folder that `name` (`\Archive`) stands for; `None`: the server has none.
///
/// # Errors
/// `Settings` for a special use that is not known; the server's refusals.
pub fn folder(conn: &mut Conn, name: &str) -> Result<Option<String>> {
    let Some(special) = USES.iter().find(|special| special.name.eq_ignore_ascii_case(name)) else {
        let known = USES.map(|special| special.name).join(", ");
        return Err(Error::new(Kind::Settings, format!("{name} is no special use of a folder."))
            .remedy(format!("Name a folder, or one of {known}.")));
    };
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
