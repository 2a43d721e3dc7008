//! The walk of one message. From the moment it is offered to a server, whatever ends the call early (its deadline, a panic,
//! a store that hangs) is an outcome and no error: an error says that nothing was sent, and would be answered with another
//! try.
//!
//! | value | what it says |
//! |---|---|
//! | [`Claimed`] | nobody else sends under this idempotency key, and the Message-ID is known |
//! | [`Composed`] | the bytes and the envelope, checked |
//! | [`Allowed`] | neither the brake nor the rate holds it back; what a copy in the sent folder will prove is written down |
//! | [`Offered`] | the outcome; until the end of the content is about to be written nothing can have been taken |
//! | known | what the host is told, and what the next call under the key is told |
//!
//! An `idempotency_key` makes the call repeatable: a key whose message was sent gets the same answer again; a key whose
//! outcome is not known has its Message-ID looked for in the sent folder, and is sent again only when the host says
//! `resend_unknown`; a key of which nothing was accepted is tried again. Who comes while another call sends waits for it.
//! A key that was used for another message is refused.

use std::time::Duration;

use super::{
    super::{Context, plugin},
    automatic_limit::{self, Reserved},
    digest, evidence,
    idempotency::{Claim, Taken},
    outcome::describe,
    request::{Content, Request},
};
use crate::{
    error::{Error, Kind, Result},
    message::{compose, wire},
    settings::Sending,
    store::Table,
    transport::{Outbox, Outcome},
};

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
            return Ok(evidence::looked_up(context, message_id, request.deadline).to_string());
        }
        let call = Call { context, sending, request: &request };
        let claimed = match call.claim()? {
            Start::Claimed(claimed) => claimed,
            Start::Known(answer) => return Ok(answer),
        };
        let offered = call
            .compose(&claimed)
            .and_then(|composed| call.allow(&claimed, composed))
            .map(|allowed| self.offer(&call, allowed))
            .unwrap_or_else(Offered::ended);
        call.known(&claimed, offered)
    }

    pub fn adopt(&mut self, outbox: Box<dyn Outbox>) {
        self.outbox = Some(outbox);
    }

    pub fn disconnect(&mut self) {
        self.outbox = None;
    }

    fn offer(&mut self, call: &Call<'_>, allowed: Allowed) -> Offered {
        let Allowed { message, reserved, is_noted } = allowed;
        Offered { end: self.send(call, &message).map_err(Ended::Error), reserved, is_noted }
    }

    /// A connection that was kept and turns out unfit before anything was offered is replaced.
    fn send(&mut self, call: &Call<'_>, message: &compose::Composed) -> Result<Outcome> {
        let Call { context, request, .. } = call;
        let kept = self.outbox.take().and_then(|mut kept| kept.is_fresh().then_some(kept));
        let mut offer = |mut outbox: Box<dyn Outbox>| {
            let mut offered = || request.progress.offer(&message.message_id);
            let outcome = outbox.send(&message.envelope, &message.raw, request.deadline, &mut offered);
            let lost = matches!(outcome, Outcome::Retry { .. }) && outbox.lost();
            if !lost {
                self.outbox = Some(outbox);
            }
            (outcome, lost)
        };
        if let Some(kept) = kept {
            match offer(kept) {
                (_, true) => request.progress.is_nothing(),
                (outcome, false) => return Ok(outcome),
            }
            context.session.log.info(format_args!("The kept connection had ended; opening a new one."));
        }
        match context.session.open_outbox(request.deadline) {
            Ok(opened) => Ok(offer(opened).0),
            Err(error) if error.is_transient() => Ok(Outcome::Retry { error, after: None }),
            Err(error) => Err(error),
        }
    }
}

/// What all steps of one call look at.
struct Call<'a> {
    context: &'a Context,
    sending: &'a Sending,
    request: &'a Request,
}

enum Start {
    Claimed(Claimed),
    /// The key knows the answer already.
    Known(String),
}

struct Claimed {
    message_id: String,
    /// The host brought it along: others may have sent under it.
    is_given: bool,
    claim: Option<Claim>,
}

type Composed = compose::Composed;

struct Allowed {
    message: Composed,
    /// To be given back when nothing is accepted.
    reserved: Option<Reserved>,
    is_noted: bool,
}

struct Offered {
    end: Result<Outcome, Ended>,
    reserved: Option<Reserved>,
    is_noted: bool,
}

