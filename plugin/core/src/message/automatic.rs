//! What no person wrote: reports, bounces of every make, automatic replies. Each is told with what shows it.

use super::{
    evidence::{Evidence, Finding},
    facts::{Facts, Mailbox},
    parse::is_no,
};
use crate::limits;

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
    if is_no(value) {
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
    // A comment may stand before the word (RFC 5322 section 3.2.2).
    let after = match value.trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, rest)) => rest,
        None => value.as_str(),
    };
    let word = after.split([' ', '\t', '(', ';']).find(|word| !word.is_empty()).unwrap_or_default();
    if !["bulk", "junk", "auto_reply", "auto-reply"].iter().any(|known| word.eq_ignore_ascii_case(known)) {
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
    let local =
        |address: &str| address.split('@').next().unwrap_or_default().trim_matches(['<', '"']).to_ascii_lowercase();
    let is_system = |local: &str| {
        MAIL_SYSTEMS.contains(&local) || local.starts_with(EXCHANGE) || local.starts_with("mailer-daemon")
    };
    if let Some(path) = &facts.headers.return_path
        && is_system(&local(path))
    {
        return Some((REASON, Evidence { field: "Return-Path", value: path.clone() }));
    }
    for mailbox in facts.from.iter().chain(&facts.sender) {
        // A mail system may have a name only (`MAILER-DAEMON <>`).
        let name = mailbox.name.as_deref().unwrap_or_default();
        let nameless = mailbox.address.is_empty();
        let known = if nameless {
            is_system(&local(name)) || is_system_name(name)
        } else {
            is_system(&local(&mailbox.address))
        };
        if known {
            let value = if nameless { name.to_owned() } else { mailbox.address.clone() };
            return Some((REASON, Evidence { field: "From", value }));
        }
    }
    // At postmaster@ a person may sit (RFC 5321 section 4.5.1): the words decide, and at an address that only sounds like a
    // machine, those of subject and text together.
    let is_postmaster = |mailbox: &Mailbox| {
        POSTMASTERS.contains(&local(&mailbox.address).as_str())
            || is_system_name(mailbox.name.as_deref().unwrap_or_default())
    };
    let sounds_like_one = |mailbox: &Mailbox| {
        let local = local(&mailbox.address);
        ROLES.iter().any(|role| local.contains(role))
    };
    let postmaster = facts.from.iter().find(|mailbox| is_postmaster(mailbox));
    let sender = postmaster.or_else(|| facts.from.iter().find(|mailbox| sounds_like_one(mailbox)))?;
    let subject = facts.subject.as_deref().unwrap_or_default();
    let in_subject = starts_with_any(subject, &BOUNCE_SUBJECTS);
    let start = &text[..text.floor_char_boundary(limits::NOTICE_LOOK)].to_lowercase();
    let start = start.split_whitespace().collect::<Vec<_>>().join(" ");
    let in_text = BOUNCE_WORDS.iter().any(|words| start.contains(words));
    let is_bounce = match (postmaster.is_some(), facts.in_reply_to.is_empty()) {
        (true, true) => in_subject || in_text,
        (true, false) => in_text,
        (false, is_first) => is_first && in_subject && in_text,
    };
    let evidence = match in_subject {
        true => Evidence { field: "Subject", value: subject.to_owned() },
        false => Evidence { field: "From", value: sender.address.clone() },
    };
    is_bounce.then_some((REASON, evidence))
}

fn is_system_name(name: &str) -> bool {
    let lower = name.trim().to_lowercase();
    SYSTEM_NAMES.contains(&lower.as_str())
}

fn starts_with_any(text: &str, words: &[&str]) -> bool {
    let lower = text.trim_start_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    words.iter().any(|words| lower.starts_with(words))
}

/// Display names of mail systems.
const SYSTEM_NAMES: [&str; 12] = [
    "mail delivery system",
    "mail delivery subsystem",
    "mail delivery service",
    "mail administrator",
    "mailer-daemon",
    "mailer daemon",
    "mail system",
    "system administrator",
    "internet mail delivery",
    "message delivery system",
    "mdaemon",
    "postmaster",
];
const POSTMASTERS: [&str; 6] =
    ["postmaster", "mailadmin", "mail-admin", "mailsystem", "administrator", "no-reply-bounce"];
