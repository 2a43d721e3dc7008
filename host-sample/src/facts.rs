//! What the library says about a message, as far as a helpdesk needs it.

use serde_json::Value;

/// What the library proposes to do with a message; the host decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    Create,
    Append,
    /// With the reason: own mail, loop, bounce, automatic reply, new requests disabled, sender not allowed.
    Ignore(String),
}

#[derive(Clone, Debug)]
pub struct Facts {
    pub from: String,
    /// Where an answer goes when not to From: Reply-To (RFC 5322 section 3.6.2), else who wrote to a group that put its own
    /// address into From.
    pub reply_to: Vec<String>,
    pub subject: String,
    /// Without angle brackets, like all ids here.
    pub message_id: Option<String>,
    /// What this message answers: In-Reply-To, then References from the newest back, then what the library found.
    pub answers: Vec<String>,
    pub text: String,
    pub attachments: usize,
    pub proposal: Proposal,
    /// Number of the request that the subject's tag names.
    pub tagged_request: Option<i64>,
}

impl Facts {
    /// Tolerant: whatever is missing or of another shape is left empty, and the message is still imported.
    pub fn read(facts: &Value) -> Self {
        let mut answers = ids(&facts["in_reply_to"]);
        let nearest_first = ids(&facts["references"]).into_iter().rev();
        for id in nearest_first.chain(ids(&facts["disposition"]["request_reference"]["message_ids"])) {
            if !answers.contains(&id) {
                answers.push(id);
            }
        }
        Self {
            from: first_address(&facts["from"]),
            reply_to: [&facts["reply_to"], &facts["headers"]["x_original_from"]]
                .map(addresses)
                .into_iter()
                .find(|list| !list.is_empty())
                .unwrap_or_default(),
            subject: facts["subject"].as_str().unwrap_or_default().to_owned(),
            message_id: ids(&facts["message_id"]).into_iter().next(),
            answers,
            text: facts["text"].as_str().unwrap_or_default().to_owned(),
            attachments: facts["attachments"].as_array().map_or(0, Vec::len),
            proposal: proposal(&facts["disposition"]),
            tagged_request: facts["disposition"]["request_reference"]["request_id"]
                .as_str()
                .and_then(|id| id.parse().ok()),
        }
    }
}

pub fn bare_id(id: &str) -> String {
    id.trim().trim_start_matches('<').trim_end_matches('>').to_owned()
}

fn ids(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_whitespace().map(bare_id).filter(|id| !id.is_empty()).collect(),
        Value::Array(list) => list.iter().flat_map(ids).collect(),
        _ => Vec::new(),
    }
}

fn first_address(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.first().map(first_address).unwrap_or_default(),
        Value::Object(person) => person.get("address").map(first_address).unwrap_or_default(),
        _ => String::new(),
    }
}

fn addresses(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten().map(first_address);
    list.filter(|address| !address.is_empty()).take(ANSWERED_MAX).collect()
}

/// Addresses of one Reply-To that are answered.
const ANSWERED_MAX: usize = 10;

fn proposal(disposition: &Value) -> Proposal {
    match disposition["action"].as_str() {
        Some("ignore") => Proposal::Ignore(disposition["reason"].as_str().unwrap_or("The library says so.").to_owned()),
        Some("append_to_request") => Proposal::Append,
        _ => Proposal::Create,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_reference_is_asked_first() {
        let facts = Facts::read(&json!({"in_reply_to": "<c@x>", "references": ["<a@x>", "<b@x>", "<c@x>"]}));
        assert_eq!(facts.answers, ["c@x", "b@x", "a@x"]);
    }

    #[test]
    fn fault_07_an_answer_goes_where_the_sender_asks() {
        let facts = json!({"from": [{"address": "noreply@shop.test"}], "reply_to": [{"address": "cust@real.test"}],
                           "headers": {"x_original_from": [{"address": "other@x.test"}]}});
        assert_eq!(Facts::read(&facts).reply_to, ["cust@real.test"]);
        let facts = json!({"headers": {"x_original_from": [{"address": "ann@cust.test"}]}, "reply_to": []});
        assert_eq!(Facts::read(&facts).reply_to, ["ann@cust.test"]);
        assert!(Facts::read(&json!({"from": [{"address": "a@b.test"}]})).reply_to.is_empty());
    }

    #[test]
    fn facts_of_another_shape_do_not_lose_the_message() {
        let facts = Facts::read(&json!({"from": 7, "subject": null, "disposition": {"action": "ignore"}}));
        assert_eq!((facts.from.as_str(), facts.subject.as_str()), ("", ""));
        assert!(matches!(facts.proposal, Proposal::Ignore(_)));
        assert_eq!(Facts::read(&Value::Null).proposal, Proposal::Create);
    }
}
