//! GetItem with IncludeMimeContent: the raw messages. Small ones travel together, each large one alone.

use roxmltree::Node;

use super::{
    client::{Client, Failure, misbehaved},
    soap::{child, item_ids, text},
};
use crate::{
    clock::Deadline,
    error::{Error, Result},
    limits,
    transport::{Entry, Item, Raw},
};

/// How many of these are asked for by one request: at most ten ("EWS throttling"), and together no more than is kept in
/// memory.
pub fn group(entries: &[Entry]) -> usize {
    let mut sum = 0;
    let fits = |entry: &&Entry| {
        sum += entry.size;
        sum <= limits::SPOOL_THRESHOLD as u64
    };
    entries.iter().take(limits::EWS_BATCH).take_while(fits).count().max(1)
}

fn request(ids: &[&str]) -> String {
    format!(
        "<m:GetItem><m:ItemShape><t:BaseShape>IdOnly</t:BaseShape><t:IncludeMimeContent>true</t:IncludeMimeContent>\
         </m:ItemShape><m:ItemIds>{}</m:ItemIds></m:GetItem>",
        item_ids(ids)
    )
}

/// One for each of `entries`, in order.
///
/// # Errors
/// What stops all of them: throttling, a lost connection.
pub fn get(client: &Client, entries: &[Entry], deadline: Deadline) -> Result<Vec<Item>> {
    let ids: Vec<&str> = entries.iter().map(|entry| entry.key.id.as_str()).collect();
    let items = client.ask("GetItem", &|_| request(&ids), deadline, |outcomes, contents| {
        if outcomes.len() != ids.len() {
            return Err(misbehaved("left out messages that it was asked for").into());
        }
        let mut contents: Vec<Option<Result<Raw>>> = contents.into_iter().map(Some).collect();
        outcomes.into_iter().map(|outcome| item(outcome, &mut contents)).collect()
    });
    items.map_err(Failure::into_error)
}

fn item(outcome: Result<Node<'_, '_>, Failure>, contents: &mut [Option<Result<Raw>>]) -> Result<Item, Failure> {
    let message = match outcome {
        Ok(message) => message,
        Err(failure) if failure.is(&["ErrorItemNotFound"]) => return Ok(Item::Gone),
        // Of the server or the account, not of this message.
        Err(Failure::Code(_, error)) if !error.is_transient() => return Ok(Item::Failed(error)),
        Err(failure) => return Err(failure),
    };
    let first = child(message, "Items").and_then(|items| items.children().find(Node::is_element));
    let number =
        first.and_then(|item| child(item, "MimeContent")).and_then(|number| text(number).parse::<usize>().ok());
    let content = number.and_then(|number| contents.get_mut(number)?.take());
    Ok(match content {
        Some(Ok(raw)) => Item::Read(raw),
        Some(Err(error)) => Item::Failed(error),
        None => Item::Failed(no_mime()),
    })
}

fn no_mime() -> Error {
    misbehaved("handed out a message without its MIME")
}
