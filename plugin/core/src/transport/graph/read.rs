//! Raw MIME of messages. No list tells their sizes, so each is bounded while it comes and goes to a spool file above the
//! threshold. As many are asked for at once as Graph allows for one mailbox.

use std::collections::HashMap;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::client::{Client, Failure, coded, misbehaved, segment};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::{About, Error, Kind, Result},
    limits,
    net::http::HttpAnswer,
    transport::{Entry, Item, intact::checked, spool::Spool},
};

/// One for each of `entries`, in order. `folders`: where each was listed.
pub fn get(
    client: &Client,
    folders: &HashMap<String, String>,
    entries: &[Entry],
    deadline: Deadline,
) -> Result<Vec<Item>> {
    entries.iter().map(|entry| one(client, folders, entry, deadline)).collect()
}

fn one(client: &Client, folders: &HashMap<String, String>, entry: &Entry, deadline: Deadline) -> Result<Item> {
    let url = client.url(&format!("/messages/{}/$value", segment(&entry.key.id)))?;
    let (mut spool, mut too_large) = (Spool::default(), false);
    let mut keep = |part: &[u8]| spool.put(part).inspect_err(|error| too_large = error.kind() == Kind::TooLarge);
    let outcome = client.call("GET", &url, None, deadline, Some(&mut keep));
    let answer = match outcome {
        Ok(answer) => answer,
        Err(Failure::NotFound(error)) if error.has_code(&["ErrorItemNotFound"]) => {
            return missing(client, folders, entry, error, deadline);
        }
        Err(failure @ Failure::Unauthorized(_)) => return Err(failure.into_error()),
        Err(failure) => {
            let error = failure.into_error();
            // Only who is throttled, or has no answer that says more than "later", has nothing to say of this message.
            let is_of_now = error.is_transient() && !too_large;
            return if is_of_now { Err(error) } else { Ok(Item::Failed(error)) };
        }
    };
    let raw = spool.end()?;
    let read = as_it_is(&answer).and_then(|()| checked(raw, "Microsoft Graph"));
    Ok(match read {
        Ok(raw) => Item::Read(raw),
        Err(error) if error.is_transient() => return Err(error),
        // It may be something in front of Graph that answers so for all of them.
        Err(error) => Item::Failed(error),
    })
}

/// A 404 does not say whether the lack is for now (RFC 9110 15.5.5), and mailboxes alternate (graph-docs 4340). So the folder
/// is read again: what is listed there is not gone.
fn missing(
    client: &Client,
    folders: &HashMap<String, String>,
    entry: &Entry,
    error: Error,
    deadline: Deadline,
) -> Result<Item> {
    // What is listed and not found is nobody's fault that is known.
    let error = error.with_about(About::Unknown);
    let Some(folder) = folders.get(&entry.key.folder) else { return Ok(Item::Failed(error)) };
    let Some(at) = entry.received_at else {
        let again = client.json("GET", &format!("/messages/{}?$select=id", segment(&entry.key.id)), None, deadline);
        return Ok(match again {
            Err(Failure::NotFound(again)) if again.has_code(&["ErrorItemNotFound"]) => Item::Gone,
            _ => Item::Failed(error),
        });
    };
    let moment = |at: UnixSeconds| {
        let at = OffsetDateTime::from_unix_timestamp(at).ok().and_then(|at| at.format(&Rfc3339).ok());
        at.unwrap_or_default()
    };
    let filter = format!("receivedDateTime ge {} and receivedDateTime lt {}", moment(at), moment(at + 1));
    let path = format!("/mailFolders/{}/messages?$select=id&$top=100&$filter={}", segment(folder), segment(&filter));
    let mut url = client.url(&path)?;
    for _ in 0..limits::GRAPH_FOLDER_PAGES_MAX {
        let page = client.page("GET", &url, None, deadline).map_err(Failure::into_error)?;
        let items = page["value"].as_array().ok_or_else(|| misbehaved("sent a page without messages"))?;
        if items.iter().any(|item| item["id"] == *entry.key.id) {
            return Ok(Item::Failed(error));
        }
        match page["@odata.nextLink"].as_str() {
            Some(next) => url = client.link(next)?,
            None => return Ok(Item::Gone),
        }
    }
    Ok(Item::Failed(error))
}

/// Are these the bytes of a message? "Get MIME content of a message" answers with text/plain.
fn as_it_is(answer: &HttpAnswer) -> Result<()> {
    if let Some(coding) = coded(answer) {
        return Err(misbehaved(&format!("sent a message in the coding {coding}, which nobody asked for")));
    }
    let kind = answer.content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default();
    let subtype = kind.rsplit('/').next().unwrap_or_default().trim().to_ascii_lowercase();
    if ["json", "html", "xml"].iter().any(|other| subtype == *other || subtype.ends_with(&format!("+{other}"))) {
        return Err(misbehaved(&format!("sent {subtype} where a message was asked for")));
    }
    Ok(())
}
