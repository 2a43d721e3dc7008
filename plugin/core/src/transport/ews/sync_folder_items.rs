//! SyncFolderItems: which messages of a folder are not settled yet, from the SyncState on.
//!
//! The first time, the folder is gone through once, newest first, over as many calls as it takes; only what is young enough is
//! handed out. The same after ErrorInvalidSyncStateData, from the last moment at which all was settled.

use roxmltree::Node;

use super::{
    Mailbox,
    client::{Client, Failure, misbehaved},
    soap::{FolderId, child, escape, id, is_true, text},
};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::Result,
    limits,
    message::fingerprint::Traits,
    transport::{
        Covers, Cursor, Listing,
        feed::{Feed, Listed, Page, Walk, folder_missing, moment},
    },
};

/// What lies in mail folders and is no mail.
const NO_MAIL: [&str; 5] = ["CalendarItem", "Contact", "DistributionList", "Task", "PostItem"];

/// `taken_over`: with what a message is recognised by.
fn request(client: &Client, folder: &FolderId, state: Option<&str>, taken_over: bool) -> String {
    let traits = ["item:Subject", "item:DateTimeSent", "message:From", "message:InternetMessageId"];
    let traits = if taken_over { &traits[..] } else { &[] };
    let traits: String = traits.iter().map(|uri| format!("<t:FieldURI FieldURI=\"{uri}\"/>")).collect();
    let state = state.map_or_else(String::new, |state| format!("<m:SyncState>{}</m:SyncState>", escape(state)));
    format!(
        "<m:SyncFolderItems><m:ItemShape><t:BaseShape>IdOnly</t:BaseShape><t:AdditionalProperties>\
         <t:FieldURI FieldURI=\"item:DateTimeReceived\"/><t:FieldURI FieldURI=\"item:Size\"/>\
         <t:FieldURI FieldURI=\"item:IsDraft\"/>{traits}</t:AdditionalProperties></m:ItemShape><m:SyncFolderId>{}\
         </m:SyncFolderId>{state}<m:MaxChangesReturned>{}</m:MaxChangesReturned><m:SyncScope>NormalItems</m:SyncScope>\
         </m:SyncFolderItems>",
        folder.xml(&client.identity),
        limits::EWS_CHANGES
    )
}

/// A SyncState that no server gave out.
const NOBODYS: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

pub(super) fn list(
    mailbox: &mut Mailbox,
    name: &str,
    mut feed: Feed,
    now: UnixSeconds,
    deadline: Deadline,
) -> Result<Listing> {
    let folder = mailbox.folder(name, deadline).map_err(Failure::into_error)?.ok_or_else(|| folder_missing(name))?;
    let Walk { more, reset } = feed.walk(now, |feed, is_first| {
        let (position, with_traits) = (feed.position.clone(), !feed.former.is_empty());
        let ask = |state: Option<&str>| {
            let client = &mailbox.client;
            let body = |_| request(client, &folder, state, with_traits);
            client.ask_one("SyncFolderItems", &body, deadline, |message| Changes::of(message).map_err(Failure::Other))
        };
        let changes = match ask(position.as_deref()) {
            Err(failure) if failure.is(&["ErrorInvalidSyncStateData"]) && position.is_some() => {
                let reset = format!(
                    "Exchange forgot where reading {name} stood (ErrorInvalidSyncStateData): mail received since all was \
                     settled last is listed again."
                );
                return Ok(Page::Forgotten { reset, error: failure.into_error() });
            }
            Err(failure) if failure.is_folder_missing() => {
                mailbox.folders.remove(name);
                return Err(folder_missing(name));
            }
            asked => asked.map_err(Failure::into_error)?,
        };
        let stood_at_the_end = is_first && position.is_some() && feed.begin.is_none();
        if stood_at_the_end && changes.are_odd(feed) && !mailbox.refuses_states {
            // Old mail that was moved in looks the same, so the server is asked what it makes of a state of nobody's.
            match ask(Some(NOBODYS)) {
                Err(failure) if failure.is(&["ErrorInvalidSyncStateData"]) => mailbox.refuses_states = true,
                answered => {
                    let from_the_beginning = answered.map_err(Failure::into_error)?;
                    if changes.begin_as(&from_the_beginning) {
                        let is_known = changes.created.iter().any(|one| feed.listed(&one.id));
                        if !is_known && feed.marks.complete_from.is_some() {
                            // Whatever was settled has left the folder.
                            feed.begin = Some(feed.marks.since);
                        }
                        let reset = format!(
                            "Exchange began {name} anew without saying so (it takes any SyncState): what was settled \
                             is passed over."
                        );
                        let error = misbehaved("takes SyncStates that it does not know");
                        return Ok(Page::Forgotten { reset, error });
                    }
                }
            }
        }
        changes.into_feed(feed)
    })?;
    Ok(Listing { entries: feed.entries(name), more, covers: Covers::unless(more), cursor: Cursor::Ews(feed), reset })
}

