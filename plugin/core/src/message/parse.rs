//! Raw bytes to facts. Never fails: what cannot be read is named in the facts, and the raw bytes stay untouched.

use std::borrow::Cow;

use super::{
    codec::{Encoding, text_of},
    facts::{Attachment, Facts, Flag, Headers, Report},
    field::{Name, Section},
    mime::{Disposition, Leaf, Tree},
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
    let mut facts = Facts {
        message_id: root.ids(Name::MessageId).into_iter().next(),
        in_reply_to: root.ids(Name::InReplyTo),
        references: root.ids(Name::References),
        subject: root.text(Name::Subject),
        date: date.map(|date| date.to_rfc3339()),
        date_unix: date.map(|date| date.to_timestamp()),
        from: root.mailboxes(Name::From),
        sender: root.mailboxes(Name::Sender),
        reply_to: root.mailboxes(Name::ReplyTo),
        to: root.mailboxes(Name::To),
        cc: root.mailboxes(Name::Cc),
        bcc: root.mailboxes(Name::Bcc),
        size: raw.len() as u64,
        headers: headers_of(&root),
        report: report.map(|report_type| report_of(report_type, &leaves)),
        flags,
        ..Facts::default()
    };
    let mut text = Body::default();
    let mut html = Body::default();
    for leaf in &leaves {
        match leaf.media_type.as_str() {
            "text/plain" if is_body(leaf) => text.add(leaf),
            "text/html" if is_body(leaf) => html.add(leaf),
            _ if facts.attachments.len() < limits::FACT_ATTACHMENTS_MAX => facts.attachments.push(listed(leaf)),
            _ => {
                facts.flags.push(Flag::AttachmentsTruncated);
                break;
            }
        }
    }
    (facts.text, facts.text_truncated) = (text.text, text.truncated);
    (facts.html, facts.html_truncated) = (html.text, html.truncated);
    facts
}

fn headers_of(root: &Section<'_>) -> Headers {
    Headers {
        auto_submitted: root.verbatim(Name::AutoSubmitted),
        precedence: root.verbatim(Name::Precedence),
        list_id: root.verbatim(Name::ListId),
        return_path: root.verbatim(Name::ReturnPath).map(|path| path.trim_matches(['<', '>', ' ']).to_owned()),
        x_auto_response_suppress: root.verbatim(Name::XAutoResponseSuppress),
        x_autoreply: root.verbatim(Name::XAutoReply),
        x_failed_recipients: root.verbatim(Name::XFailedRecipients),
        x_loop: root.mailboxes(Name::XLoop).into_iter().map(|mailbox| mailbox.address).collect(),
        delivered_to: root.mailboxes(Name::DeliveredTo).into_iter().map(|mailbox| mailbox.address).collect(),
    }
}

/// A text with a file name is a file that somebody attached, whatever its disposition says.
fn is_body(leaf: &Leaf<'_>) -> bool {
    leaf.disposition != Disposition::Attachment && leaf.name.is_none()
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

/// Text of one or several parts, up to the bound.
#[derive(Default)]
struct Body {
    text: Option<String>,
    truncated: bool,
}

impl Body {
    fn add(&mut self, leaf: &Leaf<'_>) {
        if self.truncated {
            return;
        }
        // No transfer encoding needs more than four bytes for one, so nothing is cut that would have had room.
        let max = match leaf.encoding {
            Encoding::Identity => limits::FACT_TEXT_MAX + 1,
            Encoding::Base64 | Encoding::QuotedPrintable => 4 * limits::FACT_TEXT_MAX,
        };
        let encoded = &leaf.body[..leaf.body.len().min(max)];
        let is_cut = encoded.len() < leaf.body.len();
        let mut bytes = leaf.encoding.decode(encoded);
        // The cut may have gone through a character.
        if let (true, Err(error)) = (is_cut, std::str::from_utf8(&bytes))
            && error.error_len().is_none()
        {
            let whole = error.valid_up_to();
            match &mut bytes {
                Cow::Borrowed(bytes) => *bytes = &bytes[..whole],
                Cow::Owned(bytes) => bytes.truncate(whole),
            }
        }
        let decoded = text_of(bytes, leaf.charset.as_deref());
        let whole = match self.text.take() {
            Some(before) if before.is_empty() || before.ends_with('\n') => before + &decoded,
            Some(before) => before + "\n" + &decoded,
            None => decoded,
        };
        self.truncated = is_cut || whole.len() > limits::FACT_TEXT_MAX;
        self.text = Some(cut(whole, limits::FACT_TEXT_MAX));
    }
}

fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
    }
    text
}

fn report_of(report_type: Option<String>, leaves: &[Leaf<'_>]) -> Report {
    let mut report = Report { report_type: report_type.map(|name| name.to_ascii_lowercase()), ..Report::default() };
    for leaf in leaves {
        // Only header sections are read; 64 KiB hold any of them.
        let bytes = leaf.encoding.decode(&leaf.body[..leaf.body.len().min(limits::MIME_FIELD_MAX)]);
        match leaf.media_type.as_str() {
            "message/delivery-status" => {
                // RFC 3464 2.1: fields of the message, then one group of fields for each recipient.
                let mut at = 0;
                while at < bytes.len() && report.final_recipient.is_none() {
                    let group = Section::read(&bytes, at, |_| false);
                    at = group.body_at;
                    let Some(recipient) = group.verbatim(Name::FinalRecipient) else { continue };
                    report.final_recipient = Some(after_type(&recipient));
                    report.action = group.verbatim(Name::Action).map(|action| action.to_ascii_lowercase());
                    report.status = group.verbatim(Name::Status);
                    report.diagnostic = group.verbatim(Name::DiagnosticCode).map(|code| after_type(&code));
                }
            }
            "message/rfc822" | "message/global" | "message/rfc822-headers" | "text/rfc822-headers" => {
                let ids = Section::read(&bytes, 0, |_| false).ids(Name::MessageId);
                report.original_message_id = report.original_message_id.or(ids.into_iter().next());
            }
            _ => {}
        }
    }
    report
}

/// `rfc822; a@b` and `smtp; 550 …` without the type in front (RFC 3464 section 2.1.2).
fn after_type(value: &str) -> String {
    value.split_once(';').map_or(value, |(_, text)| text).trim().to_owned()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
