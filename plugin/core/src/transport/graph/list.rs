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
    error::{Error, Result},
    limits,
    message::fingerprint::Traits,
    transport::{
        Covers, Cursor, Listing,
        feed::{Feed, Listed, Page, Walk, folder_missing, moment},
    },
};

pub fn list(
    mailbox: &mut Mailbox,
    folder: &str,
    mut feed: Feed,
    now: UnixSeconds,
    deadline: Deadline,
) -> Result<Listing> {
    let mut id = mailbox.folder(folder, deadline)?.ok_or_else(|| folder_missing(folder))?;
    let Walk { more, reset } = feed.walk(now, |feed, is_first| {
        let url = match &feed.position {
            Some(link) => match mailbox.client.link(link) {
                Ok(url) => url,
                // From the store, of another Connect URL.
                Err(error) if is_first => {
                    let reset = format!(
                        "Where reading {folder} stood belongs to another Connect URL: mail received since all was settled \
                         last is listed again."
                    );
                    return Ok(Page::Forgotten { reset, error });
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
        let is_stored = is_first && feed.position.is_some();
        let mut answered = mailbox.client.page("GET", &url, None, deadline);
        if is_stored && matches!(&answered, Err(Failure::Other(error)) if is_refused(error)) {
            // Once may be a moment's weakness.
            answered = mailbox.client.page("GET", &url, None, deadline);
        }
        match answered {
            Ok(answer) => take(feed, &answer),
            Err(Failure::Resync(error)) if feed.position.is_some() => {
                let reset = format!(
                    "Microsoft Graph forgot where reading {folder} stood ({}): mail received since all was settled last \
                     is listed again.",
                    error.provider_code_text().unwrap_or_default()
                );
                Ok(Page::Forgotten { reset, error })
            }
            // The list of codes that mean "begin again" is open ("delta query overview": "such as"). The walk goes
            // on only if the folder can be listed from its beginning.
            Err(Failure::Other(error)) if is_stored && is_refused(&error) => {
                let reset = format!(
                    "Microsoft Graph refuses the link that tells where reading {folder} stood ({}): mail received since \
                     all was settled last is listed again.",
                    error.provider_code_text().unwrap_or_default()
                );
                Ok(Page::Forgotten { reset, error })
            }
            Err(Failure::NotFound(error)) if is_of_folder(&error) => {
                mailbox.folders.remove(folder);
                match mailbox.folder(folder, deadline)? {
                    // Another folder has the name now: a restored mailbox, or one that was made anew.
                    Some(now) if is_stored => {
                        id = now;
                        let reset = format!(
                            "{folder} is another folder than the one that was read before: mail received since all was \
                             settled last is listed again."
                        );
                        Ok(Page::Forgotten { reset, error })
                    }
                    _ => Err(folder_missing(folder)),
                }
            }
            Err(failure) => Err(failure.into_error()),
        }
    })?;
    Ok(Listing {
        entries: feed.entries(folder),
        more,
        covers: Covers::unless(more),
        cursor: Cursor::Graph(feed),
        reset,
    })
}

/// Does the 404 speak of the folder? With another code it speaks of the mailbox or of the moment (RFC 9110 15.5.5).
pub(super) fn is_of_folder(error: &Error) -> bool {
    error.has_code(&[
        "ErrorItemNotFound",
        "ErrorFolderNotFound",
        "ErrorSyncFolderNotFound",
        "ErrorParentFolderNotFound",
    ])
}

/// Refused for what it is: neither for now nor for who asks.
fn is_refused(error: &Error) -> bool {
    let status = error.status().unwrap_or_default();
    (400..500).contains(&status) && !matches!(status, 408 | 409 | 423 | 425 | 429) && !error.is_transient()
}

/// Takes in one page. What is not understood of an item never fails it.
fn take(feed: &mut Feed, page: &Value) -> Result<Page> {
    let items = page["value"].as_array().ok_or_else(|| misbehaved("sent a page without messages"))?;
    for item in items {
        let Some(id) = id_of(item) else { continue };
        if item.get("@removed").is_some() {
            // Moved away or deleted before it was read: nobody can hand it out any more.
            feed.leave(id);
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
    Ok(if end { Page::Last } else { Page::More })
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
