//! A proposal what to do with a message, with its evidence. The host decides.
//!
//! One function for each rule; the order of [`disposition`] is the order of precedence: what must never be answered
//! comes first, because a loop is worse than a request that a person has to open by hand.

use lettre::Address;
use serde::Serialize;

use super::facts::{Facts, Mailbox};
use crate::settings::Fetching;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    CreateRequest,
    AppendToRequest,
    Ignore,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disposition {
    pub action: Action,
    /// One sentence.
    pub reason: String,
    pub evidence: Vec<Evidence>,
    /// What the message refers to, also when it is ignored: a bounce belongs to a request too.
    pub request_reference: Option<Reference>,
}

/// One observation: where, and what stands there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    pub field: &'static str,
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reference {
    /// From the subject tag.
    pub request_id: Option<String>,
    /// From References, In-Reply-To or a report, the nearest first. The host knows which of them it has.
    pub message_ids: Vec<String>,
}

/// Weighs the facts of a message. `own_addresses`: what else belongs to this helpdesk besides the fetched addresses.
pub fn disposition(facts: &Facts, fetching: &Fetching, own_addresses: &[Address]) -> Disposition {
    let own = |mailbox: &Mailbox| fetching.email_addresses.iter().chain(own_addresses).any(|own| is_same(mailbox, own));
    let reference = reference(facts, &fetching.subject_tag);
    let ignored = own_mail(facts, own)
        .or_else(|| report(facts))
        .or_else(|| auto_submitted(facts))
        .or_else(|| null_sender(facts))
        .or_else(|| precedence(facts));
    let (action, reason, mut evidence) = match (ignored, &reference) {
        (Some((reason, evidence)), _) => (Action::Ignore, reason, vec![evidence]),
        (None, Some(_)) => {
            (Action::AppendToRequest, "The message refers to a request or to an earlier message.", vec![])
        }
        (None, None) if fetching.disable_new_request_creation => {
            let value = "true".to_owned();
            let setting = Evidence { field: "disable_new_request_creation", value };
            (Action::Ignore, "The message refers to no request, and new requests by email are disabled.", vec![setting])
        }
        (None, None) => (Action::CreateRequest, "The message refers to no earlier message.", vec![]),
    };
    evidence.extend(reference.iter().flat_map(|reference| reference_evidence(facts, reference)));
    Disposition { action, reason: reason.to_owned(), evidence, request_reference: reference }
}

type Finding = Option<(&'static str, Evidence)>;

/// Mail that we, or the form itself, sent: answering it would answer ourselves.
fn own_mail(facts: &Facts, own: impl Fn(&Mailbox) -> bool) -> Finding {
    let find = |field, mailboxes: &[Mailbox]| {
        let found = mailboxes.iter().find(|mailbox| own(mailbox))?;
        Some(("The message comes from one of our own addresses.", Evidence { field, value: found.address.clone() }))
    };
    find("From", &facts.from).or_else(|| find("Sender", &facts.sender))
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

/// RFC 5322 section 3.6.4: the last of References is the message that is answered, like In-Reply-To.
fn reference(facts: &Facts, subject_tag: &str) -> Option<Reference> {
    let request_id = facts.subject.as_deref().and_then(|subject| tagged_id(subject, subject_tag));
    let reported = facts.report.iter().filter_map(|report| report.original_message_id.as_ref());
    let mut message_ids: Vec<String> = Vec::new();
    for id in reported.chain(&facts.in_reply_to).chain(facts.references.iter().rev()) {
        if !message_ids.contains(id) {
            message_ids.push(id.clone());
        }
    }
    (request_id.is_some() || !message_ids.is_empty()).then_some(Reference { request_id, message_ids })
}

fn reference_evidence(facts: &Facts, reference: &Reference) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    if reference.request_id.is_some() {
        evidence.push(Evidence { field: "Subject", value: facts.subject.clone().unwrap_or_default() });
    }
    if !facts.in_reply_to.is_empty() {
        evidence.push(Evidence { field: "In-Reply-To", value: facts.in_reply_to.join(" ") });
    }
    if let Some(last) = facts.references.last() {
        evidence.push(Evidence { field: "References", value: last.clone() });
    }
    evidence
}

/// The id in a subject tag. `pattern` is literal text around one `{id}`, like `[Request ID: ##{id}##]`; an id is made
/// of ASCII letters, digits, `-` and `_`. Case and the amount of white space do not matter, because mailers fold
/// subjects. With several tags the first one counts.
fn tagged_id(subject: &str, pattern: &str) -> Option<String> {
    let (before, after) = pattern.split_once("{id}")?;
    let (before, after) = (squeezed(before), squeezed(after));
    if before.trim().is_empty() {
        return None;
    }
    let subject = squeezed(subject);
    // ASCII lower-casing keeps every byte at its place.
    let (lower, before, after) =
        (subject.to_ascii_lowercase(), before.to_ascii_lowercase(), after.to_ascii_lowercase());
    lower.match_indices(before.as_str()).find_map(|(at, _)| {
        let start = at + before.len();
        let len = subject[start..].find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
        let end = len.map_or(subject.len(), |len| start + len);
        (end > start && end - start <= ID_MAX && lower[end..].starts_with(after.as_str()))
            .then(|| subject[start..end].to_owned())
    })
}

/// Longest request id in a subject tag, bytes.
const ID_MAX: usize = 64;

fn squeezed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_whitespace() {
            true if out.ends_with(' ') => {}
            true => out.push(' '),
            false => out.push(c),
        }
    }
    out
}

/// Local parts are compared without case: no mail system in use tells them apart, and a missed loop is worse.
fn is_same(mailbox: &Mailbox, own: &Address) -> bool {
    mailbox.address.trim().eq_ignore_ascii_case(own.as_ref())
}

#[cfg(test)]
#[path = "disposition_tests.rs"]
mod tests;
