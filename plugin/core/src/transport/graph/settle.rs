//! What settling does in the mailbox, up to 20 messages to one $batch. Every step can be repeated.

use serde_json::{Value, json};
use url::Url;

use super::{
    Mailbox,
    client::{self, Failure, Refusal, misbehaved, segment},
};
use crate::{
    clock::Deadline,
    error::{About, Error, Kind, Result},
    limits,
    settings::Action,
    transport::{Key, Settled, witness},
};

/// What became of each.
pub fn settle(mailbox: &mut Mailbox, keys: &[Key], action: &Action, deadline: Deadline) -> Result<Vec<Settled>> {
    let mut target = match action {
        Action::Leave => return Ok(keys.iter().map(|_| Settled::Done).collect()),
        Action::Move { folder } => Some(mailbox.target(folder, deadline)?),
        Action::MarkSeen | Action::Delete => None,
    };
    let mut settled = Vec::with_capacity(keys.len());
    for part in keys.chunks(limits::GRAPH_BATCH) {
        let mut done = batch(mailbox, part, action, target.as_deref(), deadline);
        if let (Action::Move { folder }, Ok(done)) = (action, &mut done)
            && done.iter().any(is_without_target)
        {
            // It was deleted meanwhile: it is looked for, or made, again.
            mailbox.folders.remove(folder);
            target = Some(mailbox.target(folder, deadline)?);
            let open = || part.iter().zip(done.iter()).filter(|(_, one)| is_without_target(one));
            let open: Vec<Key> = open().map(|(key, _)| key.clone()).collect();
            let mut again = batch(mailbox, &open, action, target.as_deref(), deadline)?.into_iter();
            for one in done.iter_mut().filter(|one| is_without_target(one)) {
                if let Some(again) = again.next() {
                    *one = again;
                }
            }
        }
        let is_whole = done.as_ref().is_ok_and(|done| !done.iter().any(|one| matches!(one, Settled::Later(_))));
        if let (false, Action::Move { folder }) = (is_whole, action) {
            mailbox.folders.remove(folder);
        }
        match done {
            Ok(done) => settled.extend(done),
            Err(error) if settled.is_empty() => return Err(error),
            Err(error) => return Ok(super::super::rest_later(settled, keys.len(), &error)),
        }
    }
    Ok(settled)
}

fn is_without_target(one: &Settled) -> bool {
    matches!(one, Settled::Later(error) if is_of_target(error))
}

/// Not the message is missing but where it is to go. Graph names the folder in the code ("ErrorToFolderNotFound").
fn is_of_target(error: &Error) -> bool {
    error.about() == About::Folder
}

fn batch(
    mailbox: &mut Mailbox,
    keys: &[Key],
    action: &Action,
    target: Option<&str>,
    deadline: Deadline,
) -> Result<Vec<Settled>> {
    let request = |at: usize, key: &Key| {
        let url = mailbox.client.relative(&format!("/messages/{}", segment(&key.id)));
        let headers = json!({"Content-Type": "application/json", "Prefer": "IdType=\"ImmutableId\""});
        match action {
            Action::Delete => json!({"id": at.to_string(), "method": "DELETE", "url": url, "headers": headers}),
            Action::Move { .. } => json!({"id": at.to_string(), "method": "POST", "url": format!("{url}/move"),
                "headers": headers, "body": {"destinationId": target}}),
            Action::Leave | Action::MarkSeen => json!({"id": at.to_string(), "method": "PATCH", "url": url,
                "headers": headers, "body": {"isRead": true}}),
        }
    };
    let requests = keys.iter().enumerate().map(|(at, key)| request(at, key)).collect();
    let mut answers: Vec<Result<Settled>> =
        ask(mailbox, requests, deadline)?.into_iter().map(|answer| answer.map(|_| Settled::Done)).collect();
    let doubtful: Vec<usize> =
        (0..keys.len()).filter(|at| matches!(&answers[*at], Err(error) if is_in_doubt(error, action))).collect();
    if !doubtful.is_empty() {
        let asked: Vec<&Key> = doubtful.iter().map(|at| &keys[*at]).collect();
        for (at, _) in doubtful.iter().zip(are_gone(mailbox, &asked, deadline)?).filter(|(_, is_gone)| *is_gone) {
            answers[*at] = Ok(Settled::Gone);
        }
    }
    for error in answers.iter_mut().filter_map(|answer| answer.as_mut().err()).filter(|error| is_of_target(error)) {
        let said = Error::new(Kind::Transient, "The folder that mail is moved to was deleted meanwhile.")
            .remedy("It is created again when settle_batch is called again.")
            .with_about(About::Folder);
        *error = match error.code() {
            Some(code) => said.with_code(code),
            None => said,
        };
    }
    witness::settled(answers)
}

/// It may be gone already, and it may be there: a message that was deleted is found by its immutable id among the recoverable
/// items, where nothing deletes it again (msgraph-sdk-dotnet issue 3047).
fn is_in_doubt(error: &Error, action: &Action) -> bool {
    error.has_code(&["ErrorItemNotFound"]) || *action == Action::Delete && error.has_code(&["ErrorCannotDeleteObject"])
}

/// The body of a success, or why it is none, for each request in order.
fn ask(mailbox: &Mailbox, requests: Vec<Value>, deadline: Deadline) -> Result<Vec<Result<Value>>> {
    let count = requests.len();
    let url: Url = mailbox.client.batch_url()?;
    let answer = mailbox.client.page("POST", &url, Some(client::json(&json!({"requests": requests}))), deadline);
    let mut answer = answer.map_err(Failure::into_error)?;
    let parts = answer["responses"].as_array_mut().ok_or_else(|| misbehaved("answered a batch without its answers"))?;
    let mut answers: Vec<Result<Value>> =
        (0..count).map(|_| Err(misbehaved("left out answers of a batch").with_about(About::Server))).collect();
    for one in parts {
        let place = one["id"].as_str().and_then(|id| id.parse::<usize>().ok());
        let Some(slot) = place.and_then(|at| answers.get_mut(at)) else { continue };
        *slot = match one["status"].as_u64() {
            Some(200..=299) => Ok(one["body"].take()),
            _ => Err(Refusal::inside(one).failure().into_error()),
        };
    }
    Ok(answers)
}

/// Which of these are not in their folder any more: the server says so of them once more, or they are elsewhere.
fn are_gone(mailbox: &mut Mailbox, keys: &[&Key], deadline: Deadline) -> Result<Vec<bool>> {
    let get = |(at, key): (usize, &&Key)| {
        let url = mailbox.client.relative(&format!("/messages/{}?$select=id,parentFolderId", segment(&key.id)));
        json!({"id": at.to_string(), "method": "GET", "url": url, "headers": {"Prefer": "IdType=\"ImmutableId\""}})
    };
    let answers = ask(mailbox, keys.iter().enumerate().map(get).collect(), deadline)?;
    let mut gone = Vec::with_capacity(keys.len());
    for (key, answer) in keys.iter().zip(answers) {
        gone.push(match answer {
            Ok(message) => match message["parentFolderId"].as_str() {
                Some(parent) => mailbox.folder_id(&key.folder, deadline)?.is_some_and(|folder| folder != parent),
                None => false,
            },
            Err(error) => error.has_code(&["ErrorItemNotFound"]),
        });
    }
    Ok(gone)
}
