//! By what a message is known again when it is fetched over another protocol, where its key is another one.

use ring::digest::{SHA256, digest};

use super::field::{Name, Section};
use crate::{clock::UnixSeconds, guard::guarded};

/// The first 64 bits of a SHA-256: among the 10,000 that are compared, chance makes no two the same.
pub type Fingerprint = u64;

/// What both a message itself and a server's listing tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// With or without angle brackets.
    pub message_id: Option<String>,
    /// Address of the first author.
    pub from: Option<String>,
    /// When the sender wrote it.
    pub date: Option<UnixSeconds>,
    /// Decoded.
    pub subject: Option<String>,
}

impl Traits {
    pub fn of(raw: &[u8]) -> Self {
        let read = guarded("reading a message", || {
            let root = Section::read(raw, 0, |_| false);
            Ok(Self {
                message_id: root.verbatim(Name::MessageId),
                from: root.mailboxes(Name::From).into_iter().next().map(|from| from.address),
                date: root.date().map(|date| date.to_timestamp()),
                subject: root.text(Name::Subject),
            })
        });
        read.unwrap_or_default()
    }

    /// What a settled message leaves: its Message-ID; without one who wrote it, when, and about what. `None`: without a date
    /// neither, it may be any of many.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.by_id().or_else(|| self.by_author())
    }

    /// What it may have left: a message without Message-ID is given one by some servers.
    pub fn candidates(&self) -> impl Iterator<Item = Fingerprint> {
        [self.by_id(), self.by_author()].into_iter().flatten()
    }

    fn by_id(&self) -> Option<Fingerprint> {
        let text = self.message_id.as_deref()?.trim();
        let inner = text.split_once('<').map_or(text, |(_, rest)| rest);
        let id: String = inner.split('>').next()?.chars().filter(|c| !c.is_whitespace()).collect();
        (!id.is_empty()).then(|| hash(&["id", &id]))
    }

    fn by_author(&self) -> Option<Fingerprint> {
        let date = self.date?.to_string();
        let from = self.from.as_deref().unwrap_or_default().trim().to_lowercase();
        let subject: Vec<&str> = self.subject.as_deref().unwrap_or_default().split_whitespace().collect();
        Some(hash(&["author", &from, &date, &subject.join(" ")]))
    }
}

fn hash(parts: &[&str]) -> Fingerprint {
    let digest = digest(&SHA256, parts.join("\0").as_bytes());
    digest.as_ref().iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_and_the_message_agree() {
        let raw = b"From: =?utf-8?Q?J=C3=BCrgen?= <Ann@A.test>\r\nDate: Fri, 27 Nov 2026 08:00:00 +0100\r\n\
            Subject: =?utf-8?Q?caf=C3=A9?=\r\n  again\r\n\r\nbody";
        let of_message = Traits::of(raw);
        let listed = Traits {
            message_id: Some("<made@by.exchange>".into()),
            from: Some("ann@a.test".into()),
            date: Some(1_795_762_800),
            subject: Some("café again".into()),
        };
        let left = of_message.fingerprint().unwrap();
        assert!(listed.candidates().any(|one| one == left), "{of_message:?}");
        let with_id = [&b"Message-ID: (x) <1@A.test>\r\n"[..], raw].concat();
        let left = Traits::of(&with_id).fingerprint().unwrap();
        let bare = Traits { message_id: Some("1@A.test".into()), ..Traits::default() };
        assert_eq!(bare.candidates().collect::<Vec<_>>(), [left]);
        assert_eq!(Traits::of(b"Subject: a\r\n\r\n").fingerprint(), None);
    }
}
