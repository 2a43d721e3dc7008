//! One message as Graph shows it.

use std::cell::OnceCell;

use base64::{Engine, engine::general_purpose::URL_SAFE};
use mail_parser::{Addr, Address, MimeHeaders};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::{access::Caller, attachments, date_time, folders, query::Query};
use crate::mailbox::{Folder, Message, mime};

/// In their order; `true`: only when `$select` names it.
const PROPERTIES: [(&str, bool); 30] = [
    ("id", false),
    ("createdDateTime", false),
    ("lastModifiedDateTime", false),
    ("changeKey", false),
    ("categories", false),
    ("receivedDateTime", false),
    ("sentDateTime", false),
    ("hasAttachments", false),
    ("internetMessageId", false),
    ("subject", false),
    ("bodyPreview", false),
    ("importance", false),
    ("parentFolderId", false),
    ("conversationId", false),
    ("conversationIndex", false),
    ("isDeliveryReceiptRequested", false),
    ("isReadReceiptRequested", false),
    ("isRead", false),
    ("isDraft", false),
    ("webLink", false),
    ("inferenceClassification", false),
    ("body", false),
    ("sender", false),
    ("from", false),
    ("toRecipients", false),
    ("ccRecipients", false),
    ("bccRecipients", false),
    ("replyTo", false),
    ("flag", false),
    ("internetMessageHeaders", true),
];
const PREVIEW: usize = 255;

pub struct View<'a> {
    caller: &'a Caller<'a>,
    folder: &'a Folder,
    message: &'a Message,
    /// Parsed when the first property of the header is asked for.
    parsed: OnceCell<Option<mail_parser::Message<'a>>>,
}

pub fn properties() -> Vec<&'static str> {
    PROPERTIES.iter().map(|(name, _)| *name).collect()
}

impl<'a> View<'a> {
    pub fn new(caller: &'a Caller<'a>, folder: &'a Folder, message: &'a Message) -> Self {
        Self { caller, folder, message, parsed: OnceCell::new() }
    }

    pub fn show(&self, query: &Query) -> Value {
        let mut shown = json!({"@odata.etag": format!("W/\"{}\"", change_key(self.message))});
        for (name, must_be_named) in PROPERTIES {
            if (must_be_named && query.names(name)) || (!must_be_named && query.wants(name)) {
                shown[name] = self.property(name).unwrap_or_default();
            }
        }
        if query.expands {
            let parsed = self.parsed();
            shown["attachments"] =
                json!(parsed.map_or_else(Vec::new, |parsed| attachments::of(&shown["id"], self.message, parsed, true)));
        }
        shown
    }

    fn parsed(&self) -> Option<&mail_parser::Message<'a>> {
        self.parsed.get_or_init(|| mime::parse(&self.message.raw)).as_ref()
    }

    /// `None` counts as null.
    pub fn property(&self, name: &str) -> Option<Value> {
        let message = self.message;
        let parsed = || self.parsed();
        let has_flag = |flag: &str| message.flags.contains(flag);
        Some(match name {
            "id" => json!(self.caller.message_id(self.folder, message)),
            "createdDateTime" | "lastModifiedDateTime" | "receivedDateTime" => json!(date_time(message.received)),
            "changeKey" => json!(change_key(message)),
            "categories" => json!([]),
            "sentDateTime" => {
                let sent = parsed().and_then(|parsed| parsed.date()).map(mail_parser::DateTime::to_timestamp);
                let sent = sent.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
                json!(date_time(sent.unwrap_or(message.received)))
            }
            "hasAttachments" => {
                json!(parsed().is_some_and(|parsed| parsed.attachments().any(|part| !attachments::is_inline(part))))
            }
            "internetMessageId" => json!(format!("<{}>", parsed()?.message_id()?)),
            "subject" => json!(parsed()?.subject().unwrap_or_default()),
            "bodyPreview" => json!(parsed()?.body_preview(PREVIEW).unwrap_or_default().trim()),
            "importance" => json!(importance(parsed()?)),
            "parentFolderId" => json!(folders::id_of(self.folder)),
            "conversationId" => json!(conversation(parsed()?)),
            "isDeliveryReceiptRequested" | "isReadReceiptRequested" => json!(false),
            "isRead" => json!(message.is_seen()),
            "isDraft" => json!(has_flag("\\Draft")),
            "webLink" => json!(format!("{}/owa/?ItemID={}", self.caller.state.base_url(), message.id)),
            "inferenceClassification" => json!("focused"),
            "body" => self.body(),
            "sender" => single(parsed()?.sender().or_else(|| parsed()?.from()))?,
            "from" => single(parsed()?.from())?,
            "toRecipients" => list(parsed()?.to()),
            "ccRecipients" => list(parsed()?.cc()),
            "bccRecipients" => list(parsed()?.bcc()),
            "replyTo" => list(parsed()?.reply_to()),
            "flag" => json!({"flagStatus": if has_flag("\\Flagged") { "flagged" } else { "notFlagged" }}),
            "internetMessageHeaders" => {
                let lines = parsed()?.headers_raw().map(|(name, value)| json!({"name": name, "value": value.trim()}));
                json!(lines.collect::<Vec<_>>())
            }
            _ => return None,
        })
    }

    fn body(&self) -> Value {
        let Some(parsed) = self.parsed() else { return json!({"contentType": "text", "content": ""}) };
        let is_html = match self.caller.prefers("outlook.body-content-type") {
            Some(kind) => kind.eq_ignore_ascii_case("html"),
            None => is_html(parsed),
        };
        let (kind, content) = match is_html {
            true => ("html", parsed.body_html(0)),
            false => ("text", parsed.body_text(0)),
        };
        json!({"contentType": kind, "content": content.unwrap_or_default()})
    }
}

/// Is its best body HTML?
pub fn is_html(parsed: &mail_parser::Message<'_>) -> bool {
    parsed.html_part(0).is_some_and(|part| part.is_text_html())
}

pub fn importance(parsed: &mail_parser::Message<'_>) -> &'static str {
    let value = parsed.header_raw("Importance").map(|value| value.trim().to_ascii_lowercase());
    match value.as_deref() {
        Some("high") => "high",
        Some("low") => "low",
        _ => "normal",
    }
}

/// Changes with the message.
fn change_key(message: &Message) -> String {
    URL_SAFE.encode([&b"CQAAABYAAA"[..], &message.changed.to_be_bytes()].concat())
}

/// Of the first message that it answers.
fn conversation(parsed: &mail_parser::Message<'_>) -> String {
    let references = parsed.header_raw("References").unwrap_or_default().split_whitespace().next();
    let first = references.or(parsed.header_raw("In-Reply-To")).or(parsed.message_id()).unwrap_or_default();
    URL_SAFE.encode(&Sha256::digest(first.trim().trim_matches(['<', '>']))[..18])
}

fn recipient(address: &Addr<'_>) -> Option<Value> {
    let smtp = address.address().filter(|smtp| !smtp.is_empty())?;
    Some(json!({"emailAddress": {"name": address.name().unwrap_or(smtp), "address": smtp}}))
}

fn single(address: Option<&Address<'_>>) -> Option<Value> {
    address?.iter().find_map(recipient)
}

fn list(address: Option<&Address<'_>>) -> Value {
    json!(address.into_iter().flat_map(Address::iter).filter_map(recipient).collect::<Vec<_>>())
}

/// Content-ID without brackets.
pub fn content_id(part: &mail_parser::MessagePart<'_>) -> Option<String> {
    part.content_id().map(|id| id.trim_matches(['<', '>']).to_owned())
}