/// Takes in one page. What is not understood of an item never fails it.
///
/// # Errors
/// `ServerMisbehaved` without a SyncState that can be gone on from.
pub fn take(feed: &mut Feed, message: Node<'_, '_>) -> Result<Page> {
    Changes::of(message)?.into_feed(feed)
}

/// What one page says.
struct Changes {
    state: String,
    is_end: bool,
    is_empty: bool,
    created: Vec<Created>,
    deleted: Vec<String>,
    /// In the order of the page.
    order: Vec<Change>,
}

/// A place in `created`, or in `deleted`.
enum Change {
    Created(usize),
    Deleted(usize),
}

struct Created {
    id: String,
    listed: Listed,
    traits: Traits,
}

impl Changes {
    fn of(message: Node<'_, '_>) -> Result<Self> {
        let state = child(message, "SyncState").map(text).filter(|state| !state.is_empty());
        let state = state.ok_or_else(|| misbehaved("sent changes without a SyncState"))?;
        if state.len() > limits::EWS_STATE_MAX {
            return Err(misbehaved("sent a SyncState that is longer than any should be"));
        }
        let is_end = child(message, "IncludesLastItemInRange").is_none_or(is_true);
        let (mut created, mut deleted, mut order) = (Vec::new(), Vec::new(), Vec::new());
        let mut is_empty = true;
        for change in child(message, "Changes").into_iter().flat_map(|changes| changes.children()) {
            is_empty &= !change.is_element();
            match change.tag_name().name() {
                "Create" => {
                    let Some(item) = change.children().find(Node::is_element) else { continue };
                    let Some(id) = id(item, "ItemId") else { continue };
                    let is_draft = child(item, "IsDraft").is_some_and(is_true);
                    if !is_draft && !NO_MAIL.contains(&item.tag_name().name()) {
                        let size = child(item, "Size").and_then(|size| text(size).trim().parse().ok());
                        let received_at = child(item, "DateTimeReceived").and_then(|at| moment(text(at)));
                        let listed = Listed { received_at, size: size.unwrap_or_default() };
                        order.push(Change::Created(created.len()));
                        created.push(Created { id: id.to_owned(), listed, traits: traits(item) });
                    }
                }
                "Delete" => {
                    if let Some(id) = id(change, "ItemId") {
                        order.push(Change::Deleted(deleted.len()));
                        deleted.push(id.to_owned());
                    }
                }
                // Update, ReadFlagChange: what it is called or whether somebody read it changes nothing here.
                _ => {}
            }
        }
        Ok(Self { state: state.to_owned(), is_end, is_empty, created, deleted, order })
    }

    /// Names what no page after the end should name: known messages, or such as were received before all was settled.
    fn are_odd(&self, feed: &Feed) -> bool {
        let begin = feed.resume_at.saturating_sub(limits::RESYNC_MARGIN);
        let is_odd = |one: &Created| feed.listed(&one.id) || one.listed.received_at.is_some_and(|at| at < begin);
        self.created.iter().any(is_odd)
    }

    /// Is this page the first of the folder? Mail that came in between is in the later answer only.
    fn begin_as(&self, first: &Self) -> bool {
        let newest = self.created.iter().map(|one| one.listed.received_at).max().flatten();
        let is_here = |one: &Created| self.created.iter().any(|own| own.id == one.id);
        first.created.iter().all(|one| is_here(one) || one.listed.received_at > newest)
    }

    fn into_feed(self, feed: &mut Feed) -> Result<Page> {
        for change in &self.order {
            match *change {
                Change::Created(at) => {
                    let Created { id, listed, traits } = &self.created[at];
                    if !feed.recognise(id, *listed, || traits.clone()) {
                        feed.add(id, *listed);
                    }
                }
                // Moved away or deleted before it was read: nobody can hand it out any more.
                Change::Deleted(at) => feed.leave(&self.deleted[at]),
            }
        }
        if !self.is_end && self.is_empty && feed.position.as_deref() == Some(&self.state) {
            return Err(misbehaved("sends changes without end"));
        }
        feed.reached(self.state, self.is_end);
        Ok(if self.is_end { Page::Last } else { Page::More })
    }
}

fn traits(item: Node<'_, '_>) -> Traits {
    let of = |name| child(item, name).map(|node| text(node).to_owned());
    let from = child(item, "From").and_then(|from| child(from, "Mailbox"));
    Traits {
        message_id: of("InternetMessageId"),
        from: from.and_then(|mailbox| child(mailbox, "EmailAddress")).map(|address| text(address).to_owned()),
        date: of("DateTimeSent").as_deref().and_then(moment),
        subject: of("Subject"),
    }
}
