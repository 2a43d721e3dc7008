//! Names a mailbox in keys and records. A mailbox is a login name at a server: "support" at one
//! server and "support" at another are two mailboxes, and nothing of one meets the other.
//!
//! A message key is `login/server/folder/id`, each part percent-encoded, stable for ever.
//! `login/folder/id` are the keys of a mailbox that an older version began ([`super::mailbox`]).

use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Kind, Result},
    hex::hex,
    transport::Key,
};

/// The name under which the store and the host file what belongs to one mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// In lower case.
    pub login: String,
    /// `None`: the name is the login alone, as older versions wrote it.
    pub server: Option<String>,
}

impl Name {
    /// `support/mail.example.test/INBOX/1700000000.42`
    pub fn key(&self, key: &Key) -> String {
        let parts = [Some(&self.login), self.server.as_ref(), Some(&key.folder), Some(&key.id)];
        parts.into_iter().flatten().map(|part| encode(part)).collect::<Vec<_>>().join("/")
    }

    /// # Errors
    /// `Misuse` when the text is not a key, or a key of another mailbox.
    pub fn parse_key(&self, text: &str) -> Result<Key> {
        let parts: Option<Vec<String>> = text.split('/').map(decode).collect();
        let parts = parts.unwrap_or_default();
        let (login, server, folder, id) = match parts.as_slice() {
            [login, folder, id] => (login, None, folder, id),
            [login, server, folder, id] => (login, Some(server), folder, id),
            _ => return Err(self.misuse(text)),
        };
        if *login != self.login || server != self.server.as_ref() || folder.is_empty() || id.is_empty() {
            return Err(self.misuse(text));
        }
        Ok(Key { folder: folder.clone(), id: id.clone() })
    }

    /// Names a record of `what`: hex SHA-256, so that no id tells whose it is, and none is too long.
    pub fn record_id(&self, what: &str) -> String {
        hex(&Sha256::digest(format!("{}\0{what}", self.mailbox_id())))
    }

    /// Names the records of one folder.
    pub fn folder_id(&self, folder: &str) -> String {
        format!("{}/{folder}", self.mailbox_id())
    }

    /// Names the records of the whole mailbox. The settings refuse line ends in a login, so that
    /// no login reads like a login at a server.
    pub fn mailbox_id(&self) -> String {
        match &self.server {
            None => self.login.clone(),
            Some(server) => format!("{server}\n{}", self.login),
        }
    }

    fn misuse(&self, text: &str) -> Error {
        let at = self.server.as_ref().map(|server| format!(" at {server}")).unwrap_or_default();
        Error::new(Kind::Misuse, format!("{text:?} is not a message key of {}{at}.", self.login))
            .remedy("Give keys back exactly as fetch_batch handed them out, to a handle of the same mailbox.")
    }
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

    fn at(server: Option<&str>) -> Name {
        Name { login: "alice@example.test".into(), server: server.map(Into::into) }
    }

    #[test]
    fn keys_survive_odd_folder_names() {
        for name in [at(None), at(Some("mail.example.test")), at(Some("[::1]:24993"))] {
            for folder in ["INBOX", "Archive/2026", "100 %", "Entwürfe", "a\tb"] {
                let key = Key { folder: folder.into(), id: "7.42".into() };
                let text = name.key(&key);
                assert_eq!(name.parse_key(&text).unwrap(), key, "{text}");
            }
        }
    }

    #[test]
    fn a_foreign_or_broken_key_is_misuse() {
        let broken = ["", "a", "bob@x/INBOX/1.2", "alice@x/INBOX", "alice@x/INBOX/1.2/3/4", "alice@x/IN%ZZ/1.2"];
        let name = |server: Option<&str>| Name { login: "alice@x".into(), server: server.map(Into::into) };
        for text in broken.into_iter().chain(["alice@x//1", "alice@x/INBOX/1.2/3"]) {
            assert_eq!(name(None).parse_key(text).unwrap_err().kind(), Kind::Misuse, "{text}");
        }
        for text in broken.into_iter().chain(["alice@x/a.test//1", "alice@x/INBOX/1.2", "alice@x/b.test/INBOX/1.2"]) {
            assert_eq!(name(Some("a.test")).parse_key(text).unwrap_err().kind(), Kind::Misuse, "{text}");
        }
    }

    #[test]
    fn one_login_at_two_servers_shares_no_id() {
        let names = [at(None), at(Some("a.test")), at(Some("a.test:994")), at(Some("b.test"))];
        for one in &names {
            for other in names.iter().filter(|other| *other != one) {
                let key = Key { folder: "INBOX".into(), id: "1.1".into() };
                assert_ne!(one.key(&key), other.key(&key));
                assert_ne!(one.record_id("x"), other.record_id("x"));
                assert_ne!(one.folder_id("INBOX"), other.folder_id("INBOX"));
                assert!(other.parse_key(&one.key(&key)).is_err());
            }
        }
    }
}
