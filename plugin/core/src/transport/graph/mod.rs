//! Mail through Microsoft Graph (v1.0, and the national clouds: the base URL is a setting).
//!
//! `messages/delta` says what is new in a folder, `$value` gives its MIME, PATCH / move / DELETE settle it. Every request
//! asks for immutable ids, which survive moves. Source: Graph REST API v1.0, "message: delta", "Get MIME content of a
//! message", "Obtain immutable identifiers", "Throttling".

mod client;
mod draft;
mod list;
mod moved;
#[cfg(test)]
mod moved_tests;
mod read;
mod send;
#[cfg(test)]
mod send_tests;
mod settle;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, atomic::AtomicU64},
};

use serde_json::{Value, json};

use super::{
    Cursor as AnyCursor, Entry, FolderLook, Inbox, Item, Key, Listing, Login, OpenError, Outbox, Proof, Settled,
    Transcript, ahead::Ahead, feed::Feed, special_use::special_use,
};
use crate::{
    clock::{Clock, Deadline},
    error::{Error, Kind, Result},
    limits,
    net::Net,
    settings::{Account, Action, Former, Protocol, Since},
};
use client::{Client, Failure};

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
    Ok(Box::new(connect(account, net, login, transcript, deadline)?.0))
}

/// The same for sending.
pub fn open_outbox(
    account: &Account,
    net: &Net,
    login: &Login<'_>,
    transcript: &Transcript,
    deadline: Deadline,
) -> Result<Box<dyn Outbox>, OpenError> {
    let (mailbox, may_look) = connect(account, net, login, transcript, deadline)?;
    Ok(Box::new(send::GraphOutbox::new(mailbox, !may_look)))
}

/// The mailbox, and whether its folders may be looked at.
fn connect(
    account: &Account,
    net: &Net,
    login: &Login<'_>,
    transcript: &Transcript,
    deadline: Deadline,
) -> Result<(Mailbox, bool), OpenError> {
    let Protocol::Graph { base_url } = &account.protocol else {
        return Err(Error::new(Kind::Internal, "An account of another protocol was opened as Graph.").into());
    };
    let host = base_url.host_str().unwrap_or_default();
    let port = base_url.port_or_known_default().unwrap_or_default();
    // The HTTP client tells the certificate at most, neither address nor version nor cipher; this connection does.
    let tls = net.connect_tls(host, port, deadline)?.facts();
    let client = Client::new(account, net, base_url, login.token, transcript);
    let proof = Proof { protocol: "Microsoft Graph", mechanism: "Bearer", port, tls };
    let moved_from = account.fetching.as_ref().and_then(|fetching| fetching.moved_from);
    let mailbox = Mailbox { client, proof, moved_from, folders: HashMap::new(), ahead: Ahead::default() };
    match mailbox.client.json("GET", "/mailFolders/inbox?$select=id", None, deadline) {
        Ok(_) => Ok((mailbox, true)),
        // Mail.Send alone may not look at folders, and sending is all that is asked of it.
        Err(Failure::Refused(_)) if account.sending.is_some() => Ok((mailbox, false)),
        Err(Failure::Unauthorized(error)) => Err(OpenError::LoginRefused(error)),
        Err(failure) => Err(failure.into_error().into()),
    }
}

struct Mailbox {
    client: Client,
    proof: Proof,
    moved_from: Option<Former>,
    /// Ids of folders, by name.
    folders: HashMap<String, String>,
    ahead: Ahead,
}

impl Mailbox {
    /// The id of a folder: a name, a path with `/`, INBOX, or a special use (RFC 6154). `None`: it is not there.
    fn folder(&mut self, name: &str, deadline: Deadline) -> Result<Option<String>> {
        if let Some(id) = self.folders.get(name) {
            return Ok(Some(id.clone()));
        }
        let mut id: Option<String> = None;
        for part in name.split('/') {
            let known = match part.eq_ignore_ascii_case("inbox") {
                true => Some("inbox"),
                false => special_use(part)?.map(|special| special.graph),
            };
            id = Some(match (&id, known) {
                (None, Some(known)) => known.to_owned(),
                (parent, _) => match self.child(parent.as_deref(), part, deadline)? {
                    Some(found) => found,
                    None => return Ok(None),
                },
            });
        }
        if let Some(id) = &id {
            self.folders.insert(name.to_owned(), id.clone());
        }
        Ok(id)
    }

    /// The id that messages name as their parent; well-known names are no ids.
    fn folder_id(&mut self, name: &str, deadline: Deadline) -> Result<Option<String>> {
        let Some(id) = self.folder(name, deadline)? else { return Ok(None) };
        let path = format!("/mailFolders/{}?$select=id", client::segment(&id));
        let folder = self.client.json("GET", &path, None, deadline).map_err(Failure::into_error)?;
        Ok(id_of(&folder).map(str::to_owned))
    }

    fn child(&self, parent: Option<&str>, name: &str, deadline: Deadline) -> Result<Option<String>> {
        let filter = client::segment(&format!("displayName eq '{}'", name.replace('\'', "''")));
        self.named(parent, &format!("$filter={filter}"), name, deadline)
    }

