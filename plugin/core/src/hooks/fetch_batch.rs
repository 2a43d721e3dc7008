//! `fetch_batch`: the next unsettled messages, oldest first, within the host's bounds.
//!
//! A round lists what is unsettled in each folder and hands it out batch by batch; when it is through (`more` false), the
//! next call begins a new round. What was handed out and not settled comes again in the next round: at least once, and
//! with the same key.

use std::{
    collections::{HashMap, HashSet},
    io::Read,
};

use lettre::Address;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Batch, Context, Message, key, plugin,
    reader::{Next, Reader, Room},
    request,
    settle_batch::{cursor_id, read_cursor, write_cursor},
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    limits, message,
    settings::{Action, Fetching, Since},
    transport::{Cursor, Entry, Inbox, Item, Key, Raw},
};

pub struct Request {
    max_messages: usize,
    max_bytes: u64,
    pub deadline: Deadline,
}

/// # Errors
/// `Misuse` when a bound is outside of its range (see `limits`).
pub fn parse(text: &str) -> Result<Request> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        max_messages: Option<usize>,
        max_bytes: Option<u64>,
        deadline_ms: Option<u64>,
    }
    let fields: Fields = request::parse("fetch_batch", text)?;
    let max_messages = fields.max_messages.unwrap_or(limits::BATCH_MESSAGES_DEFAULT);
    let max_bytes = fields.max_bytes.unwrap_or(limits::BATCH_BYTES_DEFAULT);
    if !(1..=limits::BATCH_MESSAGES_MAX).contains(&max_messages) {
        let max = limits::BATCH_MESSAGES_MAX;
        return Err(Error::new(
            Kind::Misuse,
            format!("max_messages is {max_messages}; it must be between 1 and {max}."),
        ));
    }
    if !(1..=limits::BATCH_BYTES_MAX).contains(&max_bytes) {
        let max = limits::BATCH_BYTES_MAX;
        return Err(Error::new(Kind::Misuse, format!("max_bytes is {max_bytes}; it must be between 1 and {max}.")));
    }
    Ok(Request { max_messages, max_bytes, deadline: request::deadline(fields.deadline_ms)? })
}

/// What a handle remembers between fetches.
#[derive(Default)]
pub struct Fetch {
    reader: Option<Reader>,
    /// A round is under way: its listing is not yet handed out to the end.
    round: bool,
    /// A folder had more than one listing holds.
    listing_cut: bool,
    /// Handed out in this round and not settled; a listing in the middle of a round leaves them out.
    handed_out: HashSet<Key>,
    /// Listed, but expunged before they were read, by folder: settled with the next settle.
    gone: HashMap<String, Vec<Key>>,
    /// The username, where it is an address: mail from it is the helpdesk's own.
    own_addresses: Vec<Address>,
    /// Why a folder of this round could not be opened: told when the others are through.
    closed_folder: Option<Error>,
    /// The cursors as they were read or written last, by folder; used while the store cannot be read.
    cursors: HashMap<String, Cursor>,
    /// Forced resynchronisations, to be told with the next batch.
    resets: Vec<String>,
}

impl Fetch {
    pub fn new(username: &str) -> Self {
        Self { own_addresses: username.parse().into_iter().collect(), ..Self::default() }
    }

    pub fn next_batch(&mut self, context: &Context, request: &Request) -> Result<Batch> {
        let Some(fetching) = &context.session.account.fetching else {
            return Err(plugin::wrong_direction("fetch_batch", "incoming"));
        };
        let mut batch = Assembly::default();
        let mut reconnected = false;
        loop {
            let end = self.fill(context, fetching, request, &mut batch);
            match end {
                Ok(()) => break,
                // What was read is handed over first; the next call meets the error again if it persists.
                Err(_) if !batch.is_empty() => break,
                // A connection that was kept since the last call may have ended since: one new one.
                Err(error) if error.kind() == Kind::Transient && !reconnected && !request.deadline.left().is_zero() => {
                    context.session.log.info(format_args!("Connecting again: {error}"));
                    reconnected = true;
                }
                Err(error) => return Err(error),
            }
        }
        let remaining = self.reader.as_ref().map_or(0, Reader::remaining);
        let more = self.round;
        Ok(batch.finish(more, remaining, std::mem::take(&mut self.resets)))
    }

    /// Takes over the connection that proved the consent, and notes where each new folder begins: mail that arrives
    /// between the consent and the first fetch counts as new.
    pub fn adopt(&mut self, context: &Context, inbox: Box<dyn Inbox>, deadline: Deadline) -> Result<()> {
        self.disconnect();
        self.reader = Some(Reader::new(inbox)?);
        let Some(fetching) = &context.session.account.fetching else { return Ok(()) };
        if fetching.since == Since::Now {
            for folder in &fetching.folders {
                if read_cursor(context, folder)?.is_none() {
                    self.list_open(context, fetching, folder, deadline)?;
                }
            }
        }
        Ok(())
    }

