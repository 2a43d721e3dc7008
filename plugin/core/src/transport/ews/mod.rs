//! Mail through Exchange Web Services: Exchange Server, and Exchange Online until 2027-04-01 where the tenant allows it.
//!
//! `SyncFolderItems` says what is new in a folder, `GetItem` gives the MIME, `UpdateItem` / `MoveItem` / `DeleteItem`
//! settle it, `CreateItem` and `SendItem` send. One file for each operation; the elements stand in the order of the
//! schema, because a server refuses any other. Source: the EWS reference of "Exchange Server client developer", and
//! its messages.xsd and types.xsd.

mod client;
mod create_folder;
mod create_item;
mod delete_item;
mod find_folder;
mod find_item;
mod get_folder;
mod get_item;
mod lenient;
mod move_item;
mod outbox;
mod send_item;
pub mod soap;
pub mod splitter;
pub mod sync_folder_items;
#[cfg(test)]
mod tests;
mod update_item;

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, atomic::AtomicU64},
};

use super::{
    Cursor as AnyCursor, Entry, FolderLook, Inbox, Item, Key, Listing, Login, OpenError, Outbox, Proof, Settled,
    Transcript,
    ahead::Ahead,
    feed::Feed,
    moving,
    special_use::{moved_to_itself, special_use},
    witness,
};
use crate::{
    clock::{Clock, Deadline},
    error::{Error, Kind, Result},
    limits,
    net::Net,
    settings::{Account, Action, Former, Protocol, Since},
};
use client::{Client, Failure};
use soap::FolderId;

/// Opens the mailbox for reading: one request for the inbox shows that the token is taken.
///
/// # Errors
/// `LoginRefused` for HTTP 401; `Other` for everything that a fresh token would not cure.
pub fn open(
    account: &Account,
    net: &Net,
    login: &Login<'_>,
    transcript: &Transcript,
    deadline: Deadline,
) -> Result<Box<dyn Inbox>, OpenError> {
    Ok(Box::new(connect(account, net, login, transcript, deadline)?))
}

/// The same for sending.
pub fn open_outbox(
    account: &Account,
    net: &Net,
    login: &Login<'_>,
    transcript: &Transcript,
    deadline: Deadline,
) -> Result<Box<dyn Outbox>, OpenError> {
    Ok(Box::new(outbox::EwsOutbox::new(connect(account, net, login, transcript, deadline)?)))
}

fn connect(
    account: &Account,
    net: &Net,
    login: &Login<'_>,
    transcript: &Transcript,
    deadline: Deadline,
) -> Result<Mailbox, OpenError> {
    let Protocol::Ews { url } = &account.protocol else {
        return Err(Error::new(Kind::Internal, "An account of another protocol was opened as EWS.").into());
    };
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    // The HTTP client tells the certificate at most, neither address nor version nor cipher; this connection does.
    let tls = net.connect_tls(host, port, deadline)?.facts();
    let client = Client::new(account, net, url, login.token, transcript);
    let proof = Proof { protocol: "EWS", mechanism: "Bearer", port, tls };
    let moved_from = account.fetching.as_ref().and_then(|fetching| fetching.moved_from);
    let mailbox =
        Mailbox { client, proof, moved_from, folders: HashMap::new(), refuses_states: false, ahead: Ahead::default() };
    match get_folder::exists(&mailbox.client, &FolderId::INBOX, deadline) {
        Ok(()) => Ok(mailbox),
        Err(Failure::Unauthorized(error)) => Err(OpenError::LoginRefused(error)),
        Err(failure) => Err(failure.into_error().into()),
    }
}

struct Mailbox {
    client: Client,
    proof: Proof,
    moved_from: Option<Former>,
    /// By name.
    folders: HashMap<String, FolderId>,
    /// The server was seen to refuse a SyncState that it does not know.
    refuses_states: bool,
    ahead: Ahead,
}

