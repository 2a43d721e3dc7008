//! What no person wrote: reports, bounces of every make, automatic replies. Each is told with what shows it.

use super::{
    evidence::{Evidence, Finding},
    facts::Facts,
};

/// The first thing that shows that a machine wrote it, the surest first.
pub(super) fn finding(facts: &Facts) -> Finding {
    report(facts)
        .or_else(|| bounce(facts))
        .or_else(|| auto_submitted(facts))
        .or_else(|| null_sender(facts))
        .or_else(|| precedence(facts))
        .or_else(|| responder(facts))
}

/// RFC 6522: bounces (RFC 3464), receipts (RFC 8098), abuse reports (RFC 5965).
fn report(facts: &Facts) -> Finding {
    let report = facts.report.as_ref()?;
    let reason = match report.report_type.as_deref() {
        Some("delivery-status") => "The message is a delivery report (a bounce or a delay).",
        Some("disposition-notification") => "The message is a read receipt.",
        _ => "The message is a report made by a mail system.",
    };
    let parts = [&report.report_type, &report.action, &report.status, &report.final_recipient];
    let value = parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ");
    Some((reason, Evidence { field: "Content-Type: multipart/report", value }))
}

/// RFC 3834 section 5: anything but `no` was not written by a person.
fn auto_submitted(facts: &Facts) -> Finding {
    let value = facts.headers.auto_submitted.as_ref()?;
    let keyword = value.split([';', '(', ' ', '\t']).find(|word| !word.is_empty()).unwrap_or("no");
    if keyword.eq_ignore_ascii_case("no") {
        return None;
    }
    Some(("The message was sent automatically.", Evidence { field: "Auto-Submitted", value: value.clone() }))
}

/// RFC 5321 section 4.5.5: the null sender marks notifications, which must never be answered.
fn null_sender(facts: &Facts) -> Finding {
    facts.headers.return_path.as_ref().filter(|path| path.is_empty())?;
    Some(("The message has the null sender of notifications.", Evidence { field: "Return-Path", value: "<>".into() }))
}

/// RFC 2076 section 3.9 (non-standard, common): bulk and junk; `auto_reply` is what some responders write.
/// `list` is not here: people write to lists, and a List-Id alone is no reason either.
fn precedence(facts: &Facts) -> Finding {
    let value = facts.headers.precedence.as_ref()?;
    if !["bulk", "junk", "auto_reply", "auto-reply"].iter().any(|word| value.trim().eq_ignore_ascii_case(word)) {
        return None;
    }
    Some(("The message is bulk mail or an automatic reply.", Evidence { field: "Precedence", value: value.clone() }))
}

/// Bounces that are no RFC 3464 reports: Exim and Gmail (X-Failed-Recipients), qmail (its first sentence), Exchange, Sendmail and
/// the many that only have a sender that is a mail system.
fn bounce(facts: &Facts) -> Finding {
    const REASON: &str = "The message is a bounce of a mail system.";
    if let Some(value) = &facts.headers.x_failed_recipients {
        return Some((REASON, Evidence { field: "X-Failed-Recipients", value: value.clone() }));
    }
    let text = facts.text.as_deref().unwrap_or_default().trim_start();
    if let Some(sentence) = QMAIL.iter().find(|sentence| text.starts_with(**sentence)) {
        return Some((REASON, Evidence { field: "text", value: (*sentence).to_owned() }));
    }
    let sender = facts.from.iter().chain(&facts.sender).find(|mailbox| {
        let local = mailbox.address.split('@').next().unwrap_or_default().to_ascii_lowercase();
        MAIL_SYSTEMS.contains(&local.as_str()) || local.starts_with(EXCHANGE)
    })?;
    Some((REASON, Evidence { field: "From", value: sender.address.clone() }))
}

/// qmail's bounce messages begin so (QSBMF); Yahoo's MTA kept the words.
const QMAIL: [&str; 2] =
    ["Hi. This is the qmail-send program", "Sorry, we were unable to deliver your message to the following address"];
/// Local parts behind which no person sits. `postmaster` is left out: there one may (RFC 5321 section 4.5.1).
const MAIL_SYSTEMS: [&str; 5] = ["mailer-daemon", "mail-daemon", "maildelivery-daemon", "mdaemon", "double-bounce"];
/// The recipient object that Exchange sends its system messages from.
const EXCHANGE: &str = "microsoftexchange329e71ec88ae4615bbc36ab6ce41109e";

/// Responders that do not write Auto-Submitted; and Outlook's, by the words of its subject besides the mark that asks not
/// to be answered (people's mail may carry that mark too).
fn responder(facts: &Facts) -> Finding {
    const REASON: &str = "The message is an automatic reply.";
    if let Some(value) = &facts.headers.x_autoreply {
        let field = "X-Autoreply";
        return Some((REASON, Evidence { field, value: value.clone() })).filter(|_| !value.eq_ignore_ascii_case("no"));
    }
    facts.headers.x_auto_response_suppress.as_ref()?;
    let subject = facts.subject.as_ref()?;
    let lower = subject.trim_start().to_lowercase();
    let words = REPLY_SUBJECTS.iter().any(|words| lower.starts_with(words));
    words.then(|| (REASON, Evidence { field: "Subject", value: subject.clone() }))
}

/// How Outlook begins the subject of an automatic reply, by language.
const REPLY_SUBJECTS: [&str; 10] = [
    "automatic reply:",
    "out of office",
    "automatische antwort:",
    "abwesenheitsnotiz",
    "réponse automatique",
    "respuesta automática",
    "risposta automatica",
    "automatisch antwoord",
    "resposta automática",
    "autosvar",
];

/// The Message-ID of the mail that came back, where a bounce that is no report quotes its header as text.
pub(super) fn returned_message_id(facts: &Facts) -> Option<String> {
    if facts.report.is_some() || bounce(facts).is_none() {
        return None;
    }
    facts.text.as_deref()?.lines().rev().find_map(|line| {
        let (name, value) = line.trim_start_matches(['>', ' ']).split_once(':')?;
        let id = value.trim().strip_prefix('<')?.strip_suffix('>')?;
        (name.eq_ignore_ascii_case("message-id") && id.contains('@')).then(|| id.to_owned())
    })
}

#[cfg(test)]
#[path = "automatic_tests.rs"]
mod tests;
