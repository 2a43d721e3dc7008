//! The key under which a host files a message: `mailbox/folder/id`, each part percent-encoded, stable for ever.

use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Kind, Result},
    hex::hex,
    transport::Key,
};

/// `alice@example.test/INBOX/1700000000.42`
pub fn to_text(mailbox: &str, key: &Key) -> String {
    format!("{}/{}/{}", encode(&mailbox.to_lowercase()), encode(&key.folder), encode(&key.id))
}

/// Names a record of `what` of a mailbox: hex SHA-256, so that no id tells whose it is, and none is too long.
pub fn record_id(mailbox: &str, what: &str) -> String {
    hex(&Sha256::digest(format!("{}\0{what}", mailbox.to_lowercase())))
}

/// # Errors
/// `Misuse` when the text is no key, or a key of another mailbox.
pub fn from_text(mailbox: &str, text: &str) -> Result<Key> {
    let misuse = || {
        Error::new(Kind::Misuse, format!("{text:?} is not a message key of {mailbox}."))
            .remedy("Give keys back exactly as fetch_batch handed them out, to a handle of the same mailbox.")
    };
    let mut parts = text.split('/').map(decode);
    let (Some(Some(owner)), Some(Some(folder)), Some(Some(id)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(misuse());
    };
    if owner != mailbox.to_lowercase() || folder.is_empty() || id.is_empty() {
        return Err(misuse());
    }
    Ok(Key { folder, id })
}

/// Percent-encodes `/`, `%` and control characters, nothing else: keys stay readable in a database.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '/' || c == '%' || c.is_ascii_control() {
            out.push_str(&format!("%{:02X}", c as u32));
        } else {
            out.push(c);
        }
    }
    out
}

fn decode(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let hex = rest.get(at + 1..at + 3)?;
        out.push(char::from(u8::from_str_radix(hex, 16).ok().filter(u8::is_ascii)?));
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_odd_folder_names() {
        for folder in ["INBOX", "Archive/2026", "100 %", "Entwürfe", "a\tb"] {
            let key = Key { folder: folder.into(), id: "7.42".into() };
            let text = to_text("Alice@Example.test", &key);
            assert_eq!(from_text("alice@example.TEST", &text).unwrap(), key, "{text}");
        }
    }

    #[test]
    fn a_foreign_or_broken_key_is_misuse() {
        for text in
            ["", "a", "bob@x/INBOX/1.2", "alice@x/INBOX", "alice@x/INBOX/1.2/3", "alice@x/IN%ZZ/1.2", "alice@x//1"]
        {
            assert_eq!(from_text("alice@x", text).unwrap_err().kind(), Kind::Misuse, "{text}");
        }
    }
}
