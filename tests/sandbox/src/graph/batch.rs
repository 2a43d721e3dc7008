//! $batch: up to 20 requests in one, in an order that dependsOn allows.
//!
//! Source: <https://learn.microsoft.com/graph/json-batching>

use std::{collections::BTreeMap, thread};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use url::Url;

use super::{Answer, Refusal, admit, handle, json_body, ok, refuse};
use crate::{
    faults::Face,
    http::{Request, Response},
    state::State,
};

const REQUESTS_MAX: usize = 20;

pub fn run(state: &State, request: &Request) -> Answer {
    if request.method != "POST" {
        return Err(refuse(405, "BadRequest", "$batch takes POST."));
    }
    let body = json_body(request)?;
    let all = body["requests"].as_array().filter(|all| !all.is_empty());
    let all = all.ok_or_else(|| wrong("The requests of the batch are missing."))?;
    if all.len() > REQUESTS_MAX {
        return Err(wrong("Number of batch request steps exceeds the maximum value of 20."));
    }
    let ids: Vec<&str> = all.iter().filter_map(|one| one["id"].as_str()).filter(|id| !id.is_empty()).collect();
    let is_double = |id: &&str| ids.iter().filter(|other| *other == id).count() > 1;
    if ids.len() != all.len() || ids.iter().any(is_double) {
        return Err(wrong("Every request of a batch needs an id of its own."));
    }
    let mut waiting: Vec<&Value> = all.iter().collect();
    let mut statuses: BTreeMap<&str, u16> = BTreeMap::new();
    let mut responses = Vec::new();
    while !waiting.is_empty() {
        let needs = |one: &Value| one["dependsOn"].as_array().cloned().unwrap_or_default();
        let is_ready =
            |one: &&Value| needs(one).iter().all(|id| statuses.contains_key(id.as_str().unwrap_or_default()));
        let Some(at) = waiting.iter().position(is_ready) else {
            return Err(wrong("A request of the batch depends on one that is not there, or on itself."));
        };
        let one = waiting.remove(at);
        let id = one["id"].as_str().unwrap_or_default();
        let failed =
            needs(one).iter().any(|id| statuses.get(id.as_str().unwrap_or_default()).is_none_or(|s| *s >= 400));
        let response = match failed {
            true => {
                let text = "A request that this one depends on failed.";
                Response::json(424, &json!({"error": {"code": "FailedDependency", "message": text}}))
            }
            false => step(state, request, one)?,
        };
        statuses.insert(id, response.status);
        responses.push(shown(id, &response));
    }
    Ok(ok(200, &json!({"responses": responses})))
}

fn wrong(text: &str) -> Refusal {
    refuse(400, "BadRequest", text)
}

/// One of them, as if it had come alone; faults fit its own method and path.
fn step(state: &State, outer: &Request, one: &Value) -> Answer {
    let method = one["method"].as_str().unwrap_or_default().to_ascii_uppercase();
    let url = one["url"].as_str().unwrap_or_default();
    let base = format!("{}/v1.0", state.base_url());
    let absolute = match url.starts_with(&base) {
        true => url.to_owned(),
        false => format!("{base}/{}", url.trim_start_matches('/')),
    };
    let url = Url::parse(&absolute).map_err(|_| wrong("The url of a request is malformed."))?;
    let mut headers: Vec<(String, String)> = one["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
    headers.extend(outer.header("authorization").map(|value| ("Authorization".to_owned(), value.to_owned())));
    let body = match &one["body"] {
        Value::Null => Vec::new(),
        // What is no JSON comes in base64.
        Value::String(text) => STANDARD.decode(text).map_err(|_| wrong("The body of a request is no base64."))?,
        body => body.to_string().into_bytes(),
    };
    let path = url.path().to_owned();
    if path.contains("$batch") {
        return Err(wrong("A batch cannot stand in a batch."));
    }
    let query = url.query_pairs().into_owned().collect();
    let start = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
    let plan = state.faults.take(Face::Graph, &format!("{method} {path}  {start}")).unwrap_or_default();
    let request = Request { method, path, query, headers, body };
    let slot = match admit(state, &request) {
        Ok(slot) => slot,
        Err(response) => return Ok(response),
    };
    thread::sleep(plan.delay);
    let response = plan.answer(Face::Graph).unwrap_or_else(|| handle(state, &request));
    drop(slot);
    Ok(plan.changed(response))
}

fn shown(id: &str, response: &Response) -> Value {
    let headers: Map<String, Value> =
        response.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut shown = json!({"id": id, "status": response.status, "headers": headers});
    if !response.body.is_empty() {
        shown["body"] =
            serde_json::from_slice(&response.body).unwrap_or_else(|_| json!(STANDARD.encode(&response.body)));
    }
    shown
}
