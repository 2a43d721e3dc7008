//! A draft: what JSON says of it, and its MIME. The mailbox holds the MIME alone, so that all faces see the draft.

use base64::{Engine, engine::general_purpose::STANDARD};
use mail_builder::{
    MessageBuilder,
    headers::{address::Address, raw::Raw, text::Text},
    mime::MimePart,
};
use mail_parser::MimeHeaders;
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    Answer, Refusal,
    access::{Caller, Right, folder_name, no_item},
    attachments, is_mime, json_body, messages, ok, refuse, send, view,
};
use crate::{config::DOMAIN, mailbox::mime, oauth};

/// Bytes of attachments that one request can bring are bound by its size; of a draft, by `message_size_max`.
#[derive(Default)]
pub struct Draft {
    from: Vec<Person>,
    sender: Vec<Person>,
    to: Vec<Person>,
    cc: Vec<Person>,
    bcc: Vec<Person>,
    reply_to: Vec<Person>,
    subject: String,
    importance: Option<String>,
    message_id: Option<String>,
    /// `X-…`, In-Reply-To and References.
    headers: Vec<(String, String)>,
    is_html: bool,
    body: String,
    pub files: Vec<File>,
}

/// Display name, perhaps empty; address.
type Person = (String, String);

pub struct File {
    pub name: String,
    pub content_type: String,
    pub content_id: Option<String>,
    pub is_inline: bool,
    pub bytes: Vec<u8>,
}

/// <https://learn.microsoft.com/graph/api/user-post-messages>: from JSON or from MIME.
pub fn create(caller: &Caller<'_>, folder: Option<&str>) -> Answer {
    caller.may(Right::Write)?;
    let raw = match is_mime(caller.request) {
        true => send::decoded(&caller.request.body)?,
        false => Draft::from_json(&json_body(caller.request)?)?.mime(),
    };
    let max = caller.state.config.message_size_max;
    let made = caller.with(|mailbox| {
        let folder = folder_name(mailbox, folder.unwrap_or("drafts"))?;
        if raw.len() > max {
            return Err(too_large());
        }
        let flags = ["\\Draft", "\\Seen"].map(str::to_owned).into();
        let uid = mailbox.append(&folder, raw, flags, OffsetDateTime::now_utc()).ok_or_else(no_item)?;
        messages::whole(caller, mailbox, &folder, uid)
    })?;
    Ok(ok(201, &made))
}

