//! sendMail and send. Who receives a message stands in its header; there is no envelope.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::{
    Answer, Refusal,
    access::{Caller, Right, get, locate, no_item},
    draft::{Draft, too_large},
    is_mime, json_body, refuse,
};
use crate::{
    config::DOMAIN,
    http::Response,
    mailbox::mime::{addresses, parse, without_bcc},
    oauth,
};

/// <https://learn.microsoft.com/graph/api/user-sendmail>: in JSON or MIME.
pub fn send_mail(caller: &Caller<'_>) -> Answer {
    caller.may(Right::Send)?;
    let (raw, keeps) = match is_mime(caller.request) {
        true => (decoded(&caller.request.body)?, true),
        false => {
            let body = json_body(caller.request)?;
            let message = ["message", "Message"].into_iter().find_map(|name| body.get(name));
            let message = message.ok_or_else(|| refuse(400, "ErrorInvalidRequest", "message is missing."))?;
            let keeps = ["saveToSentItems", "SaveToSentItems"].iter().all(|name| body[*name] != false);
            (Draft::from_json(message)?.mime(), keeps)
        }
    };
    let sent = submit(caller, &raw)?;
    if keeps {
        let seen = BTreeSet::from(["\\Seen".to_owned()]);
        caller
            .with(|mailbox| mailbox.append("Sent Items", sent, seen, OffsetDateTime::now_utc()).ok_or_else(no_item))?;
    }
    Ok(Response::new(202))
}

/// <https://learn.microsoft.com/graph/api/message-send>: the message keeps its immutable id in Sent Items.
pub fn send_draft(caller: &Caller<'_>, id: &str) -> Answer {
    caller.may(Right::Send)?;
    let (folder, uid, raw) = caller.with(|mailbox| {
        let (folder, uid) = locate(mailbox, id)?;
        let raw = get(mailbox, &folder, uid)?.1.raw.clone();
        // It is no draft from here on, so that it cannot be sent twice.
        let message = mailbox.change(&folder, uid).ok_or_else(no_item)?;
        match message.flags.remove("\\Draft") {
            true => Ok((folder, uid, raw)),
            false => Err(refuse(400, "ErrorInvalidOperation", "Only a draft can be sent.")),
        }
    })?;
    let sent = submit(caller, &raw);
    caller.with(|mailbox| {
        let message = mailbox.change(&folder, uid).ok_or_else(no_item)?;
        match sent {
            Err(refusal) => {
                message.flags.insert("\\Draft".into());
                Err(refusal)
            }
            Ok(sent) => {
                message.raw = sent.into();
                message.received = OffsetDateTime::now_utc();
                message.flags.insert("\\Seen".into());
                mailbox.move_to(&folder, uid, "Sent Items").ok_or_else(no_item)
            }
        }
    })?;
    Ok(Response::new(202))
}

/// MIME out of base64, in lines or not.
pub fn decoded(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let compact: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let raw = STANDARD.decode(compact);
    raw.map_err(|_| refuse(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content."))
}

/// Delivers to all of To, Cc and Bcc, without the field Bcc; what belongs into Sent Items comes back.
fn submit(caller: &Caller<'_>, raw: &[u8]) -> Result<Vec<u8>, Refusal> {
    let wrong = || refuse(400, "ErrorInvalidRecipients", "At least one recipient is not valid.");
    let parsed = parse(raw).ok_or_else(|| refuse(400, "ErrorMimeContentInvalid", "The MIME content is invalid."))?;
    let named = addresses(parsed.from()).into_iter().next();
    let from = named.clone().unwrap_or_else(|| caller.mailbox.clone());
    if !caller.may_send_as(&from) {
        let text = "The user account which was used to submit this request does not have the right to send mail on \
                    behalf of the specified sending account.";
        return Err(refuse(403, "ErrorSendAsDenied", text));
    }
    let recipients: BTreeSet<String> = [parsed.to(), parsed.cc(), parsed.bcc()]
        .into_iter()
        .flat_map(addresses)
        .map(|address| address.to_lowercase())
        .collect();
    if recipients.is_empty() || recipients.iter().any(|address| !address.contains('@')) {
        return Err(wrong());
    }
    let mut whole = String::new();
    if named.is_none() {
        whole.push_str(&format!("From: <{from}>\r\n"));
    }
    if parsed.date().is_none() {
        let now = caller.state.now().format(&Rfc2822).unwrap_or_default();
        whole.push_str(&format!("Date: {now}\r\n"));
    }
    if parsed.message_id().is_none() {
        whole.push_str(&format!("Message-ID: <{}@{DOMAIN}>\r\n", oauth::random()));
    }
    let whole = [whole.as_bytes(), raw].concat();
    if whole.len() > caller.state.config.message_size_max {
        return Err(too_large());
    }
    let delivered = without_bcc(&whole);
    for recipient in recipients {
        caller.state.mail.deliver(&from, &recipient, &delivered);
    }
    Ok(whole)
}
