//! Folders by what they are for (RFC 6154), whatever a server calls them: one table for all protocols.

use imap_proto::NameAttribute;

use crate::error::{About, Error, Kind, Result};

pub struct SpecialUse {
    /// As settings write it.
    pub name: &'static str,
    pub attribute: NameAttribute<'static>,
    /// How servers that announce no attribute name such a folder (Exchange Online announces none), in lower case; the best
    /// name first.
    pub names: &'static [&'static str],
    /// DistinguishedFolderIdNameType; `None`: EWS has no name for it, and it is looked for by `names`.
    pub ews: Option<&'static str>,
    /// "mailFolder resource type", well-known folder names.
    pub graph: &'static str,
}

/// The sent folder's special use.
pub const SENT: &str = "\\Sent";

const ALL: [SpecialUse; 5] = [
    SpecialUse {
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
        ews: Some("sentitems"),
        graph: "sentitems",
    },
    SpecialUse {
        name: "\\Archive",
        attribute: NameAttribute::Archive,
        names: &["archive", "archiv", "archives", "archivo"],
        ews: None,
        graph: "archive",
    },
    SpecialUse {
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
        ews: Some("junkemail"),
        graph: "junkemail",
    },
    SpecialUse {
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
        ews: Some("deleteditems"),
        graph: "deleteditems",
    },
    SpecialUse {
        name: "\\Drafts",
        attribute: NameAttribute::Drafts,
        names: &["drafts", "entwürfe", "brouillons", "borradores", "bozze"],
        ews: Some("drafts"),
        graph: "drafts",
    },
];

/// The special use that a folder of the settings names; `None`: it is a name.
///
/// # Errors
/// `Settings` for one that is not known.
pub fn special_use(folder: &str) -> Result<Option<&'static SpecialUse>> {
    if !folder.starts_with('\\') {
        return Ok(None);
    }
    let found = ALL.iter().find(|special| special.name.eq_ignore_ascii_case(folder));
    found.map(Some).ok_or_else(|| {
        let known = ALL.each_ref().map(|special| special.name).join(", ");
        Error::new(Kind::Settings, format!("{folder} is no special use of a folder."))
            .with_about(About::Folder)
            .remedy(format!("Name a folder, or one of {known}."))
    })
}

/// Mail of a folder is to be moved into that same folder: it would come again and again.
pub fn moved_to_itself(folder: &str, target: &str) -> Error {
    let message = format!("Mail of {folder} cannot be moved to {target}: both are the same folder of the mailbox.");
    Error::new(Kind::Settings, message)
        .with_about(About::Folder)
        .remedy("Choose another Processed Folder or Error Folder under advanced, or take it out of Folders.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_uses_are_known_in_any_case_and_others_refused() {
        for name in ["\\Archive", "\\archive", "\\Sent", "\\Junk", "\\Trash", "\\Drafts"] {
            assert!(special_use(name).unwrap().is_some_and(|special| special.name.eq_ignore_ascii_case(name)));
        }
        assert!(special_use("Archive").unwrap().is_none());
        assert_eq!(special_use("\\Attic").err().map(|error| error.kind()), Some(Kind::Settings));
    }
}
