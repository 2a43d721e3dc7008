//! One message as EWS shows it: properties by their URI, in the order of the schema.

use std::cell::OnceCell;

use base64::{Engine, engine::general_purpose::STANDARD};
use mail_parser::Address;
use roxmltree::Node;
use time::OffsetDateTime;

use super::{
    Refusal, refuse,
    xml::{child, child_text, date_time, element, elements, escape, is_true},
};
use crate::mailbox::{
    Folder, Message, Special, ids,
    mime::{addresses, is_poisoned, parse},
};

/// Bases of the shapes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Base {
    IdOnly,
    Default,
    All,
}

/// Which properties are shown, from which shape on.
const PROPERTIES: [(&str, Base); 31] = [
    ("item:ParentFolderId", Base::All),
    ("item:ItemClass", Base::All),
    ("item:Subject", Base::Default),
    ("item:Sensitivity", Base::Default),
    ("item:Body", Base::Default),
    ("item:DateTimeReceived", Base::All),
    ("item:Size", Base::Default),
    ("item:Importance", Base::All),
    ("item:InReplyTo", Base::All),
    ("item:IsSubmitted", Base::All),
    ("item:IsDraft", Base::All),
    ("item:IsFromMe", Base::All),
    ("item:IsResend", Base::All),
    ("item:IsUnmodified", Base::All),
    ("item:InternetMessageHeaders", Base::All),
    ("item:DateTimeSent", Base::Default),
    ("item:DateTimeCreated", Base::All),
    ("item:DisplayCc", Base::All),
    ("item:DisplayTo", Base::All),
    ("item:HasAttachments", Base::Default),
    ("item:IsAssociated", Base::All),
    ("item:TextBody", Base::All),
    ("message:Sender", Base::All),
    ("message:ToRecipients", Base::Default),
    ("message:CcRecipients", Base::Default),
    ("message:BccRecipients", Base::Default),
    ("message:From", Base::Default),
    ("message:InternetMessageId", Base::All),
    ("message:IsRead", Base::Default),
    ("message:References", Base::All),
    ("message:ReplyTo", Base::All),
];

/// FindItem and SyncFolderItems do not show these, as at Exchange.
const DETAILS: [&str; 7] = [
    "item:Body",
    "item:TextBody",
    "item:InternetMessageHeaders",
    "message:ToRecipients",
    "message:CcRecipients",
    "message:BccRecipients",
    "message:ReplyTo",
];

/// ItemShape.
pub struct Shape {
    base: Base,
    more: Vec<String>,
    mime: bool,
    /// `true`: text, `false`: HTML, else the best there is.
    text_body: Option<bool>,
}

impl Shape {
    pub fn parse(node: Option<Node<'_, '_>>) -> Self {
        let base = match node.and_then(|node| child_text(node, "BaseShape")) {
            Some("AllProperties") => Base::All,
            Some("Default") => Base::Default,
            _ => Base::IdOnly,
        };
        let more = additional(node);
        let asked = node.and_then(|node| child_text(node, "IncludeMimeContent")).is_some_and(is_true);
        let mime = asked || more.iter().any(|uri| uri == "item:MimeContent");
        let text_body = match node.and_then(|node| child_text(node, "BodyType")) {
            Some("Text") => Some(true),
            Some("HTML") => Some(false),
            _ => None,
        };
        Self { base, more, mime, text_body }
    }
}

/// URIs of AdditionalProperties; extended properties have none.
pub fn additional(shape: Option<Node<'_, '_>>) -> Vec<String> {
    let list = shape.and_then(|shape| child(shape, "AdditionalProperties"));
    let uris = list.into_iter().flat_map(elements).filter_map(|path| path.attribute("FieldURI"));
    uris.map(str::to_owned).collect()
}

pub struct View<'a> {
    folder: &'a Folder,
    message: &'a Message,
    /// Parsed when the first property of the header is asked for.
    parsed: OnceCell<Option<mail_parser::Message<'a>>>,
}

