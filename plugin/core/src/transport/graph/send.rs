//! Sending, in two steps or in one.
//!
//! | granted | how | a lost answer |
//! |---|---|---|
//! | Mail.ReadWrite, Mail.Send | the message becomes a draft, the draft is sent | before the second step `retry`, after it `unknown` |
//! | Mail.Send alone | `sendMail`, up to `limits::GRAPH_MIME_MAX` | `unknown` from the beginning |
//!
//! What Graph lets us do decides, not what the scopes say: an application's are not known here. `unknown` is looked up by
//! Message-ID in Sent Items, which Mail.Send alone does not allow.

use std::time::Instant;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    Mailbox,
    client::{Client, Failure, segment},
    draft,
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    limits, seam,
    transport::{Envelope, Offer, Outbox, Outcome, Proof, bcc::with_bcc},
};

pub struct GraphOutbox {
    mailbox: Mailbox,
    /// Drafts are refused: Mail.Send is all that was granted.
    one_step: bool,
    opened: Instant,
    lost: bool,
}

impl GraphOutbox {
    pub fn new(mailbox: Mailbox, one_step: bool) -> Self {
        Self { mailbox, one_step, opened: seam::instant(), lost: false }
    }

    fn nothing_sent(&mut self, failure: Failure) -> Outcome {
        // Kept from an earlier message, the token may have ended since: worth another connection at once.
        self.lost = matches!(failure, Failure::Unauthorized(_));
        let error = match failure {
            // Routing, a mailbox that moves, a draft that something else took away: nothing of the message's. What it means
            // for reading does not matter here.
            Failure::NotFound(error) if error.kind() != Kind::AdminRequired => not_found(error),
            failure => failure.into_error(),
        };
        match error.kind() {
            Kind::Transient | Kind::Throttled => Outcome::Retry { after: error.wait(), error },
            // Without a 4xx something before Graph spoke, or Graph is unwell: not of this message.
            Kind::ServerMisbehaved if !has_refused(&error) => Outcome::Retry { after: None, error },
            _ => Outcome::Rejected(error),
        }
    }

    fn sent(&self, reply: String) -> Outcome {
        Outcome::Sent { reply, server: self.mailbox.client.host().to_owned(), refused: Vec::new() }
    }

    fn in_one_step(&mut self, raw: &[u8], deadline: Deadline, offer: Offer<'_>) -> Outcome {
        if raw.len() > limits::GRAPH_MIME_MAX {
            return Outcome::Rejected(
                Error::new(
                    Kind::TooLarge,
                    format!(
                        "Without the permission Mail.ReadWrite Microsoft Graph takes messages of up to {} bytes.",
                        limits::GRAPH_MIME_MAX
                    ),
                )
                .remedy("Grant Mail.ReadWrite, send fewer or smaller attachments, or choose SMTP for outgoing mail."),
            );
        }
        if let Err(error) = offer() {
            return Outcome::Retry { error, after: None };
        }
        match post(&self.mailbox.client, "/sendMail", mime(raw), deadline) {
            Ok(()) => self.sent("202 accepted".to_owned()),
            Err(failure) if is_no(&failure) => self.nothing_sent(failure),
            Err(failure) => Outcome::Unknown(failure.into_error()),
        }
    }

    fn send_draft(&mut self, id: &str, deadline: Deadline, offer: Offer<'_>) -> Outcome {
        if let Err(error) = offer() {
            draft::discard(&self.mailbox.client, id, deadline);
            return Outcome::Retry { error, after: None };
        }
        match post(&self.mailbox.client, &format!("/messages/{}/send", segment(id)), json_nothing(), deadline) {
            Ok(()) => self.sent(format!("202 accepted; immutable id {id}")),
            Err(failure) if is_no(&failure) => {
                draft::discard(&self.mailbox.client, id, deadline);
                self.nothing_sent(failure)
            }
            Err(failure) => Outcome::Unknown(failure.into_error()),
        }
    }
}

