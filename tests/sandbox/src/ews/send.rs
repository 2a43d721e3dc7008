//! CreateItem and SendItem. Who receives a message stands in its header; there is no envelope.

use std::{borrow::Cow, collections::BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use roxmltree::Node;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::{
    Answer, Outcome, Refusal,
    access::{Caller, Item, Place, What, find},
    invalid,
    items::transfer,
    message::{View, change_key},
    refuse,
    xml::{child, child_text, elements, is_true, text},
};
use crate::{
    mailbox::mime::{addresses, parse, without_bcc},
    oauth,
};

/// Characters of a base64 line (RFC 2045 section 6.8).
const LINE: usize = 76;
/// Bytes of text in one encoded-word (RFC 2047 section 2: at most 75 characters with everything).
const WORD: usize = 30;

/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/createitem-operation>
pub fn create_item(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let items = child(request, "Items").ok_or_else(|| invalid("Items is missing"))?;
    let saved = child(request, "SavedItemFolderId");
    let one = |item: Node<'_, '_>| -> Outcome {
        if item.tag_name().name() != "Message" {
            return Err(refuse("ErrorInvalidRequest", "Only messages can be created here."));
        }
        let disposition = request.attribute("MessageDisposition").ok_or_else(|| {
            refuse("ErrorMessageDispositionRequired", "Message disposition must be specified for this operation.")
        })?;
        let default = if disposition == "SaveOnly" { "Drafts" } else { "Sent Items" };
        let place = match saved {
            None => Place { mailbox: caller.own.clone(), what: What::Folder(default.into()) },
            saved => caller.place_in(saved)?,
        };
        let raw = mime(item, &caller.own)?;
        if raw.len() > caller.state.config.message_size_max {
            return Err(too_large());
        }
        match disposition {
            "SaveOnly" => {
                let is_read = child_text(item, "IsRead").is_none_or(is_true);
                let flags = ["\\Draft", "\\Seen"].into_iter().filter(|flag| *flag != "\\Seen" || is_read);
                let id = save(caller, &place, raw, flags.map(str::to_owned).collect())?;
                Ok(format!("<m:Items><t:Message>{id}</t:Message></m:Items>"))
            }
            "SendOnly" | "SendAndSaveCopy" => {
                send(caller, &raw)?;
                if disposition == "SendAndSaveCopy" {
                    save(caller, &place, raw, BTreeSet::from(["\\Seen".to_owned()]))?;
                }
                Ok("<m:Items/>".into())
            }
            _ => Err(invalid("MessageDisposition is unknown")),
        }
    };
    Ok(elements(items).map(one).collect())
}

/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/senditem-operation>
pub fn send_item(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let keeps = request.attribute("SaveItemToFolder").ok_or_else(|| invalid("SaveItemToFolder is missing"))?;
    let keeps = is_true(keeps);
    let ids = child(request, "ItemIds").ok_or_else(|| invalid("ItemIds is missing"))?;
    let saved = child(request, "SavedItemFolderId");
    let one = |id| -> Outcome {
        if !keeps && saved.is_some() {
            let text = "SavedItemFolderId cannot be used when SaveItemToFolder is false.";
            return Err(refuse("ErrorInvalidSendItemSaveSettings", text));
        }
        let item = caller.item(id)?;
        let place = match saved {
            None => Place { mailbox: item.mailbox.clone(), what: What::Folder("Sent Items".into()) },
            saved => caller.place_in(saved)?,
        };
        place.folder()?;
        let raw = caller.with(&item.mailbox, |mailbox| {
            let (_, message) = find(mailbox, &item)?;
            match &item.change_key {
                None => Err(refuse("ErrorChangeKeyRequired", "Change key is required for this operation.")),
                Some(key) if *key != change_key(message) => Err(refuse(
                    "ErrorStaleObject",
                    "The send or update operation could not be performed because the change key passed in the request \
                     does not match the current change key for the item.",
                )),
                Some(_) => Ok(message.raw.clone()),
            }
        })??;
        send(caller, &raw)?;
        finish(caller, &item, keeps.then_some(&place))?;
        Ok(String::new())
    };
    Ok(elements(ids).map(one).collect())
}

/// What was sent is a draft no more.
fn finish(caller: &Caller<'_>, item: &Item, place: Option<&Place>) -> Result<(), Refusal> {
    caller.with(&item.mailbox, |mailbox| {
        if let Some(message) = mailbox.change(&item.folder, item.uid) {
            message.flags.remove("\\Draft");
            message.flags.insert("\\Seen".into());
        }
    })?;
    match place {
        Some(place) => transfer(caller, item, place, true).map(drop),
        None => caller.with(&item.mailbox, |mailbox| drop(mailbox.remove(&item.folder, item.uid))),
    }
}

/// Delivers to all of To, Cc and Bcc, without the field Bcc.
fn send(caller: &Caller<'_>, raw: &[u8]) -> Result<(), Refusal> {
    if raw.len() > caller.state.config.message_size_max {
        return Err(too_large());
    }
    let parsed = parse(raw).ok_or_else(|| refuse("ErrorMimeContentInvalid", "The MIME content is invalid."))?;
    let from = addresses(parsed.from()).into_iter().next().unwrap_or_else(|| caller.own.clone());
    if !caller.may_open(&from) {
        return Err(refuse(
            "ErrorSendAsDenied",
            "The user account which was used to submit this request does not have the right to send mail on behalf of \
             the specified sending account.",
        ));
    }
    let recipients: BTreeSet<String> = [parsed.to(), parsed.cc(), parsed.bcc()]
        .into_iter()
        .flat_map(addresses)
        .map(|address| address.to_lowercase())
        .collect();
    if recipients.is_empty() {
        return Err(refuse("ErrorMissingRecipients", "At least one recipient is required."));
    }
    if let Some(wrong) = recipients.iter().find(|address| !address.contains('@')) {
        return Err(refuse("ErrorInvalidRecipients", format!("At least one recipient isn't valid: {wrong:?}")));
    }
    let delivered = without_bcc(raw);
    for recipient in recipients {
        caller.state.mail.deliver(&from, &recipient, &delivered);
    }
    Ok(())
}

fn save(caller: &Caller<'_>, place: &Place, raw: Vec<u8>, flags: BTreeSet<String>) -> Result<String, Refusal> {
    let name = place.folder()?;
    caller.with(&place.mailbox, |mailbox| {
        let uid = mailbox.append(name, raw, flags, OffsetDateTime::now_utc()).unwrap_or_default();
        let item = Item { mailbox: place.mailbox.clone(), folder: name.to_owned(), uid, change_key: None };
        let (folder, message) = find(mailbox, &item)?;
        Ok(View::item_id(folder, message))
    })?
}

/// MimeContent as it is, or a message made of the properties; From, Date and Message-ID are there afterwards.
fn mime(item: Node<'_, '_>, own: &str) -> Result<Vec<u8>, Refusal> {
    let raw = match child(item, "MimeContent") {
        Some(content) => {
            let content: String = text(content).split_ascii_whitespace().collect();
            STANDARD.decode(content).map_err(|_| {
                refuse("ErrorMimeContentInvalidBase64String", "The MIME content is not a valid base64 string.")
            })?
        }
        None => compose(item)?,
    };
    let parsed = parse(&raw).ok_or_else(|| refuse("ErrorMimeContentInvalid", "The MIME content is invalid."))?;
    let mut header = String::new();
    if parsed.from().is_none() {
        header.push_str(&format!("From: <{own}>\r\n"));
    }
    if parsed.header_raw("Date").is_none() {
        let now = OffsetDateTime::now_utc().format(&Rfc2822).unwrap_or_default();
        header.push_str(&format!("Date: {now}\r\n"));
    }
    if parsed.message_id().is_none() {
        header.push_str(&format!("Message-ID: <{}@{}>\r\n", oauth::random(), crate::config::DOMAIN));
    }
    Ok([header.as_bytes(), &raw].concat())
}

fn compose(item: Node<'_, '_>) -> Result<Vec<u8>, Refusal> {
    if child(item, "Attachments").is_some() {
        return Err(refuse("ErrorInvalidPropertySet", "Attachments are taken in MimeContent only."));
    }
    let mut header = String::new();
    let mut field = |name: &str, value: &str| {
        let value: String = value.split(['\r', '\n']).collect::<Vec<_>>().join(" ");
        header.push_str(&format!("{name}: {value}\r\n"));
    };
    let recipients = |name: &str| {
        let list: Vec<_> = child(item, name).into_iter().flat_map(elements).filter_map(recipient).collect();
        (!list.is_empty()).then(|| list.join(",\r\n "))
    };
    let mut people = String::new();
    for (field, name) in [
        ("From", "From"),
        ("Sender", "Sender"),
        ("To", "ToRecipients"),
        ("Cc", "CcRecipients"),
        ("Bcc", "BccRecipients"),
        ("Reply-To", "ReplyTo"),
    ] {
        if let Some(list) = recipients(name) {
            people.push_str(&format!("{field}: {list}\r\n"));
        }
    }
    if let Some(subject) = child_text(item, "Subject") {
        field("Subject", &encoded(subject));
    }
    for (name, property) in
        [("Message-ID", "InternetMessageId"), ("References", "References"), ("Importance", "Importance")]
    {
        if let Some(value) = child_text(item, property) {
            field(name, value);
        }
    }
    for line in child(item, "InternetMessageHeaders").into_iter().flat_map(elements) {
        let name = line.attribute("HeaderName").unwrap_or_default();
        if name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') && !name.is_empty() {
            field(name, text(line));
        }
    }
    let body = child(item, "Body");
    let is_html = body.and_then(|body| body.attribute("BodyType")) == Some("HTML");
    let kind = if is_html { "html" } else { "plain" };
    field("MIME-Version", "1.0");
    field("Content-Type", &format!("text/{kind}; charset=utf-8"));
    field("Content-Transfer-Encoding", "base64");
    let body = STANDARD.encode(body.and_then(|body| body.text()).unwrap_or_default());
    let lines: Vec<_> = body.as_bytes().chunks(LINE).map(String::from_utf8_lossy).collect();
    Ok(format!("{people}{header}\r\n{}\r\n", lines.join("\r\n")).into_bytes())
}

/// `Name <address>` of `t:Mailbox`.
fn recipient(mailbox: Node<'_, '_>) -> Option<String> {
    let address: String = child_text(mailbox, "EmailAddress")?.split(['\r', '\n', '<', '>']).collect();
    let name = child_text(mailbox, "Name").filter(|name| *name != address);
    Some(match name {
        None => format!("<{address}>"),
        Some(name) => format!("{} <{address}>", encoded_always(name)),
    })
}

/// RFC 2047, when it is needed.
fn encoded(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !text.contains("=?") && text.len() < 900 {
        return Cow::Borrowed(text);
    }
    Cow::Owned(encoded_always(text))
}

fn encoded_always(text: &str) -> String {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        if word.len() + c.len_utf8() > WORD {
            words.push(std::mem::take(&mut word));
        }
        word.push(c);
    }
    words.push(word);
    let encode = |word: &String| format!("=?utf-8?B?{}?=", STANDARD.encode(word));
    words.iter().map(encode).collect::<Vec<_>>().join("\r\n ")
}

fn too_large() -> Refusal {
    refuse("ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.")
}
