//! `send_message`: one message out, and what became of it.
//!
//! An `idempotency_key` makes the call repeatable: a key whose message was sent gets the same answer again, a key whose
//! outcome is not known stays `unknown`, and only a key of which nothing was accepted is tried again.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Context, plugin, request};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    message::compose::{self, Compose, Composed, EnvelopeRequest},
    settings::Sending,
    store::Table,
    transport::{Outbox, Outcome},
};

pub struct Request {
    content: Content,
    envelope: Option<EnvelopeRequest>,
    idempotency_key: Option<String>,
    pub deadline: Deadline,
}

enum Content {
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
        envelope: Option<EnvelopeRequest>,
    }
    let mut content: Map<String, Value> = request::parse("send_message", text)?;
    let own: Map<String, Value> = ["deadline_ms", "idempotency_key", "envelope"]
        .into_iter()
        .filter_map(|name| content.remove_entry(name))
        .collect();
    let misuse = |e: serde_json::Error| {
        Error::new(Kind::Misuse, format!("The request to send_message cannot be understood: {e}."))
            .remedy("See the table of the hooks for its fields.")
    };
    let fields: Fields = serde_json::from_value(own.into()).map_err(misuse)?;
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
        deadline: request::deadline(fields.deadline_ms)?,
    })
}

/// The connection that is kept warm for the next message.
#[derive(Default)]
pub struct Send {
    outbox: Option<Box<dyn Outbox>>,
}

impl Send {
    pub fn run(&mut self, context: &Context, request: Request) -> Result<String> {
        let Some(sending) = &context.session.account.sending else {
            return Err(plugin::wrong_direction("send_message", "outgoing"));
        };
        let message = prepare(request.content, request.envelope.as_ref(), sending, context)?;
        let Some(key) = &request.idempotency_key else {
            let outcome = self.send(context, &message, request.deadline)?;
            return Ok(describe(&outcome, &message.message_id).to_string());
        };
        let claim = match Claim::take(context, key, &message.message_id)? {
            Ok(claim) => claim,
            Err(earlier) => return Ok(earlier),
        };
        let outcome = self.send(context, &message, request.deadline).inspect_err(|_| claim.release(context))?;
        let answer = describe(&outcome, &message.message_id);
        claim.resolve(context, &outcome, &answer);
        Ok(answer.to_string())
    }

    pub fn adopt(&mut self, outbox: Box<dyn Outbox>) {
        self.outbox = Some(outbox);
    }

    pub fn disconnect(&mut self) {
        self.outbox = None;
    }

    /// A connection that was kept and turns out closed before anything was taken is replaced, once.
    fn send(&mut self, context: &Context, message: &Composed, deadline: Deadline) -> Result<Outcome> {
        for _ in 0..2 {
            let kept = self.outbox.take().and_then(|mut kept| kept.is_fresh().then_some(kept));
            let mut outbox = match kept {
                Some(kept) => kept,
                None => match context.session.open_outbox(deadline) {
                    Ok(opened) => opened,
                    Err(error) if error.is_transient() => return Ok(Outcome::Retry { error, after: None }),
                    Err(error) => return Err(error),
                },
            };
            let outcome = outbox.send(&message.envelope, &message.raw, deadline);
            if matches!(outcome, Outcome::Retry { .. }) && outbox.lost() {
                context.session.log.info(format_args!("The kept connection had ended; opening a new one."));
                continue;
            }
            self.outbox = Some(outbox);
            return Ok(outcome);
        }
        let error = Error::new(Kind::Transient, "The mail server closes connections before it takes a message.");
        Ok(Outcome::Retry { error, after: None })
    }
}

fn prepare(
    content: Content,
    envelope: Option<&EnvelopeRequest>,
    sending: &Sending,
    context: &Context,
) -> Result<Composed> {
    let now = context.session.clock.now();
    let message_id = compose::new_message_id(&sending.from)?;
    match content {
        Content::Compose(request) => compose::compose(*request, sending, now, &message_id),
        Content::Raw(raw) => compose::accept_raw(&raw, envelope, sending, now, &message_id),
    }
}

fn describe(outcome: &Outcome, message_id: &str) -> Value {
    match outcome {
        Outcome::Sent { reply, server, refused } => json!({
            "outcome": "sent",
            "message_id": message_id,
            "server": server,
            "reply": reply,
            "refused": refused.iter().map(|(address, reply)| json!({"address": address, "reply": reply})).collect::<Vec<_>>(),
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

/// The right to send the message of one idempotency key, written down before the first byte is sent.
struct Claim {
    id: String,
    version: u64,
}

impl Claim {
    /// `Ok(Err(answer))`: the key was used before, and this is what became of it.
    fn take(context: &Context, key: &str, message_id: &str) -> Result<Result<Self, String>> {
        let mailbox = context.session.account.username.to_lowercase();
        let digest = Sha256::digest(format!("{mailbox}\0{key}"));
        let id: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let pending = json!({
            "outcome": "unknown",
            "message_id": message_id,
            "error": Error::new(Kind::Transient, "A message with this idempotency key was begun, and its end is not known.")
                .remedy("Look for its Message-ID in the sent folder before sending it under a new key.")
                .to_json(),
        });
        match context.store.write(Table::Sent, &id, None, pending.to_string().as_bytes())? {
            Some(version) => Ok(Ok(Self { id, version })),
            None => {
                let earlier = context.store.read(Table::Sent, &id)?;
                let text = earlier.and_then(|record| String::from_utf8(record.bytes.to_vec()).ok());
                Ok(Err(text.unwrap_or_else(|| pending.to_string())))
            }
        }
    }

    fn resolve(&self, context: &Context, outcome: &Outcome, answer: &Value) {
        match outcome {
            Outcome::Rejected(_) | Outcome::Retry { .. } => self.release(context),
            Outcome::Sent { .. } | Outcome::Unknown(_) => {
                let bytes = answer.to_string();
                // The message is out, whatever the store says now: its answer must reach the host.
                if let Err(error) = context.store.write(Table::Sent, &self.id, Some(self.version), bytes.as_bytes()) {
                    context.session.log.warn(format_args!("The outcome of an idempotency key was not stored: {error}"));
                }
            }
        }
    }

    /// Nothing was accepted: the same key may be tried again.
    fn release(&self, context: &Context) {
        if let Err(error) = context.store.delete(Table::Sent, &self.id) {
            context.session.log.warn(format_args!("An idempotency key stays taken, because the store failed: {error}"));
        }
    }
}