/// Why a step did not lead to the next. Nothing was offered.
enum Ended {
    Outcome(Outcome),
    Error(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Offered {
    fn ended(ended: Ended) -> Self {
        Self { end: Err(ended), reserved: None, is_noted: false }
    }
}

impl Call<'_> {
    /// The right to send, and under which Message-ID.
    fn claim(&self) -> Result<Start> {
        let Self { context, sending, request } = self;
        let given = match &request.content {
            Content::Raw(raw) => compose::given_id(raw),
            Content::Compose(_) => None,
        };
        let is_given = given.is_some();
        let message_id = match given {
            Some(id) => id,
            None => {
                let signer = context.shared.signing.signer(&*context.store)?;
                signer.message_id(&sending.from, request.request_id.as_deref())?
            }
        };
        let Some(key) = &request.idempotency_key else {
            return Ok(Start::Claimed(Claimed { message_id, is_given, claim: None }));
        };
        let digest = digest::keyed(context, sending, &request.digest)?;
        match Claim::take(context, key, &digest, &message_id, request.deadline)? {
            Taken::Mine(claim) => Ok(Start::Claimed(Claimed { message_id, is_given, claim: Some(claim) })),
            Taken::Earlier(earlier, mut claim) => {
                let answer = evidence::resolved(context, earlier, &claim, request.deadline);
                if !(request.resend_unknown && answer["outcome"] == "unknown") {
                    return Ok(Start::Known(answer.to_string()));
                }
                // Under the same Message-ID: whoever gets it twice can tell.
                let message_id = answer["message_id"].as_str().unwrap_or(&message_id).to_owned();
                claim.begin_again(context, &message_id, request.deadline)?;
                Ok(Start::Claimed(Claimed { message_id, is_given, claim: Some(claim) }))
            }
        }
    }

    fn compose(&self, claimed: &Claimed) -> Result<Composed, Ended> {
        let now = self.context.session.clock.now();
        let id = &claimed.message_id;
        Ok(match &self.request.content {
            Content::Compose(content) => compose::compose(content, self.sending, now, id)?,
            Content::Raw(raw) => compose::accept_raw(raw, self.request.envelope.as_ref(), self.sending, now, id)?,
        })
    }

    /// Unless the rate or the brake forbids it.
    fn allow(&self, claimed: &Claimed, message: Composed) -> Result<Allowed, Ended> {
        let Self { context, sending, request } = self;
        let mut reserved = None;
        if is_automatic(&message) {
            let recipients = message.envelope.to.iter().map(AsRef::<str>::as_ref);
            reserved = match automatic_limit::reserve(context, recipients, sending.automatic_mails_per_day) {
                Ok(reserved) => Some(reserved),
                Err(error) if error.kind() == Kind::Refused => return Err(Ended::Outcome(Outcome::Rejected(error))),
                Err(error) => return Err(error.into()),
            };
        }
        let rate = context.shared.rates.take(&context.session.account, context.session.clock.now());
        let noted = match (rate, &claimed.claim) {
            (Err(wait), _) => Err(Ended::Outcome(Outcome::Retry { error: too_fast(wait), after: Some(wait) })),
            (Ok(()), Some(claim)) if claimed.is_given => {
                evidence::note(context, &claimed.message_id, claim, request.deadline)
                    .map(|()| true)
                    .map_err(Ended::Error)
            }
            (Ok(()), _) => Ok(false),
        };
        match noted {
            Ok(is_noted) => Ok(Allowed { message, reserved, is_noted }),
            Err(ended) => {
                if let Some(reserved) = reserved {
                    reserved.give_back(context);
                }
                Err(ended)
            }
        }
    }

    /// Says it to the caller first: it has its answer, however long the store takes now.
    fn known(&self, claimed: &Claimed, offered: Offered) -> Result<String> {
        let Self { context, request, .. } = self;
        let Offered { end, reserved, is_noted } = offered;
        let end = match end {
            Ok(outcome) | Err(Ended::Outcome(outcome)) => Ok(outcome),
            Err(Ended::Error(error)) => Err(error),
        };
        let is_accepted = matches!(end, Ok(Outcome::Sent { .. } | Outcome::Unknown(_)));
        let answer = end.map(|outcome| describe(&outcome, &claimed.message_id));
        if let Ok(answer) = &answer {
            request.progress.is_answered(&answer.to_string());
        }
        if let Some(reserved) = reserved {
            if is_accepted {
                context.shared.expiry.sweep(context, Table::Brake);
            } else {
                reserved.give_back(context);
            }
        }
        if let Some(claim) = &claimed.claim {
            if is_noted && !is_accepted {
                evidence::withdraw(context, &claimed.message_id, claim);
            }
            match &answer {
                Ok(answer) if is_accepted => claim.store(context, answer),
                _ => claim.release(context),
            }
            context.shared.expiry.sweep(context, Table::Sent);
        }
        answer.map(|answer| answer.to_string())
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
