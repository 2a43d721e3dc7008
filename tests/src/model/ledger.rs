//! What truly happened to each message, beside the library and the host.

use std::collections::{BTreeMap, BTreeSet};

use super::Rng;
use crate::mailbox::hash;

/// One message of the world, by its number.
#[derive(Debug)]
pub struct Mail {
    pub hash: String,
    /// Somebody else removed it, or a restored state does not have it.
    pub taken_away: bool,
    /// It was there before the host looked for the first time, and was not to be fetched.
    pub old: bool,
    /// The keys under which the host filed it, and how often the mailbox had been renumbered or restored
    /// when the round began.
    pub filed: Vec<(String, u64)>,
    /// The host cannot take it, ever.
    pub is_indigestible: bool,
    pub is_refused: bool,
    /// It has the Message-ID of others.
    pub has_same_id: bool,
    /// The server refused to hand it out for a time.
    pub was_unreadable: bool,
}

#[derive(Default)]
pub struct Ledger {
    pub mails: BTreeMap<u64, Mail>,
    /// How often the mailbox was renumbered or restored.
    pub epoch: u64,
    pub lost: BTreeSet<u64>,
    pub doubled: BTreeSet<u64>,
    pub again: u64,
    pub told: Vec<String>,
    /// Some messages have the Message-ID of others.
    pub same_ids: bool,
}

impl Ledger {
    /// A new message: its bytes, with its number in them.
    pub fn write(&mut self, rng: &mut Rng, old: bool, truth: i64) -> Vec<u8> {
        let number = self.mails.len() as u64 + 1;
        let mut raw = String::new();
        raw.push_str(&format!("X-Number: {number}\r\n"));
        if !rng.once_in(12) {
            raw.push_str(&format!("From: <ada{}@outside.test>\r\n", rng.below(5)));
        }
        let mut has_same_id = false;
        match rng.below(12) {
            0 => {}
            1 if self.same_ids => {
                has_same_id = true;
                raw.push_str("Message-ID: <same@outside.test>\r\n");
            }
            _ => raw.push_str(&format!("Message-ID: <{number}.{}@outside.test>\r\n", rng.below(1 << 20))),
        }
        if !rng.once_in(10) {
            let date = time::OffsetDateTime::from_unix_timestamp(truth).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
            let date = date.format(&time::format_description::well_known::Rfc2822).unwrap_or_default();
            raw.push_str(&format!("Date: {date}\r\n"));
        }
        raw.push_str(&format!("Subject: note {number}\r\n"));
        match rng.below(10) {
            0 => raw.push_str("\r\n"),
            1 => raw.push_str("\r\n.\r\n..\r\na1 OK done\r\n* 1 FETCH (UID 1)\r\n)\r\n"),
            2 => raw.push_str(&format!("\r\n{}\r\n", "x".repeat(rng.below(3_000)))),
            3 => raw.push_str("\r\nno end of line"),
            _ => raw.push_str(&format!("\r\nNumber {number}.\r\n")),
        }
        let raw = raw.into_bytes();
        let (is_indigestible, is_refused) = (rng.once_in(40), rng.once_in(20));
        let mail = Mail {
            hash: hash(&raw),
            taken_away: false,
            old,
            filed: Vec::new(),
            is_indigestible,
            is_refused: is_refused && !is_indigestible,
            has_same_id,
            was_unreadable: false,
        };
        self.mails.insert(number, mail);
        raw
    }

    /// The host is handed these bytes under this key. The message's number; `None`: they are nobody's.
    pub fn handed(&mut self, key: &str, raw: &[u8]) -> Option<u64> {
        let number = number_of(raw).filter(|number| self.mails.get(number).is_some_and(|mail| mail.hash == hash(raw)));
        match number {
            None => {
                self.lost.insert(number_of(raw).unwrap_or_default());
                let text: String = String::from_utf8_lossy(raw).chars().take(80).collect();
                self.told.push(format!("{key} was handed out with bytes that are not its own: {text:?}"));
            }
            Some(number) if self.mails[&number].old && self.epoch == 0 => {
                self.doubled.insert(number);
                self.told.push(format!("note {number} is older than the first fetch and was handed out as {key}"));
            }
            Some(_) => {}
        }
        number
    }

    /// The host made a request of it. `listed_in`: the epoch in which the round began that handed it out.
    pub fn file(&mut self, number: u64, key: &str, listed_in: u64) {
        let epoch = self.epoch;
        let Some(mail) = self.mails.get_mut(&number) else { return };
        if let Some((first, at)) = mail.filed.last() {
            if *at == epoch && listed_in == epoch {
                self.doubled.insert(number);
                self.told.push(format!("note {number} was filed as {first} and again as {key}"));
            } else {
                self.again += 1;
            }
        }
        mail.filed.push((key.to_owned(), listed_in));
    }

    /// What a renumbering may cost. Of mails with one Message-ID as many count as settled as were. And what could not be read in
    /// three rounds was put aside without its bytes, which the host was told; its key means nothing any more.
    pub fn may_be_passed_over(&self, number: u64) -> bool {
        let mail = &self.mails[&number];
        let is_settled_like_it = |other: &Mail| other.has_same_id && !other.filed.is_empty();
        let is_like_another = mail.has_same_id && self.mails.values().any(is_settled_like_it);
        self.epoch > 0 && (mail.was_unreadable || is_like_another)
    }

    /// Not filed, and nobody took them away: these must be in the mailbox or in quarantine.
    pub fn open(&self) -> impl Iterator<Item = u64> + '_ {
        let is_open = |mail: &Mail| mail.filed.is_empty() && !mail.taken_away && !mail.old;
        self.mails.iter().filter(move |(_, mail)| is_open(mail)).map(|(number, _)| *number)
    }
}

/// From the field X-Number.
pub fn number_of(raw: &[u8]) -> Option<u64> {
    let text = raw.strip_prefix(b"X-Number: ")?;
    let end = text.iter().position(|byte| *byte == b'\r')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}
