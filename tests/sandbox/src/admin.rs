//! `/_sandbox`: no token, no secret; it is on loopback only.
//!
//! | request | does |
//! |---|---|
//! | GET /_sandbox | describes this sandbox, and what it does not have of the real providers |
//! | POST, GET, DELETE /_sandbox/faults | orders a fault, lists and forgets the orders |
//! | POST /_sandbox/clock `{"skew_seconds": N}` | sets the provider's clock |
//! | POST /_sandbox/deliver `{"from": …, "to": …, "raw": …}` | puts a message into an inbox; without `from` its Return-Path is empty, as that of a bounce |
//! | POST /_sandbox/revoke `{"user": …}` | takes back every consent of a person |
//! | POST /_sandbox/expire_delta_links, with `{"status": 400, "code": …}` or without | Graph knows no link that it gave out before |
//! | POST /_sandbox/forget_sync_states | EWS knows no SyncState that it gave out before |
//! | POST /_sandbox/restore `{"user": …, "folder": …}` | the folder comes out of a backup: it and all messages in it have other ids |
//! | GET /_sandbox/requests | how many there were, by face, and the newest |

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::{
    faults::Fault,
    http::{Request, Response},
    state::State,
};

/// What is written in the README, too.
pub const GAPS: &str = include_str!("gaps.txt");

pub fn handle(state: &State, request: &Request) -> Response {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let rest = request.path.trim_start_matches("/_sandbox").trim_matches('/');
    match (request.method.as_str(), rest) {
        ("GET", "") => {
            let gaps: Vec<_> = GAPS.lines().filter(|line| !line.is_empty()).collect();
            Response::json(200, &json!({"base_url": state.base_url(), "config": state.config, "does_not_have": gaps}))
        }
        ("GET", "faults") => Response::json(200, &json!(state.faults.orders())),
        ("DELETE", "faults") => {
            state.faults.clear();
            Response::new(204)
        }
        ("POST", "faults") => match serde_json::from_slice::<Fault>(&request.body) {
            Ok(fault) => {
                state.faults.order(fault);
                Response::new(204)
            }
            Err(error) => wrong(&error.to_string()),
        },
        ("POST", "clock") => match body["skew_seconds"].as_i64() {
            Some(seconds) => {
                state.clock_skew.store(seconds, Ordering::Relaxed);
                Response::new(204)
            }
            None => wrong("skew_seconds is missing"),
        },
        ("POST", "deliver") => match state.mail.deliver(&text("from"), &text("to"), text("raw").as_bytes()) {
            true => Response::new(204),
            false => Response::json(404, &json!({"error": "there is no such mailbox"})),
        },
        ("POST", "revoke") => {
            state.oauth.revoke_user(&text("user"));
            Response::new(204)
        }
        ("POST", "expire_delta_links") => {
            let code = body["code"].as_str().unwrap_or("BadRequest").to_owned();
            let status = body["status"].as_u64().and_then(|status| status.try_into().ok());
            state.graph.expire_delta_links(status.map(|status| (status, code)));
            Response::new(204)
        }
        ("POST", "forget_sync_states") => {
            state.ews.forget_sync_states();
            Response::new(204)
        }
        ("POST", "restore") => match state.mail.with(&text("user"), |mailbox| mailbox.restore(&text("folder"))) {
            Some(true) => Response::new(204),
            _ => wrong("there is no such folder"),
        },
        ("GET", "requests") => Response::json(200, &state.faults.report()),
        _ => Response::json(404, &json!({"error": "see GET /_sandbox"})),
    }
}

fn wrong(why: &str) -> Response {
    Response::json(400, &json!({"error": why}))
}
