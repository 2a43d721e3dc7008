//! attachment: list, get, add to a draft, take away from it.

use base64::{Engine, engine::general_purpose::STANDARD};
use mail_parser::{MessagePart, MimeHeaders};
use serde_json::{Value, json};

use super::{
    Answer, Refusal,
    access::{Caller, Right, collection, get, locate, malformed, no_item},
    date_time,
    draft::{Draft, File, too_large},
    json_body, ok,
    query::Query,
    refuse, upload, view,
};
use crate::{
    http::Response,
    mailbox::{Mailbox, Message, mime},
};

pub fn dispatch(caller: &Caller<'_>, message: &str, path: &[&str]) -> Answer {
    match (caller.request.method.as_str(), path) {
        ("GET", []) => list(caller, message),
        ("POST", []) => create(caller, message),
        ("POST", ["createUploadSession"]) => upload::create(caller, message),
        ("GET", [id]) => read(caller, message, id),
        ("GET", [id, "$value"]) => value(caller, message, id),
        ("DELETE", [id]) => delete(caller, message, id),
        (_, rest) => Err(super::no_segment(rest)),
    }
}

/// <https://learn.microsoft.com/graph/api/message-list-attachments>
fn list(caller: &Caller<'_>, message: &str) -> Answer {
    caller.may(Right::Read)?;
    let query = Query::parse(caller.request, &["$select"])?;
    let all = with(caller, message, |id, message, parsed| Ok(of(id, message, parsed, query.wants("contentBytes"))))?;
    let selected = |file: Value| match file {
        Value::Object(file) => {
            Value::Object(file.into_iter().filter(|(name, _)| name.starts_with('@') || query.wants(name)).collect())
        }
        other => other,
    };
    let context = caller.context(&format!("{}/messages('{message}')/attachments", caller.root));
    Ok(ok(200, &collection(context, all.into_iter().map(selected).collect())))
}

/// <https://learn.microsoft.com/graph/api/attachment-get>
fn read(caller: &Caller<'_>, message: &str, id: &str) -> Answer {
    caller.may(Right::Read)?;
    let at = place(id)?;
    let file = with(caller, message, |id, message, parsed| {
        of(id, message, parsed, true).into_iter().nth(at).ok_or_else(no_item)
    })?;
    Ok(ok(200, &file))
}

fn value(caller: &Caller<'_>, message: &str, id: &str) -> Answer {
    caller.may(Right::Read)?;
    let at = place(id)?;
    with(caller, message, |_, _, parsed| {
        let part = parsed.attachments().nth(at).ok_or_else(no_item)?;
        Ok(Response::of(200, &content_type(part), bytes(parsed, part).to_vec()))
    })
}

/// <https://learn.microsoft.com/graph/api/message-post-attachments>
fn create(caller: &Caller<'_>, message: &str) -> Answer {
    caller.may(Right::Write)?;
    let file = File::from_json(&json_body(caller.request)?)?;
    let max = caller.state.config.message_size_max;
    let made = caller.with(|mailbox| {
        add(mailbox, message, file, max)?;
        let (folder, uid) = locate(mailbox, message)?;
        let (folder, message) = get(mailbox, &folder, uid)?;
        let parsed = mime::parse(&message.raw).ok_or_else(no_item)?;
        let id = json!(caller.message_id(folder, message));
        of(&id, message, &parsed, true).pop().ok_or_else(no_item)
    })?;
    Ok(ok(201, &made))
}

/// Puts it behind the others; its place.
pub fn add(mailbox: &mut Mailbox, message: &str, file: File, max: usize) -> Result<usize, Refusal> {
    edit(mailbox, message, max, |draft| {
        draft.files.push(file);
        Ok(draft.files.len() - 1)
    })
}

/// <https://learn.microsoft.com/graph/api/attachment-delete>
fn delete(caller: &Caller<'_>, message: &str, id: &str) -> Answer {
    caller.may(Right::Write)?;
    let at = place(id)?;
    caller.with(|mailbox| {
        edit(mailbox, message, usize::MAX, |draft| {
            if at >= draft.files.len() {
                return Err(no_item());
            }
            draft.files.remove(at);
            Ok(at)
        })
    })?;
    Ok(Response::new(204))
}

fn edit(
    mailbox: &mut Mailbox,
    message: &str,
    max: usize,
    work: impl FnOnce(&mut Draft) -> Result<usize, Refusal>,
) -> Result<usize, Refusal> {
    let (folder, uid) = locate(mailbox, message)?;
    let message = get(mailbox, &folder, uid)?.1;
    if !message.flags.contains("\\Draft") {
        return Err(refuse(400, "ErrorInvalidOperation", "Attachments of a draft only can be changed."));
    }
    let mut draft = Draft::of(&message.raw);
    let place = work(&mut draft)?;
    let raw = draft.mime();
    if raw.len() > max {
        return Err(too_large());
    }
    mailbox.change(&folder, uid).ok_or_else(no_item)?.raw = raw.into();
    Ok(place)
}

fn with<T>(
    caller: &Caller<'_>,
    id: &str,
    work: impl FnOnce(&Value, &Message, &mail_parser::Message<'_>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    caller.with(|mailbox| {
        let (folder, uid) = locate(mailbox, id)?;
        let (folder, message) = get(mailbox, &folder, uid)?;
        let parsed = mime::parse(&message.raw).ok_or_else(no_item)?;
        work(&json!(caller.message_id(folder, message)), message, &parsed)
    })
}

/// All attachments of a message, in order.
pub fn of(id: &Value, message: &Message, parsed: &mail_parser::Message<'_>, with_bytes: bool) -> Vec<Value> {
    let one = |(at, part): (usize, &MessagePart<'_>)| {
        let bytes = bytes(parsed, part);
        let mut file = json!({
            "@odata.type": "#microsoft.graph.fileAttachment",
            "@odata.mediaContentType": content_type(part),
            "id": attachment_id(id.as_str().unwrap_or_default(), at),
            "lastModifiedDateTime": date_time(message.received),
            "name": part.attachment_name().unwrap_or_default(),
            "contentType": content_type(part),
            "size": bytes.len(),
            "isInline": is_inline(part),
        });
        if part.is_message() {
            file["@odata.type"] = json!("#microsoft.graph.itemAttachment");
        } else {
            file["contentId"] = json!(view::content_id(part));
            file["contentLocation"] = json!(part.content_location());
            if with_bytes {
                file["contentBytes"] = json!(STANDARD.encode(bytes));
            }
        }
        file
    };
    parsed.attachments().enumerate().map(one).collect()
}

/// Of the message's id and the place among its attachments.
pub fn attachment_id(message: &str, at: usize) -> String {
    format!("{message}.{at}")
}

fn place(id: &str) -> Result<usize, Refusal> {
    id.rsplit_once('.').and_then(|(_, at)| at.parse().ok()).ok_or_else(malformed)
}

/// Decoded; of a message inside, its MIME.
pub fn bytes<'p>(parsed: &'p mail_parser::Message<'_>, part: &'p MessagePart<'_>) -> &'p [u8] {
    match part.is_message() {
        true => {
            let range = part.raw_body_offset() as usize..part.raw_end_offset() as usize;
            parsed.raw_message().get(range).unwrap_or_default()
        }
        false => part.contents(),
    }
}

pub fn content_type(part: &MessagePart<'_>) -> String {
    let Some(kind) = part.content_type() else { return "application/octet-stream".into() };
    format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or("octet-stream"))
}

pub fn is_inline(part: &MessagePart<'_>) -> bool {
    part.content_disposition().is_some_and(|disposition| disposition.is_inline())
}
