//! Raw MIME of messages. No list tells their sizes, so each is bounded while it comes and goes to a spool file above the
//! threshold. As many are asked for at once as Graph allows for one mailbox.

use super::client::{Client, Failure, coded, misbehaved, segment};
use crate::{
    clock::Deadline,
    error::{About, Kind, Result},
    net::http::HttpAnswer,
    transport::{Entry, Item, intact::checked, spool::Spool},
};

/// One for each of `entries`, in order.
pub fn get(client: &Client, entries: &[Entry], deadline: Deadline) -> Result<Vec<Item>> {
    entries.iter().map(|entry| one(client, &entry.key.id, deadline)).collect()
}

fn one(client: &Client, id: &str, deadline: Deadline) -> Result<Item> {
    let url = client.url(&format!("/messages/{}/$value", segment(id)))?;
    let (mut spool, mut too_large) = (Spool::default(), false);
    let mut keep = |part: &[u8]| spool.put(part).inspect_err(|error| too_large = error.kind() == Kind::TooLarge);
    let outcome = client.call("GET", &url, None, deadline, Some(&mut keep));
    let answer = match outcome {
        Ok(answer) => answer,
        Err(Failure::NotFound(_)) => return Ok(Item::Gone),
        Err(Failure::Other(error)) if too_large => return Ok(Item::Failed(error.with_about(About::Item))),
        Err(Failure::Other(error)) if matches!(error.kind(), Kind::ServerMisbehaved) => {
            // With a code it speaks of what was asked for; a bare status may be anybody's.
            let about = if error.code().is_some() { About::Item } else { About::Unknown };
            return Ok(Item::Failed(error.or_about(about)));
        }
        Err(failure) => return Err(failure.into_error()),
    };
    let raw = spool.end()?;
    let read = as_it_is(&answer).and_then(|()| checked(raw, "Microsoft Graph"));
    Ok(match read {
        Ok(raw) => Item::Read(raw),
        Err(error) if error.kind() == Kind::ServerMisbehaved => Item::Failed(error),
        Err(error) => return Err(error),
    })
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
