//! What negative replies mean, and whose move it is.

use std::time::Duration;

use super::reply::Reply;
use crate::{
    error::{Error, Kind},
    limits,
    transport::Outcome,
};

/// Replies whose text names the cause. Source: Microsoft's "Fix issues with printers, scanners, and LOB applications
/// that send email", "Exchange Online limits", and what the servers were seen to answer.
pub(super) fn known(reply: &Reply, host: &str) -> Option<Error> {
    let (kind, sentence, remedy) = if reply.says("SmtpClientAuthentication is disabled") {
        (
            Kind::AdminRequired,
            "Sending by SMTP is switched off for this mailbox or its organisation.",
            "An Exchange administrator must set SmtpClientAuthenticationDisabled to $false (Set-CASMailbox for the mailbox, Set-TransportConfig for the organisation); this is needed for OAuth too.",
        )
    } else if reply.says("5.7.139") {
        (
            Kind::AdminRequired,
            "The organisation's security policy refused the sign-in.",
            "An administrator must allow this application and account in Conditional Access or security defaults (Entra sign-in log names the policy).",
        )
    } else if reply.says("5.7.57") {
        (
            Kind::Refused,
            "The server does not take mail from this session.",
            "Check that the mailbox has a licence and that SMTP sending is switched on for it.",
        )
    } else if reply.says("5.7.30") {
        (
            Kind::AdminRequired,
            "The server takes no passwords any more, and took this session for one.",
            "An administrator must allow OAuth for SMTP (permission SMTP.Send or SMTP.SendAsApp).",
        )
    } else if reply.says("SendAsDenied") || reply.says("5.7.60") || reply.says("not owned by user") {
        (
            Kind::Refused,
            "The account may not send with this From address.",
            "Set the From address to the account's own, or grant it Send As on the other mailbox.",
        )
    } else if reply.says("QuotaExceeded") {
        (
            Kind::AdminRequired,
            "The sending mailbox is full (the server keeps a copy of what is sent).",
            "Make room in the mailbox, Sent Items above all.",
        )
    } else {
        return None;
    };
    Some(Error::new(kind, format!("{host}: {sentence}")).remedy(remedy))
}

/// A 4yz reply: too much at once, or just not now.
pub(super) fn transient(reply: &Reply, host: &str) -> Error {
    let error = if is_throttling(reply) {
        Error::new(Kind::Throttled, format!("{host} asks to send more slowly."))
            .remedy("It is tried again later; if it keeps happening, send less at a time from this mailbox.")
    } else {
        Error::new(Kind::Transient, format!("{host} cannot do it right now.")).remedy("It is tried again later.")
    };
    match reply.retry_after() {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

/// The outcome when `step` was refused before anything was accepted.
pub(super) fn outcome(reply: &Reply, step: &str, host: &str) -> Outcome {
    let text = reply.text();
    // Exchange Online says these with 554 though they pass: 30 messages a minute, 3 sessions a mailbox.
    let passes = reply.says("sender thread limit") || reply.says("concurrent connections limit");
    if reply.is_transient() || passes {
        let error = transient(reply, host).provider_code(text);
        return Outcome::Retry { error, after: reply.retry_after().or_else(|| default_wait(reply)) };
    }
    if let Some(error) = known(reply, host) {
        return Outcome::Rejected(error.provider_code(text));
    }
    let error = match reply.code() {
        552 | 523 => Error::new(Kind::TooLarge, format!("{host} found the message too large."))
            .remedy("Send fewer or smaller attachments."),
        code if code < 500 => {
            Error::new(Kind::ServerMisbehaved, format!("{host} gave an unexpected answer to {step}."))
        }
        _ if reply.says("5.3.4") => Error::new(Kind::TooLarge, format!("{host} found the message too large."))
            .remedy("Send fewer or smaller attachments."),
        _ if step == "RCPT" => Error::new(Kind::Refused, format!("{host} takes no mail for the recipient."))
            .remedy("Check the recipient's address."),
        _ => Error::new(Kind::Refused, format!("{host} refused the message at {step}."))
            .remedy("The server's own words say why; its operator can explain them."),
    };
    Outcome::Rejected(error.provider_code(text))
}

fn is_throttling(reply: &Reply) -> bool {
    matches!(reply.code(), 421 | 432)
        || ["limit exceeded", "thread limit", "too many", "rate limit", "throttl"].iter().any(|text| reply.says(text))
}

fn default_wait(reply: &Reply) -> Option<Duration> {
    is_throttling(reply).then_some(limits::SMTP_THROTTLE_WAIT)
}
