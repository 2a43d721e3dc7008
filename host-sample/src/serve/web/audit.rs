//! The audit trail: who did what, and when; the newest first.

use maud::{Markup, html};
use serde_json::Value;

use super::{
    layout::{Frame, text, when},
    visit::{Answer, Call},
};

const PAGE: i64 = 100;

pub fn list(call: &Call) -> Answer {
    let mailbox = call.query.get("mailbox").and_then(|id| id.parse().ok());
    let before = call.query.get("before").and_then(|id| id.parse().ok()).unwrap_or(i64::MAX);
    let entries = call.app().storage.audit_trail(mailbox, before, PAGE)?;
    let older = entries.last().filter(|_| entries.len() as i64 == PAGE).map(|last| {
        let mailbox = mailbox.map_or(String::new(), |mailbox: i64| format!("&mailbox={mailbox}"));
        format!("/audit?before={}{mailbox}", last["id"])
    });
    Ok(Frame::new("Audit trail").page(
        Some(call),
        html! {
            h1 { "Audit trail" }
            p.lead { "What administrators did. Secrets are never in it." }
            ol.cards data-testid="audit" {
                @for entry in &entries {
                    li.card data-testid="audit-entry" {
                        p {
                            strong { (text(entry, "action")) } " by " (text(entry, "who"))
                            @if let Some(mailbox) = entry["mailbox"].as_i64() {
                                ", mailbox " a href={ "/mailboxes/" (mailbox) } { (mailbox) }
                            }
                            ", " (when(&entry["at"]))
                        }
                        (detail(&entry["detail"]))
                    }
                }
            }
            @if let Some(older) = older { p { a.button href=(older) data-testid="older" { "Older entries" } } }
        },
    ))
}

fn detail(detail: &Value) -> Markup {
    html! {
        @match detail["changes"].as_array() {
            Some(changes) => ul.changes {
                @for change in changes {
                    li {
                        code { (text(change, "field")) }
                        @if change.get("to").is_some() {
                            ": " (value(&change["from"])) " → " (value(&change["to"]))
                        } @else { ": changed" }
                    }
                }
            },
            None => @if detail.as_object().is_some_and(|detail| !detail.is_empty()) {
                pre tabindex="0" { (serde_json::to_string_pretty(detail).unwrap_or_default()) }
            }
        }
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
