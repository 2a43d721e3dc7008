//! Sending in two steps: until SendItem is written nothing can have gone out; after it, a lost answer is `unknown`, and the
//! Message-ID is looked for in Sent Items.

use std::{borrow::Cow, time::Instant};

use super::{
    Mailbox,
    client::{Client, Failure},
    create_item, delete_item, send_item,
};
use crate::{
    clock::Deadline,
    error::{Error, Kind},
    limits, remedies, seam,
    transport::{Envelope, Offer, Outbox, Outcome, Proof, bcc::with_bcc},
};

pub struct EwsOutbox {
    mailbox: Mailbox,
    opened: Instant,
    lost: bool,
}

impl EwsOutbox {
    pub fn new(mailbox: Mailbox) -> Self {
        Self { mailbox, opened: seam::instant(), lost: false }
    }

    fn nothing_sent(&mut self, failure: Failure) -> Outcome {
        // Kept from an earlier message, the token may have ended since: worth another connection at once.
        self.lost = matches!(failure, Failure::Unauthorized(_));
        // Without a ResponseCode or a 4xx something before EWS spoke, and not of this message.
        let of_message = matches!(&failure, Failure::Code(..))
            || status(&failure).is_some_and(|status| (400..500).contains(&status));
        let error = failure.into_error();
        match error.kind() {
            Kind::Transient | Kind::Throttled => Outcome::Retry { after: error.wait(), error },
            Kind::ServerMisbehaved if !of_message => Outcome::Retry { after: None, error },
            _ => Outcome::Rejected(error),
        }
    }
}

/// Was nothing accepted for sure? Exchange said no, or the request never left. A transient error, and a 5xx, may come from
/// something that lost the answer, and no answer says nothing.
fn is_no(failure: &Failure) -> bool {
    match failure {
        Failure::Unauthorized(_) => true,
        // The draft was changed meanwhile, by a rule or a virus scanner.
        failure if failure.is(&["ErrorInvalidChangeKey", "ErrorIrresolvableConflict", "ErrorStaleObject"]) => true,
        Failure::Code(code, error) => match remedies::by_ews(code) {
            Some(row) => row.kind() != Kind::Transient,
            None => !error.is_transient(),
        },
        Failure::Other(error) => {
            let status = status(failure);
            // A redirect to a page that says sorry comes of an error in the middle; to any other page, of a wrong URL.
            error.is_unwritten()
                || status.is_some_and(|status| (400..500).contains(&status) && status != 408)
                || status.is_some_and(|status| (300..400).contains(&status)) && error.kind() == Kind::Settings
        }
    }
}

/// Of an answer without a ResponseCode.
fn status(failure: &Failure) -> Option<u16> {
    let Failure::Other(error) = failure else { return None };
    error.status().filter(|_| error.code().is_none())
}

/// IIS answers 404 (404.13) to a request larger than it takes, others 405 or 413, and the URL was good a moment ago.
fn too_large(failure: Failure) -> Failure {
    match failure {
        ref other @ Failure::Other(ref error) if matches!(status(other), Some(404 | 405 | 413)) => {
            let code = status(other).unwrap_or_default();
            let said = Error::new(Kind::TooLarge, "The Exchange server takes no request as large as this message.");
            let said =
                said.remedy("Send fewer or smaller attachments, or raise the limit of EWS (maxAllowedContentLength).");
            Failure::Other(said.provider_code(format!("HTTP {code}")).with_status(code).source_error(error.clone()))
        }
        other => other,
    }
}

/// A draft of ours that stays behind does no harm, so nothing is done about a failure.
fn discard(client: &Client, draft: &create_item::Draft, deadline: Deadline) {
    let _ = delete_item::run(client, &[&draft.id], delete_item::How::ForGood, deadline);
}

/// Seen with gromox 3.10, whether Bcc comes in the MIME or as BccRecipients.
const SHOWS_BCC: &str =
    "This server (gromox) shows the recipients in Bcc to everybody, so that no message with Bcc is sent over it.";

impl Outbox for EwsOutbox {
    fn proof(&self) -> Proof {
        self.mailbox.proof.clone()
    }

    fn send(&mut self, envelope: &Envelope, raw: &[u8], deadline: Deadline, offer: Offer<'_>) -> Outcome {
        self.lost = false;
        let raw = match with_bcc(envelope, raw, "Exchange") {
            Ok(raw) => raw,
            Err(error) => return Outcome::Rejected(error),
        };
        let client = &self.mailbox.client;
        let draft = match create_item::save(client, &raw, deadline) {
            Ok(draft) => draft,
            Err(failure) => return self.nothing_sent(too_large(failure)),
        };
        // Known from the first answer on, and so at the latest from that to CreateItem.
        if matches!(raw, Cow::Owned(_)) && client.shows_bcc() {
            discard(client, &draft, deadline);
            return Outcome::Rejected(
                Error::new(Kind::Unsupported, SHOWS_BCC)
                    .remedy("Send to them in a message of their own, or choose SMTP for outgoing mail."),
            );
        }
        if let Err(error) = offer() {
            discard(client, &draft, deadline);
            return Outcome::Retry { error, after: None };
        }
        match send_item::send(client, &draft, deadline) {
            Ok(()) => Outcome::Sent {
                reply: "SendItem NoError".to_owned(),
                server: client.host().to_owned(),
                refused: Vec::new(),
            },
            Err(failure) if is_no(&failure) => {
                discard(client, &draft, deadline);
                self.nothing_sent(failure)
            }
            Err(failure) => Outcome::Unknown(failure.into_error()),
        }
    }

    /// Requests stand alone, but the token grows old.
    fn is_fresh(&mut self) -> bool {
        seam::instant().saturating_duration_since(self.opened) < limits::EWS_IDLE_KEEP
    }

    fn caution(&self) -> Option<&'static str> {
        self.mailbox.client.shows_bcc().then_some(SHOWS_BCC)
    }

    fn lost(&self) -> bool {
        self.lost
    }
}