pub fn too_large() -> Refusal {
    refuse(413, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.")
}

impl Draft {
    pub fn from_json(message: &Value) -> Result<Self, Refusal> {
        let mut draft = Self { message_id: Some(format!("{}@{DOMAIN}", oauth::random())), ..Self::default() };
        draft.apply(message, true)?;
        Ok(draft)
    }

    pub fn of(raw: &[u8]) -> Self {
        let Some(parsed) = mime::parse(raw) else { return Self::default() };
        let people = |list: Option<&mail_parser::Address<'_>>| -> Vec<Person> {
            let all = list.into_iter().flat_map(mail_parser::Address::iter);
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            all.map(|one| (text(one.name()), text(one.address()))).collect()
        };
        let is_kept = |name: &str| {
            let name = name.to_ascii_lowercase();
            let kept = ["in-reply-to", "references", "auto-submitted", "precedence"];
            name.starts_with("x-") || name.starts_with("list-") || kept.contains(&name.as_str())
        };
        let kept = parsed.headers_raw().filter(|(name, _)| is_kept(name));
        let is_html = view::is_html(&parsed);
        let body = if is_html { parsed.body_html(0) } else { parsed.body_text(0) };
        Self {
            from: people(parsed.from()),
            sender: people(parsed.sender()),
            to: people(parsed.to()),
            cc: people(parsed.cc()),
            bcc: people(parsed.bcc()),
            reply_to: people(parsed.reply_to()),
            subject: parsed.subject().unwrap_or_default().to_owned(),
            importance: Some(view::importance(&parsed).to_owned()).filter(|importance| importance != "normal"),
            message_id: parsed.message_id().map(str::to_owned),
            headers: kept.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect(),
            is_html,
            body: body.unwrap_or_default().into_owned(),
            files: parsed.attachments().map(|part| File::of(&parsed, part)).collect(),
        }
    }

    /// # Errors
    /// 400 for what cannot be set; nothing is left out in silence.
    pub fn apply(&mut self, message: &Value, is_new: bool) -> Result<(), Refusal> {
        for (name, value) in message.as_object().into_iter().flatten() {
            let wrong =
                || refuse(400, "RequestBodyRead", format!("The value of the property '{name}' is of a wrong type."));
            let text = || value.as_str().map(str::to_owned).ok_or_else(wrong);
            let header_safe = |text: String| if text.contains(['\r', '\n']) { Err(wrong()) } else { Ok(text) };
            match name.as_str() {
                "subject" if value.is_null() => self.subject.clear(),
                "subject" => self.subject = header_safe(text()?)?,
                "body" => {
                    let kind = value["contentType"].as_str().unwrap_or("text");
                    self.is_html = kind.eq_ignore_ascii_case("html");
                    self.body = value["content"].as_str().unwrap_or_default().to_owned();
                }
                "from" => self.from = people(std::slice::from_ref(value))?,
                "sender" => self.sender = people(std::slice::from_ref(value))?,
                "toRecipients" => self.to = people(value.as_array().ok_or_else(wrong)?)?,
                "ccRecipients" => self.cc = people(value.as_array().ok_or_else(wrong)?)?,
                "bccRecipients" => self.bcc = people(value.as_array().ok_or_else(wrong)?)?,
                "replyTo" => self.reply_to = people(value.as_array().ok_or_else(wrong)?)?,
                "importance" => self.importance = Some(text()?.to_lowercase()).filter(|text| text != "normal"),
                "internetMessageId" => {
                    self.message_id = Some(header_safe(text()?)?.trim_matches(['<', '>']).to_owned());
                }
                "internetMessageHeaders" => {
                    for header in value.as_array().ok_or_else(wrong)? {
                        let (name, value) = (header["name"].as_str(), header["value"].as_str());
                        let (name, value) = (name.unwrap_or_default(), value.unwrap_or_default());
                        let is_name = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
                        if !name.to_ascii_lowercase().starts_with("x-") || !is_name {
                            let text =
                                format!("The internet message header name '{name}' should start with 'x-' or 'X-'.");
                            return Err(refuse(400, "InvalidInternetMessageHeader", text));
                        }
                        self.headers.push((name.to_owned(), header_safe(value.to_owned())?));
                    }
                }
                "singleValueExtendedProperties" if is_new => {
                    for property in value.as_array().ok_or_else(wrong)? {
                        let id = property["id"].as_str().unwrap_or_default();
                        let value = property["value"].as_str().ok_or_else(wrong)?.to_owned();
                        self.headers.push((field_of(id).ok_or_else(wrong)?.to_owned(), header_safe(value)?));
                    }
                }
                "attachments" if is_new => {
                    for file in value.as_array().ok_or_else(wrong)? {
                        self.files.push(File::from_json(file)?);
                    }
                }
                // What a mailbox sets itself, or what means nothing here; new drafts are read.
                "isRead" | "flag" | "id" | "categories" | "inferenceClassification" => {}
                "isDeliveryReceiptRequested" | "isReadReceiptRequested" if *value != true => {}
                _ if name.starts_with('@') || value.is_null() => {}
                _ => return Err(refuse(400, "RequestBodyRead", format!("The property '{name}' cannot be set here."))),
            }
        }
        Ok(())
    }

    /// Without a From or a Date that it does not have; sending puts them in.
    pub fn mime(&self) -> Vec<u8> {
        let mut builder = MessageBuilder::new();
        let named = [
            ("From", &self.from),
            ("Sender", &self.sender),
            ("To", &self.to),
            ("Cc", &self.cc),
            ("Bcc", &self.bcc),
            ("Reply-To", &self.reply_to),
        ];
        for (name, list) in named {
            if !list.is_empty() {
                builder = builder.header(name, addresses(list));
            }
        }
        builder = builder.header("Subject", Text::new(self.subject.as_str()));
        if let Some(id) = &self.message_id {
            builder = builder.message_id(id.as_str());
        }
        if let Some(importance) = &self.importance {
            builder = builder.header("Importance", Raw::new(importance.as_str()));
        }
        for (name, value) in &self.headers {
            builder = builder.header(name.as_str(), Raw::new(value.as_str()));
        }
        if self.is_html {
            // Exchange puts the text beside it, too.
            let text = mail_parser::decoders::html::html_to_text(&self.body);
            builder = builder.text_body(text).html_body(self.body.as_str());
        } else {
            builder = builder.text_body(self.body.as_str());
        }
        let parts: Vec<MimePart<'_>> = self.files.iter().map(File::part).collect();
        builder.attachments = (!parts.is_empty()).then_some(parts);
        // A Vec takes everything.
        builder.write_to_vec().unwrap_or_default()
    }
}