/// Parts of addresses that programs write from.
const ROLES: [&str; 11] = [
    "postmaster",
    "administrator",
    "mailer",
    "mail_service",
    "smtp",
    "ndr",
    "bounce",
    "daemon",
    "gateway",
    "antivirus",
    "mailsystem",
];
/// How mail systems begin the subject of a bounce.
const BOUNCE_SUBJECTS: [&str; 37] = [
    "undeliverable",
    "undelivered",
    "undelivered mail",
    "non-delivery",
    "nondeliverable",
    "non recapitabile",
    "delivery failure",
    "delivery failed",
    "delivery status notification",
    "delivery notification",
    "delivery report",
    "delivery error",
    "delivery delayed",
    "delivery has failed",
    "failure notice",
    "failed to deliver",
    "failed delivery",
    "mail delivery failed",
    "mail delivery failure",
    "mail delivery problem",
    "mail delivery error",
    "mail delivery warning",
    "mail failure",
    "mail error",
    "mail could not be delivered",
    "mail system error",
    "message delivery failure",
    "message not delivered",
    "message could not be delivered",
    "message undeliverable",
    "message status - undeliverable",
    "returned mail",
    "returned message",
    "returned to sender",
    "unzustellbar",
    "warning: could not send message",
    "permanent delivery failure",
];
/// What mail systems say near the beginning of a bounce.
const BOUNCE_WORDS: [&str; 27] = [
    "could not be delivered",
    "could not deliver message to the following",
    "could not deliver the following",
    "could not deliver your message",
    "was not delivered",
    "were not delivered",
    "did not reach the following recipient",
    "cannot deliver message",
    "cannot be delivered",
    "delivery to the following recipient",
    "delivery has failed",
    "delivery failed",
    "delivery failure",
    "failed to deliver",
    "failed addresses follow",
    "failed recipient",
    "has been postponed",
    "created automatically by mail delivery software",
    "the following addresses had",
    "the following recipient(s)",
    "the following message to",
    "unable to deliver",
    "undeliverable",
    "undelivered",
    "user unknown",
    "unknown user",
    "returned message",
];

/// qmail's bounce messages begin so (QSBMF); Yahoo's MTA kept the words.
const QMAIL: [&str; 2] =
    ["Hi. This is the qmail-send program", "Sorry, we were unable to deliver your message to the following address"];
/// Local parts behind which no person sits. `postmaster` is left out: there one may (RFC 5321 section 4.5.1).
const MAIL_SYSTEMS: [&str; 9] = [
    "mailer-daemon",
    "mail-daemon",
    "mailerdaemon",
    "mailer_daemon",
    "maildelivery-daemon",
    "maildaemon",
    "mdaemon",
    "double-bounce",
    "no-reply-mailer-daemon",
];
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
    // Cyrus and others deliver to themselves under this name.
    if let Some(value) = facts.headers.delivered_to_responder() {
        return Some((REASON, Evidence { field: "Delivered-To", value }));
    }
    facts.headers.x_auto_response_suppress.as_ref()?;
    let subject = facts.subject.as_ref()?;
    let lower = subject.trim_start().to_lowercase().replace('：', ":");
    let words = REPLY_SUBJECTS.iter().any(|words| lower.starts_with(words));
    words.then(|| (REASON, Evidence { field: "Subject", value: subject.clone() }))
}

/// How Outlook begins the subject of an automatic reply, by language.
const REPLY_SUBJECTS: [&str; 48] = [
    "automatic reply:",
    "auto reply:",
    "autoreply:",
    "auto:",
    "out of office",
    "automatische antwort:",
    "abwesenheitsnotiz",
    "réponse automatique",
    "absence du bureau",
    "respuesta automática",
    "fuera de la oficina",
    "resposta automàtica",
    "risposta automatica",
    "fuori sede",
    "automatisch antwoord",
    "afwezig",
    "resposta automática",
    "fora do escritório",
    "autosvar",
    "automatiskt svar",
    "automatisk svar",
    "automatiskt meddelande",
    "frånvaro",
    "fravær",
    "ikke til stede",
    "odpowiedź automatyczna",
    "autoodpowiedź",
    "automatyczna odpowiedź",
    "automatická odpověď",
    "automatická odpoveď",
    "samodejni odgovor",
    "automatski odgovor",
    "automatikus válasz",
    "răspuns automat",
    "автоматический ответ",
    "автоматична відповідь",
    "автоматичен отговор",
    "αυτόματη απάντηση",
    "automaattinen vastaus",
    "otomatik yanıt",
    "automaatvastus",
    "automātiska atbilde",
    "automatinis atsakymas",
    "自動応答",
    "自动答复",
    "自動回覆",
    "자동 회신",
    "תגובה אוטומטית",
];

/// The Message-ID of the mail that came back, where a bounce that is no report attaches it or quotes its header as text.
pub(super) fn returned_message_id(facts: &Facts) -> Option<String> {
    if facts.report.is_some() || bounce(facts).is_none() {
        return None;
    }
    if facts.attached_message_id.is_some() {
        return facts.attached_message_id.clone();
    }
    let mut lines = facts.text.as_deref()?.lines().map(|line| line.trim_start_matches(['>', ' ', '|'])).peekable();
    // The first one belongs to the header of what came back; later ones are quoted in its text.
    while let Some(line) = lines.next() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if !name.trim_end().eq_ignore_ascii_case("message-id") {
            continue;
        }
        // Exchange Online folds a long one to the next line.
        let value = match value.trim() {
            "" => lines.peek().copied().unwrap_or_default().trim(),
            value => value,
        };
        let id = value.strip_prefix('<').and_then(|rest| rest.split('>').next()).unwrap_or_default();
        if id.contains('@') && !id.contains(char::is_whitespace) {
            return Some(id.to_owned());
        }
    }
    None
}

#[cfg(test)]
#[path = "automatic_tests.rs"]
mod tests;
