//! What settling does in the mailbox, up to 20 messages to one $batch. Every step can be repeated.

use serde_json::{Value, json};
use url::Url;

use super::{
    Mailbox,
    client::{self, Failure, Refusal, misbehaved, segment},
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    limits,
    settings::Action,
    transport::Key,
};

/// For each key whether the message was found.
pub fn settle(mailbox: &mut Mailbox, keys: &[Key], action: &Action, deadline: Deadline) -> Result<Vec<bool>> {
    let target = match action {
        Action::Leave => return Ok(vec![true; keys.len()]),
        Action::Move { folder } => Some(mailbox.target(folder, deadline)?),
        Action::MarkSeen | Action::Delete => None,
    };
    let mut found = Vec::with_capacity(keys.len());
    for part in keys.chunks(limits::GRAPH_BATCH) {
        let done = batch(mailbox, part, action, target.as_deref(), deadline);
        if let (Err(_), Action::Move { folder }) = (&done, action) {
            // It may have been deleted meanwhile: it is looked for again.
            mailbox.folders.remove(folder);
        }
        found.extend(done?);
    }
    Ok(found)
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
) -> Result<Vec<bool>> {
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
    let mut found = vec![None; keys.len()];
    let mut failed = None;
    for one in answers {
        let Some(slot) = one["id"].as_str().and_then(|id| id.parse::<usize>().ok()).and_then(|at| found.get_mut(at))
        else {
            continue;
        };
        match one["status"].as_u64() {
            Some(200..=299) => *slot = Some(true),
            Some(404) if !is_of_folder(one) => *slot = Some(false),
            Some(404) => {
                let error = Error::new(Kind::Transient, "The folder that mail is moved to was deleted meanwhile.")
                    .remedy("It is created again with the next try.");
                failed = failed.or(Some(error));
            }
            _ => failed = failed.or(Some(Refusal::inside(one).failure().into_error())),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => found.into_iter().collect::<Option<_>>().ok_or_else(|| misbehaved("left out answers of a batch")),
    }
}
