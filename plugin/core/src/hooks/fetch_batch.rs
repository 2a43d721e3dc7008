//! `fetch_batch`: the next unsettled messages, oldest first, within the host's bounds.
//!
//! A round lists what is unsettled in each folder and hands it out batch by batch; when it is through (`more` false), the
//! next call begins a new round. What was handed out and not settled comes again in the next round: at least once, and
//! with the same key.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::Read,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use lettre::Address;
use serde::Deserialize;
use serde_json::json;

use super::{
    Batch, Context, Message,
    assembly::{Assembly, Bounds, elsewhere, listed_aside},
    cursor::{cursor_id, read_cursor, write_cursor},
    lease::{Lease, Whose},
    memory::Taken,
    plugin, quarantine,
    reader::{Next, Reader},
    request,
    trouble::{self, Trouble},
};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::{About, Error, Kind, Result},
    limits,
    machine::Lack,
    message,
    message::fingerprint::{Fingerprint, Traits},
    seam,
    settings::{Action, Fetching, Since},
    transport::{Cursor, Entry, Inbox, Item, Key, Listing, Raw, Settled, spool},
};

pub struct Request {
    /// `list`, or a key: nothing is fetched.
    pub quarantine: Option<String>,
    bounds: Bounds,
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
        quarantine: Option<String>,
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
    let deadline = request::deadline(fields.deadline_ms)?;
    Ok(Request { quarantine: fields.quarantine, bounds: Bounds { max_messages, max_bytes }, deadline })
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
    /// Of what was handed out and not settled.
    fingerprints: HashMap<Key, Fingerprint>,
    /// Not there any more, or not to be read again, by folder: settled with the next listing or settle.
    gone: HashMap<String, Vec<Key>>,
    /// Put aside by a call that was cut off before the mailbox and the cursor heard of it, by folder: the next settle
    /// goes on.
    half_aside: HashMap<String, HashSet<Key>>,
    /// The username, where it is an address: mail from it is the helpdesk's own.
    own_addresses: Vec<Address>,
    /// Why something is missing in this round, through no fault of a message: a folder could not be opened, this machine lacks
    /// something. Told when the rest is through.
    missing: Option<Error>,
    /// The cursors as they were read or written last, by folder; used while the store cannot be read.
    cursors: HashMap<String, Cursor>,
    /// Forced resynchronisations, to be told with the next batch.
    resets: Vec<String>,
    /// That this mailbox began anew beside another one is in `resets`.
    has_told_news: bool,
    /// Put aside, asked for again, and with their bytes in the store.
    replays: VecDeque<Key>,
    /// The message at which the connection ended, and how often in a row.
    suspect: Option<(Key, u32)>,
    trouble: Trouble,
    /// Folders whose listing ended the connection.
    spared: HashSet<String>,
    /// Once left out of the server's answer: listed again, they are not gone.
    left_out: HashSet<Key>,
    /// The server said once that there is no such message. Listed again and said again, or not listed any more, it is gone.
    denied: HashSet<Key>,
    /// Copied to the target of a move and not removed yet, for as long as the cursor could not be written.
    copied: HashSet<Key>,
    /// Asked for by the server when a batch held mail already: until when, and its words.
    pause: Option<(Instant, String)>,
    lease: Lease,
}

impl Fetch {
    pub fn new(username: &str) -> Self {
        Self { own_addresses: username.parse().into_iter().collect(), ..Self::default() }
    }