impl<'a> View<'a> {
    pub fn new(folder: &'a Folder, message: &'a Message) -> Self {
        Self { folder, message, parsed: OnceCell::new() }
    }

    /// `<t:ItemId Id="…" ChangeKey="…"/>`
    pub fn item_id(folder: &Folder, message: &Message) -> String {
        let (id, key) = (ids::ews_id_of(folder, message), change_key(message));
        format!("<t:ItemId Id=\"{id}\" ChangeKey=\"{key}\"/>")
    }

    /// `<t:Message>` as GetItem shows it.
    ///
    /// # Errors
    /// ErrorContentConversionFailed for MIME of a poisoned message.
    pub fn whole(&self, shape: &Shape) -> Result<String, Refusal> {
        let mut mime = String::new();
        if shape.mime {
            if self.is_poisoned() {
                return Err(refuse("ErrorContentConversionFailed", "Content conversion failed."));
            }
            let content = STANDARD.encode(self.message.raw.as_slice());
            mime = format!("<t:MimeContent CharacterSet=\"UTF-8\">{content}</t:MimeContent>");
        }
        Ok(self.show(shape, &mime, true))
    }

    /// `<t:Message>` as FindItem and SyncFolderItems show it.
    pub fn headline(&self, shape: &Shape) -> String {
        self.show(shape, "", false)
    }

    fn show(&self, shape: &Shape, mime: &str, is_whole: bool) -> String {
        let mut output = format!("<t:Message>{mime}{}", Self::item_id(self.folder, self.message));
        for (uri, from) in PROPERTIES {
            let wanted = shape.base >= from || shape.more.iter().any(|more| more == uri);
            if wanted && (is_whole || !DETAILS.contains(&uri)) {
                output.push_str(&self.property(uri, shape).unwrap_or_default());
            }
        }
        output + "</t:Message>"
    }

