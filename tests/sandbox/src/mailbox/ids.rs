//! Identifiers as EWS shows them: opaque, case-sensitive, and bound to the folder, so that a moved item has a new one.
//! [`Message::id`] is the immutable one, Graph's.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use super::{Folder, Message};

/// What Exchange's own begin with: `AAMk` in base64.
const START: [u8; 3] = [0x00, 0x03, 0x24];
const ITEM: u8 = b'I';
const FOLDER: u8 = b'F';
const STATE: u8 = b'S';
/// Bytes of a digest at the end: an identifier in another case is none.
const CHECK: usize = 6;

pub fn ews_id_of(folder: &Folder, message: &Message) -> String {
    ews_item_id(&folder.id, message.uid)
}

/// Of [`Folder::id`] and UID.
pub fn ews_item_id(folder: &str, uid: u32) -> String {
    seal(ITEM, &format!("{folder}/{uid}"))
}

/// [`Folder::id`] and UID; whether the item is still there, it does not say.
pub fn parse_ews_id(id: &str) -> Option<(String, u32)> {
    let inner = open(ITEM, id)?;
    let (folder, uid) = inner.split_once('/')?;
    Some((folder.to_owned(), uid.parse().ok()?))
}

pub fn ews_folder_id_of(folder: &Folder) -> String {
    ews_folder_id(&folder.id)
}

/// Of [`Folder::id`].
pub fn ews_folder_id(id: &str) -> String {
    seal(FOLDER, id)
}

/// [`Folder::id`], or what [`Root::parse`] takes.
pub fn parse_ews_folder_id(id: &str) -> Option<String> {
    open(FOLDER, id)
}

/// What lies above all folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `root`.
    Store,
    /// `msgfolderroot`, inside it: "Top of Information Store".
    Folders,
}

impl Root {
    /// `mailbox`: its address.
    pub fn ews_id(self, mailbox: &str) -> String {
        seal(FOLDER, &format!("{}{}", self.prefix(), mailbox.to_lowercase()))
    }

    /// With the address of its mailbox.
    pub fn parse(inner: &str) -> Option<(Self, &str)> {
        [Self::Store, Self::Folders].into_iter().find_map(|root| Some((root, inner.strip_prefix(root.prefix())?)))
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Store => "root:",
            Self::Folders => "msgfolderroot:",
        }
    }
}

/// A position that the client hands back: SyncState.
pub fn seal_state(inner: &str) -> String {
    seal(STATE, inner)
}

pub fn open_state(state: &str) -> Option<String> {
    open(STATE, state)
}

fn seal(kind: u8, inner: &str) -> String {
    let mut bytes = START.to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(inner.as_bytes());
    bytes.extend_from_slice(&check(kind, inner.as_bytes()));
    STANDARD.encode(bytes)
}

fn open(kind: u8, id: &str) -> Option<String> {
    let bytes = STANDARD.decode(id).ok()?;
    let (&found, rest) = bytes.strip_prefix(&START)?.split_first()?;
    let (inner, digest) = rest.split_at_checked(rest.len().checked_sub(CHECK)?)?;
    (found == kind && digest == check(kind, inner)).then(|| String::from_utf8(inner.to_vec()).ok())?
}

fn check(kind: u8, inner: &[u8]) -> [u8; CHECK] {
    let digest = Sha256::new().chain_update([kind]).chain_update(inner).finalize();
    std::array::from_fn(|place| digest[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_and_opened() {
        let id = seal(ITEM, "F00100000001/7");
        assert!(id.starts_with("AAMk"), "{id}");
        assert_eq!(parse_ews_id(&id), Some(("F00100000001".to_owned(), 7)));
        assert_eq!(parse_ews_folder_id(&id), None);
        assert_eq!(parse_ews_folder_id(&seal(FOLDER, "F1")), Some("F1".to_owned()));
        for wrong in [id.to_lowercase(), id.to_uppercase(), format!("{id}A"), String::new(), "AAMk".into()] {
            assert_eq!(parse_ews_id(&wrong), None, "{wrong}");
        }
    }
}