/// The header field that an extended property becomes: PidTagInternetReferences, PidTagInReplyToId, PS_INTERNET_HEADERS.
///
/// <https://learn.microsoft.com/graph/api/resources/extended-properties-overview>
fn field_of(id: &str) -> Option<&str> {
    match id {
        "String 0x1039" => Some("References"),
        "String 0x1042" => Some("In-Reply-To"),
        _ => {
            let name = id.strip_prefix("String {00020386-0000-0000-C000-000000000046} Name ")?;
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
            is_name.then_some(name)
        }
    }
}

fn addresses(list: &[Person]) -> Address<'_> {
    let one = |(name, address): &'_ Person| (Some(name.clone()).filter(|name| !name.is_empty()), address.clone());
    let all = list.iter().map(one).map(|(name, address)| Address::new_address(name, address));
    Address::new_list(all.collect())
}

fn people(list: &[Value]) -> Result<Vec<Person>, Refusal> {
    let one = |recipient: &Value| {
        let email = &recipient["emailAddress"];
        let address = email["address"].as_str().unwrap_or_default();
        if address.is_empty() || address.contains(|c: char| c.is_control() || " <>,;\"".contains(c)) {
            return Err(refuse(400, "ErrorInvalidRecipients", "At least one recipient is not valid."));
        }
        let name: String = email["name"].as_str().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        Ok((name, address.to_owned()))
    };
    list.iter().filter(|recipient| !recipient.is_null()).map(one).collect()
}

impl File {
    fn of(parsed: &mail_parser::Message<'_>, part: &mail_parser::MessagePart<'_>) -> Self {
        let (content_type, bytes) = (attachments::content_type(part), attachments::bytes(parsed, part).to_vec());
        Self {
            name: part.attachment_name().unwrap_or_default().to_owned(),
            content_type,
            content_id: view::content_id(part),
            is_inline: attachments::is_inline(part),
            bytes,
        }
    }

    /// fileAttachment.
    pub fn from_json(file: &Value) -> Result<Self, Refusal> {
        let kind = file["@odata.type"].as_str().unwrap_or_default();
        if kind.trim_start_matches('#') != "microsoft.graph.fileAttachment" {
            return Err(refuse(
                400,
                "ErrorInvalidRequest",
                format!("Attachments of the type '{kind}' are not served here."),
            ));
        }
        let content = file["contentBytes"].as_str().unwrap_or_default();
        let bytes = STANDARD.decode(content);
        let bytes = bytes.map_err(|_| refuse(400, "RequestBodyRead", "contentBytes is no base64."))?;
        Self::described(file, bytes)
    }

    /// Name and the rest as fileAttachment and attachmentItem have them.
    pub fn described(item: &Value, bytes: Vec<u8>) -> Result<Self, Refusal> {
        let text = |name: &str| item[name].as_str().filter(|text| !text.contains(char::is_control));
        let name = text("name").ok_or_else(|| refuse(400, "ErrorInvalidRequest", "The attachment has no name."))?;
        let kind = text("contentType").filter(|kind| kind.contains('/') && !kind.contains([';', ' ']));
        Ok(Self {
            name: name.to_owned(),
            content_type: kind.unwrap_or("application/octet-stream").to_owned(),
            content_id: text("contentId").map(str::to_owned),
            is_inline: item["isInline"] == true,
            bytes,
        })
    }

    fn part(&self) -> MimePart<'_> {
        let mut part = MimePart::new(self.content_type.as_str(), self.bytes.as_slice());
        if self.content_type == "message/rfc822" {
            // RFC 2046 section 5.2.1: never in base64.
            part = part.transfer_encoding("8bit");
        }
        part = match self.is_inline {
            true => part.inline(),
            false => part.attachment(self.name.as_str()),
        };
        match &self.content_id {
            Some(id) => part.cid(id.as_str()),
            None => part,
        }
    }
}
