//! GetItem with IncludeMimeContent: the raw messages. Small ones travel together, each large one alone.

use roxmltree::Node;

use super::{
    client::{Client, Failure, NO_ITEM, misbehaved},
    soap::{child, id, item_ids, text},
};
use crate::{
    clock::Deadline,
    error::{Kind, Result},
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

/// May be of one message or of the server: asked for alone, it shows.
const ALONE: [&str; 3] = ["ErrorInternalServerError", "ErrorTimeoutExpired", "ErrorBatchProcessingStopped"];

/// One for each of `entries`, in order; fewer when something stopped the later ones.
///
/// # Errors
/// What stops the first: throttling, a lost connection, an account that may no more.
pub fn get(client: &Client, entries: &[Entry], deadline: Deadline) -> Result<Vec<Item>> {
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
        Err(failure) if entries.len() > 1 && failure.is(&ALONE) => {
            let (first, second) = entries.split_at(entries.len() / 2);
            let mut items = get(client, first, deadline)?;
            if items.len() == first.len() {
                items.extend(get(client, second, deadline).unwrap_or_default());
            }
            return Ok(items);
        }
        Err(failure) => return Err(failure.into_error()),
    };
    let mut items = Vec::with_capacity(entries.len());
    for (entry, item) in entries.iter().zip(answered) {
        let item = match item {
            Err(failure) if failure.is(&ALONE) && entries.len() > 1 => {
                get(client, std::slice::from_ref(entry), deadline).map(|mut alone| alone.pop())
            }
            Err(Failure::Code(code, error)) if ALONE.contains(&code.as_str()) => Ok(Some(Item::Failed(error))),
            Err(failure) => Err(failure.into_error()),
            Ok(item) => Ok(Some(item)),
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

fn item(
    outcome: Result<Node<'_, '_>, Failure>,
    asked: &str,
    all: &[&str],
    contents: &mut [Option<Result<Raw>>],
) -> Result<Item, Failure> {
    let message = match outcome {
        Ok(message) => message,
        Err(failure) if failure.is(&NO_ITEM) => return Ok(Item::Gone),
        Err(Failure::Code(code, error)) => {
            let of_account = matches!(error.kind(), Kind::AdminRequired | Kind::Settings);
            return if error.is_transient() || of_account {
                Err(Failure::Code(code, error))
            } else {
                Ok(Item::Failed(error))
            };
        }
        Err(failure) => return Err(failure),
    };
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
