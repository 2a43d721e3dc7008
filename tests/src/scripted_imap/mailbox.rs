//! Folders and messages of a scripted server. A clone is a snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use time::{OffsetDateTime, macros::format_description};

use super::Readable;

#[derive(Clone)]
pub struct Mailbox {
    pub folders: BTreeMap<String, Folder>,
    /// Seconds since 1970 of what arrives; tests and the model move it.
    pub now: i64,
    pub renumberings: u64,
}

#[derive(Clone)]
pub struct Folder {
    /// As in LIST: `\Archive`.
    pub attributes: &'static str,
    pub uidvalidity: u64,
    pub uidnext: u64,
    /// By UID, ascending.
    pub messages: Vec<Message>,
}

#[derive(Clone)]
pub struct Message {
    pub uid: u64,
    pub raw: Arc<Vec<u8>>,
    pub flags: BTreeSet<String>,
    /// Seconds since 1970.
    pub received: i64,
    pub readable: Readable,
}

impl Default for Mailbox {
    fn default() -> Self {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let mut mailbox = Self { folders: BTreeMap::new(), now, renumberings: 0 };
        mailbox.create("INBOX");
        mailbox
    }
}

impl Mailbox {
    /// `false`: it is there already.
    pub fn create(&mut self, name: &str) -> bool {
        if self.folders.contains_key(name) {
            return false;
        }
        let uidvalidity = 7 + self.folders.len() as u64;
        let folder = Folder { attributes: "", uidvalidity, uidnext: 1, messages: Vec::new() };
        self.folders.insert(name.to_owned(), folder);
        true
    }

    /// The folder, made when it is not there.
    ///
    /// # Panics
    /// Never.
    pub fn folder(&mut self, name: &str) -> &mut Folder {
        self.create(name);
        self.folders.get_mut(name).expect("it was made")
    }

    /// Its UID.
    pub fn append(&mut self, folder: &str, raw: &[u8]) -> u64 {
        let message = Message {
            uid: 0,
            raw: Arc::new(raw.to_vec()),
            flags: BTreeSet::new(),
            received: self.now,
            readable: Readable::Whole,
        };
        self.folder(folder).put(message)
    }

    /// New numbers for a folder: another UIDVALIDITY, and UIDs from 1.
    pub fn renumber(&mut self, folder: &str) {
        self.renumberings += 1;
        let number = self.renumberings;
        let folder = self.folder(folder);
        folder.uidvalidity = 1_000 + number;
        for (message, uid) in folder.messages.iter_mut().zip(1..) {
            message.uid = uid;
        }
        folder.uidnext = folder.messages.len() as u64 + 1;
    }
}

impl Folder {
    pub fn put(&mut self, mut message: Message) -> u64 {
        message.uid = self.uidnext;
        self.uidnext += 1;
        self.messages.push(message);
        self.uidnext - 1
    }

    pub fn remove(&mut self, uid: u64) -> Option<Message> {
        let place = self.messages.iter().position(|message| message.uid == uid)?;
        Some(self.messages.remove(place))
    }

    pub fn message(&mut self, uid: u64) -> Option<&mut Message> {
        self.messages.iter_mut().find(|message| message.uid == uid)
    }
}

impl Message {
    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    pub fn day(&self) -> time::Date {
        OffsetDateTime::from_unix_timestamp(self.received).map_or(time::Date::MIN, OffsetDateTime::date)
    }

    /// ` 7-Jul-1996 02:44:25 +0000`.
    pub fn internal_date(&self) -> String {
        let format =
            format_description!("[day padding:space]-[month repr:short]-[year] [hour]:[minute]:[second] +0000");
        let at = OffsetDateTime::from_unix_timestamp(self.received).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        at.format(format).unwrap_or_default()
    }

    /// What the server gives in its place.
    pub fn given(&self, sequence: usize) -> Vec<u8> {
        match self.readable {
            Readable::ExchangeSubstitute => format!(
                "MIME-Version: 1.0\r\nContent-Type: text/plain\r\nFrom: Microsoft Exchange Server\r\nSubject: Retrieval \
                 using the IMAP4 protocol failed for the following message:\r\n {sequence}\r\n\r\nThe server couldn't \
                 retrieve the following message:\r\n\r\nThe message hasn't been deleted.\r\n"
            )
            .into_bytes(),
            Readable::CourierSubstitute => {
                let text = "From: System Administrator <root@localhost>\nSubject: message unavailable\n\nThis message is \
                            no longer available on the server.\n";
                text.replace('\n', "\r\n").into_bytes()
            }
            _ => self.raw.to_vec(),
        }
    }
}
