//! Mailboxes: folders and messages in memory, one set under all faces.

pub mod ids;
pub mod mime;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use time::OffsetDateTime;

use crate::config::Config;

/// All mailboxes, by address in lower case.
pub struct Mail(Mutex<BTreeMap<String, Mailbox>>);

pub struct Mailbox {
    pub address: String,
    pub name: String,
    pub folders: Vec<Folder>,
    /// Grows with every change; what was changed holds its number.
    pub sequence: u64,
    /// No two mailboxes have the same, nor the same ids in them.
    number: usize,
    next_id: u64,
}

pub struct Folder {
    pub id: String,
    /// IMAP path; `/` separates.
    pub name: String,
    pub special: Option<Special>,
    pub uid_validity: u32,
    pub uid_next: u32,
    /// By UID, ascending.
    pub messages: Vec<Message>,
    /// What left it: number of the change, id.
    pub gone: Vec<(u64, String)>,
    /// The same by UID.
    pub gone_uids: Vec<(u64, u32)>,
}

#[derive(Clone)]
pub struct Message {
    /// Stays the same when it is moved.
    pub id: String,
    pub uid: u32,
    pub raw: Arc<Vec<u8>>,
    /// As IMAP writes them: `\Seen`.
    pub flags: BTreeSet<String>,
    pub received: OffsetDateTime,
    /// Number of the change that put it into this folder.
    pub created: u64,
    /// Number of its last change in this folder.
    pub changed: u64,
    /// Was it read before that change?
    pub was_seen: bool,
}

impl Message {
    pub fn is_seen(&self) -> bool {
        self.flags.contains("\\Seen")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Inbox,
    Drafts,
    Sent,
    Archive,
    Junk,
    Trash,
}

const FOLDERS: [(&str, Special); 6] = [
    ("INBOX", Special::Inbox),
    ("Drafts", Special::Drafts),
    ("Sent Items", Special::Sent),
    ("Archive", Special::Archive),
    ("Junk Email", Special::Junk),
    ("Deleted Items", Special::Trash),
];

impl Mail {
    pub fn new(config: &Config) -> Self {
        let mailbox = |(number, (address, name)): (usize, (&str, &str))| {
            (address.to_lowercase(), Mailbox::new(number, address, name))
        };
        Self(Mutex::new(config.mailboxes().enumerate().map(mailbox).collect()))
    }

    /// Works on one mailbox while nobody else does; `None` when there is no such mailbox.
    pub fn with<T>(&self, address: &str, work: impl FnOnce(&mut Mailbox) -> T) -> Option<T> {
        let mut mailboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mailboxes.get_mut(&address.to_lowercase()).map(work)
    }

    /// Address of the mailbox that has the folder of this id.
    pub fn owner_of_folder(&self, id: &str) -> Option<String> {
        let mailboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has = |mailbox: &&Mailbox| mailbox.folders.iter().any(|folder| folder.id == id);
        mailboxes.values().find(has).map(|mailbox| mailbox.address.clone())
    }

    /// Into the inbox, with Return-Path before it. `false`: there is no such mailbox.
    pub fn deliver(&self, from: &str, to: &str, raw: &[u8]) -> bool {
        let mut message = format!("Return-Path: <{from}>\r\n").into_bytes();
        message.extend_from_slice(raw);
        self.with(to, |mailbox| mailbox.append("INBOX", message, BTreeSet::new(), OffsetDateTime::now_utc())).is_some()
    }
}

impl Mailbox {
    fn new(number: usize, address: &str, name: &str) -> Self {
        let (address, name) = (address.to_owned(), name.to_owned());
        let mut mailbox = Self { address, name, folders: Vec::new(), sequence: 0, number, next_id: 0 };
        for (name, special) in FOLDERS {
            mailbox.create_folder(name);
            if let Some(folder) = mailbox.folders.last_mut() {
                folder.special = Some(special);
            }
        }
        mailbox
    }

    /// By path; INBOX in any case.
    pub fn folder(&mut self, name: &str) -> Option<&mut Folder> {
        self.folders.iter_mut().find(|folder| {
            folder.name == name || (folder.special == Some(Special::Inbox) && name.eq_ignore_ascii_case("INBOX"))
        })
    }

