//! Which messages of a folder are not settled yet: pages of messages/delta from the cursor's link on.
//!
//! No `$filter`: a filtered delta ends after 5,000 messages. The first time, the folder is gone through once by id, page
//! by page and over as many calls as it takes; only what is young enough is handed out. The same after 410 Gone, from
//! the last moment at which all was settled.

use serde_json::Value;

use super::{
    Mailbox,
    client::{Failure, misbehaved, segment},
    id_of,
};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::Result,
    limits,
    message::fingerprint::Traits,
    transport::{
        Cursor, Listing,
        feed::{Feed, Listed, folder_missing, moment},
    },
};

pub fn list(
    mailbox: &mut Mailbox,
    folder: &str,
    mut feed: Feed,
    now: UnixSeconds,
    deadline: Deadline,
) -> Result<Listing> {
    let id = mailbox.folder(folder, deadline)?.ok_or_else(|| folder_missing(folder))?;
    let (mut reset, mut more) = (None, false);
    for page in 0.. {
        if feed.is_full() || page == limits::FEED_PAGES_MAX {
            more = true;
            break;
        }
        let url = match &feed.position {
            Some(link) => match mailbox.client.link(link) {
                Ok(url) => url,
                // From the store, of another Connect URL.
                Err(_) if page == 0 => {
                    feed.restart();
                    reset = Some(format!(
                        "Where reading {folder} stood belongs to another Connect URL: mail received since all was settled \
                         last is listed again."
                    ));
                    continue;
                }
                Err(error) => return Err(error),
            },
            None => {
                // What a message is recognised by, when the folder is taken over.
                let traits = if feed.former.is_empty() { "" } else { ",internetMessageId,from,sentDateTime,subject" };
                let folder = segment(&id);
                let select = format!("$select=id,receivedDateTime,isDraft{traits}");
                mailbox.client.url(&format!("/mailFolders/{folder}/messages/delta?changeType=created&{select}"))?
            }
        };
        let answer = match mailbox.client.page("GET", &url, None, deadline) {
            Ok(answer) => answer,
            Err(Failure::Resync(error)) if feed.position.is_some() && reset.is_none() => {
                feed.restart();
                reset = Some(format!(
                    "Microsoft Graph forgot where reading {folder} stood ({}): mail received since all was settled last \
                     is listed again.",
                    error.provider_code_text().unwrap_or_default()
                ));
                continue;
            }
            Err(Failure::NotFound(_)) => {
                mailbox.folders.remove(folder);
                return Err(folder_missing(folder));
            }
            Err(failure) => {
                let error = failure.into_error();
                if page == 0 || !error.is_transient() {
                    return Err(error);
                }
                // What the pages before said is kept; the next listing meets it again.
                more = true;
                break;
            }
        };
        if !take(&mut feed, &answer)? {
            break;
        }
    }
    if !more {
        feed.rest(now);
    }
    Ok(Listing { entries: feed.entries(folder), more, cursor: Cursor::Graph(feed), reset })
}

/// Takes in one page; is there another? What is not understood of an item never fails the page.
fn take(feed: &mut Feed, page: &Value) -> Result<bool> {
    let items = page["value"].as_array().ok_or_else(|| misbehaved("sent a page without messages"))?;
    for item in items {
        let Some(id) = id_of(item) else { continue };
        if item.get("@removed").is_some() {
            // Moved away or deleted before it was read: nobody can hand it out any more.
            feed.settle(id);
        } else if item["isDraft"] != true {
            let listed = Listed { received_at: item["receivedDateTime"].as_str().and_then(moment), size: 0 };
            if !feed.recognise(id, listed, || traits(item)) {
                feed.add(id, listed);
            }
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
    if feed.position.as_deref() == Some(link) && !end {
        return Err(misbehaved("gave out a page whose next page is itself"));
    }
    feed.reached(link.to_owned(), end);
    Ok(!end)
}

fn traits(item: &Value) -> Traits {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Traits {
        message_id: text(&item["internetMessageId"]),
        from: text(&item["from"]["emailAddress"]["address"]),
        date: item["sentDateTime"].as_str().and_then(moment),
        subject: text(&item["subject"]),
    }
}
