//! At most so many requests at once for one mailbox and application.
//!
//! Source: <https://learn.microsoft.com/graph/throttling-limits#outlook-service-limits>

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{access::mailbox_of, error, guid, refuse, segments};
use crate::{
    http::{Request, Response},
    state::{Audience, State},
};

/// How many are running, by application and mailbox.
#[derive(Default)]
pub struct Running(Mutex<HashMap<Key, usize>>);

type Key = (String, String);

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that runs, until it is dropped.
pub struct Slot<'a> {
    running: &'a Running,
    key: Key,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        if let Some(count) = running.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.key);
            }
        }
    }
}

/// To be held until the answer is written. `None`: the request is for no mailbox, or there is no limit.
///
/// # Errors
/// 429 for one too many.
pub fn admit<'a>(state: &'a State, request: &Request) -> Result<Option<Slot<'a>>, Response> {
    let max = state.config.graph_concurrency;
    let Some(key) = (max > 0).then(|| key(state, request)).flatten() else { return Ok(None) };
    let mut running = state.graph.running.lock();
    let count = running.entry(key.clone()).or_default();
    if *count >= max {
        let id = guid();
        let text = "Application is over its MailboxConcurrency limit.";
        let response = error(&refuse(429, "ApplicationThrottled", text), state, request, &id);
        return Err(response.header("request-id", id));
    }
    *count += 1;
    Ok(Some(Slot { running: &state.graph.running, key }))
}

fn key(state: &State, request: &Request) -> Option<Key> {
    let path = segments(&request.path)?;
    let user = match path.get(1)?.as_str() {
        "me" => None,
        "users" => Some(path.get(2)?.as_str()),
        _ => return None,
    };
    let bearer = state.oauth.bearer(state, request, Audience::Graph).ok()?;
    let mailbox = mailbox_of(state, &bearer, user)?;
    Some((bearer.client_id, mailbox))
}
