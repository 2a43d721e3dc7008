//! Going on where another protocol stopped. From EWS the ids themselves are translated; what is not, and everything from
//! IMAP, is known by its fingerprint.

use serde_json::json;

use super::client::{Client, Failure};
use crate::{
    clock::Deadline,
    error::Result,
    limits,
    settings::Former,
    transport::{Cursor, feed::Feed, moving},
};

pub fn take_over(
    client: &Client,
    folder: &str,
    old: &Cursor,
    told: Option<Former>,
    deadline: Deadline,
) -> Result<(Feed, String)> {
    let (mut feed, words) = moving::take_over(folder, old, told, "Microsoft Graph")?;
    if let Cursor::Ews(old) = old {
        let open: Vec<&String> = old.open.keys().collect();
        for (id, translated) in translate(client, &open, deadline)? {
            if let Some(listed) = old.open.get(&id) {
                feed.open.insert(translated, *listed);
            }
        }
        let settled: Vec<&String> = old.settled.iter().collect();
        feed.settled = translate(client, &settled, deadline)?.into_iter().map(|(_, translated)| translated).collect();
    }
    Ok((feed, words))
}

/// Pairs of EWS id and immutable id; left out are those of messages that are not there any more. Without the permission to
/// translate there are none.
fn translate(client: &Client, ids: &[&String], deadline: Deadline) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for part in ids.chunks(limits::GRAPH_TRANSLATE) {
        let wanted = json!({"inputIds": part, "sourceIdType": "ewsId", "targetIdType": "restImmutableEntryId"});
        let answer = match client.json("POST", "/translateExchangeIds", Some(&wanted), deadline) {
            Err(Failure::Refused(_) | Failure::NotFound(_)) => return Ok(Vec::new()),
            answer => answer.map_err(Failure::into_error)?,
        };
        for one in answer["value"].as_array().into_iter().flatten() {
            if let (Some(source), Some(target)) = (one["sourceId"].as_str(), one["targetId"].as_str())
                && !target.is_empty()
                && target.len() <= limits::GRAPH_ID_MAX
            {
                pairs.push((source.to_owned(), target.to_owned()));
            }
        }
    }
    Ok(pairs)
}
