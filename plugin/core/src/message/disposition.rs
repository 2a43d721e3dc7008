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
    people,
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
    let own: Vec<String> = fetching.email_addresses.iter().chain(own_addresses).map(|own| key(own.as_ref())).collect();
    let own = |mailbox: &Mailbox| !mailbox.address.is_empty() && own.contains(&key(&mailbox.address));
    let (reference, forged) = reference(facts, &fetching.subject_tag, signer);
    let ignored = own_mail(facts, own, signer).or_else(|| automatic::finding(facts));
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

/// Mail that we sent: answering it would answer ourselves. Our address in From alone shows it only when no field names
/// somebody else who wrote: groups and web forms send customers' mail under it, and scanners their scans.
fn own_mail(facts: &Facts, own: impl Fn(&Mailbox) -> bool, signer: Option<&Signer>) -> Finding {
    if let Some(id) = &facts.message_id
        && let Some(Origin::Ours { .. }) = signer.map(|signer| signer.origin(id))
    {
        let evidence = Evidence { field: "Message-ID", value: id.clone() };
        return Some(("The message is one that this helpdesk sent.", evidence));
    }
    let is_own = |address: &&String| own(&Mailbox { name: None, address: (*address).clone() });
    if let Some(value) = facts.headers.x_loop.iter().find(is_own) {
        let evidence = Evidence { field: "X-Loop", value: value.clone() };
        return Some(("The message went through one of our own addresses before.", evidence));
    }
    let from = facts.from.iter().find(|mailbox| own(mailbox))?;
    if written_by_another(facts, &own) || is_scan(facts, own) {
        return None;
    }
    let evidence = Evidence { field: "From", value: from.address.clone() };
    Some(("The message comes from one of our own addresses.", evidence))
}

/// Replies to it go to somebody else (RFC 5322 section 3.6.2), or the group that wrote our address into From says whose
/// mail it is.
fn written_by_another(facts: &Facts, own: impl Fn(&Mailbox) -> bool) -> bool {
    let foreign = |list: &[Mailbox]| list.iter().any(|mailbox| !mailbox.address.is_empty() && !own(mailbox));
    let headers = &facts.headers;
    let is_list = headers.list_id.is_some()
        || headers.precedence.as_deref().is_some_and(|value| value.trim().eq_ignore_ascii_case("list"));
    foreign(&facts.reply_to)
        || foreign(&headers.x_original_from)
        || foreign(&facts.from)
        || (is_list && foreign(&facts.sender))
}

/// What a scanner or fax sends from the mailbox to itself: pages, next to no words, and no reference to earlier mail. A
/// notification of a helpdesk, which could start a loop, has words.
fn is_scan(facts: &Facts, own: impl Fn(&Mailbox) -> bool) -> bool {
    const WORDS_MAX: usize = 400;
    let is_page = |media_type: &str| media_type == "application/pdf" || media_type.starts_with("image/");
    let words = facts.text.as_deref().or(facts.html.as_deref()).unwrap_or_default().trim();
    let pages = facts.attachments.iter().filter(|one| !one.inline);
    facts.to.iter().any(own)
        && facts.in_reply_to.is_empty()
        && facts.references.is_empty()
        && words.len() <= WORDS_MAX
        && pages.clone().next().is_some()
        && pages.clone().all(|one| is_page(&one.media_type))
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

/// By what addresses are compared: local parts without case, because no mail system in use tells them apart, and a missed
/// loop is worse; domains as A-labels.
fn key(address: &str) -> String {
    people::canonical(address).unwrap_or_else(|| address.trim().to_owned()).to_lowercase()
}

#[cfg(test)]
#[path = "disposition_tests.rs"]
mod tests;
