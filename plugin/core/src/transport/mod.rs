//! How mail gets in and out. One folder per protocol; everything above sees only [`Inbox`] and [`Outbox`].

pub mod ahead;
pub mod bcc;
pub mod ews;
pub mod feed;
pub mod graph;
pub mod imap;
pub mod intact;
pub mod moving;
pub mod smtp;
pub mod special_use;
pub mod spool;
pub mod stub;
pub mod witness;

use std::{
    fs::File,
    ops::ControlFlow,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    clock::{Deadline, UnixSeconds},
    error::{Error, Kind, Result},
    log::Logger,
    message::fingerprint::Fingerprint,
    net::TlsFacts,
    secret::Secret,
    settings::{Action, Since},
};

pub use crate::message::address::Envelope;

/// Who logs in, and with what.
pub struct Login<'a> {
    pub username: &'a str,
    pub token: &'a Secret,
}

/// Why a transport could not be opened.
pub enum OpenError {
    /// The server refused this token for this user, and said so. A fresh token may help, once.
    LoginRefused(Error),
    /// Anything else: a fresh token would not help.
    Other(Error),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// What a successful login proves.
#[derive(Clone, Debug)]
pub struct Proof {
    /// `IMAPS`, `SMTPS`, `SMTP + STARTTLS`.
    pub protocol: &'static str,
    /// `XOAUTH2` or `OAUTHBEARER`.
    pub mechanism: &'static str,
    pub port: u16,
    pub tls: TlsFacts,
}

impl Proof {
    pub fn to_json(&self) -> Value {
        let mut proof = self.tls.to_json();
        proof["protocol"] = json!(self.protocol);
        proof["mechanism"] = json!(self.mechanism);
        proof["port"] = json!(self.port);
        proof
    }
}

/// Where one message lives: the provider's own name for it, never Message-ID or hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    pub folder: String,
    /// IMAP: `UIDVALIDITY.UID`; Graph: the immutable id; EWS: the item id.
    pub id: String,
}

/// A message that was listed, not yet read.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Key,
    /// RFC822.SIZE: bytes, as the server counts them; 0 where it does not tell.
    pub size: u64,
    pub received_at: Option<UnixSeconds>,
}

/// The bytes of one message as the server gave them.
pub enum Raw {
    Memory(Vec<u8>),
    /// Larger than `limits::SPOOL_THRESHOLD`: in an unlinked temporary file, positioned at its start.
    Spool {
        file: File,
        len: u64,
    },
}

pub enum Item {
    Read(Raw),
    /// Listed, but not there any more: expunged or moved by somebody else.
    Gone,
    /// Left out of an answer that says nothing of it: expunged meanwhile, or its store is away. The next listing tells.
    LeftOut,
    /// The server refuses to give out this one message; others can still be read. Worth another try later.
    Failed(Error),
}

/// What became of one message in the mailbox when it was settled.
#[derive(Clone, Debug)]
pub enum Settled {
    Done,
    /// It was copied to the target of a move and is still here. Whoever notes that removes it with [`Action::Delete`].
    Copied,
    /// The server says, twice, that this message is not there any more.
    Gone,
    /// The server refuses the action to this message and would refuse it again: the message's own fault.
    Kept(Error),
    /// The action was not carried out, through no fault of the message: it is to be repeated, after `retry_after` where
    /// the error names a wait.
    Later(Error),
}

impl Settled {
    /// As `settle_batch` answers, save for what was done.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Copied => "copied",
            Self::Gone => "gone",
            Self::Kept(_) => "kept",
            Self::Later(_) => "later",
        }
    }

    /// What a refusal of this one message comes to, by what it speaks of.
    pub fn refused(error: Error) -> Self {
        if error.is_of_item() { Self::Kept(error) } else { Self::Later(error) }
    }
}

#[cfg(test)]
fn words(settled: &[Settled]) -> Vec<&'static str> {
    settled.iter().map(Settled::word).collect()
}

/// What was done counts; the rest of `count` waits, for one and the same reason.
fn rest_later(mut settled: Vec<Settled>, count: usize, error: &Error) -> Vec<Settled> {
    settled.resize_with(count, || Settled::Later(error.clone()));
    settled
}

/// What is settled in one folder. One variant per protocol; stored sealed under `Table::Cursor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
pub enum Cursor {
    Imap(imap::Cursor),
    Ews(feed::Feed),
    Graph(feed::Feed),
}

impl Cursor {
    /// Does this key name a message of the folder as it is numbered now? A key from before a reset may name another one.
    pub fn is_current(&self, key: &Key) -> bool {
        match self {
            Self::Imap(cursor) => cursor.is_current(&key.id),
            Self::Ews(_) | Self::Graph(_) => true,
        }
    }

