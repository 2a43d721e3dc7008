//! GetItem with IncludeMimeContent: the raw messages. Small ones travel together, each large one alone.

use std::collections::HashMap;

use roxmltree::Node;

use super::{
    client::{Client, Failure, ITEM_NOT_FOUND, Outcome, misbehaved},
    find_item,
    soap::{FolderId, child, id, item_ids, text},
};
use crate::{
    clock::Deadline,
    error::{About, Error, Kind, Result},
    limits,
    transport::{Entry, Item, Raw, intact::checked},
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

/// One for each of `entries`, in order; fewer when something stopped the later ones. `folders`: where each was listed.
///
/// # Errors
/// What stops the first: throttling, a lost connection, a server that gives out none of them.
pub fn get(
    client: &Client,
    folders: &HashMap<String, FolderId>,
    entries: &[Entry],
    deadline: Deadline,
) -> Result<Vec<Item>> {
    let ids: Vec<&str> = entries.iter().map(|entry| entry.key.id.as_str()).collect();
    let answered = client.ask("GetItem", &|_| request(&ids), deadline, |outcomes, contents| {
        if outcomes.len() != ids.len() {
            return Err(misbehaved("left out messages that it was asked for").into());
        }
        let mut contents: Vec<Option<Result<Raw>>> = contents.into_iter().map(Some).collect();
        Ok(outcomes.into_iter().zip(&ids).map(|(outcome, id)| item(outcome, id, &ids, &mut contents)).collect())
    });
    let answered: Vec<Result<Item, Failure>> = match answered {
        Ok(answered) => answered,
        // A batch has a minute.
        Err(Failure::Code(_, error)) if entries.len() > 1 && may_be_of_one(&error) => {
            let (first, second) = entries.split_at(entries.len() / 2);
            let mut items = get(client, folders, first, deadline)?;
            if items.len() == first.len() {
                items.extend(get(client, folders, second, deadline).unwrap_or_default());
            }
            return Ok(items);
        }
        Err(failure) => return Err(failure.into_error()),
    };
    // Without it whatever stops one may stop all.
    let has_read = answered.iter().any(|item| matches!(item, Ok(Item::Read(_))));
    let mut items = Vec::with_capacity(entries.len());
    for (entry, item) in entries.iter().zip(answered) {
        let item = match item {
            Ok(item) => Ok(Some(item)),
            Err(failure) if failure.is(&[ITEM_NOT_FOUND]) => {
                missing(client, folders, entry, failure, deadline).map(Some)
            }
            Err(Failure::Code(_, error)) if may_be_of_one(&error) => match entries.len() {
                1 => Ok(Some(Item::Failed(error))),
                _ if has_read => {
                    get(client, folders, std::slice::from_ref(entry), deadline).map(|mut alone| alone.pop())
                }
                _ => Err(error),
            },
            Err(Failure::Code(_, error)) if error.kind() != Kind::Throttled => Ok(Some(Item::Failed(error))),
            Err(failure) => Err(failure.into_error()),
        };
        match item {
            Ok(Some(item)) => items.push(item),
            Err(error) if items.is_empty() => return Err(error),
            // What came before is handed over; the next request meets it again.
            Ok(None) | Err(_) => break,
        }
    }
    Ok(items)
}

/// Of which of these the server says, asked for itself, that there is no such item.
pub fn are_missing(client: &Client, ids: &[&str], deadline: Deadline) -> Result<Vec<bool>, Failure> {
    let request = |_| {
        format!(
            "<m:GetItem><m:ItemShape><t:BaseShape>IdOnly</t:BaseShape></m:ItemShape><m:ItemIds>{}</m:ItemIds></m:GetItem>",
            item_ids(ids)
        )
    };
    client.ask("GetItem", &request, deadline, |outcomes, _| {
        if outcomes.len() != ids.len() {
            return Err(misbehaved("left out messages that it was asked for").into());
        }
        let is_missing = |outcome: &Outcome<'_>| outcome.as_ref().is_err_and(|failure| failure.is(&[ITEM_NOT_FOUND]));
        Ok(outcomes.iter().map(is_missing).collect())
    })
}

/// It passes; whether it is of one message or of the server shows when the message is asked for alone.
fn may_be_of_one(error: &Error) -> bool {
    error.kind() == Kind::Transient
}

/// The server says that there is no such item, which it also says to who may not see it ("ResponseCode"). So the folder is
/// read again: what is listed there is not gone.
fn missing(
    client: &Client,
    folders: &HashMap<String, FolderId>,
    entry: &Entry,
    failure: Failure,
    deadline: Deadline,
) -> Result<Item> {
    // What is listed and not found is nobody's fault that is known.
    let error = failure.into_error().with_about(About::Unknown);
    let Some(folder) = folders.get(&entry.key.folder) else { return Ok(Item::Failed(error)) };
    let id = entry.key.id.as_str();
    let is_gone = match entry.received_at {
        Some(at) => find_item::is_there(client, folder, id, at, deadline).map(|is_there| is_there == Some(false)),
        None => are_missing(client, &[id], deadline).map(|missing| missing == [true]),
    };
    Ok(if is_gone.map_err(Failure::into_error)? { Item::Gone } else { Item::Failed(error) })
}

fn item(
    outcome: Result<Node<'_, '_>, Failure>,
    asked: &str,
    all: &[&str],
    contents: &mut [Option<Result<Raw>>],
) -> Result<Item, Failure> {
    let message = outcome?;
    let first = child(message, "Items").and_then(|items| items.children().find(Node::is_element));
    if first.and_then(|item| id(item, "ItemId")).is_some_and(|id| id != asked && all.contains(&id)) {
        return Err(misbehaved("handed out messages in another order than they were asked for").into());
    }
    let number =
        first.and_then(|item| child(item, "MimeContent")).and_then(|number| text(number).parse::<usize>().ok());
    let content = number.and_then(|number| contents.get_mut(number)?.take());
    let content = content.ok_or_else(|| misbehaved("handed out a message without its MIME"));
    match content.and_then(|content| checked(content?, "Exchange")) {
        Ok(raw) => Ok(Item::Read(raw)),
        Err(error) if error.is_transient() => Err(error.into()),
        Err(error) => Ok(Item::Failed(error)),
    }
}