    pub fn next_batch(&mut self, context: &Context, request: &Request) -> Result<Batch> {
        let Some(fetching) = &context.session.account.fetching else {
            return Err(plugin::wrong_direction("fetch_batch", "incoming"));
        };
        match request.quarantine.as_deref() {
            None => {}
            Some("list") => return listed_aside(context),
            Some(key) => return self.one_aside(context, fetching, key, request.deadline),
        }
        if let Some((until, why)) = &self.pause {
            let rest = until.saturating_duration_since(seam::instant());
            if !rest.is_zero() {
                return Err(Error::new(Kind::Throttled, why.clone()).retry_after(rest));
            }
            self.pause = None;
        }
        if !self.round
            && let Some(error) = self.missing.take()
        {
            return Err(error);
        }
        context.name()?;
        if let Whose::Elsewhere(seconds) = self.hold(context, request.deadline)? {
            return Ok(elsewhere(seconds));
        }
        if let Some(news) = context.mailbox.news().filter(|_| !self.has_told_news) {
            self.resets.push(news.to_owned());
            self.has_told_news = true;
        }
        let mut batch = Assembly::default();
        let mut reconnected = false;
        loop {
            let end = self.fill(context, fetching, request, &mut batch);
            match end {
                Ok(()) => break,
                Err(error) if self.trouble.is_too_much() => {
                    self.disconnect();
                    if self.trouble.has_read() {
                        break;
                    }
                    return Err(error);
                }
                // What was read is handed over first; the next call meets the error again if it persists.
                Err(error) if is_worth_more(&batch, &error) => {
                    if let (Kind::Throttled, Some(wait)) = (error.kind(), error.wait()) {
                        self.pause = Some((seam::instant() + wait, error.message().to_owned()));
                    }
                    break;
                }
                // A connection that was kept since the last call may have ended since, or one message ended it: one new one.
                Err(error)
                    if (error.kind() == Kind::Transient
                        || self.suspect.is_some() && is_of_message_or_server(&error))
                        && !reconnected
                        && !request.deadline.left().is_zero() =>
                {
                    context.session.log.info(format_args!("Connecting again: {error}"));
                    reconnected = true;
                }
                Err(error) => return Err(error),
            }
        }
        // Frozen meanwhile? Then another node may have settled what was read: it is read anew.
        match self.hold(context, request.deadline)? {
            Whose::Ours => {}
            Whose::OursAnew => return Ok(elsewhere(0)),
            Whose::Elsewhere(seconds) => return Ok(elsewhere(seconds)),
        }
        if !self.round
            && let Some(error) = self.missing.take_if(|error| !is_worth_more(&batch, error))
        {
            return Err(error);
        }
        let remaining = self.reader.as_ref().map_or(0, Reader::remaining);
        let more = self.round || self.missing.is_some();
        Ok(batch.finish(more, remaining, std::mem::take(&mut self.resets)))
    }

    /// Holds the lease of the mailbox, where several nodes share the store. What is in memory of a round is dropped when
    /// another node may have worked in between.
    ///
    /// # Errors
    /// Those of the store.
    pub fn hold(&mut self, context: &Context, deadline: Deadline) -> Result<Whose> {
        if !context.store.is_shared() {
            return Ok(Whose::Ours);
        }
        let now = context.shared_now();
        let mailbox = context.name()?.mailbox_id();
        let whose = self.lease.hold(&*context.store, &context.shared.node, &mailbox, now, deadline.left())?;
        if whose != Whose::Ours && (self.round || matches!(whose, Whose::Elsewhere(_))) {
            self.disconnect();
            self.missing = None;
        }
        Ok(whose)
    }