impl Mailbox {
    /// A name, a path with `/`, a special use, or INBOX. `None`: it is not there.
    fn folder(&mut self, name: &str, deadline: Deadline) -> Result<Option<FolderId>, Failure> {
        if name.eq_ignore_ascii_case("inbox") {
            return Ok(Some(FolderId::INBOX));
        }
        let special = special_use(name).map_err(Failure::Other)?;
        if let Some(id) = special.and_then(|special| special.ews) {
            return Ok(Some(FolderId::Distinguished(id)));
        }
        if let Some(id) = self.folders.get(name) {
            return Ok(Some(id.clone()));
        }
        if let Some(special) = special {
            for known in special.names {
                if let Some(id) = find_folder::child_of(&self.client, &FolderId::ROOT, known, deadline)? {
                    self.folders.insert(name.to_owned(), id.clone());
                    return Ok(Some(id));
                }
            }
            return Ok(None);
        }
        let mut id = FolderId::ROOT;
        for part in name.split('/') {
            match find_folder::child_of(&self.client, &id, part, deadline)? {
                Some(child) => id = child,
                None => return Ok(None),
            }
        }
        self.folders.insert(name.to_owned(), id.clone());
        Ok(Some(id))
    }

    /// A folder that is created when it is not there, as IMAP's target folders are.
    fn target(&mut self, name: &str, deadline: Deadline) -> Result<FolderId, Failure> {
        if let Some(id) = self.folder(name, deadline)? {
            return Ok(id);
        }
        let (parent, leaf) = match name.rsplit_once('/') {
            Some((parent, leaf)) => (self.target(parent, deadline)?, leaf),
            None => (FolderId::ROOT, name),
        };
        let id = match create_folder::create(&self.client, &parent, leaf, deadline) {
            // Another node was faster.
            Err(failure) if failure.is(&["ErrorFolderExists"]) => {
                find_folder::any_child_of(&self.client, &parent, leaf, deadline)?.ok_or(failure)?
            }
            created => created?,
        };
        self.folders.insert(name.to_owned(), id.clone());
        Ok(id)
    }
}

impl Mailbox {
    /// Who is not found, or cannot be deleted, is asked for again: it may be gone already, and it may be there.
    fn second_look(
        &self,
        ids: &[&str],
        mut answers: Vec<Result<Settled>>,
        action: &Action,
        deadline: Deadline,
    ) -> Result<Vec<Result<Settled>>> {
        let codes = [client::ITEM_NOT_FOUND, "ErrorCannotDeleteObject"];
        let codes = if *action == Action::Delete { &codes[..] } else { &codes[..1] };
        let is_open = |answer: &Result<Settled>| answer.as_ref().is_err_and(|error| error.has_code(codes));
        let places: Vec<usize> = (0..answers.len()).filter(|at| is_open(&answers[*at])).collect();
        for part in places.chunks(limits::EWS_BATCH) {
            let doubtful: Vec<&str> = part.iter().map(|at| ids[*at]).collect();
            let missing = get_item::are_missing(&self.client, &doubtful, deadline).map_err(Failure::into_error)?;
            for (at, _) in part.iter().zip(missing).filter(|(_, is_missing)| *is_missing) {
                answers[*at] = Ok(Settled::Gone);
            }
        }
        Ok(answers)
    }
}

impl Inbox for Mailbox {
    fn proof(&self) -> Proof {
        self.proof.clone()
    }

    fn list(&mut self, folder: &str, cursor: Option<&AnyCursor>, since: Since, deadline: Deadline) -> Result<Listing> {
        let now = Clock::default().now();
        let (feed, moved) = match cursor {
            None => (Feed::new(since, now), None),
            Some(AnyCursor::Ews(feed)) => (feed.clone(), None),
            Some(other) => {
                let (feed, words) = moving::take_over(folder, other, self.moved_from, "EWS")?;
                (feed, Some(words))
            }
        };
        let listing = sync_folder_items::list(self, folder, feed, now, deadline)?;
        Ok(Listing { reset: moved.or(listing.reset), ..listing })
    }

