//! Sending in two steps: until SendItem is written nothing can have gone out; after it, a lost answer is `unknown`, and the
//! Message-ID is looked for in Sent Items.

use std::time::Instant;

use super::{Mailbox, client::Failure, create_item, delete_item, send_item};
use crate::{
    clock::Deadline,
    error::Kind,
    limits, seam,
    transport::{Envelope, Outbox, Outcome, Proof, bcc::with_bcc},
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
        let error = failure.into_error();
        match error.kind() {
            Kind::Transient | Kind::Throttled => Outcome::Retry { after: error.wait(), error },
            _ => Outcome::Rejected(error),
        }
    }
}

/// Was nothing accepted for sure? Exchange said no, or the request never left. A transient error may come from something
/// that lost the answer, and no answer says nothing.
fn is_no(failure: &Failure) -> bool {
    match failure {
        Failure::Unauthorized(_) => true,
        Failure::Code(_, error) => error.kind() != Kind::Transient,
        Failure::Other(error) => error.is_unwritten() || matches!(error.kind(), Kind::Throttled | Kind::AdminRequired),
    }
}

impl Outbox for EwsOutbox {
    fn proof(&self) -> Proof {
        self.mailbox.proof.clone()
    }

    fn send(&mut self, envelope: &Envelope, raw: &[u8], deadline: Deadline) -> Outcome {
        self.lost = false;
        let raw = match with_bcc(envelope, raw, "Exchange") {
            Ok(raw) => raw,
            Err(error) => return Outcome::Rejected(error),
        };
        let client = &self.mailbox.client;
        let draft = match create_item::save(client, &raw, deadline) {
            Ok(draft) => draft,
            Err(failure) => return self.nothing_sent(failure),
        };
        match send_item::send(client, &draft, deadline) {
            Ok(()) => Outcome::Sent {
                reply: "SendItem NoError".to_owned(),
                server: client.host().to_owned(),
                refused: Vec::new(),
            },
            Err(failure) if is_no(&failure) => {
                // A draft of ours that stays behind does no harm, so nothing is done about a failure.
                let _ = delete_item::run(client, &[&draft.id], delete_item::How::ForGood, deadline);
                self.nothing_sent(failure)
            }
            Err(failure) => Outcome::Unknown(failure.into_error()),
        }
    }

    /// Requests stand alone, but the token grows old.
    fn is_fresh(&mut self) -> bool {
        seam::instant().saturating_duration_since(self.opened) < limits::EWS_IDLE_KEEP
    }

    fn lost(&self) -> bool {
        self.lost
    }
}