    pub fn give_back(&mut self, context: &Context) {
        // Without a name nothing was held.
        let Some(name) = context.mailbox.known_name() else { return };
        self.lease.release(&*context.store, &context.shared.node, &name.mailbox_id());
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
                    drop(self.list_open(context, fetching, folder, deadline)?);
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

    /// Carries out a mailbox action for settled messages. Over a connection that had ended it is tried once more, for those
    /// to which nothing was done.
    ///
    /// # Errors
    /// As [`Inbox::settle`].
    pub fn settle(
        &mut self,
        context: &Context,
        known: &Cursor,
        keys: &[Key],
        action: &Action,
        deadline: Deadline,
    ) -> Result<Vec<Settled>> {
        let settled = match self.settle_once(context, known, keys, action, deadline) {
            Err(error) if is_lost(&error) && !deadline.left().is_zero() => {
                context.session.log.info(format_args!("Connecting again: {error}"));
                return self.settle_once(context, known, keys, action, deadline);
            }
            settled => settled?,
        };
        let is_open = |one: &Settled| matches!(one, Settled::Later(error) if is_lost(error));
        let open: Vec<Key> =
            keys.iter().zip(&settled).filter(|(_, one)| is_open(one)).map(|(key, _)| key.clone()).collect();
        if open.is_empty() || deadline.left().is_zero() {
            return Ok(settled);
        }
        let Ok(again) = self.settle_once(context, known, &open, action, deadline) else { return Ok(settled) };
        let mut again = again.into_iter();
        let replaced = |one: Settled| if is_open(&one) { again.next().unwrap_or(one) } else { one };
        Ok(settled.into_iter().map(replaced).collect())
    }

    fn settle_once(
        &mut self,
        context: &Context,
        known: &Cursor,
        keys: &[Key],
        action: &Action,
        deadline: Deadline,
    ) -> Result<Vec<Settled>> {
        let reader = self.connected(context, deadline)?;
        let (known, asked, action) = (known.clone(), keys.to_vec(), action.clone());
        let settled = reader.with_inbox("settling mail", deadline, move |inbox| {
            if let Some(key) = asked.first() {
                inbox.expect(&key.folder, &known);
            }
            inbox.settle(&asked, &action, deadline)
        });
        let is_broken = match &settled {
            Err(error) => is_lost(error),
            Ok(settled) => settled.iter().any(|one| matches!(one, Settled::Later(error) if is_lost(error))),
        };
        if is_broken {
            self.hang_up();
        }
        settled
    }

    /// The bytes of one message that was handed out before; `None`: it is not there any more, or the server does not give
    /// it out.
    pub fn read_one(&mut self, context: &Context, key: &Key, deadline: Deadline) -> Result<Option<Vec<u8>>> {
        // A key from before a reset may name another message now.
        let known = read_cursor(context, &key.folder)?.map(|(cursor, _)| cursor);
        if known.as_ref().is_some_and(|cursor| !cursor.is_current(key)) {
            return Ok(None);
        }
        let reader = self.connected(context, deadline)?;
        // As a large one it travels alone.
        let entry = Entry { key: key.clone(), size: limits::READ_ALONE, received_at: None };
        let item = reader.with_inbox("reading one message", deadline, move |inbox| {
            let mut found = None;
            if let Some(known) = &known {
                inbox.expect(&entry.key.folder, known);
            }
            inbox.read(&[entry], deadline, &mut |_, item| {
                found = Some(item);
                ControlFlow::Break(())
            })?;
            Ok(found)
        });
        match item.inspect_err(|_| self.hang_up())? {
            Some(Item::Read(raw)) => into_bytes(raw).map(Some),
            Some(Item::Failed(error)) if error.is_of_host() => Err(error),
            Some(Item::Gone | Item::LeftOut | Item::Failed(_)) | None => Ok(None),
        }
    }

    /// The raw bytes of one message that was put aside: from the store, else from the mailbox.
    fn one_aside(&mut self, context: &Context, fetching: &Fetching, text: &str, deadline: Deadline) -> Result<Batch> {
        let key = context.name()?.parse_key(text)?;
        let known = quarantine::read(context, &key.folder)?;
        let Some(failed) = known.get(&key.id).filter(|failed| failed.aside) else {
            return Err(Error::new(Kind::Misuse, format!("{text} is not in quarantine."))
                .remedy("Ask for {\"quarantine\": \"list\"}."));
        };
        let raw = match quarantine::raw(context, &key)? {
            Some(raw) => Some(raw),
            None => self.read_one(context, &key, deadline)?,
        };
        let mut batch = Assembly::default();
        match raw {
            Some(raw) => batch.push(self.message(context, fetching, text.to_owned(), raw, None), None),
            None => batch.skipped.push(json!({"key": text, "reason": failed.reason})),
        }
        Ok(batch.finish(false, 0, Vec::new()))
    }

    pub fn forget(&mut self, settled: &[Key]) {
        for key in settled {
            self.handed_out.remove(key);
            self.fingerprints.remove(key);
            self.copied.remove(key);
        }
    }

    /// What these messages leave behind when they are settled. Those that another process or an earlier round handed out are
    /// read once more; a message that cannot be read leaves nothing.
    pub fn fingerprints(
        &mut self,
        context: &Context,
        known: &Cursor,
        keys: &[Key],
        deadline: Deadline,
    ) -> Vec<Option<Fingerprint>> {
        let is_unknown = |key: &&Key| !self.fingerprints.contains_key(*key) && !known.is_settled(key);
        let unknown: Vec<Key> = keys.iter().filter(is_unknown).cloned().collect();
        if !unknown.is_empty() {
            // The other half is for settling itself.
            let until = deadline.at_most(deadline.left() / 2);
            match self.read_fingerprints(context, known, unknown, until) {
                Ok(read) => self.fingerprints.extend(read),
                Err(error) => context.session.log.info(format_args!("Settled messages leave no fingerprints: {error}")),
            }
        }
        keys.iter().map(|key| self.known_fingerprint(key)).collect()
    }

    /// `None`: this process did not read it, or nothing tells it from others.
    pub fn known_fingerprint(&self, key: &Key) -> Option<Fingerprint> {
        self.fingerprints.get(key).copied()
    }

    fn read_fingerprints(
        &mut self,
        context: &Context,
        known: &Cursor,
        keys: Vec<Key>,
        deadline: Deadline,
    ) -> Result<Vec<(Key, Fingerprint)>> {
        let reader = self.connected(context, deadline)?;
        let known = known.clone();
        let entries: Vec<Entry> = keys.into_iter().map(|key| Entry { key, size: 0, received_at: None }).collect();
        let read = reader.with_inbox("reading settled messages", deadline, move |inbox| {
            let mut read = Vec::new();
            if let Some(entry) = entries.first() {
                inbox.expect(&entry.key.folder, &known);
            }
            inbox.read(&entries, deadline, &mut |at, item| {
                if let Item::Read(raw) = item
                    && let Ok(raw) = into_bytes(raw)
                    && let Some(fingerprint) = Traits::of(&raw).fingerprint()
                {
                    read.push((entries[at].key.clone(), fingerprint));
                }
                ControlFlow::Continue(())
            })?;
            Ok(read)
        });
        read.inspect_err(|_| self.hang_up())
    }

    /// What was just written of a folder.
    pub fn remember(&mut self, folder: &str, cursor: Cursor) {
        self.cursors.insert(folder.to_owned(), cursor);
    }

    /// How far this handle listed a folder, which the store may not know.
    pub fn seen(&self, folder: &str) -> Option<&Cursor> {
        self.cursors.get(folder)
    }

    pub fn take_half_aside(&mut self, folder: &str) -> HashSet<Key> {
        self.half_aside.remove(folder).unwrap_or_default()
    }

    /// The mailbox did not hear of these.
    pub fn still_half_aside(&mut self, folder: &str, keys: impl IntoIterator<Item = Key>) {
        self.half_aside.entry(folder.to_owned()).or_default().extend(keys);
    }

    pub fn copied(&mut self, keys: &[Key]) {
        if self.copied.len() + keys.len() > limits::COPIED_MAX {
            self.copied.clear();
        }
        self.copied.extend(keys.iter().cloned());
    }

    pub fn is_copied(&self, key: &Key) -> bool {
        self.copied.contains(key)
    }

    pub fn take_gone(&mut self, folder: &str) -> Vec<Key> {
        self.gone.remove(folder).unwrap_or_default()
    }

    fn fill(&mut self, context: &Context, fetching: &Fetching, request: &Request, batch: &mut Assembly) -> Result<()> {
        if !self.round {
            self.handed_out.clear();
            self.missing = None;
            self.trouble.begin_round();
            self.begin_round(context, fetching, request.deadline)?;
        } else if self.reader.is_none() {
            self.begin_round(context, fetching, request.deadline)?;
        }
        self.hand_out_replays(context, fetching, request, batch)?;
        loop {
            let Some(reader) = &self.reader else { return Ok(()) };
            if batch.is_full(request.bounds, reader.peek_size()) {
                self.round = self.listing_cut || reader.remaining() > 0;
                return reader.rest();
            }
            let patience = if batch.is_empty() { request.deadline } else { Deadline::after(Duration::ZERO) };
            let taken = match context.shared.memory.take(reader.peek_size().unwrap_or(0), patience) {
                Ok(taken) => taken,
                // What is there goes first, and gives memory back.
                Err(_) if !batch.is_empty() => return reader.rest(),
                Err(error) => return Err(error),
            };
            match reader.next(request.bounds.max_bytes, batch.room(request.bounds), request.deadline)? {
                Next::Message(entry, item) => {
                    // Not every listing says how large a message is.
                    let taken = match enough_for(&item, taken) {
                        Ok(taken) => taken,
                        Err(bytes) => match context.shared.memory.take(bytes, patience) {
                            Ok(taken) => taken,
                            Err(error) => {
                                reader.put_back(entry, item);
                                return if batch.is_empty() { Err(error) } else { reader.rest() };
                            }
                        },
                    };
                    self.suspect = None;
                    self.take(context, fetching, entry, item, taken, batch)?;
                }
                Next::NotYet if batch.is_empty() => {
                    return Err(request
                        .deadline
                        .check("mail")
                        .err()
                        .unwrap_or_else(|| Error::new(Kind::Transient, "No message arrived in time.")));
                }
                Next::NotYet => return reader.rest(),
                Next::Failed(error) => {
                    let at = reader.peek_entry();
                    // The rest of the round is listed anew, without what was handed out already.
                    self.hang_up();
                    if let Some(entry) = at.filter(|_| is_of_message_or_server(&error)) {
                        self.suspected(context, entry, &error, batch)?;
                    }
                    return Err(error);
                }
                Next::End if self.listing_cut => self.begin_round(context, fetching, request.deadline)?,
                Next::End => {
                    self.round = false;
                    return Ok(());
                }
            }
        }
    }

    /// Without a plan a connection would look as if its round were through.
    fn begin_round(&mut self, context: &Context, fetching: &Fetching, deadline: Deadline) -> Result<()> {
        self.plan_round(context, fetching, deadline).inspect_err(|_| self.hang_up())
    }

    fn plan_round(&mut self, context: &Context, fetching: &Fetching, deadline: Deadline) -> Result<()> {
        self.listing_cut = false;
        let mut entries = Vec::new();
        self.replays.clear();
        let (mut closed, mut why) = (0, None);
        for folder in &fetching.folders {
            match self.list_open(context, fetching, folder, deadline)? {
                Ok(listed) => entries.extend(self.without_quarantined(context, folder, listed)?),
                Err(error) => {
                    closed += 1;
                    why.get_or_insert(error);
                }
            }
        }
        match why {
            Some(error) if closed == fetching.folders.len() => return Err(error),
            Some(error) => drop(self.missing.get_or_insert(error)),
            None => {}
        }
        entries.retain(|entry| !self.handed_out.contains(&entry.key));
        self.trouble.sort(&mut entries);
        if let Some((suspect, _)) = &self.suspect
            && let Some(entry) = entries.iter_mut().find(|entry| entry.key == *suspect)
        {
            // As a large one it travels alone, and what ends the connection is known for sure.
            entry.size = entry.size.max(limits::READ_ALONE);
        }
        if entries.is_empty() {
            self.listing_cut = false;
        }
        self.connected(context, deadline)?.plan(entries);
        self.round = true;
        Ok(())
    }

    /// The inner error: the server does not open this folder or does not list it, which keeps back no mail of the others.
    fn list_open(
        &mut self,
        context: &Context,
        fetching: &Fetching,
        folder: &str,
        deadline: Deadline,
    ) -> Result<Result<Vec<Entry>>> {
        match self.list(context, fetching, folder, deadline) {
            Err(error) if is_of_folder(&error) && fetching.folders.len() > 1 => {
                context.session.log.warn(format_args!("{error}"));
                Ok(Err(error))
            }
            listed => listed.map(Ok),
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
        let (stored, version) = match stored {
            Some((cursor, version)) => (Some(cursor), Some(version)),
            None if trouble.is_some() => (self.cursors.get(folder).cloned(), None),
            None => (None, None),
        };
        // What is not there any more is not listed once more, whatever the host does with the rest.
        let gone: Vec<_> = self.gone.get(folder).into_iter().flatten().map(|key| (key.clone(), None)).collect();
        let mut cursor = stored.clone();
        if let Some(cursor) = cursor.as_mut().filter(|_| !gone.is_empty()) {
            cursor.settle(&gone, context.session.clock.now());
        }
        let since = fetching.since;
        let is_spared = self.spared.contains(folder);
        let reader = self.connected(context, deadline)?;
        let (name, known, spared) = (folder.to_owned(), cursor.clone(), is_spared);
        let listed = reader.with_inbox("listing mail", deadline, move |inbox| {
            if spared {
                inbox.spare();
            }
            inbox.list(&name, known.as_ref(), since, deadline)
        });
        let listing = listed.inspect_err(|error| {
            if error.is_transient() {
                self.hang_up();
            }
            // Chance, or one message that the server cannot open: the next listing needs none to be opened.
            if error.about() == About::Connection {
                self.spared.insert(folder.to_owned());
            }
        })?;
        self.absent_once(folder, &listing);
        if let Some(trouble) = trouble {
            // A new beginning must be on the disk before anything is handed out.
            if listing.reset.is_some() {
                return Err(trouble);
            }
            self.cursors.insert(folder.to_owned(), listing.cursor);
            return Ok(self.listed(listing.entries, listing.more));
        }
        if stored.as_ref() != Some(&listing.cursor)
            && !write_cursor(context, &cursor_id(context, folder)?, version, &listing.cursor)?
        {
            return Err(Error::new(Kind::Transient, format!("Another process works on {folder} at this moment.")));
        }
        self.gone.remove(folder);
        if let Some(reset) = listing.reset {
            context.session.log.warn(format_args!("{reset}"));
            self.resets.push(reset);
        }
        self.cursors.insert(folder.to_owned(), listing.cursor);
        Ok(self.listed(listing.entries, listing.more))
    }

    /// What was not there when it was read, and is not in a listing that would name it, is gone. One that names it again has
    /// the last word.
    fn absent_once(&mut self, folder: &str, listing: &Listing) {
        if self.left_out.is_empty() && self.denied.is_empty() {
            return;
        }
        let listed: HashSet<&Key> = listing.entries.iter().map(|entry| &entry.key).collect();
        let is_absent = |key: &Key| key.folder == folder && listing.covers.holds(key) && !listed.contains(key);
        self.left_out.retain(|key| !is_absent(key));
        let gone: Vec<Key> = self.denied.extract_if(is_absent).collect();
        if !gone.is_empty() {
            self.gone.entry(folder.to_owned()).or_default().extend(gone);
        }
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

    /// What was put aside is not read again, unless the host asked for it.
    fn without_quarantined(&mut self, context: &Context, folder: &str, listed: Vec<Entry>) -> Result<Vec<Entry>> {
        let known = match quarantine::read(context, folder) {
            Ok(known) => known,
            // The store is away: then what was put aside comes again, which the host's own key catches.
            Err(error) if error.is_transient() => return Ok(listed),
            Err(error) => return Err(error),
        };
        if known.is_empty() {
            return Ok(listed);
        }
        let (mut open, mut asked_for) = (Vec::new(), Vec::new());
        for entry in listed {
            match known.get(&entry.key.id).filter(|failed| failed.aside) {
                None => open.push(entry),
                // The host asked for it again; the cursor did not hear of it yet.
                Some(failed) if failed.replay => self.gone.entry(folder.to_owned()).or_default().push(entry.key),
                // Without its bytes it stays as it is in the mailbox.
                Some(failed) if !failed.stored => self.gone.entry(folder.to_owned()).or_default().push(entry.key),
                // Whoever put it aside came no further: neither mailbox nor cursor heard of it yet.
                Some(_) => {
                    self.half_aside.entry(folder.to_owned()).or_default().insert(entry.key);
                }
            }
        }
        for (id, failed) in known.into_iter().filter(|(_, failed)| failed.aside && failed.replay) {
            let key = Key { folder: folder.to_owned(), id };
            match failed.stored {
                true if !self.handed_out.contains(&key) => self.replays.push_back(key),
                true => {}
                false => asked_for.push(Entry { key, size: failed.size, received_at: None }),
            }
        }
        asked_for.append(&mut open);
        Ok(asked_for)
    }

    fn hand_out_replays(
        &mut self,
        context: &Context,
        fetching: &Fetching,
        request: &Request,
        batch: &mut Assembly,
    ) -> Result<()> {
        while !batch.is_full(request.bounds, None)
            && let Some(key) = self.replays.pop_front()
        {
            let text = context.name()?.key(&key);
            match quarantine::raw(context, &key)? {
                Some(raw) => batch.push(self.message(context, fetching, text, raw, None), None),
                None => batch.skipped.push(json!({"key": text, "reason": "its bytes are not in the store any more"})),
            }
            self.handed_out.insert(key);
        }
        Ok(())
    }

    /// The connection ended at this message. Once may be chance; from the second time in a row on it counts as its fault.
    fn suspected(&mut self, context: &Context, entry: Entry, error: &Error, batch: &mut Assembly) -> Result<()> {
        if error.is_of_host() {
            return self.failed(context, &entry, error, error.message(), batch);
        }
        let times = match self.suspect.take() {
            Some((key, times)) if key == entry.key => times + 1,
            _ => 1,
        };
        self.suspect = Some((entry.key.clone(), times));
        if times < 2 {
            return Ok(());
        }
        let why = format!("Reading it ends the connection: {}", error.message());
        self.failed(context, &entry, error, &why, batch)
    }

    /// It could not be read, and sits out this round.
    fn failed(
        &mut self,
        context: &Context,
        entry: &Entry,
        error: &Error,
        why: &str,
        batch: &mut Assembly,
    ) -> Result<()> {
        self.handed_out.insert(entry.key.clone());
        let text = context.name()?.key(&entry.key);
        if error.is_of_host() {
            context.session.log.warn(format_args!("{text} could not be read, which is this machine's fault: {error}"));
            self.trouble.met(&entry.key);
            self.missing.get_or_insert_with(|| error.clone());
            batch.skipped.push(json!({"key": text, "reason": why}));
            return Ok(());
        }
        let is_passing = error.is_transient() || !error.is_of_item() && error.kind() != Kind::TooLarge;
        let failure = trouble::Failure { entry: entry.clone(), why: why.to_owned(), is_passing };
        if self.trouble.counts(&failure) {
            return self.count(context, &failure, batch);
        }
        context.session.log.warn(format_args!("{text} could not be read, which may be the server's trouble: {why}"));
        let known = quarantine::read(context, &entry.key.folder)?.remove(&entry.key.id);
        let failed = known.unwrap_or_else(|| quarantine::Failed::new(entry.size, why, context.session.clock.now()));
        batch.quarantined.insert(text.clone(), failed.to_json(&text));
        Ok(())
    }

    /// The last time it is put aside, without bytes.
    fn count(&mut self, context: &Context, failure: &trouble::Failure, batch: &mut Assembly) -> Result<()> {
        let trouble::Failure { entry, why, is_passing } = failure;
        let text = context.name()?.key(&entry.key);
        let mut failed = match is_passing {
            true => quarantine::count_unread(context, &entry.key, entry.size, why)?,
            false => quarantine::count(context, &entry.key, entry.size, why)?,
        };
        let is_enough = if *is_passing { quarantine::is_long_enough } else { quarantine::is_enough };
        if failed.aside || is_enough(&failed) {
            failed = quarantine::put_aside(context, &entry.key, None)?;
            self.suspect = None;
            self.trouble.forget(&entry.key);
            self.gone.entry(entry.key.folder.clone()).or_default().push(entry.key.clone());
        }
        context
            .session
            .log
            .warn(format_args!("{text} cannot be read (failure {}): {why}", failed.tries + failed.unread));
        batch.quarantined.insert(text.clone(), failed.to_json(&text));
        Ok(())
    }

    fn message(
        &self,
        context: &Context,
        fetching: &Fetching,
        key: String,
        raw: Vec<u8>,
        received_at: Option<UnixSeconds>,
    ) -> Message {
        let signer = context.shared.signing.signer(&*context.store).ok();
        let facts = message::describe(&raw, fetching, &self.own_addresses, signer, received_at);
        Message { key, raw, facts }
    }

    fn take(
        &mut self,
        context: &Context,
        fetching: &Fetching,
        entry: Entry,
        item: Item,
        taken: Option<Taken>,
        batch: &mut Assembly,
    ) -> Result<()> {
        let text = context.name()?.key(&entry.key);
        self.handed_out.insert(entry.key.clone());
        let raw = match item {
            Item::Read(raw) => raw,
            Item::Gone => {
                batch.skipped.push(json!({"key": text, "reason": "expunged before it was read"}));
                if !is_new(&mut self.denied, &entry.key) {
                    self.denied.remove(&entry.key);
                    self.gone.entry(entry.key.folder.clone()).or_default().push(entry.key);
                }
                return Ok(());
            }
            Item::LeftOut => {
                if is_new(&mut self.left_out, &entry.key) {
                    batch
                        .skipped
                        .push(json!({"key": text, "reason": "expunged before it was read, or it comes again"}));
                    return Ok(());
                }
                let error =
                    Error::new(Kind::Transient, "The mail server lists the message and leaves it out of its answer.");
                return self.unreadable(context, &entry, error, batch);
            }
            Item::Failed(error) => return self.unreadable(context, &entry, error, batch),
        };
        let raw = match into_bytes(raw) {
            Ok(raw) => raw,
            Err(error) => return self.unreadable(context, &entry, error, batch),
        };
        self.left_out.remove(&entry.key);
        self.denied.remove(&entry.key);
        if let Some(fingerprint) = Traits::of(&raw).fingerprint() {
            if self.fingerprints.len() >= limits::FINGERPRINTS_MAX {
                self.fingerprints.clear();
            }
            self.fingerprints.insert(entry.key.clone(), fingerprint);
        }
        batch.push(self.message(context, fetching, text, raw, entry.received_at), taken);
        for other in self.trouble.read(&entry.key) {
            self.count(context, &other, batch)?;
        }
        Ok(())
    }

    fn unreadable(&mut self, context: &Context, entry: &Entry, error: Error, batch: &mut Assembly) -> Result<()> {
        self.failed(context, entry, &error, error.message(), batch)?;
        if !self.trouble.has_read() {
            // Read on from the other end.
            self.hang_up();
        }
        if self.trouble.is_too_much() { Err(error) } else { Ok(()) }
    }
}

/// Is what was read told first, and the error by the next call? That this machine lacks something outweighs the messages that
/// it passed over for that.
fn is_worth_more(batch: &Assembly, error: &Error) -> bool {
    batch.has_messages() || !batch.is_empty() && !error.is_of_host()
}

/// The memory that was taken is enough for what came; else how much is needed.
fn enough_for(item: &Item, taken: Option<Taken>) -> std::result::Result<Option<Taken>, u64> {
    match item {
        Item::Read(Raw::Spool { len, .. }) if taken.as_ref().map_or(0, Taken::bytes) < *len => Err(*len),
        _ => Ok(taken),
    }
}

/// A folder that is not opened or not listed keeps back no mail of the others: the server answered, and it does not ask to
/// wait.
fn is_of_folder(error: &Error) -> bool {
    error.is_of_folder()
        || error.kind() == Kind::Refused
        || error.kind() != Kind::Throttled
            && (error.code().is_some() || error.status().is_some())
            && matches!(error.kind(), Kind::Transient | Kind::ServerMisbehaved)
}

/// The connection is of no more use; a new one may be.
fn is_lost(error: &Error) -> bool {
    error.kind() == Kind::Transient && !matches!(error.about(), About::Folder | About::Host) && error.wait().is_none()
}

/// Whoever must act, or how long is to be waited, it is not for this message.
fn is_of_message_or_server(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::Transient | Kind::Refused | Kind::TooLarge | Kind::ServerMisbehaved | Kind::Unsupported
    )
}

/// Was this not met before? Bounded: forgotten, a message is given one more try.
fn is_new(met: &mut HashSet<Key>, key: &Key) -> bool {
    if met.len() >= limits::LEFT_OUT_MAX {
        met.clear();
    }
    met.insert(key.clone())
}

/// A spooled message is read back whole: the host gets bytes, and this is the only copy of it in memory.
///
/// # Errors
/// This machine's.
fn into_bytes(raw: Raw) -> Result<Vec<u8>> {
    match raw {
        Raw::Memory(bytes) => Ok(bytes),
        Raw::Spool { mut file, len } => {
            let mut bytes = Vec::new();
            let doing = "A large message could not be read into memory.";
            bytes.try_reserve_exact(len as usize).map_err(|e| Lack::Memory.error(doing).source_error(e))?;
            seam::step("spool.read").and_then(|()| file.read_to_end(&mut bytes)).map_err(spool::unreadable)?;
            Ok(bytes)
        }
    }
}
