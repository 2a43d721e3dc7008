//! Raw MIME of messages. No list tells their sizes, so each is bounded while it comes and goes to a spool file above the
//! threshold. As many are asked for at once as Graph allows for one mailbox.

use super::client::{Client, Failure, segment};
use crate::{
    clock::Deadline,
    error::{Kind, Result},
    transport::{Entry, Item, spool::Spool},
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
    match outcome {
        Ok(()) => {}
        Err(Failure::NotFound(_)) => return Ok(Item::Gone),
        Err(Failure::Other(error)) if too_large => return Ok(Item::Failed(error)),
        Err(Failure::Other(error)) if matches!(error.kind(), Kind::ServerMisbehaved) => return Ok(Item::Failed(error)),
        Err(failure) => return Err(failure.into_error()),
    }
    spool.end().map(Item::Read)
}