    fn parsed(&self) -> Option<&mail_parser::Message<'a>> {
        self.parsed.get_or_init(|| parse(&self.message.raw)).as_ref()
    }

    fn is_poisoned(&self) -> bool {
        self.parsed().is_some_and(is_poisoned)
    }

    fn property(&self, uri: &str, shape: &Shape) -> Option<String> {
        let parsed = || self.parsed();
        let name = uri.split(':').next_back()?;
        let recipients = |list: Option<&Address<'_>>| {
            let list = mailboxes(list?);
            (!list.is_empty()).then(|| format!("<t:{name}>{list}</t:{name}>"))
        };
        match uri {
            "item:ParentFolderId" => {
                let id = ids::ews_folder_id_of(self.folder);
                Some(format!("<t:ParentFolderId Id=\"{id}\" ChangeKey=\"AQAAAA==\"/>"))
            }
            "item:Body" | "item:TextBody" => {
                let html = || parsed()?.body_html(0);
                let is_text = uri == "item:TextBody"
                    || shape.text_body.unwrap_or_else(|| parsed().is_none_or(|parsed| parsed.html_body_count() == 0));
                let body = if is_text { parsed().and_then(|parsed| parsed.body_text(0)) } else { html() };
                let kind = if is_text { "Text" } else { "HTML" };
                let body = body.unwrap_or_default();
                Some(format!("<t:{name} BodyType=\"{kind}\">{}</t:{name}>", escape(&body)))
            }
            "item:InternetMessageHeaders" => {
                let line = |(header, value): (&str, &str)| {
                    let (header, value) = (escape(header), escape(value.trim()));
                    format!("<t:InternetMessageHeader HeaderName=\"{header}\">{value}</t:InternetMessageHeader>")
                };
                let lines: String = parsed()?.headers_raw().map(line).collect();
                (!lines.is_empty()).then(|| format!("<t:{name}>{lines}</t:{name}>"))
            }
            "message:Sender" => self.single(name, parsed()?.sender().or_else(|| parsed()?.from())),
            "message:From" => self.single(name, parsed()?.from()),
            "message:ToRecipients" => recipients(parsed()?.to()),
            "message:CcRecipients" => recipients(parsed()?.cc()),
            "message:BccRecipients" => recipients(parsed()?.bcc()),
            "message:ReplyTo" => recipients(parsed()?.reply_to()),
            _ => self.plain(uri).map(|text| element(name, &text)),
        }
    }

    fn single(&self, name: &str, address: Option<&Address<'_>>) -> Option<String> {
        let list = mailboxes(address?);
        let end = list.find("</t:Mailbox>")? + "</t:Mailbox>".len();
        Some(format!("<t:{name}>{}</t:{name}>", &list[..end]))
    }

    /// As text, to show, compare and sort; `None` when it is not there.
    pub fn plain(&self, uri: &str) -> Option<String> {
        let parsed = || self.parsed();
        let yes_no = |is: bool| Some(is.to_string());
        let is_draft = self.message.flags.contains("\\Draft");
        match uri {
            "item:ItemClass" => Some("IPM.Note".into()),
            "item:Subject" => parsed()?.subject().map(str::to_owned),
            "item:Sensitivity" => Some("Normal".into()),
            "item:DateTimeReceived" | "item:DateTimeCreated" => Some(date_time(self.message.received)),
            "item:DateTimeSent" => {
                let sent = parsed().and_then(|parsed| parsed.date()).map(mail_parser::DateTime::to_timestamp);
                let sent = sent.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
                Some(date_time(sent.unwrap_or(self.message.received)))
            }
            "item:Size" => Some(i32::try_from(self.message.raw.len()).unwrap_or(i32::MAX).to_string()),
            "item:Importance" => {
                let header = |name| parsed()?.header_raw(name).map(|value| value.trim().to_ascii_lowercase());
                Some(match header("Importance").as_deref() {
                    Some("high") => "High".into(),
                    Some("low") => "Low".into(),
                    _ => "Normal".into(),
                })
            }
            "item:InReplyTo" => parsed()?.header_raw("In-Reply-To").map(|value| value.trim().to_owned()),
            "message:References" => parsed()?.header_raw("References").map(|value| value.trim().to_owned()),
            "item:IsSubmitted" | "item:IsResend" | "item:IsAssociated" => yes_no(false),
            "item:IsDraft" => yes_no(is_draft),
            "item:IsUnmodified" => yes_no(!is_draft),
            "item:IsFromMe" => yes_no(self.folder.special == Some(Special::Sent)),
            "item:HasAttachments" => yes_no(parsed().is_some_and(|parsed| parsed.attachment_count() > 0)),
            "item:DisplayTo" => Some(names(parsed()?.to())),
            "item:DisplayCc" => Some(names(parsed()?.cc())),
            "message:InternetMessageId" => parsed()?.message_id().map(|id| format!("<{id}>")),
            "message:IsRead" => yes_no(self.message.is_seen()),
            "message:From" | "message:Sender" => parsed()?.from()?.first()?.address().map(str::to_owned),
            "message:ToRecipients" => Some(addresses(parsed()?.to()).join(";")),
            "message:CcRecipients" => Some(addresses(parsed()?.cc()).join(";")),
            _ => None,
        }
    }
}

/// Changes with the message.
pub fn change_key(message: &Message) -> String {
    STANDARD.encode([&b"CQAAABYAAA"[..], &message.changed.to_be_bytes()].concat())
}

fn names(list: Option<&Address<'_>>) -> String {
    let all = list.into_iter().flat_map(Address::iter);
    all.filter_map(|address| address.name().or(address.address())).collect::<Vec<_>>().join("; ")
}

fn mailboxes(list: &Address<'_>) -> String {
    let one = |address: &mail_parser::Addr<'_>| {
        let smtp = address.address().filter(|smtp| !smtp.is_empty())?;
        let name = element("Name", address.name().unwrap_or(smtp));
        let smtp = element("EmailAddress", smtp);
        Some(format!("<t:Mailbox>{name}{smtp}<t:RoutingType>SMTP</t:RoutingType></t:Mailbox>"))
    };
    list.iter().filter_map(one).collect()
}
