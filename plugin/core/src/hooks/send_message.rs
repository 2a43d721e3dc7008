//! `send_message`: one message out, and what became of it.
//!
//! From the moment a message is offered to a server, whatever ends the call early (its deadline, a panic, a store that
//! hangs) is an outcome and no error: an error says that nothing was sent, and would be answered with another try.
//!
//! An `idempotency_key` makes the call repeatable: a key whose message was sent gets the same answer again, a key whose
//! outcome is not known stays `unknown`, and only a key of which nothing was accepted is tried again.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Context, plugin, request};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    limits,
    message::compose::{self, Compose, Composed, EnvelopeRequest},
    settings::Sending,
    store::{Store, Table},
    transport::{Outbox, Outcome},
};

pub struct Request {
    content: Content,
    envelope: Option<EnvelopeRequest>,
    idempotency_key: Option<String>,
    pub deadline: Deadline,
    pub progress: Progress,
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
    let misuse = |e: serde_json::Error| request::misuse("send_message", &e);
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
        progress: Progress::default(),
    })
}

/// How far a call has come, for the caller that cannot wait for its end.
#[derive(Clone, Default)]
pub struct Progress(Arc<Mutex<Stage>>);

#[derive(Clone, Default)]
enum Stage {
    #[default]
    NothingOffered,
    Offered {
        message_id: String,
    },
    Answered(String),
}