    pub fn disconnect(&mut self) {
        self.hang_up();
        self.round = false;
    }

    /// A round that is under way goes on over the next connection.
    fn hang_up(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.leave();
        }
    }

    /// Carries out a mailbox action for settled messages; a connection that had ended is opened once more.
    pub fn settle(
        &mut self,
        context: &Context,
        keys: Vec<Key>,
        action: Action,
        deadline: Deadline,
    ) -> Result<Vec<bool>> {
        for _ in 0..2 {
            let reader = self.connected(context, deadline)?;
            let (keys, action) = (keys.clone(), action.clone());
            let result =
                reader.with_inbox("settling mail", deadline, move |inbox| inbox.settle(&keys, &action, deadline));
            match result {
                Err(error) if error.kind() == Kind::Transient => {
                    self.hang_up();
                    if deadline.left().is_zero() {
                        return Err(error);
                    }
                    context.session.log.info(format_args!("Connecting again: {error}"));
                }
                other => return other,
            }
        }
        Err(Error::new(Kind::Transient, "The connection to the mail server was lost twice while settling.")
            .remedy("The same settle_batch can be repeated."))
    }

    /// The host asks for this message again.
    pub fn hand_out_again(&mut self, key: &Key) {
        self.handed_out.remove(key);
    }

    pub fn forget(&mut self, settled: &[Key]) {
        for key in settled {
            self.handed_out.remove(key);
        }
    }

    /// What was just written of a folder.
    pub fn remember(&mut self, folder: &str, cursor: Cursor) {
        self.cursors.insert(folder.to_owned(), cursor);
    }

    pub fn take_gone(&mut self, folder: &str) -> Vec<Key> {
        self.gone.remove(folder).unwrap_or_default()
    }

    fn fill(&mut self, context: &Context, fetching: &Fetching, request: &Request, batch: &mut Assembly) -> Result<()> {
        if !self.round {
            self.handed_out.clear();
            self.begin_round(context, fetching, request.deadline)?;
        } else if self.reader.is_none() {
            self.begin_round(context, fetching, request.deadline)?;
        }
        loop {
            let Some(reader) = &self.reader else { return Ok(()) };
            if batch.is_full(request, reader.peek_size()) {
                self.round = self.listing_cut || reader.remaining() > 0 || self.closed_folder.is_some();
                return reader.rest();
            }
            match reader.next(request.max_bytes, batch.room(request), request.deadline)? {
                Next::Message(entry, item) => self.take(context, fetching, entry, item, batch),
                Next::NotYet if batch.is_empty() => {
                    return Err(request
                        .deadline
                        .check("mail")
                        .err()
                        .unwrap_or_else(|| Error::new(Kind::Transient, "No message arrived in time.")));
                }
                Next::NotYet => return reader.rest(),
                Next::Failed(error) => {
                    // The rest of the round is listed anew, without what was handed out already.
                    self.hang_up();
                    return Err(error);
                }
                Next::End if self.listing_cut => self.begin_round(context, fetching, request.deadline)?,
                // What was read goes first.
                Next::End if self.closed_folder.is_some() && !batch.is_empty() => return Ok(()),
                Next::End => {
                    self.round = false;
                    return self.closed_folder.take().map_or(Ok(()), Err);
                }
            }
        }
    }

    fn begin_round(&mut self, context: &Context, fetching: &Fetching, deadline: Deadline) -> Result<()> {
        self.listing_cut = false;
        self.closed_folder = None;
        let mut entries = Vec::new();
        for folder in &fetching.folders {
            entries.extend(self.list_open(context, fetching, folder, deadline)?);
        }
        entries.retain(|entry| !self.handed_out.contains(&entry.key));
        if entries.is_empty() {
            self.listing_cut = false;
        }
        self.connected(context, deadline)?.plan(entries);
        self.round = true;
        Ok(())
    }

    /// A folder that is missing or forbidden keeps back no mail of the others.
    fn list_open(
        &mut self,
        context: &Context,
        fetching: &Fetching,
        folder: &str,
        deadline: Deadline,
    ) -> Result<Vec<Entry>> {
        match self.list(context, fetching, folder, deadline) {
            Err(error) if error.kind() == Kind::Refused && self.reader.is_some() => {
                context.session.log.warn(format_args!("{error}"));
                self.closed_folder.get_or_insert(error);
                Ok(Vec::new())
            }
            listed => listed,
        }
    }

    /// Lists one folder and stores its cursor when that is new or was reset.
    fn list(&mut self, context: &Context, fetching: &Fetching, folder: &str, deadline: Deadline) -> Result<Vec<Entry>> {
        let (stored, trouble) = match read_cursor(context, folder) {
            Ok(stored) => (stored, None),
            Err(error) if error.is_transient() && self.cursors.contains_key(folder) => {
                context.session.log.warn(format_args!("Reading on from the cursor that is in memory. {error}"));
                (None, Some(error))
            }
            Err(error) => return Err(error),
        };
        let (cursor, version) = match stored {
            Some((cursor, version)) => (Some(cursor), Some(version)),
            None if trouble.is_some() => (self.cursors.get(folder).cloned(), None),
            None => (None, None),
        };
        let since = fetching.since;
        let reader = self.connected(context, deadline)?;
        let (name, known) = (folder.to_owned(), cursor.clone());
        let listed = reader
            .with_inbox("listing mail", deadline, move |inbox| inbox.list(&name, known.as_ref(), since, deadline));
        let listing = listed.inspect_err(|error| {
            if error.is_transient() {
                self.hang_up();
            }
        })?;
        if let Some(trouble) = trouble {
            // A new beginning must be on the disk before anything is handed out.
            return if listing.reset.is_some() { Err(trouble) } else { Ok(self.listed(listing.entries, listing.more)) };
        }
        if cursor.as_ref() != Some(&listing.cursor)
            && !write_cursor(context, &cursor_id(context, folder), version, &listing.cursor)?
        {
            return Err(Error::new(Kind::Transient, format!("Another process works on {folder} at this moment.")));
        }
        if let Some(reset) = listing.reset {
            context.session.log.warn(format_args!("{reset}"));
            self.resets.push(reset);
        }
        self.cursors.insert(folder.to_owned(), listing.cursor);
        Ok(self.listed(listing.entries, listing.more))
    }

    fn listed(&mut self, entries: Vec<Entry>, more: bool) -> Vec<Entry> {
        self.listing_cut |= more;
        entries
    }

    fn connected(&mut self, context: &Context, deadline: Deadline) -> Result<&Reader> {
        if self.reader.is_none() {
            self.reader = Some(Reader::new(context.session.open_inbox(deadline)?)?);
        }
        self.reader.as_ref().ok_or_else(|| Error::new(Kind::Internal, "The connection vanished."))
    }

    fn take(&mut self, context: &Context, fetching: &Fetching, entry: Entry, item: Item, batch: &mut Assembly) {
        let account = &context.session.account;
        let text = key::to_text(&account.username, &entry.key);
        let raw = match item {
            Item::Read(raw) => into_bytes(raw),
            Item::Gone => {
                batch.skipped.push(json!({"key": text, "reason": "expunged before it was read"}));
                self.gone.entry(entry.key.folder.clone()).or_default().push(entry.key);
                return;
            }
            Item::Failed(error) => Err(error),
        };
        self.handed_out.insert(entry.key.clone());
        match raw {
            Ok(raw) => {
                let signer = context.shared.signing.signer(&*context.store).ok();
                let facts = message::describe(&raw, fetching, &self.own_addresses, signer, entry.received_at);
                batch.bytes += raw.len() as u64;
                batch.messages.push(Message { key: text, raw, facts });
            }
            Err(error) => {
                context.session.log.warn(format_args!("{text} cannot be read: {error}"));
                batch.quarantined.push(json!({"key": text, "size": entry.size, "reason": error.message()}));
            }
        }
    }
}