    /// `false`: it is there already.
    pub fn create_folder(&mut self, name: &str) -> bool {
        if self.folder(name).is_some() {
            return false;
        }
        let id = self.new_id("F");
        self.sequence += 1;
        self.folders.push(Folder {
            id,
            name: name.to_owned(),
            special: None,
            uid_validity: OffsetDateTime::now_utc().unix_timestamp() as u32,
            uid_next: 1,
            messages: Vec::new(),
            gone: Vec::new(),
            gone_uids: Vec::new(),
        });
        true
    }

    /// The new UID; `None` when there is no such folder.
    pub fn append(
        &mut self,
        folder: &str,
        raw: Vec<u8>,
        flags: BTreeSet<String>,
        received: OffsetDateTime,
    ) -> Option<u32> {
        self.folder(folder)?;
        let id = self.new_id("M");
        let message =
            Message { id, uid: 0, raw: Arc::new(raw), flags, received, created: 0, changed: 0, was_seen: false };
        self.put(folder, message)
    }

    pub fn remove(&mut self, folder: &str, uid: u32) -> Option<Message> {
        self.sequence += 1;
        let sequence = self.sequence;
        let folder = self.folder(folder)?;
        let place = folder.messages.binary_search_by_key(&uid, |message| message.uid).ok()?;
        let message = folder.messages.remove(place);
        folder.gone.push((sequence, message.id.clone()));
        folder.gone_uids.push((sequence, uid));
        Some(message)
    }

    /// The UID over there.
    pub fn move_to(&mut self, from: &str, uid: u32, to: &str) -> Option<u32> {
        self.folder(to)?;
        let message = self.remove(from, uid)?;
        self.put(to, message)
    }

    /// The UID of the copy.
    pub fn copy_to(&mut self, from: &str, uid: u32, to: &str) -> Option<u32> {
        self.folder(to)?;
        let mut message = self.folder(from)?.messages.iter().find(|message| message.uid == uid)?.clone();
        message.id = self.new_id("M");
        self.put(to, message)
    }

    /// The folder comes out of a backup: it and all messages in it have other ids and UIDs. `false`: it is not there.
    pub fn restore(&mut self, name: &str) -> bool {
        let id = self.new_id("F");
        let Some(folder) = self.folder(name) else { return false };
        folder.id = id;
        folder.uid_validity += 1;
        folder.uid_next = 1;
        folder.gone.clear();
        folder.gone_uids.clear();
        let name = folder.name.clone();
        for mut message in std::mem::take(&mut folder.messages) {
            message.id = self.new_id("M");
            self.put(&name, message);
        }
        true
    }

    /// The message, noted as changed.
    pub fn change(&mut self, folder: &str, uid: u32) -> Option<&mut Message> {
        self.sequence += 1;
        let sequence = self.sequence;
        let message = self.folder(folder)?.messages.iter_mut().find(|message| message.uid == uid)?;
        message.changed = sequence;
        message.was_seen = message.is_seen();
        Some(message)
    }

    fn put(&mut self, folder: &str, mut message: Message) -> Option<u32> {
        self.sequence += 1;
        let sequence = self.sequence;
        let folder = self.folder(folder)?;
        message.uid = folder.uid_next;
        (message.created, message.changed) = (sequence, sequence);
        folder.uid_next += 1;
        folder.messages.push(message);
        Some(folder.uid_next - 1)
    }

    fn new_id(&mut self, kind: &str) -> String {
        self.next_id += 1;
        format!("{kind}{:03}{:08}", self.number, self.next_id)
    }
}

impl Special {
    /// RFC 6154; the inbox has no attribute.
    pub fn attribute(self) -> Option<&'static str> {
        match self {
            Self::Inbox => None,
            Self::Drafts => Some("\\Drafts"),
            Self::Sent => Some("\\Sent"),
            Self::Archive => Some("\\Archive"),
            Self::Junk => Some("\\Junk"),
            Self::Trash => Some("\\Trash"),
        }
    }
}
