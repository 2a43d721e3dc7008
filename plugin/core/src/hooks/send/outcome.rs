//! What became of one message, as the host is told.

use serde_json::{Value, json};

use crate::transport::Outcome;

pub fn describe(outcome: &Outcome, message_id: &str) -> Value {
    match outcome {
        Outcome::Sent { reply, server, refused } => json!({
            "outcome": "sent",
            "message_id": message_id,
            "server": server,
            "reply": reply,
            "refused": refused
                .iter()
                .map(|one| json!({"address": one.address, "reply": one.reply, "transient": one.transient}))
                .collect::<Vec<_>>(),
        }),
        Outcome::Rejected(error) => {
            json!({"outcome": "rejected", "message_id": message_id, "error": error.to_json()})
        }
        Outcome::Retry { error, after } => {
            let mut error_json = error.to_json();
            let wait = after.map(|wait| wait.as_secs()).or_else(|| error_json["retry_after_seconds"].as_u64());
            error_json["retry_after_seconds"] = json!(wait);
            json!({
                "outcome": "retry",
                "message_id": message_id,
                "retry_after_seconds": wait,
                "error": error_json,
            })
        }
        Outcome::Unknown(error) => {
            json!({"outcome": "unknown", "message_id": message_id, "error": error.to_json()})
        }
    }
}
