//! What negative replies mean, and whose move it is.
//!
//! The order of what is believed: a row of the table (`remedies.json`: reply code, enhanced code, a vendor's words), then
//! the enhanced code (RFC 3463), which says what is wrong, then the basic code (RFC 5321 section 4.2.3), which says only
//! whether it passes. What passes is a `retry`, whatever the code: providers say 5yz about limits of an hour or a day.

use lettre::Address;

use super::reply::Reply;
use crate::{
    error::{Error, Kind, Who},
    limits,
    remedies::{self, Enhanced},
    transport::Outcome,
};

/// Where in the dialogue a reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Mail,
    Rcpt,
    Data,
    Content,
    End,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Content => "the content of the message",
            Self::End => "the end of the message",
        }
    }
}

/// May the same be asked again, without anybody doing anything?
pub(super) fn passes(reply: &Reply, step: Step) -> bool {
    // RFC 5321 section 4.5.3.1.10: 552 to RCPT means "too many recipients" of old, and counts as 452; the enhanced codes
    // for a full mailbox and for a size say that it is not that.
    let too_many = step == Step::Rcpt
        && reply.code() == 552
        && reply.enhanced().is_none_or(|Enhanced { subject, detail, .. }| (subject, detail) == (5, 3));
    match remedies::by_smtp(&reply.text()) {
        _ if reply.is_transient() || too_many => true,
        Some(row) => matches!(row.kind(), Kind::Throttled | Kind::Transient),
        None => false,
    }
}

/// A reply that passes: too much at once, or just not now.
pub(super) fn transient(reply: &Reply, host: &str) -> Error {
    let row = remedies::by_smtp(&reply.text());
    let error = match row.filter(|row| matches!(row.kind(), Kind::Throttled | Kind::Transient)) {
        Some(row) => row.error(format!("{host}: {}", row.what(host).unwrap_or_default())),
        None if matches!(reply.code(), 421 | 432) => {
            Error::new(Kind::Throttled, format!("{host} asks to send more slowly."))
                .remedy("It is tried again later; if it keeps happening, send less at a time from this mailbox.")
        }
        None => match reply.enhanced().map(|code| (code.subject, code.detail)) {
            Some((2, 2)) => Error::new(Kind::Transient, format!("{host} finds a mailbox full."))
                .remedy("It is tried again later; whoever owns the mailbox makes room in it."),
            _ => Error::new(Kind::Transient, format!("{host} cannot do it right now."))
                .remedy("It is tried again later."),
        },
    };
    let usual = (error.kind() == Kind::Throttled).then_some(limits::SMTP_THROTTLE_WAIT);
    match reply.retry_after().or(error.wait()).or(usual) {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

/// The answer to nothing that was asked: lines are missing or too many, so no line belongs to any command any more.
pub(super) fn out_of_step(reply: &Reply, command: &str, host: &str) -> Error {
    Error::new(Kind::ServerMisbehaved, format!("{host} gave an answer to {command} that belongs to something else."))
        .remedy("It is tried again over a new connection; if it keeps happening, report it to the server's operator.")
        .provider_code(reply.text())
}

/// The outcome when `step` was refused before anything was accepted. `whom`: the recipients that it is about.
pub(super) fn outcome(reply: &Reply, step: Step, host: &str, whom: &[&Address]) -> Outcome {
    if reply.code() < 400 {
        return Outcome::Retry { error: out_of_step(reply, step.name(), host), after: None };
    }
    let error = if passes(reply, step) { transient(reply, host) } else { refused(reply, step, host) };
    let error = naming(error, whom).provider_code(reply.text());
    match error.is_transient() {
        true => Outcome::Retry { after: error.wait(), error },
        false => Outcome::Rejected(error),
    }
}

/// A reply whose code or text names the cause.
pub(super) fn known(reply: &Reply, host: &str) -> Option<Error> {
    let remedy = remedies::by_smtp(&reply.text())?;
    Some(remedy.error(format!("{host}: {}", remedy.what(host).unwrap_or_default())))
}

fn refused(reply: &Reply, step: Step, host: &str) -> Error {
    if let Some(error) = known(reply, host) {
        return error;
    }
    let too_large = || {
        Error::new(Kind::TooLarge, format!("{host} found the message too large."))
            .remedy("Send fewer or smaller attachments.")
    };
    let to = step == Step::Rcpt;
    // RFC 3463 section 3; the registry of enhanced status codes (RFC 5248).
    match reply.enhanced().map(|code| (code.subject, code.detail)) {
        Some((1, 7 | 8)) => Error::new(Kind::Refused, format!("{host} does not take this sender's address."))
            .remedy("Check the From address."),
        Some((1, _)) => Error::new(Kind::Refused, format!("{host} does not know a recipient's address."))
            .remedy("Check the recipient's address."),
        Some((2, 1)) if to => Error::new(Kind::Refused, format!("{host} says that a recipient's mailbox is disabled."))
            .remedy("Reach the recipient another way, or ask for another address."),
        Some((2, 1)) => Error::new(Kind::AdminRequired, format!("{host} says that the mailbox is disabled."))
            .remedy("The tenant administrator enables the mailbox."),
        Some((2, 2)) if to => Error::new(Kind::Refused, format!("{host} says that a recipient's mailbox is full."))
            .remedy("Nothing has to be changed here: send it again when the recipient has made room.")
            .who(Who::Nobody),
        Some((2, 2)) => Error::new(Kind::AdminRequired, format!("{host} says that the mailbox is full."))
            .remedy("The mailbox owner makes room in the mailbox, in Sent Items above all.")
            .who(Who::MailboxOwner),
        Some((2, 3) | (3, 4) | (7, 16)) => too_large(),
        Some((5, 3)) => Error::new(Kind::Refused, format!("{host} takes no message to so many recipients."))
            .remedy("Send it to fewer recipients at a time."),
        Some((7, 13)) => Error::new(Kind::AdminRequired, format!("{host} says that the account is disabled."))
            .remedy("The tenant administrator enables the account."),
        Some((7, 10 | 11)) => Error::new(Kind::Unsupported, format!("{host} asks for another kind of encryption."))
            .remedy("Check protocol and port."),
        // "The message is too large" of before RFC 3463. 523 means encryption where it has an enhanced code.
        None if reply.code() == 552 || reply.code() == 523 && reply.says("size") => too_large(),
        None if reply.code() == 525 => {
            Error::new(Kind::AdminRequired, format!("{host} says that the account is disabled."))
                .remedy("The tenant administrator enables the account.")
        }
        _ if to => Error::new(Kind::Refused, format!("{host} takes no mail for a recipient."))
            .remedy("Check the recipient's address."),
        _ => Error::new(Kind::Refused, format!("{host} refused the message at {}.", step.name()))
            .remedy("The server's own words say why; its operator can explain them."),
    }
}

/// With whom it is about.
fn naming(error: Error, whom: &[&Address]) -> Error {
    if whom.is_empty() {
        return error;
    }
    let mut names =
        whom.iter().take(limits::RECIPIENTS_NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(more) = whom.len().checked_sub(limits::RECIPIENTS_NAMED_MAX).filter(|&more| more > 0) {
        names.push_str(&format!(" and {more} more"));
    }
    let message = format!("{} Recipient: {names}.", error.message());
    error.saying(message)
}
