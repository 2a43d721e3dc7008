//! A proposal what to do with a message, with its evidence. The host decides.
//!
//! One function for each rule; the order of [`disposition`] is the order of precedence: what must never be answered
//! comes first, because a loop is worse than a request that a person has to open by hand.

use lettre::Address;
use serde::Serialize;

use super::{
    automatic,
    evidence::{Evidence, Finding},
    facts::{Facts, Mailbox},
    signature::{Origin, Signer},
};
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

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reference {
    /// From a signed Message-ID, else from the subject tag.
    pub request_id: Option<String>,
    /// What shows that it refers to a request; the strongest there is.
    pub proof: Proof,
    /// From References, In-Reply-To or a report, the nearest first. The host knows which of them it has. Forged ones are
    /// left out.
    pub message_ids: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// A Message-ID that only this installation can have written: the sender got a message of ours.
    SignedMessageId,
    /// Anybody can write it.
    SubjectTag,
    /// Worth what the host knows of the Message-IDs.
    #[default]
    MessageIds,
}

/// Weighs the facts of a message. `own_addresses`: what else belongs to this helpdesk besides the fetched addresses.
/// `signer`: tells our Message-IDs from others; `None` while its key cannot be read.
pub fn disposition(
    facts: &Facts,
    fetching: &Fetching,
    own_addresses: &[Address],
    signer: Option<&Signer>,
) -> Disposition {
    let own = |mailbox: &Mailbox| fetching.email_addresses.iter().chain(own_addresses).any(|own| is_same(mailbox, own));
    let (reference, forged) = reference(facts, &fetching.subject_tag, signer);
    let ignored = own_mail(facts, own).or_else(|| automatic::finding(facts));
    let (action, reason, mut evidence) = match (ignored, &reference) {
        (Some((reason, evidence)), _) => (Action::Ignore, reason, vec![evidence]),
        (None, Some(_)) => {
            (Action::AppendToRequest, "The message refers to a request or to an earlier message.", vec![])
        }
        (None, None) if fetching.disable_new_request_creation => match invited(facts, &fetching.new_requests_from) {
            Some(evidence) => (Action::CreateRequest, "The sender may open new requests by email.", vec![evidence]),
            None => {
                let value = "true".to_owned();
                let setting = Evidence { field: "disable_new_request_creation", value };
                let reason = "The message refers to no request, and new requests by email are disabled.";
                (Action::Ignore, reason, vec![setting])
            }
        },
        (None, None) => (Action::CreateRequest, "The message refers to no earlier message.", vec![]),
    };
    evidence.extend(reference.iter().flat_map(|reference| reference_evidence(facts, reference)));
    evidence.extend(forged.map(|value| Evidence { field: "forged Message-ID", value }));
    Disposition { action, reason: reason.to_owned(), evidence, request_reference: reference }
}

/// Mail that we, or the form itself, sent: answering it would answer ourselves.
fn own_mail(facts: &Facts, own: impl Fn(&Mailbox) -> bool) -> Finding {
    let find = |field, mailboxes: &[Mailbox]| {
        let found = mailboxes.iter().find(|mailbox| own(mailbox))?;
        Some(("The message comes from one of our own addresses.", Evidence { field, value: found.address.clone() }))
    };
    let looped = || {
        let is_own = |address: &&String| own(&Mailbox { name: None, address: (*address).clone() });
        let value = facts.headers.x_loop.iter().find(is_own)?.clone();
        Some(("The message went through one of our own addresses before.", Evidence { field: "X-Loop", value }))
    };
    find("From", &facts.from).or_else(|| find("Sender", &facts.sender)).or_else(looped)
}

/// By the address in From: whether the sender is who they say is for the mail server to check (SPF, DKIM, DMARC).
fn invited(facts: &Facts, allowed: &[String]) -> Option<Evidence> {
    let [from] = &facts.from[..] else { return None };
    let address = from.address.trim().to_lowercase();
    let (_, domain) = address.rsplit_once('@')?;
    let found = allowed.iter().find(|entry| **entry == address || **entry == domain)?;
    Some(Evidence { field: "new_requests_from", value: found.clone() })
}

/// RFC 5322 section 3.6.4: the last of References is the message that is answered, like In-Reply-To. What has the form of
/// our Message-IDs and is not ours counts for nothing; it is the second value.
fn reference(facts: &Facts, subject_tag: &str, signer: Option<&Signer>) -> (Option<Reference>, Option<String>) {
    let tagged = facts.subject.as_deref().and_then(|subject| tagged_id(subject, subject_tag));
    let returned = automatic::returned_message_id(facts);
    let reported = facts.report.iter().filter_map(|report| report.original_message_id.as_ref()).chain(&returned);
    let mut message_ids: Vec<String> = Vec::new();
    let (mut signed, mut forged) = (None, None);
    for id in reported.chain(&facts.in_reply_to).chain(facts.references.iter().rev()) {
        match signer.map_or(Origin::Foreign, |signer| signer.origin(id)) {
            Origin::Forged => {
                forged.get_or_insert_with(|| id.clone());
                continue;
            }
            Origin::Ours { request_id: Some(request_id) } => {
                signed.get_or_insert(request_id);
            }
            Origin::Ours { request_id: None } | Origin::Foreign => {}
        }
        if !message_ids.contains(id) {
            message_ids.push(id.clone());
        }
    }
    let (request_id, proof) = match (signed, tagged) {
        (Some(id), _) => (Some(id), Proof::SignedMessageId),
        (None, Some(id)) => (Some(id), Proof::SubjectTag),
        (None, None) => (None, Proof::MessageIds),
    };
    let found = request_id.is_some() || !message_ids.is_empty();
    (found.then_some(Reference { request_id, proof, message_ids }), forged)
}

fn reference_evidence(facts: &Facts, reference: &Reference) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    if let (Proof::SignedMessageId, Some(request_id)) = (reference.proof, &reference.request_id) {
        evidence.push(Evidence { field: "signed Message-ID", value: request_id.clone() });
    }
    if reference.proof == Proof::SubjectTag {
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
