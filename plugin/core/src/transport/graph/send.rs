//! Sending: the MIME becomes a draft, and the draft is sent. Until the second request is written nothing can have gone
//! out; after it, a lost answer is `unknown`, and the Message-ID is looked for in Sent Items.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    Mailbox,
    client::{Client, Failure, misbehaved, segment},
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    limits,
    transport::{Envelope, Outbox, Outcome, Proof, bcc::with_bcc},
};

pub struct GraphOutbox(pub Mailbox);

impl Outbox for GraphOutbox {
    fn proof(&self) -> Proof {
        self.0.proof.clone()
    }

    fn send(&mut self, envelope: &Envelope, raw: &[u8], deadline: Deadline) -> Outcome {
        let client = &self.0.client;
        if envelope.from.is_none() {
            return Outcome::Rejected(Error::new(Kind::Unsupported, "Microsoft Graph cannot send without a sender."));
        }
        let raw = with_bcc(envelope, raw);
        if raw.len() > limits::GRAPH_MIME_MAX {
            return Outcome::Rejected(
                Error::new(
                    Kind::TooLarge,
                    format!("Microsoft Graph takes messages of up to {} bytes.", limits::GRAPH_MIME_MAX),
                )
                .remedy("Send fewer or smaller attachments, or choose SMTP for outgoing mail."),
            );
        }
        let draft = match draft(client, &raw, deadline) {
            Ok(id) => id,
            Err(failure) => return nothing_sent(failure),
        };
        let sent = client.url(&format!("/messages/{}/send", segment(&draft))).map_err(Failure::Other).and_then(|url| {
            client.call("POST", &url, Some(("application/json", Vec::new())), deadline, &mut |_| Ok(()))
        });
        match sent {
            Ok(()) => Outcome::Sent {
                reply: format!("202 accepted; immutable id {draft}"),
                server: client.host().to_owned(),
                refused: Vec::new(),
            },
            Err(failure) if refused(&failure) => {
                discard(client, &draft, deadline);
                nothing_sent(failure)
            }
            Err(failure) => Outcome::Unknown(failure.into_error()),
        }
    }

    fn is_fresh(&mut self) -> bool {
        // Requests stand alone; but the token of this connection grows old.
        false
    }
}

fn draft(client: &Client, raw: &[u8], deadline: Deadline) -> Result<String, Failure> {
    let body = BASE64_STANDARD.encode(raw).into_bytes();
    let mut answer = Vec::new();
    client.call("POST", &client.url("/messages")?, Some(("text/plain", body)), deadline, &mut |part| {
        if answer.len() + part.len() > limits::GRAPH_PAGE_BYTES_MAX {
            return Err(misbehaved("sent an answer that is larger than any should be"));
        }
        answer.extend_from_slice(part);
        Ok(())
    })?;
    let answer: serde_json::Value =
        serde_json::from_slice(&answer).map_err(|_| misbehaved("sent an answer that is no JSON"))?;
    let id = super::id_of(&answer).ok_or_else(|| misbehaved("made a draft without an id"))?;
    Ok(id.to_owned())
}

/// A draft of ours that stays behind does no harm, so nothing is done about a failure.
fn discard(client: &Client, draft: &str, deadline: Deadline) {
    let _ = client.json("DELETE", &format!("/messages/{}", segment(draft)), None, deadline);
}

/// Did Graph say no? A 5xx may come from something in front of it that lost the answer, and no answer says nothing.
fn refused(failure: &Failure) -> bool {
    match failure {
        Failure::Unauthorized(_) | Failure::NotFound(_) | Failure::Refused(_) => true,
        Failure::Resync(error) | Failure::Other(error) => error
            .provider_code_text()
            .is_some_and(|code| code.trim_start_matches("HTTP ").starts_with('4') && !code.contains("408")),
    }
}

fn nothing_sent(failure: Failure) -> Outcome {
    let error = failure.into_error();
    match error.kind() {
        Kind::Transient | Kind::Throttled => Outcome::Retry { after: error.wait(), error },
        _ => Outcome::Rejected(error),
    }
}

/// Does a message with this Message-ID lie in Sent Items?
pub fn find(client: &Client, message_id: &str, deadline: Deadline) -> Result<bool> {
    let id = message_id.trim();
    if id.is_empty() || id.len() > limits::MESSAGE_ID_MAX || !id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::new(Kind::Misuse, "What is looked for is not a Message-ID."));
    }
    let filter = segment(&format!("internetMessageId eq '{}'", id.replace('\'', "''")));
    let found = client
        .json("GET", &format!("/mailFolders/sentitems/messages?$select=id&$top=1&$filter={filter}"), None, deadline)
        .map_err(Failure::into_error)?;
    Ok(found["value"].as_array().is_some_and(|found| !found.is_empty()))
}
