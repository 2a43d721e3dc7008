//! Which messages of a folder are not settled yet: pages of messages/delta from the cursor's link on.
//!
//! No `$filter`: a filtered delta ends after 5,000 messages. The first time, the folder is gone through once by id, page
//! by page and over as many calls as it takes; only what is young enough is handed out. The same after 410 Gone, from
//! the last moment at which all was settled.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Mailbox,
    client::{Failure, misbehaved, segment},
    cursor::Cursor,
    id_of,
};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::{Error, Kind, Result},
    limits,
    settings::Since,
    transport::{self, Entry, Key, Listing},
};

pub fn list(
    mailbox: &mut Mailbox,
    folder: &str,
    stored: Option<&Cursor>,
    since: Since,
    now: UnixSeconds,
    deadline: Deadline,
) -> Result<Listing> {
    let missing = || {
        Error::new(Kind::Refused, format!("The mailbox has no folder {folder}."))
            .remedy("Correct the folders under advanced (names are as Outlook shows them), or create the folder.")
    };
    let id = mailbox.folder(folder, deadline)?.ok_or_else(missing)?;
    let mut cursor = match (stored, since) {
        (Some(cursor), _) => cursor.clone(),
        (None, Since::Now) => Cursor::new(now),
        (None, Since::Moment(moment)) => Cursor::new(moment),
        (None, Since::Everything) => Cursor::new(0),
    };
    let (mut reset, mut more) = (None, false);
    for page in 0.. {
        if cursor.open.len() >= limits::GRAPH_OPEN_MAX || page == limits::GRAPH_PAGES_MAX {
            more = true;
            break;
        }
        let url = match &cursor.link {
            Some(link) => mailbox.client.link(link)?,
            None => mailbox.client.url(&format!(
                "/mailFolders/{}/messages/delta?changeType=created&$select=id,receivedDateTime,isDraft",
                segment(&id)
            ))?,
        };
        let answer = match mailbox.client.page("GET", &url, None, deadline) {
            Ok(answer) => answer,
            Err(Failure::Resync(error)) if cursor.link.is_some() && reset.is_none() => {
                let margin = limits::GRAPH_RESYNC_MARGIN.as_secs() as i64;
                // One that was still gone through for the first time keeps its own beginning.
                let begin = cursor.begin.unwrap_or_else(|| cursor.resume_at.saturating_sub(margin));
                (cursor.link, cursor.begin) = (None, Some(begin));
                reset = Some(format!(
                    "Microsoft Graph forgot where reading {folder} stood ({}): mail received since all was settled last \
                     is listed again.",
                    error.provider_code_text().unwrap_or_default()
                ));
                continue;
            }
            Err(Failure::NotFound(_)) => {
                mailbox.folders.remove(folder);
                return Err(missing());
            }
            Err(failure) => return Err(failure.into_error()),
        };
        if !take(&mut cursor, &answer)? {
            break;
        }
    }
    if cursor.open.is_empty() && !more && now - cursor.resume_at >= limits::IMAP_NOTE_INTERVAL {
        cursor.resume_at = now;
    }
    let mut entries: Vec<Entry> = cursor
        .open
        .iter()
        .map(|(id, at)| Entry { key: Key { folder: folder.to_owned(), id: id.clone() }, size: 0, received_at: *at })
        .collect();
    entries.sort_by_key(|entry| entry.received_at);
    Ok(Listing { entries, more, cursor: transport::Cursor::Graph(cursor), reset })
}

/// Takes in one page; is there another? What is not understood of an item never fails the page.
fn take(cursor: &mut Cursor, page: &Value) -> Result<bool> {
    let items = page["value"].as_array().ok_or_else(|| misbehaved("sent a page without messages"))?;
    for item in items {
        let Some(id) = id_of(item) else { continue };
        if item.get("@removed").is_some() {
            // Moved away or deleted before it was read: nobody can hand it out any more.
            if cursor.open.contains_key(id) {
                cursor.settle(id);
            }
            continue;
        }
        let at = item["receivedDateTime"].as_str().and_then(moment);
        let old = cursor.begin.is_some_and(|begin| at.is_some_and(|at| at < begin));
        if !old && item["isDraft"] != true && !cursor.is_settled(id) {
            cursor.open.insert(id.to_owned(), at);
        }
    }
    let (link, end) = match (page["@odata.nextLink"].as_str(), page["@odata.deltaLink"].as_str()) {
        (Some(next), _) => (next, false),
        (None, Some(delta)) => (delta, true),
        (None, None) => return Err(misbehaved("sent a page without a link to the next")),
    };
    if link.len() > limits::GRAPH_LINK_MAX {
        return Err(misbehaved("gave out a link that is too long"));
    }
    if cursor.link.as_deref() == Some(link) && !end {
        return Err(misbehaved("gave out a page whose next page is itself"));
    }
    cursor.link = Some(link.to_owned());
    if end {
        cursor.begin = None;
    }
    Ok(!end)
}

fn moment(text: &str) -> Option<UnixSeconds> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}
