//! What a ResponseCode of Exchange speaks of: a table, `ews_codes.json`, and its lookup. Graph's mail API passes the
//! same codes on.
//!
//! `item`: this message, its content or its id. `folder`: a folder of the request. `mailbox`: the mailbox, its owner's
//! rights or quota, the tenant. `server`: Exchange itself; it passes. `request`: what was asked for, so the same for
//! every message; it is no message's fault, and nothing more is known.
//!
//! The codes are those of ResponseCodeType in messages.xsd of the Exchange Web Services schema; what each means is in
//! "ResponseCode" of the EWS reference. A code that is not here speaks of nothing that is known.

use std::{collections::HashMap, sync::LazyLock};

use serde::Deserialize;

use crate::error::{About, Kind};

/// `None`: not in the table.
pub fn about(code: &str) -> Option<About> {
    CODES.get(code).copied()
}

/// What such a code comes to where the table of remedies has no row for it; `None`: as the status says.
pub fn kind(about: About) -> Option<Kind> {
    match about {
        About::Server => Some(Kind::Transient),
        About::Mailbox => Some(Kind::AdminRequired),
        About::Item => Some(Kind::ServerMisbehaved),
        About::Folder | About::Connection | About::Host | About::Unknown => None,
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    item: Vec<String>,
    folder: Vec<String>,
    mailbox: Vec<String>,
    server: Vec<String>,
    request: Vec<String>,
}

static CODES: LazyLock<HashMap<String, About>> = LazyLock::new(|| {
    // A table that cannot be read is empty, and the first test fails.
    let table: Table = serde_json::from_str(include_str!("ews_codes.json")).unwrap_or_default();
    [
        (table.item, About::Item),
        (table.folder, About::Folder),
        (table.mailbox, About::Mailbox),
        (table.server, About::Server),
        (table.request, About::Unknown),
    ]
    .into_iter()
    .flat_map(|(codes, about)| codes.into_iter().map(move |code| (code, about)))
    .collect()
});

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, fs, path::Path};

    use super::*;

    #[test]
    fn codes_speak_of_what_they_name() {
        for (code, expected) in [
            ("ErrorItemNotFound", Some(About::Item)),
            ("ErrorMimeContentConversionFailed", Some(About::Item)),
            ("ErrorCannotDeleteObject", Some(About::Item)),
            ("ErrorToFolderNotFound", Some(About::Folder)),
            ("ErrorInvalidSyncStateData", Some(About::Folder)),
            ("ErrorAccessDenied", Some(About::Mailbox)),
            ("ErrorQuotaExceeded", Some(About::Mailbox)),
            ("ErrorInsufficientResources", Some(About::Server)),
            ("ErrorWrongServerVersion", Some(About::Server)),
            ("ErrorSchemaValidation", Some(About::Unknown)),
            ("ErrorOfTheFuture", None),
            ("", None),
        ] {
            assert_eq!(about(code), expected, "{code}");
        }
    }

    #[test]
    fn no_code_stands_twice() {
        let text = include_str!("ews_codes.json");
        assert_eq!(text.matches("\"Error").count(), CODES.len(), "each code stands once");
        assert!(CODES.len() > 500);
    }

    /// Against Microsoft's schema, where `EWS_XSD_DIR` names it: all of its codes are here.
    #[test]
    #[allow(clippy::print_stdout)] // a test says what it skips
    fn every_code_of_the_schema_is_in_the_table() {
        let Some(folder) = env::var_os("EWS_XSD_DIR") else {
            println!("SKIPPED: EWS_XSD_DIR is not set");
            return;
        };
        let schema = fs::read_to_string(Path::new(&folder).join("messages.xsd")).unwrap();
        let list = schema.split("name=\"ResponseCodeType\"").nth(1).unwrap().split("</xs:simpleType>").next().unwrap();
        let codes: BTreeSet<&str> =
            list.split("enumeration value=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(codes.len() > 500, "{}", codes.len());
        let missing: Vec<_> = codes.iter().filter(|code| **code != "NoError" && about(code).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