impl Outbox for GraphOutbox {
    fn proof(&self) -> Proof {
        self.mailbox.proof.clone()
    }

    fn send(&mut self, envelope: &Envelope, raw: &[u8], deadline: Deadline, offer: Offer<'_>) -> Outcome {
        self.lost = false;
        let raw = match with_bcc(envelope, raw, "Microsoft Graph") {
            Ok(raw) => raw,
            Err(error) => return Outcome::Rejected(error),
        };
        if self.one_step {
            return self.in_one_step(&raw, deadline, offer);
        }
        let made = if raw.len() <= limits::GRAPH_MIME_MAX {
            draft::of_mime(&self.mailbox.client, mime(&raw), deadline)
        } else {
            draft::rebuilt(&self.mailbox.client, &raw, deadline)
        };
        match made {
            Ok(id) => self.send_draft(&id, deadline, offer),
            Err(Failure::Refused(error)) if is_access(&error) => {
                self.one_step = true;
                self.in_one_step(&raw, deadline, offer)
            }
            Err(failure) => self.nothing_sent(failure),
        }
    }

    /// Requests stand alone, but the token grows old.
    fn is_fresh(&mut self) -> bool {
        seam::instant().saturating_duration_since(self.opened) < limits::GRAPH_IDLE_KEEP
    }

    fn lost(&self) -> bool {
        self.lost
    }
}

fn not_found(error: Error) -> Error {
    let said = Error::new(Kind::Transient, "Microsoft Graph did not find the mailbox or the draft at this moment.")
        .remedy("Nothing was sent, and it is tried again; if it keeps happening, check the Username.");
    match error.provider_code_text() {
        Some(code) => said.provider_code(code),
        None => said,
    }
    .source_error(error)
}

/// With the status Graph has taken the message over, whatever becomes of the body.
fn post(client: &Client, path: &str, body: super::client::Body, deadline: Deadline) -> Result<(), Failure> {
    client.call("POST", &client.url(path)?, Some(body), deadline, None).map(drop)
}

fn mime(raw: &[u8]) -> super::client::Body {
    ("text/plain", BASE64_STANDARD.encode(raw).into_bytes())
}

fn json_nothing() -> super::client::Body {
    ("application/json", Vec::new())
}

/// Was nothing accepted for sure? Graph said no, or the request never left. A 5xx may come from something in front of it
/// that lost the answer, and no answer says nothing.
pub(super) fn is_no(failure: &Failure) -> bool {
    match failure {
        Failure::Unauthorized(_) | Failure::NotFound(_) | Failure::Refused(_) => true,
        Failure::Resync(error) | Failure::Other(error) => {
            error.is_unwritten() || has_refused(error) && error.status() != Some(408)
        }
    }
}

/// A status of 4xx.
fn has_refused(error: &Error) -> bool {
    error.status().is_some_and(|status| (400..500).contains(&status))
}

/// A 403 for want of a permission; others say that the mailbox is full or may not send.
fn is_access(error: &Error) -> bool {
    match error.code() {
        Some(code) => {
            let code = code.to_ascii_lowercase();
            code.contains("accessdenied") || code.contains("requestdenied")
        }
        None => error.status() == Some(403),
    }
}

/// How many messages with this Message-ID lie in Sent Items, up to [`limits::SENT_COPIES_MAX`].
pub fn find(client: &Client, message_id: &str, deadline: Deadline) -> Result<usize> {
    let id = message_id.trim();
    if id.is_empty() || id.len() > limits::MESSAGE_ID_MAX || !id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::new(Kind::Misuse, "What is looked for is not a Message-ID."));
    }
    let filter = segment(&format!("internetMessageId eq '{}'", id.replace('\'', "''")));
    let most = limits::SENT_COPIES_MAX;
    let path = format!("/mailFolders/sentitems/messages?$select=id&$top={most}&$filter={filter}");
    let found = client.json("GET", &path, None, deadline).map_err(Failure::into_error)?;
    Ok(found["value"].as_array().map_or(0, Vec::len))
}
