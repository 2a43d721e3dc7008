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
    transport::{Key, Settled},
};

/// What became of each.
pub fn settle(mailbox: &mut Mailbox, keys: &[Key], action: &Action, deadline: Deadline) -> Result<Vec<Settled>> {
    let target = match action {
        Action::Leave => return Ok(keys.iter().map(|_| Settled::Done).collect()),
        Action::Move { folder } => Some(mailbox.target(folder, deadline)?),
        Action::MarkSeen | Action::Delete => None,
    };
    let mut settled = Vec::with_capacity(keys.len());
    for part in keys.chunks(limits::GRAPH_BATCH) {
        let done = batch(mailbox, part, action, target.as_deref(), deadline);
        let is_whole = done.as_ref().is_ok_and(|done| !done.iter().any(|one| matches!(one, Settled::Later(_))));
        if let (false, Action::Move { folder }) = (is_whole, action) {
            // It may have been deleted meanwhile: it is looked for again.
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

/// Not the message is missing but where it is to go.
fn is_of_folder(answer: &Value) -> bool {
    answer["body"]["error"]["code"].as_str().is_some_and(|code| code.to_ascii_lowercase().contains("folder"))
}

fn batch(
    mailbox: &Mailbox,
    keys: &[Key],
    action: &Action,
    target: Option<&str>,
    deadline: Deadline,
) -> Result<Vec<Settled>> {
    let requests: Vec<Value> = keys
        .iter()
        .enumerate()
        .map(|(at, key)| {
            let url = mailbox.client.relative(&format!("/messages/{}", segment(&key.id)));
            let headers = json!({"Content-Type": "application/json", "Prefer": "IdType=\"ImmutableId\""});
            match action {
                Action::Delete => json!({"id": at.to_string(), "method": "DELETE", "url": url, "headers": headers}),
                Action::Move { .. } => json!({"id": at.to_string(), "method": "POST", "url": format!("{url}/move"),
                    "headers": headers, "body": {"destinationId": target}}),
                Action::Leave | Action::MarkSeen => json!({"id": at.to_string(), "method": "PATCH", "url": url,
                    "headers": headers, "body": {"isRead": true}}),
            }
        })
        .collect();
    let url: Url = mailbox.client.batch_url()?;
    let answer = mailbox.client.page("POST", &url, Some(client::json(&json!({"requests": requests}))), deadline);
    let answer = answer.map_err(Failure::into_error)?;
    let answers = answer["responses"].as_array().ok_or_else(|| misbehaved("answered a batch without its answers"))?;
    let mut settled: Vec<Option<Settled>> = keys.iter().map(|_| None).collect();
    for one in answers {
        let Some(slot) = one["id"].as_str().and_then(|id| id.parse::<usize>().ok()).and_then(|at| settled.get_mut(at))
        else {
            continue;
        };
        *slot = Some(match one["status"].as_u64() {
            Some(200..=299) => Settled::Done,
            Some(404) if !is_of_folder(one) => Settled::Gone,
            Some(404) => Settled::Later(
                Error::new(Kind::Transient, "The folder that mail is moved to was deleted meanwhile.")
                    .remedy("It is created again with the next try.")
                    .with_about(About::Folder),
            ),
            _ => Settled::refused(Refusal::inside(one).failure().into_error().or_about(About::Item)),
        });
    }
    let left_out = || Settled::Later(misbehaved("left out answers of a batch"));
    Ok(settled.into_iter().map(|one| one.unwrap_or_else(left_out)).collect())
}
