//! `send_message`: one message out, and what became of it.
//!
//! From the moment a message is offered to a server, whatever ends the call early (its deadline, a panic, a store that
//! hangs) is an outcome and no error: an error says that nothing was sent, and would be answered with another try.
//!
//! An `idempotency_key` makes the call repeatable: a key whose message was sent gets the same answer again; a key whose
//! outcome is not known has its Message-ID looked for in the sent folder, and is sent again only when the host says
//! `resend_unknown`; a key of which nothing was accepted is tried again. Who comes while another call sends waits for it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    super::{Context, plugin, request},
    automatic_limit::{self, Reserved},
    idempotency::{Claim, Taken},
    outcome::describe,
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    message::{
        compose::{self, Compose, Composed, EnvelopeRequest},
        wire,
    },
    seam,
    session::Found,
    settings::Sending,
    transport::{Outbox, Outcome},
};

pub struct Request {
    content: Content,
    envelope: Option<EnvelopeRequest>,
    idempotency_key: Option<String>,
    /// The host's id of the request that the message belongs to: goes, signed, into the Message-ID.
    request_id: Option<String>,
    /// Of a key whose end is not known, and which is not in the sent folder: send it again.
    resend_unknown: bool,
    /// Nothing is sent: was this Message-ID?
    look_up: Option<String>,
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
        request_id: Option<String>,
        #[serde(default)]
        resend_unknown: bool,
        look_up: Option<String>,
        envelope: Option<EnvelopeRequest>,
    }
    let mut content: Map<String, Value> = request::parse("send_message", text)?;
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
        deadline: request::deadline(fields.deadline_ms)?,
        progress: Progress::default(),
    })
}

/// How far a call has come, for the caller that cannot wait for its end.
#[derive(Clone, Default)]
pub struct Progress(Arc<Mutex<Stage>>);

#[derive(Default)]
enum Stage {
    #[default]
    NothingOffered,
    /// The caller was told that nothing was sent, so nothing will be.
    Abandoned,
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
        let mut stage = seam::lock("send.progress", &self.0);
        match &*stage {
            Stage::NothingOffered | Stage::Abandoned => {
                *stage = Stage::Abandoned;
                Err(error)
            }
            Stage::Answered(answer) => Ok(answer.clone()),
            Stage::Offered { message_id } => {
                let unknown =
                    Error::new(Kind::Transient, "The call ended before the server said whether it took the message.")
                        .remedy("Look for its Message-ID in the sent folder before it is sent again.")
                        .source_error(error);
                Ok(describe(&Outcome::Unknown(unknown), message_id).to_string())
            }
        }
    }

    /// The message is about to be offered to a server.
    ///
    /// # Errors
    /// `Transient` when the caller has been told already that nothing was sent.
    fn offer(&self, message_id: &str) -> Result<()> {
        let mut stage = seam::lock("send.progress", &self.0);
        if let Stage::Abandoned = *stage {
            return Err(Error::new(Kind::Transient, "The caller did not wait for the message to be offered."));
        }
        *stage = Stage::Offered { message_id: message_id.to_owned() };
        Ok(())
    }

    fn is(&self, stage: Stage) {
        *seam::lock("send.progress", &self.0) = stage;
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
        if let Some(message_id) = &request.look_up {
            return Ok(looked_up(context, message_id, request.deadline).to_string());
        }
        let mut message = prepare(&request, sending, context)?;
        let claim = match &request.idempotency_key {
            None => None,
            Some(key) => match Claim::take(context, key, &message.message_id, request.deadline)? {
                Taken::Mine(claim) => Some(claim),
                Taken::Earlier(earlier, mut claim) => {
                    let answer = resolved(context, earlier, &claim, request.deadline);
                    let message_id = answer["message_id"].as_str().unwrap_or_default();
                    if !(request.resend_unknown && answer["outcome"] == "unknown") {
                        return Ok(answer.to_string());
                    }
                    // Under the same Message-ID: whoever gets it twice can tell.
                    message = prepare_as(&request, sending, context, message_id)?;
                    claim.begin_again(context, &message.message_id, request.deadline)?;
                    Some(claim)
                }
            },
        };
        let mut reserved = None;
        let outcome = self.send_within_bounds(context, sending, &message, &request, &mut reserved);
        let is_accepted = matches!(outcome, Ok(Outcome::Sent { .. } | Outcome::Unknown(_)));
        let answer = outcome.map(|outcome| describe(&outcome, &message.message_id).to_string());
        if let Ok(answer) = &answer {
            request.progress.is(Stage::Answered(answer.clone()));
        }
        // The caller has its answer, however long the store takes now.
        if let Some(reserved) = reserved.filter(|_| !is_accepted) {
            reserved.give_back(context);
        }
        match (&claim, &answer) {
            (Some(claim), Ok(answer)) if is_accepted => claim.store(context, answer),
            (Some(claim), _) => claim.release(context),
            (None, _) => {}
        }
        answer
    }

    /// Unless the rate or the brake forbids it. `reserved`: what is to be given back when nothing is accepted.
    fn send_within_bounds(
        &mut self,
        context: &Context,
        sending: &Sending,
        message: &Composed,
        request: &Request,
        reserved: &mut Option<Reserved>,
    ) -> Result<Outcome> {
        if is_automatic(message) {
            let recipients = message.envelope.to.iter().map(AsRef::<str>::as_ref);
            *reserved = match automatic_limit::reserve(context, recipients, sending.automatic_mails_per_day) {
                Ok(reserved) => Some(reserved),
                Err(error) if error.kind() == Kind::Refused => return Ok(Outcome::Rejected(error)),
                Err(error) => return Err(error),
            };
        }
        match context.shared.rates.take(&context.session.account, context.session.clock.now()) {
            Ok(()) => self.send(context, message, request.deadline, &request.progress),
            Err(wait) => Ok(Outcome::Retry { error: too_fast(wait), after: Some(wait) }),
        }
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
            progress.offer(&message.message_id)?;
            let outcome = outbox.send(&message.envelope, &message.raw, deadline);
            let lost = matches!(outcome, Outcome::Retry { .. }) && outbox.lost();
            if !lost {
                self.outbox = Some(outbox);
            }
            Ok((outcome, lost))
        };
        if let Some(kept) = kept {
            match offer(kept)? {
                (_, true) => progress.is(Stage::NothingOffered),
                (outcome, false) => return Ok(outcome),
            }
            context.session.log.info(format_args!("The kept connection had ended; opening a new one."));
        }
        match context.session.open_outbox(deadline) {
            Ok(opened) => Ok(offer(opened)?.0),
            Err(error) if error.is_transient() => Ok(Outcome::Retry { error, after: None }),
            Err(error) => Err(error),
        }
    }
}

