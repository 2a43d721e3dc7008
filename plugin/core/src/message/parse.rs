//! Raw bytes to facts. Never fails: what cannot be read is named in the facts, and the raw bytes stay untouched.

use super::{
    body::Bodies,
    facts::{Attachment, Facts, Flag, Headers, Mailbox},
    field::{Name, Section, verbatim},
    mime::{Disposition, Leaf, Tree},
    report::report_of,
};
use crate::{
    error::{Error, Kind, Result},
    guard::guarded,
    limits,
};

/// Reads one message (RFC 5322, MIME). Line ends may be CRLF or bare LF. Attachments are measured, not decoded.
pub fn parse(raw: &[u8]) -> Facts {
    if raw.is_empty() {
        return unparsed(raw, "The message is empty.".into());
    }
    guarded("reading a message", || Ok(facts_of(raw))).unwrap_or_else(|error| unparsed(raw, error.message().to_owned()))
}

/// Decoded bytes of the attachment that the facts of the same `raw` list with this `part_index`.
///
/// # Errors
/// `Misuse` when there is no such part.
pub fn attachment(raw: &[u8], part_index: u32) -> Result<Vec<u8>> {
    guarded("reading an attachment", || {
        Tree::of(raw)
            .leaves
            .get(part_index as usize)
            .map(|leaf| leaf.encoding.decode(leaf.body).into_owned())
            .ok_or_else(|| Error::new(Kind::Misuse, format!("The message has no part {part_index}.")))
    })
}

fn unparsed(raw: &[u8], why: String) -> Facts {
    Facts { size: raw.len() as u64, unparsed: Some(why), ..Facts::default() }
}

fn facts_of(raw: &[u8]) -> Facts {
    let Tree { root, report, leaves, flags } = Tree::of(raw);
    let date = root.date();
    let (report, attached_message_id) = report_of(report, &leaves);
    let mut facts = Facts {
        message_id: root.ids(Name::MessageId).into_iter().next(),
        in_reply_to: root.ids(Name::InReplyTo),
        references: root.ids(Name::References),
        subject: root.text(Name::Subject),
        date: date.map(|date| date.to_rfc3339()),
        date_unix: date.map(|date| date.to_timestamp()),
        from: root.authors(Name::From),
        sender: root.authors(Name::Sender),
        reply_to: root.mailboxes(Name::ReplyTo),
        to: root.mailboxes(Name::To),
        cc: root.mailboxes(Name::Cc),
        bcc: root.mailboxes(Name::Bcc),
        size: raw.len() as u64,
        headers: headers_of(&root),
        report,
        attached_message_id,
        flags,
        ..Facts::default()
    };
    let mut bodies = Bodies::default();
    for leaf in &leaves {
        if bodies.take(leaf) {
            continue;
        }
        if facts.attachments.len() >= limits::FACT_ATTACHMENTS_MAX {
            facts.flags.push(Flag::AttachmentsTruncated);
            break;
        }
        facts.attachments.push(listed(leaf));
    }
    bodies.into_facts(&mut facts);
    facts
}

fn headers_of(root: &Section<'_>) -> Headers {
    Headers {
        // A second field may say what the first denies.
        auto_submitted: root.all(Name::AutoSubmitted).map(verbatim).max_by_key(|value| !is_no(value)),
        precedence: root.verbatim(Name::Precedence),
        list_id: root.verbatim(Name::ListId),
        return_path: root.verbatim(Name::ReturnPath).map(|path| path.trim_matches(['<', '>', ' ']).to_owned()),
        x_auto_response_suppress: root.verbatim(Name::XAutoResponseSuppress),
        x_autoreply: root.all(Name::XAutoReply).map(verbatim).find(|value| !is_no(value)).or_else(|| {
            // Of these, other values mean other things.
            root.all(Name::Preference).map(verbatim).find(|value| value.to_ascii_lowercase().contains("auto"))
        }),
        x_failed_recipients: root.verbatim(Name::XFailedRecipients),
        x_loop: root.mailboxes(Name::XLoop).into_iter().map(|mailbox| mailbox.address).collect(),
        x_original_from: root.mailboxes(Name::XOriginalFrom),
        x_mailer: root.verbatim(Name::XMailer),
        delivered_to: root.authors(Name::DeliveredTo).into_iter().map(address_or_name).collect(),
    }
}

fn address_or_name(mailbox: Mailbox) -> String {
    let Mailbox { name, address } = mailbox;
    if address.is_empty() { name.unwrap_or_default() } else { address }
}

/// `no`, also with comments before it (RFC 3834 section 5.2) or in quotes.
pub(super) fn is_no(value: &str) -> bool {
    let mut depth = 0usize;
    let plain: String = value
        .chars()
        .filter(|c| {
            depth = if *c == '(' { depth + 1 } else { depth };
            let is_inside = depth > 0;
            depth = if *c == ')' { depth.saturating_sub(1) } else { depth };
            !is_inside && *c != '"'
        })
        .collect();
    let keyword = plain.split([';', ' ', '\t']).find(|word| !word.is_empty()).unwrap_or("no");
    ["no", "false", "none", "0"].iter().any(|word| keyword.eq_ignore_ascii_case(word))
}

fn listed(leaf: &Leaf<'_>) -> Attachment {
    Attachment {
        name: leaf.name.clone(),
        media_type: leaf.media_type.clone(),
        size: leaf.encoding.decoded_len(leaf.body) as u64,
        content_id: leaf.content_id.clone(),
        inline: match leaf.disposition {
            Disposition::Inline => true,
            Disposition::Attachment => false,
            Disposition::Absent => leaf.content_id.is_some() && leaf.media_type.starts_with("image/"),
        },
        part_index: leaf.index,
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
