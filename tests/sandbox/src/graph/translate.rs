//! translateExchangeIds: between the ids of EWS, MAPI and Graph, immutable or not.
//!
//! Source: <https://learn.microsoft.com/graph/api/user-translateexchangeids>

use serde_json::{Value, json};

use super::{
    Answer, Refusal,
    access::{Caller, Right, collection, ews_id, get, locate, malformed, rest_id},
    json_body, ok, refuse,
};
use crate::mailbox::{Mailbox, ids};

const IDS_MAX: usize = 1000;
const TYPES: [&str; 5] = ["ewsId", "entryId", "restId", "restImmutableEntryId", "immutableEntryId"];

pub fn translate(caller: &Caller<'_>) -> Answer {
    caller.may(Right::Read)?;
    let body = json_body(caller.request)?;
    let read = |name: &str| body.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v);
    let kind = |name: &str| {
        let kind = read(name).and_then(Value::as_str);
        let known = kind.and_then(|kind| TYPES.into_iter().find(|known| known.eq_ignore_ascii_case(kind)));
        known.ok_or_else(|| refuse(400, "ErrorInvalidRequest", format!("{name} is none of {TYPES:?}.")))
    };
    let (source, target) = (kind("sourceIdType")?, kind("targetIdType")?);
    let sources = read("inputIds").and_then(Value::as_array);
    let sources = sources.ok_or_else(|| refuse(400, "ErrorInvalidRequest", "inputIds is missing."))?;
    if sources.len() > IDS_MAX {
        return Err(refuse(400, "ErrorInvalidRequest", "No more than 1000 ids can be translated at once."));
    }
    let translated = caller.with(|mailbox| {
        let one = |id: &Value| {
            let id = id.as_str().unwrap_or_default();
            match translated(mailbox, id, source, target) {
                Ok(target) => json!({"sourceId": id, "targetId": target}),
                Err(refusal) => {
                    json!({"sourceId": id, "errorDetails": {"code": refusal.code, "message": refusal.text}})
                }
            }
        };
        Ok(sources.iter().map(one).collect::<Vec<_>>())
    })?;
    let context = caller.context("Collection(microsoft.graph.convertIdResult)");
    Ok(ok(200, &collection(context, translated)))
}

/// EntryId has the same bytes as EwsId here, as in ConvertId of EWS.
fn translated(mailbox: &Mailbox, id: &str, source: &str, target: &str) -> Result<String, Refusal> {
    let is_fit = match source {
        "ewsId" => ids::parse_ews_id(id).is_some(),
        "restId" | "entryId" => ids::parse_ews_id(&ews_id(id)).is_some(),
        _ => !id.starts_with("AAMk"),
    };
    if !is_fit {
        return Err(malformed());
    }
    let (folder, uid) = locate(mailbox, &rest_id(id))?;
    let (folder, message) = get(mailbox, &folder, uid)?;
    let ews = ids::ews_id_of(folder, message);
    Ok(match target {
        "ewsId" => ews,
        "restId" | "entryId" => rest_id(&ews),
        _ => message.id.clone(),
    })
}
