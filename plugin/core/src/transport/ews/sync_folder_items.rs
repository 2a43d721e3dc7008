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

pub(super) fn list(
    mailbox: &mut Mailbox,
    name: &str,
    mut feed: Feed,
    now: UnixSeconds,
    deadline: Deadline,
) -> Result<Listing> {
    let folder = mailbox.folder(name, deadline).map_err(Failure::into_error)?.ok_or_else(|| folder_missing(name))?;
    let Walk { more, reset } = feed.walk(now, |feed, _| {
        let (position, taken_over) = (feed.position.clone(), !feed.former.is_empty());
        let taken = mailbox.client.ask_one(
            "SyncFolderItems",
            &|_| request(&mailbox.client, &folder, position.as_deref(), taken_over),
            deadline,
            |message| take(feed, message).map_err(Failure::Other),
        );
        match taken {
            Err(failure) if failure.is(&["ErrorInvalidSyncStateData"]) && position.is_some() => {
                let reset = format!(
                    "Exchange forgot where reading {name} stood (ErrorInvalidSyncStateData): mail received since all was \
                     settled last is listed again."
                );
                Ok(Page::Forgotten { reset, error: failure.into_error() })
            }
            Err(failure) if failure.is_folder_missing() => {
                mailbox.folders.remove(name);
                Err(folder_missing(name))
            }
            taken => taken.map_err(Failure::into_error),
        }
    })?;
    Ok(Listing { entries: feed.entries(name), more, covers: Covers::unless(more), cursor: Cursor::Ews(feed), reset })
}

/// Takes in one page. What is not understood of an item never fails it.
///
/// # Errors
/// `ServerMisbehaved` without a SyncState that can be gone on from.
pub fn take(feed: &mut Feed, message: Node<'_, '_>) -> Result<Page> {
    let state = child(message, "SyncState").map(text).filter(|state| !state.is_empty());
    let state = state.ok_or_else(|| misbehaved("sent changes without a SyncState"))?;
    if state.len() > limits::EWS_STATE_MAX {
        return Err(misbehaved("sent a SyncState that is longer than any should be"));
    }
    let is_end = child(message, "IncludesLastItemInRange").is_none_or(is_true);
    let mut changes = 0;
    for change in child(message, "Changes").into_iter().flat_map(|changes| changes.children()) {
        changes += usize::from(change.is_element());
        match change.tag_name().name() {
            "Create" => {
                let Some(item) = change.children().find(Node::is_element) else { continue };
                let Some(id) = id(item, "ItemId") else { continue };
                let is_draft = child(item, "IsDraft").is_some_and(is_true);
                if !is_draft && !NO_MAIL.contains(&item.tag_name().name()) {
                    let size = child(item, "Size").and_then(|size| text(size).trim().parse().ok()).unwrap_or_default();
                    let received_at = child(item, "DateTimeReceived").and_then(|at| moment(text(at)));
                    let listed = Listed { received_at, size };
                    if !feed.recognise(id, listed, || traits(item)) {
                        feed.add(id, listed);
                    }
                }
            }
            // Moved away or deleted before it was read: nobody can hand it out any more.
            "Delete" => {
                if let Some(id) = id(change, "ItemId") {
                    feed.settle(id);
                }
            }
            // Update, ReadFlagChange: what it is called or whether somebody read it changes nothing here.
            _ => {}
        }
    }
    if !is_end && changes == 0 && feed.position.as_deref() == Some(state) {
        return Err(misbehaved("sends changes without end"));
    }
    feed.reached(state.to_owned(), is_end);
    Ok(if is_end { Page::Last } else { Page::More })
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