/// A batch in the making.
#[derive(Default)]
struct Assembly {
    messages: Vec<Message>,
    bytes: u64,
    skipped: Vec<Value>,
    quarantined: Vec<Value>,
}

impl Assembly {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.skipped.is_empty() && self.quarantined.is_empty()
    }

    /// One message larger than the bound travels alone; else the bound holds.
    fn is_full(&self, request: &Request, next_size: Option<u64>) -> bool {
        self.messages.len() >= request.max_messages
            || (!self.messages.is_empty() && self.bytes + next_size.unwrap_or(0) > request.max_bytes)
            || self.bytes >= request.max_bytes
    }

    fn room(&self, request: &Request) -> Room {
        let messages = request.max_messages.saturating_sub(self.messages.len());
        Room { messages, bytes: request.max_bytes.saturating_sub(self.bytes) }
    }

    fn finish(self, more: bool, remaining: usize, resets: Vec<String>) -> Batch {
        let (delivered, skipped, quarantined) = (self.messages.len(), self.skipped.len(), self.quarantined.len());
        let header = json!({
            "more": more,
            "remaining": remaining,
            "counts": {
                "listed": delivered + skipped + quarantined,
                "delivered": delivered,
                "skipped": skipped,
                "quarantined": quarantined,
            },
            "skipped": self.skipped,
            "quarantined": self.quarantined,
            "resets": resets,
        });
        Batch { header: header.to_string(), messages: self.messages }
    }
}

/// A spooled message is read back whole: the host gets bytes, and this is the only copy of it in memory.
fn into_bytes(raw: Raw) -> Result<Vec<u8>> {
    match raw {
        Raw::Memory(bytes) => Ok(bytes),
        Raw::Spool { mut file, len } => {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(len as usize).map_err(|e| {
                Error::new(Kind::TooLarge, "There is not enough memory for this message.").source_error(e)
            })?;
            file.read_to_end(&mut bytes)
                .map_err(|e| Error::new(Kind::Transient, "The spool file cannot be read.").source_error(e))?;
            Ok(bytes)
        }
    }
}