    /// The folder with this name among all pages of an answer. Only a missing nextLink ends them, and a server that takes
    /// the filter lightly must not have mail moved into the first folder it names.
    fn named(&self, parent: Option<&str>, query: &str, name: &str, deadline: Deadline) -> Result<Option<String>> {
        let mut url = self.client.url(&format!("{}?$select=id,displayName&{query}", folders_of(parent)))?;
        let wanted = name.to_lowercase();
        for _ in 0..limits::GRAPH_FOLDER_PAGES_MAX {
            let page = self.client.page("GET", &url, None, deadline).map_err(Failure::into_error)?;
            let folders = page["value"].as_array().into_iter().flatten();
            let is_named =
                |folder: &&Value| folder["displayName"].as_str().is_some_and(|shown| shown.to_lowercase() == wanted);
            if let Some(id) = folders.filter(is_named).find_map(id_of) {
                return Ok(Some(id.to_owned()));
            }
            match page["@odata.nextLink"].as_str() {
                Some(next) => url = self.client.link(next)?,
                None => return Ok(None),
            }
        }
        Err(client::misbehaved("gives out pages of folders without end"))
    }

    /// The id of a folder that is created when it is not there, as IMAP's target folders are.
    fn target(&mut self, name: &str, deadline: Deadline) -> Result<String> {
        if let Some(id) = self.folder(name, deadline)? {
            return Ok(id);
        }
        let (parent, leaf) = name.rsplit_once('/').map_or((None, name), |(parent, leaf)| (Some(parent), leaf));
        let parent = parent.map(|parent| self.target(parent, deadline)).transpose()?;
        let parent = parent.as_deref();
        let made = self.client.json("POST", &folders_of(parent), Some(&json!({"displayName": leaf})), deadline);
        let id = match made.map_err(Failure::into_error) {
            Ok(made) => {
                id_of(&made).map(str::to_owned).ok_or_else(|| client::misbehaved("created a folder without an id"))?
            }
            // Another node was faster, or the folder is one that the filter does not find: hidden, or named in another
            // spelling.
            Err(error) if error.has_code(&["ErrorFolderExists"]) => {
                self.named(parent, "$top=100&includeHiddenFolders=true", leaf, deadline)?.ok_or(error)?
            }
            Err(error) => return Err(error),
        };
        self.folders.insert(name.to_owned(), id.clone());
        Ok(id)
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
            Some(AnyCursor::Graph(feed)) => (feed.clone(), None),
            Some(other) => {
                let (feed, words) = moved::take_over(&self.client, folder, other, self.moved_from, deadline)?;
                (feed, Some(words))
            }
        };
        let listing = list::list(self, folder, feed, now, deadline)?;
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
                folders.extend(self.folder(name, deadline)?.map(|id| (name.clone(), id)));
            }
        }
        let client = &self.client;
        let fetch = |group: &[Entry]| read::get(client, &folders, group, deadline);
        self.ahead.read(entries, limits::GRAPH_PARALLEL, |_| 1, &fetch, sink)
    }

    fn settle(&mut self, keys: &[Key], action: &Action, deadline: Deadline) -> Result<Vec<Settled>> {
        settle::settle(self, keys, action, deadline)
    }

    fn received(&self) -> Arc<AtomicU64> {
        self.client.received()
    }

    fn check(&mut self, deadline: Deadline) -> Result<()> {
        self.client.json("GET", "/mailFolders/inbox?$select=id", None, deadline).map(drop).map_err(Failure::into_error)
    }

    fn find_sent(&mut self, message_id: &str, deadline: Deadline) -> Result<Option<(String, usize)>> {
        send::find(&self.client, message_id, deadline).map(|found| Some(("sentitems".to_owned(), found)))
    }

    fn look(&mut self, folder: &str, deadline: Deadline) -> Result<Option<FolderLook>> {
        let Some(id) = self.folder(folder, deadline)? else { return Ok(None) };
        let id = client::segment(&id);
        let about = self.client.json("GET", &format!("/mailFolders/{id}?$select=totalItemCount"), None, deadline);
        let about = match about {
            Err(Failure::NotFound(error)) if list::is_of_folder(&error) => return Ok(None),
            about => about.map_err(Failure::into_error)?,
        };
        let newest = format!("/mailFolders/{id}/messages?$select=id&$top=1&$orderby=receivedDateTime%20desc");
        let newest = self.client.json("GET", &newest, None, deadline).map_err(Failure::into_error)?;
        let newest = newest["value"][0]["id"].as_str().map(|id| Entry {
            key: Key { folder: folder.to_owned(), id: id.to_owned() },
            size: 0,
            received_at: None,
        });
        let messages = about["totalItemCount"].as_u64().unwrap_or_default();
        Ok(Some(FolderLook { messages: u32::try_from(messages).unwrap_or(u32::MAX), newest, rights: None }))
    }
}

/// Below this folder, or at the top.
fn folders_of(parent: Option<&str>) -> String {
    match parent {
        None => "/mailFolders".to_owned(),
        Some(id) => format!("/mailFolders/{}/childFolders", client::segment(id)),
    }
}

/// Is this what an item of a page must be?
fn id_of(item: &Value) -> Option<&str> {
    item["id"].as_str().filter(|id| !id.is_empty() && id.len() <= crate::limits::GRAPH_ID_MAX)
}