    fn read(
        &mut self,
        entries: &[Entry],
        deadline: Deadline,
        sink: &mut dyn FnMut(usize, Item) -> ControlFlow<()>,
    ) -> Result<usize> {
        let mut folders = HashMap::new();
        for entry in entries {
            let name = &entry.key.folder;
            if !folders.contains_key(name) {
                // Known from the listing, or one that needs no request.
                folders.extend(self.folder(name, deadline).map_err(Failure::into_error)?.map(|id| (name.clone(), id)));
            }
        }
        let client = &self.client;
        let fetch = |group: &[Entry]| get_item::get(client, &folders, group, deadline);
        self.ahead.read(entries, limits::EWS_PARALLEL, get_item::group, &fetch, sink)
    }

    fn settle(&mut self, keys: &[Key], action: &Action, deadline: Deadline) -> Result<Vec<Settled>> {
        let target = match action {
            Action::Leave => return Ok(keys.iter().map(|_| Settled::Done).collect()),
            Action::Move { folder } => Some(self.target(folder, deadline).map_err(Failure::into_error)?),
            Action::MarkSeen | Action::Delete => None,
        };
        // Each move would give the message another id, under which it comes again.
        if let (Action::Move { folder: name }, Some(target)) = (action, &target)
            && let Some(key) = keys.iter().find(|key| self.folders.get(&key.folder) == Some(target))
        {
            return Err(moved_to_itself(&key.folder, name));
        }
        let mut settled = Vec::with_capacity(keys.len());
        for part in keys.chunks(limits::EWS_SETTLE_BATCH) {
            let ids: Vec<&str> = part.iter().map(|key| key.id.as_str()).collect();
            let done = match (action, &target) {
                (Action::Move { .. }, Some(target)) => move_item::run(&self.client, &ids, target, deadline),
                (Action::Delete, _) => delete_item::run(&self.client, &ids, delete_item::How::Recoverable, deadline),
                _ => update_item::mark_read(&self.client, &ids, deadline),
            };
            let done = match done {
                Ok(answers) => self.second_look(&ids, answers, action, deadline).and_then(witness::settled),
                Err(failure) => Err(failure.into_error()),
            };
            if let Action::Move { folder } = action {
                let of_target = ["ErrorToFolderNotFound", "ErrorFolderNotFound"];
                let is_gone = match &done {
                    Ok(done) => {
                        done.iter().any(|one| matches!(one, Settled::Later(error) if error.has_code(&of_target)))
                    }
                    Err(error) => error.has_code(&of_target),
                };
                if is_gone {
                    // Deleted meanwhile: the next call looks for it again.
                    self.folders.remove(folder);
                }
            }
            match done {
                Ok(done) => settled.extend(done),
                Err(error) if settled.is_empty() => return Err(error),
                Err(error) => return Ok(super::rest_later(settled, keys.len(), &error)),
            }
        }
        Ok(settled)
    }

    fn received(&self) -> Arc<AtomicU64> {
        self.client.received()
    }

    fn check(&mut self, deadline: Deadline) -> Result<()> {
        get_folder::exists(&self.client, &FolderId::INBOX, deadline).map_err(Failure::into_error)
    }

    fn find_sent(&mut self, message_id: &str, deadline: Deadline) -> Result<Option<(String, usize)>> {
        let found = find_item::by_message_id(&self.client, &FolderId::SENT, message_id, deadline);
        found.map(|found| Some(("sentitems".to_owned(), found))).map_err(Failure::into_error)
    }

    fn look(&mut self, folder: &str, deadline: Deadline) -> Result<Option<FolderLook>> {
        let Some(id) = self.folder(folder, deadline).map_err(Failure::into_error)? else { return Ok(None) };
        let messages = match get_folder::count(&self.client, &id, deadline) {
            Ok(messages) => messages,
            Err(failure) if failure.is_folder_missing() => return Ok(None),
            Err(failure) => return Err(failure.into_error()),
        };
        let newest = find_item::newest(&self.client, &id, folder, deadline).map_err(Failure::into_error)?;
        Ok(Some(FolderLook { messages, newest, rights: None }))
    }
}
