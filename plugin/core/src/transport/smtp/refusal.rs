//! What negative replies mean, and whose move it is.

use std::time::Duration;

use super::reply::Reply;
use crate::{
    error::{Error, Kind},
    limits, remedies,
    transport::Outcome,
};

/// Replies whose code or text names the cause.
pub(super) fn known(reply: &Reply, host: &str) -> Option<Error> {
    let remedy = remedies::by_smtp(&reply.text())?;
    Some(remedy.error(format!("{host}: {}", remedy.what(host).unwrap_or_default())))
}

/// A 4yz reply: too much at once, or just not now.
pub(super) fn transient(reply: &Reply, host: &str) -> Error {
    let error = if is_throttling(reply) {
        Error::new(Kind::Throttled, format!("{host} asks to send more slowly."))
            .remedy("It is tried again later; if it keeps happening, send less at a time from this mailbox.")
    } else {
        Error::new(Kind::Transient, format!("{host} cannot do it right now.")).remedy("It is tried again later.")
    };
    match reply.retry_after().or_else(|| default_wait(reply)) {
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
        return Outcome::Retry { after: error.wait(), error };
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
