//! Header fields (RFC 5322 section 2.2): found by us, their values read by mail-parser.

use std::borrow::Cow;

use mail_parser::{HeaderValue, parsers::MessageStream};
use memchr::memchr;

use super::{
    codec::{latin, without_nul},
    facts::Mailbox,
};
use crate::limits;

/// The fields that facts are made of. All others are skipped without a look at their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    MessageId,
    InReplyTo,
    References,
    Subject,
    Date,
    From,
    Sender,
    ReplyTo,
    To,
    Cc,
    Bcc,
    AutoSubmitted,
    Precedence,
    ListId,
    ReturnPath,
    XAutoResponseSuppress,
    XAutoReply,
    XFailedRecipients,
    XLoop,
    DeliveredTo,
    ContentType,
    ContentTransferEncoding,
    ContentDisposition,
    ContentId,
    FinalRecipient,
    Action,
    Status,
    DiagnosticCode,
}

const NAMES: [(&str, Name); 30] = [
    ("message-id", Name::MessageId),
    ("in-reply-to", Name::InReplyTo),
    ("references", Name::References),
    ("subject", Name::Subject),
    ("date", Name::Date),
    ("from", Name::From),
    ("sender", Name::Sender),
    ("reply-to", Name::ReplyTo),
    ("to", Name::To),
    ("cc", Name::Cc),
    ("bcc", Name::Bcc),
    ("auto-submitted", Name::AutoSubmitted),
    ("precedence", Name::Precedence),
    ("list-id", Name::ListId),
    ("return-path", Name::ReturnPath),
    ("x-auto-response-suppress", Name::XAutoResponseSuppress),
    ("x-autoreply", Name::XAutoReply),
    ("x-autorespond", Name::XAutoReply),
    ("x-autoresponder", Name::XAutoReply),
    ("x-failed-recipients", Name::XFailedRecipients),
    ("x-loop", Name::XLoop),
    ("delivered-to", Name::DeliveredTo),
    ("content-type", Name::ContentType),
    ("content-transfer-encoding", Name::ContentTransferEncoding),
    ("content-disposition", Name::ContentDisposition),
    ("content-id", Name::ContentId),
    ("final-recipient", Name::FinalRecipient),
    ("action", Name::Action),
    ("status", Name::Status),
    ("diagnostic-code", Name::DiagnosticCode),
];

/// One header section and where the body begins.
pub struct Section<'a> {
    /// In order; values are raw and still folded.
    fields: Vec<(Name, &'a [u8])>,
    pub body_at: usize,
    /// More fields than `limits::MIME_FIELDS_MAX`, or one longer than `limits::MIME_FIELD_MAX`.
    pub truncated: bool,
}