    /// May this key have been handed out?
    pub fn listed(&self, key: &Key) -> bool {
        match self {
            Self::Imap(cursor) => cursor.listed(&key.id),
            Self::Ews(feed) | Self::Graph(feed) => feed.listed(&key.id),
        }
    }

    pub fn is_settled(&self, key: &Key) -> bool {
        match self {
            Self::Imap(cursor) => cursor.is_settled(&key.id),
            Self::Ews(feed) | Self::Graph(feed) => feed.is_settled(&key.id),
        }
    }

    /// What a later listing of the same folder reached, although it could not be stored.
    pub fn saw(&mut self, later: &Self) {
        match (self, later) {
            (Self::Imap(cursor), Self::Imap(later)) => cursor.saw(later),
            (Self::Ews(feed), Self::Ews(later)) | (Self::Graph(feed), Self::Graph(later)) => feed.saw(later),
            // The protocol was changed meanwhile: nothing of the other is known here.
            (Self::Imap(_) | Self::Ews(_) | Self::Graph(_), _) => {}
        }
    }

    /// Notes what was copied to the target of a move, before it is removed.
    pub fn copied(&mut self, keys: &[Key]) {
        if let Self::Imap(cursor) = self {
            keys.iter().for_each(|key| cursor.copied(&key.id));
        }
    }

    pub fn is_copied(&self, key: &Key) -> bool {
        matches!(self, Self::Imap(cursor) if cursor.is_copied(&key.id))
    }

    /// Counts these messages as settled; those that stay in the folder leave their fingerprints. Keys from before a reset of
    /// the folder are passed over.
    pub fn settle(&mut self, settled: &[(Key, Option<Fingerprint>)], now: UnixSeconds) {
        let mut left = Vec::new();
        for (key, fingerprint) in settled {
            let is_new = match self {
                Self::Imap(cursor) => cursor.settle(&key.id, fingerprint.is_some()),
                Self::Ews(feed) | Self::Graph(feed) => feed.settle(&key.id),
            };
            left.extend(fingerprint.filter(|_| is_new));
        }
        let marks = match self {
            Self::Imap(cursor) => &mut cursor.marks,
            Self::Ews(feed) | Self::Graph(feed) => &mut feed.marks,
        };
        marks.add(now, left);
    }
}

/// What the store says of a folder belongs to the protocol that it was fetched with before.
fn other_protocol(folder: &str) -> Error {
    Error::new(Kind::Settings, format!("{folder} was fetched with another protocol before, and is not taken over."))
        .remedy("Choose the former connection protocol, or use a new store and Fetch Since under advanced.")
}

/// The unsettled messages of one folder, oldest first.
pub struct Listing {
    pub entries: Vec<Entry>,
    /// More than these are there, or may be: list again after these.
    pub more: bool,
    /// Where absence means something: what lies in here and is not among `entries` was settled, or is not there any more.
    pub covers: Covers,
    /// The cursor to store now: changed when the folder was new or was reset by the server.
    pub cursor: Cursor,
    /// A sentence for the log and the host when the server forced a resynchronisation (UIDVALIDITY changed).
    pub reset: Option<String>,
}

/// Where a listing is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// The whole folder.
    Everything,
    /// The server limited its answer, or part of it is still to come: absence means nothing.
    Nothing,
    /// IMAP: the UIDs from the first to the second, both included.
    Uids(u32, u32),
}

impl Covers {
    /// Would the listing have named this message, were it there and not settled?
    pub fn holds(self, key: &Key) -> bool {
        match self {
            Self::Everything => true,
            Self::Nothing => false,
            Self::Uids(first, last) => imap::uid_of(&key.id).is_some_and(|uid| (first..=last).contains(&uid)),
        }
    }

    /// Of a feed: everything once its end is reached.
    pub fn unless(more: bool) -> Self {
        if more { Self::Nothing } else { Self::Everything }
    }
}

/// What a folder is like, for the diagnosis.
#[derive(Debug)]
pub struct FolderLook {
    pub messages: u32,
    pub newest: Option<Entry>,
    /// This account's rights as letters (RFC 4314 section 2.1); `None`: the server does not tell.
    pub rights: Option<String>,
}

/// Reads mail. Listing and reading never change the mailbox.
pub trait Inbox: Send {
    fn proof(&self) -> Proof;

    /// Lists what `cursor` does not yet count as settled. `None`: this folder was never fetched, begin at `since`.
    fn list(&mut self, folder: &str, cursor: Option<&Cursor>, since: Since, deadline: Deadline) -> Result<Listing>;

    /// A listing ended the connection. The next one asks for nothing for which the server has to open messages.
    fn spare(&mut self) {}

