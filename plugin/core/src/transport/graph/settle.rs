//! What settling does in the mailbox, up to 20 messages to one $batch. Every step can be repeated.

use serde_json::{Value, json};
use url::Url;

use super::{
    Mailbox,
    client::{Failure, misbehaved, segment},
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    limits, remedies,
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
        found.extend(batch(mailbox, part, action, target.as_deref(), deadline)?);
    }
    Ok(found)
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
    let answer = mailbox.client.page("POST", &url, Some(&json!({"requests": requests})), deadline);
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
            Some(404) => *slot = Some(false),
            status => failed = failed.or(Some(refusal(one, status.unwrap_or_default()))),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => found.into_iter().collect::<Option<_>>().ok_or_else(|| misbehaved("left out answers of a batch")),
    }
}

/// One answer inside a batch; each has a status and a Retry-After of its own.
fn refusal(one: &Value, status: u64) -> Error {
    let code = one["body"]["error"]["code"].as_str().unwrap_or_default();
    let known = remedies::by_graph(code).or_else(|| remedies::by_graph(&format!("HTTP {status}")));
    let kind = match (status, known) {
        (429, _) => Kind::Throttled,
        (401 | 408 | 500..=504, _) => Kind::Transient,
        (_, Some(row)) => row.kind(),
        (403, None) => Kind::Refused,
        _ => Kind::ServerMisbehaved,
    };
    let code: String = code.chars().filter(|c| !c.is_control()).take(limits::GRAPH_CODE_MAX).collect();
    let error = Error::new(kind, "Microsoft Graph refused to change a settled message.")
        .provider_code(format!("{status} {code}"))
        .remedy(known.map_or("The same settle_batch can be repeated.", |row| row.sentence()));
    let headers = one["headers"].as_object();
    let wait = headers.and_then(|headers| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after")));
    match wait.and_then(|(_, value)| value.as_str()).and_then(|wait| wait.trim().parse().ok()) {
        Some(seconds) => error.retry_after(std::time::Duration::from_secs(seconds).min(limits::RETRY_AFTER_MAX)),
        None => error,
    }
}