fn prepare(request: &Request, sending: &Sending, context: &Context) -> Result<Composed> {
    let signer = context.shared.signing.signer(&*context.store)?;
    let message_id = signer.message_id(&sending.from, request.request_id.as_deref())?;
    prepare_as(request, sending, context, &message_id)
}

fn prepare_as(request: &Request, sending: &Sending, context: &Context, message_id: &str) -> Result<Composed> {
    let now = context.session.clock.now();
    match &request.content {
        Content::Compose(content) => compose::compose(content, sending, now, message_id),
        Content::Raw(raw) => compose::accept_raw(raw, request.envelope.as_ref(), sending, now, message_id),
    }
}

/// RFC 3834 section 5, on the final bytes.
fn is_automatic(message: &Composed) -> bool {
    let (fields, _) = wire::fields(&message.raw);
    let value = fields.iter().find(|field| field.name.eq_ignore_ascii_case("Auto-Submitted")).and_then(|field| {
        let text = std::str::from_utf8(&message.raw[field.range.clone()]).ok()?;
        Some(text.split_once(':')?.1.trim().to_owned())
    });
    value.is_some_and(|value| !value.eq_ignore_ascii_case("no"))
}

fn too_fast(wait: Duration) -> Error {
    Error::new(Kind::Throttled, "This mailbox, or its app registration, has sent as much as it may within one minute.")
        .remedy("It is sent a little later; advanced › Messages per Minute says how many are.")
        .retry_after(wait)
}

/// What became of a message whose end was not known.
fn resolved(context: &Context, earlier: Value, claim: &Claim, deadline: Deadline) -> Value {
    let message_id = earlier["message_id"].as_str().filter(|_| earlier["outcome"] == "unknown");
    let Some(message_id) = message_id else { return earlier };
    let mut answer = looked_up(context, message_id, deadline);
    if answer["outcome"] == "sent" {
        claim.store(context, &answer.to_string());
    } else {
        // The server's words of then say more than that nothing was found.
        answer["error"] = earlier["error"].clone();
    }
    answer
}

/// Looks for a Message-ID in the sent folder. Found, it was sent; not found, it may still come to lie there, and not every
/// server keeps a copy: that is no proof of anything.
fn looked_up(context: &Context, message_id: &str, deadline: Deadline) -> Value {
    let (found, words) = match context.session.find_sent(message_id, deadline) {
        Ok(Found { folder, server, is_there: true }) => {
            let reply = format!("found in the folder {folder}");
            let mut answer = describe(&Outcome::Sent { reply, server, refused: Vec::new() }, message_id);
            answer["sent_folder"] = json!({"found": true, "folder": folder});
            return answer;
        }
        Ok(Found { folder, .. }) => (json!(false), json!(format!("It does not lie in the folder {folder}."))),
        Err(error) => (Value::Null, json!(error.to_string())),
    };
    let error = Error::new(Kind::Transient, "Whether this message was sent is not known.")
        .remedy("Ask again in a few minutes; or send it again under the same key with \"resend_unknown\": true.");
    let mut answer = describe(&Outcome::Unknown(error), message_id);
    answer["sent_folder"] = json!({"found": found, "why": words});
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_ends_early_says_how_far_it_came_and_comes_no_further() {
        let late = || Error::new(Kind::Transient, "late");
        let progress = Progress::default();
        assert_eq!(progress.answer_to(late()).unwrap_err().message(), "late");
        progress.offer("<1@b.test>").unwrap_err();
        let progress = Progress::default();
        progress.offer("<1@b.test>").unwrap();
        let unknown: Value = serde_json::from_str(&progress.answer_to(late()).unwrap()).unwrap();
        assert_eq!((&unknown["outcome"], &unknown["message_id"]), (&json!("unknown"), &json!("<1@b.test>")));
        assert_eq!(unknown["error"]["chain"][0], "late");
        progress.is(Stage::Answered("{}".into()));
        assert_eq!(progress.answer_to(late()).unwrap(), "{}");
    }
}