impl<'a> Section<'a> {
    /// Reads from `at` up to and including the empty line, or up to a line that `ends` (a delimiter: a part may be
    /// broken off inside its headers). Lines that are no fields are skipped.
    pub fn read(raw: &'a [u8], at: usize, ends: impl Fn(&[u8]) -> bool) -> Self {
        let mut section = Self { fields: Vec::new(), body_at: at, truncated: false };
        let mut start = at;
        // Range of the field that is being read; it ends where the next one starts.
        let mut open: Option<(Name, usize)> = None;
        while start < raw.len() {
            let next = memchr(b'\n', &raw[start..]).map_or(raw.len(), |at| start + at + 1);
            let line = &raw[start..next];
            // RFC 5322 2.2.3: a line that begins with white space continues the field above it.
            if !matches!(line[0], b' ' | b'\t') {
                section.close(raw, open.take(), start);
                // Some gateways write CR CR LF.
                if line.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                    start = next;
                    break;
                }
                if line.starts_with(b"--") && ends(line) {
                    break;
                }
                open = memchr(b':', &line[..line.len().min(NAME_MAX)])
                    .and_then(|colon| Some((named(line[..colon].trim_ascii_end())?, start + colon + 1)));
            }
            start = next;
        }
        section.close(raw, open, start);
        section.body_at = start;
        section
    }

    fn close(&mut self, raw: &'a [u8], open: Option<(Name, usize)>, end: usize) {
        let Some((name, start)) = open else { return };
        if self.fields.len() >= limits::MIME_FIELDS_MAX {
            self.truncated = true;
            return;
        }
        self.truncated |= end - start > limits::MIME_FIELD_MAX;
        self.fields.push((name, &raw[start..end]));
    }

    /// Values of all fields of this name.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |field| field.0 == name).map(|field| field.1)
    }

    /// The first one: RFC 5322 allows one only, and the hop that is nearest to us writes on top.
    pub fn first(&self, name: Name) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Decoded text of an unstructured field (RFC 2047).
    pub fn text(&self, name: Name) -> Option<String> {
        let value = readable(self.first(name)?, limits::MIME_FIELD_MAX);
        MessageStream::new(&value).parse_unstructured().into_text().map(|text| without_nul(text.into_owned()))
    }

    /// Unfolded but otherwise verbatim; the empty text for an empty field.
    pub fn verbatim(&self, name: Name) -> Option<String> {
        self.first(name).map(unfolded)
    }

    pub fn date(&self) -> Option<mail_parser::DateTime> {
        let value = readable(self.first(Name::Date)?, limits::MIME_FIELD_MAX);
        MessageStream::new(&value).parse_date().into_datetime().filter(mail_parser::DateTime::is_valid)
    }

    /// Message ids without angle brackets.
    pub fn ids(&self, name: Name) -> Vec<String> {
        let mut ids = Vec::new();
        for value in self.all(name) {
            let value = readable(value, limits::MIME_FIELD_MAX);
            let parsed = MessageStream::new(&value).parse_id().into_text_list().unwrap_or_default();
            ids.extend(parsed.into_iter().map(|id| without_nul(id.into_owned())).filter(|id| !id.is_empty()));
        }
        ids.truncate(limits::FACT_IDS_MAX);
        ids
    }

    /// Mailboxes of all fields of this name; groups are flattened.
    pub fn mailboxes(&self, name: Name) -> Vec<Mailbox> {
        let mut mailboxes = Vec::new();
        for value in self.all(name) {
            let value = readable(value, limits::MIME_FIELD_MAX);
            let HeaderValue::Address(addresses) = MessageStream::new(&value).parse_address() else { continue };
            for one in addresses.iter() {
                let name = one.name().map(|name| without_nul(name.to_owned()));
                if let Some(address) = one.address() {
                    mailboxes.push(Mailbox { name, address: without_nul(address.to_owned()) });
                }
            }
            if mailboxes.len() > limits::FACT_ADDRESSES_MAX {
                break;
            }
        }
        mailboxes.truncate(limits::FACT_ADDRESSES_MAX);
        mailboxes
    }

    /// Content-Type or Content-Disposition with its parameters (RFC 2045, 2183, 2231).
    pub fn parameters(&self, name: Name) -> Option<mail_parser::ContentType<'static>> {
        let value = readable(self.first(name)?, limits::MIME_PARAMETERS_MAX);
        match MessageStream::new(&value).parse_content_type().into_owned() {
            HeaderValue::ContentType(parsed) => Some(parsed),
            _ => None,
        }
    }
}

/// Longest field name that is looked for, with its colon and any white space before that.
const NAME_MAX: usize = 80;

fn named(name: &[u8]) -> Option<Name> {
    NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes())).map(|(_, name)| *name)
}

/// What mail-parser wants: bounded, ending with a line end. Raw 8-bit that is not UTF-8 (RFC 6532) is read as
/// Windows-1252.
fn readable(value: &[u8], max: usize) -> Cow<'_, [u8]> {
    let bounded = &value[..value.len().min(max)];
    let utf8 = match std::str::from_utf8(bounded) {
        Ok(_) => true,
        // A character cut by the bound is no reason to take the rest for something else.
        Err(error) => error.error_len().is_none(),
    };
    match (utf8, bounded.ends_with(b"\n")) {
        (true, true) => Cow::Borrowed(bounded),
        (true, false) => Cow::Owned([bounded, b"\n"].concat()),
        (false, _) => Cow::Owned((latin(bounded) + "\n").into_bytes()),
    }
}

fn unfolded(value: &[u8]) -> String {
    let value = readable(value, limits::MIME_FIELD_MAX);
    let text = String::from_utf8_lossy(&value);
    without_nul(text.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" "))
}