    /// Reads `entries` in order and hands each to `sink` together with its index. Many small ones travel to a command,
    /// and the next commands are on their way before the answer to the last has ended. After `Break` nothing more is
    /// asked for or handed over; what is on its way already is kept and handed over first by the next call that names
    /// it. So pass everything that is left and break when the batch is full: no round trip is lost between two
    /// batches. Returns how many entries were handed over.
    fn read(
        &mut self,
        entries: &[Entry],
        deadline: Deadline,
        sink: &mut dyn FnMut(usize, Item) -> ControlFlow<()>,
    ) -> Result<usize>;

    /// What is known of `folder`. The next `read` or `settle` that opens the folder compares: when its keys mean other messages
    /// now, nothing is read or changed before the next listing.
    fn expect(&mut self, folder: &str, cursor: &Cursor) {
        let _ = (folder, cursor);
    }

    /// Carries out `action` and answers for each key. What was done stays done and is told, whatever becomes of the others.
    /// Can be repeated.
    ///
    /// # Errors
    /// Faults of the folder, the account, the settings or the connection. Then nothing is known to be done to any of `keys`.
    fn settle(&mut self, keys: &[Key], action: &Action, deadline: Deadline) -> Result<Vec<Settled>>;

    /// How many bytes have come from the server, counted on: tells whoever waits elsewhere that the connection lives.
    fn received(&self) -> Arc<AtomicU64>;

    /// Answers within `deadline` when the connection is still alive.
    fn check(&mut self, deadline: Deadline) -> Result<()>;

    /// Looks for a Message-ID in the sent folder: its name, and how many copies lie there. `None`: there is no sent folder.
    fn find_sent(&mut self, message_id: &str, deadline: Deadline) -> Result<Option<(String, usize)>> {
        let _ = (message_id, deadline);
        Err(Error::new(Kind::Unsupported, "The sent folder cannot be looked into over this protocol."))
    }

    /// Looks at a folder without changing anything; `None`: it is not there.
    fn look(&mut self, folder: &str, deadline: Deadline) -> Result<Option<FolderLook>> {
        let _ = (folder, deadline);
        Err(Error::new(Kind::Unsupported, "Folders cannot be looked at over this protocol."))
    }
}

/// What became of one message.
#[derive(Debug)]
pub enum Outcome {
    /// The server took responsibility for the message.
    Sent {
        /// Its last reply, verbatim (a queue id stands there).
        reply: String,
        server: String,
        /// Recipients that the server refused while it accepted others.
        refused: Vec<Refused>,
    },
    /// The server will never accept this message from us. `error` says whose mistake it is.
    Rejected(Error),
    /// Nothing was accepted; the same message may be sent again after the wait.
    Retry { error: Error, after: Option<Duration> },
    /// The message was offered and no answer came: it may be there or not.
    Unknown(Error),
}

/// Called once, at the moment from which only the server's answer says what became of the message: the end of the content
/// (SMTP) or the request that sends (HTTP) is about to be written. With an error the message must not be offered.
pub type Offer<'a> = &'a mut dyn FnMut() -> Result<()>;

/// A recipient that did not get what others got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub address: String,
    /// The server's, verbatim.
    pub reply: String,
    /// May be accepted later.
    pub transient: bool,
}

/// Sends mail over one authenticated connection.
pub trait Outbox: Send {
    fn proof(&self) -> Proof;

    /// `raw` is complete RFC 5322 with CRLF line ends. Calls `offer` before the message can have been taken.
    fn send(&mut self, envelope: &Envelope, raw: &[u8], deadline: Deadline, offer: Offer<'_>) -> Outcome;

    /// Still connected and young enough for another message?
    fn is_fresh(&mut self) -> bool;

    /// What a person should know about sending over this server.
    fn caution(&self) -> Option<&'static str> {
        None
    }

    /// Was the last [`Outcome::Retry`] only this: the connection turned out closed, or its dialogue broken, before the
    /// message was offered? When it was kept open from earlier, the same message may be sent at once over a new one.
    fn lost(&self) -> bool {
        false
    }
}

/// The redacted protocol transcript that "Enable Email Debug" asks for; `None` writes nothing.
#[derive(Clone, Default)]
pub struct Transcript(Option<Logger>);

impl Transcript {
    pub fn new(logger: Option<Logger>) -> Self {
        Self(logger)
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// One line as it went over the wire, without its line end. Literals are given as `{n bytes}`; lines are cut at
    /// 512 characters and redacted.
    pub fn line(&self, direction: &str, line: &[u8]) {
        if let Some(logger) = &self.0 {
            let text = String::from_utf8_lossy(&line[..line.len().min(512)]);
            logger.debug(format_args!("{direction} {text}"));
        }
    }
}
