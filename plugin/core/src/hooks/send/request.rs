//! What a `send_message` request asks for.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{super::request, digest, progress::Progress};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    message::compose::{Compose, EnvelopeRequest},
};

pub struct Request {
    pub content: Content,
    pub envelope: Option<EnvelopeRequest>,
    pub idempotency_key: Option<String>,
    /// The host's id of the request that the message belongs to: goes, signed, into the Message-ID.
    pub request_id: Option<String>,
    /// Of a key whose end is not known, and which is not in the sent folder: send it again.
    pub resend_unknown: bool,
    /// Nothing is sent: was this Message-ID?
    pub look_up: Option<String>,
    /// Of what is sent: two requests under one key must have the same.
    pub digest: [u8; 32],
    pub deadline: Deadline,
    pub progress: Progress,
}

pub enum Content {
    Compose(Box<Compose>),
    Raw(Vec<u8>),
}

/// # Errors
/// `Misuse` for fields that cannot be understood, or that do not go together.
pub fn parse(text: &str, raw: &[u8]) -> Result<Request> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        deadline_ms: Option<u64>,
        idempotency_key: Option<String>,
        request_id: Option<String>,
        #[serde(default)]
        resend_unknown: bool,
        look_up: Option<String>,
        envelope: Option<EnvelopeRequest>,
    }
    let mut content: Map<String, Value> = request::parse("send_message", text)?;
    let digest = {
        let is_of_call = |name: &str| matches!(name, "deadline_ms" | "idempotency_key" | "resend_unknown" | "look_up");
        let of_message = content.iter().filter(|(name, _)| !is_of_call(name));
        digest::of_request(of_message.map(|(name, value)| (name.as_str(), value)).collect(), raw)
    };
    let own: Map<String, Value> =
        ["deadline_ms", "idempotency_key", "request_id", "resend_unknown", "look_up", "envelope"]
            .into_iter()
            .filter_map(|name| content.remove_entry(name))
            .collect();
    let misuse = |e: serde_json::Error| request::misuse("send_message", &e);
    let fields: Fields = serde_json::from_value(own.into()).map_err(misuse)?;
    if fields.look_up.is_some() && !(content.is_empty() && raw.is_empty()) {
        return Err(Error::new(Kind::Misuse, "`look_up` sends nothing, so it stands without content."));
    }
    if fields.resend_unknown && fields.idempotency_key.is_none() {
        return Err(Error::new(Kind::Misuse, "`resend_unknown` belongs to an `idempotency_key` that was used before."));
    }
    let content = if raw.is_empty() {
        if fields.envelope.is_some() {
            return Err(Error::new(
                Kind::Misuse,
                "`envelope` belongs to raw MIME; a composed message has `to`, `cc` and `bcc`.",
            ));
        }
        Content::Compose(Box::new(serde_json::from_value(content.into()).map_err(misuse)?))
    } else if let Some(name) = content.keys().next() {
        return Err(Error::new(Kind::Misuse, format!("`{name}` and raw MIME exclude each other.")));
    } else {
        Content::Raw(raw.to_vec())
    };
    Ok(Request {
        content,
        envelope: fields.envelope,
        idempotency_key: fields.idempotency_key.filter(|key| !key.is_empty()),
        request_id: fields.request_id,
        resend_unknown: fields.resend_unknown,
        look_up: fields.look_up,
        digest,
        deadline: request::deadline(fields.deadline_ms)?,
        progress: Progress::default(),
    })
}