impl Progress {
    /// What the host is told when the call ended with `error`.
    ///
    /// # Errors
    /// `error`, when nothing was offered to a server.
    pub fn answer_to(&self, error: Error) -> Result<String> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Stage::NothingOffered => Err(error),
            Stage::Answered(answer) => Ok(answer),
            Stage::Offered { message_id } => {
                let unknown =
                    Error::new(Kind::Transient, "The call ended before the server said whether it took the message.")
                        .remedy("Look for its Message-ID in the sent folder before it is sent again.")
                        .source_error(error);
                Ok(describe(&Outcome::Unknown(unknown), &message_id).to_string())
            }
        }
    }

    fn is(&self, stage: Stage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }
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
        let claim = match &request.idempotency_key {
            None => None,
            Some(key) => {
                let mailbox = &context.session.account.username;
                match Claim::take(&*context.store, mailbox, key, &message.message_id)? {
                    Ok(claim) => Some(claim),
                    Err(earlier) => return Ok(earlier),
                }
            }
        };
        let sent = self.send(context, &message, request.deadline, &request.progress);
        let outcome = sent.inspect_err(|_| {
            if let Some(claim) = &claim {
                claim.release(context);
            }
        })?;
        let answer = describe(&outcome, &message.message_id).to_string();
        request.progress.is(Stage::Answered(answer.clone()));
        if let Some(claim) = &claim {
            claim.resolve(context, &outcome, &answer);
        }
        Ok(answer)
    }

    pub fn adopt(&mut self, outbox: Box<dyn Outbox>) {
        self.outbox = Some(outbox);
    }

    pub fn disconnect(&mut self) {
        self.outbox = None;
    }

    /// A connection that was kept and turns out closed before anything was taken is replaced.
    fn send(
        &mut self,
        context: &Context,
        message: &Composed,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<Outcome> {
        let kept = self.outbox.take().and_then(|mut kept| kept.is_fresh().then_some(kept));
        let mut offer = |mut outbox: Box<dyn Outbox>| {
            progress.is(Stage::Offered { message_id: message.message_id.clone() });
            let outcome = outbox.send(&message.envelope, &message.raw, deadline);
            let lost = matches!(outcome, Outcome::Retry { .. }) && outbox.lost();
            if !lost {
                self.outbox = Some(outbox);
            }
            (outcome, lost)
        };
        if let Some(kept) = kept {
            match offer(kept) {
                (_, true) => progress.is(Stage::NothingOffered),
                (outcome, false) => return Ok(outcome),
            }
            context.session.log.info(format_args!("The kept connection had ended; opening a new one."));
        }
        match context.session.open_outbox(deadline) {
            Ok(opened) => Ok(offer(opened).0),
            Err(error) if error.is_transient() => Ok(Outcome::Retry { error, after: None }),
            Err(error) => Err(error),
        }
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
    fn take(store: &dyn Store, mailbox: &str, key: &str, message_id: &str) -> Result<Result<Self, String>> {
        let digest = Sha256::digest(format!("{}\0{key}", mailbox.to_lowercase()));
        let id: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let begun =
            Error::new(Kind::Transient, "A message with this idempotency key was begun, and its end is not known.")
                .remedy("Look for its Message-ID in the sent folder before sending it under a new key.");
        let pending = describe(&Outcome::Unknown(begun), message_id).to_string();
        for _ in 0..limits::CLAIM_ATTEMPTS {
            if let Some(version) = store.write(Table::Sent, &id, None, pending.as_bytes())? {
                return Ok(Ok(Self { id, version }));
            }
            if let Some(earlier) = store.read(Table::Sent, &id)? {
                return Ok(Err(String::from_utf8(earlier.bytes.to_vec()).unwrap_or(pending)));
            }
            // Given back between the two: it is free again.
        }
        Err(Error::new(Kind::Transient, "Many calls try to send under the same idempotency key.")
            .remedy("Try again later; nothing was sent."))
    }

    fn resolve(&self, context: &Context, outcome: &Outcome, answer: &str) {
        match outcome {
            Outcome::Rejected(_) | Outcome::Retry { .. } => self.release(context),
            Outcome::Sent { .. } | Outcome::Unknown(_) => {
                // The message is out, whatever the store says now: its answer must reach the host.
                if let Err(error) = context.store.write(Table::Sent, &self.id, Some(self.version), answer.as_bytes()) {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::store::{Record, SealingKey, SqliteStore};

    /// In which somebody else gives a key back just after the first look at it.
    struct Race {
        store: SqliteStore,
        writes: AtomicUsize,
    }

    impl Store for Race {
        fn read(&self, table: Table, id: &str) -> Result<Option<Record>> {
            self.store.read(table, id)
        }

        fn write(&self, table: Table, id: &str, expected: Option<u64>, bytes: &[u8]) -> Result<Option<u64>> {
            match self.writes.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(None),
                _ => self.store.write(table, id, expected, bytes),
            }
        }

        fn take(&self, table: Table, id: &str) -> Result<Option<Record>> {
            self.store.take(table, id)
        }

        fn delete(&self, table: Table, id: &str) -> Result<()> {
            self.store.delete(table, id)
        }
    }

    #[test]
    fn a_key_given_back_meanwhile_is_not_called_unknown() {
        let key = SealingKey::from_config(&json!({"value": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}));
        let store = Race { store: SqliteStore::in_memory(key.unwrap()).unwrap(), writes: AtomicUsize::new(0) };
        assert!(Claim::take(&store, "a@b.test", "key", "<1@b.test>").unwrap().is_ok());
        let earlier = Claim::take(&store, "A@b.test", "key", "<2@b.test>").unwrap().err().unwrap();
        let earlier: Value = serde_json::from_str(&earlier).unwrap();
        assert_eq!((&earlier["outcome"], &earlier["message_id"]), (&json!("unknown"), &json!("<1@b.test>")));
    }

    #[test]
    fn a_call_that_ends_early_says_how_far_it_came() {
        let late = || Error::new(Kind::Transient, "late");
        let progress = Progress::default();
        assert_eq!(progress.answer_to(late()).unwrap_err().message(), "late");
        progress.is(Stage::Offered { message_id: "<1@b.test>".into() });
        let unknown: Value = serde_json::from_str(&progress.answer_to(late()).unwrap()).unwrap();
        assert_eq!((&unknown["outcome"], &unknown["message_id"]), (&json!("unknown"), &json!("<1@b.test>")));
        assert_eq!(unknown["error"]["chain"][0], "late");
        progress.is(Stage::Answered("{}".into()));
        assert_eq!(progress.answer_to(late()).unwrap(), "{}");
    }
}
