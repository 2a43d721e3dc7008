//! Upload sessions for large attachments: bytes in order to a URL that needs no token.
//!
//! Source: <https://learn.microsoft.com/graph/outlook-large-attachments>

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::{
    Answer, Refusal,
    access::{Caller, Right, get, locate, no_item},
    attachments::{add, attachment_id},
    date_time,
    draft::File,
    json_body, ok, refuse,
};
use crate::{
    http::{Request, Response},
    oauth,
    state::State,
};

/// Bytes of an attachment; smaller ones are posted at once.
const SIZE_MIN: u64 = 3_000_000;
const SIZE_MAX: u64 = 150 << 20;
const LIFETIME: Duration = Duration::hours(1);
const SESSIONS_MAX: usize = 20;

/// By the end of their URL.
#[derive(Default)]
pub struct Uploads(Mutex<HashMap<String, Upload>>);

struct Upload {
    mailbox: String,
    /// As the request named it.
    message: String,
    root: String,
    /// attachmentItem.
    item: Value,
    size: u64,
    received: Vec<u8>,
    expires: OffsetDateTime,
}

impl Uploads {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Upload>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// <https://learn.microsoft.com/graph/api/attachment-createuploadsession>
pub fn create(caller: &Caller<'_>, message: &str) -> Answer {
    caller.may(Right::Write)?;
    let body = json_body(caller.request)?;
    let item = ["AttachmentItem", "attachmentItem"].into_iter().find_map(|name| body.get(name));
    let item = item.ok_or_else(|| refuse(400, "ErrorInvalidRequest", "AttachmentItem is missing."))?;
    let size = item["size"].as_u64().unwrap_or_default();
    if item["attachmentType"].as_str().is_none_or(|kind| !kind.eq_ignore_ascii_case("file")) {
        return Err(refuse(400, "ErrorInvalidRequest", "attachmentType must be 'file'."));
    }
    File::described(item, Vec::new())?;
    if size < SIZE_MIN {
        let text = "Attachment size must be greater than the minimum size.";
        return Err(refuse(400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize", text));
    }
    if size > SIZE_MAX {
        return Err(refuse(400, "ErrorAttachmentSizeLimitExceeded", "The attachment is larger than 150 MB."));
    }
    caller.with(|mailbox| {
        let (folder, uid) = locate(mailbox, message)?;
        match get(mailbox, &folder, uid)?.1.flags.contains("\\Draft") {
            true => Ok(()),
            false => Err(refuse(400, "ErrorInvalidOperation", "Attachments of a draft only can be changed.")),
        }
    })?;
    let now = caller.state.now();
    let upload = Upload {
        mailbox: caller.mailbox.clone(),
        message: message.to_owned(),
        root: caller.root.clone(),
        item: item.clone(),
        size,
        received: Vec::new(),
        expires: now + LIFETIME,
    };
    let session = oauth::random();
    caller.state.graph.uploads.with(|uploads| {
        uploads.retain(|_, upload| upload.expires > now);
        if uploads.len() >= SESSIONS_MAX {
            return Err(refuse(429, "ApplicationThrottled", "Too many upload sessions are open."));
        }
        uploads.insert(session.clone(), upload);
        Ok(())
    })?;
    Ok(ok(
        201,
        &json!({
            "@odata.context": caller.context("microsoft.graph.uploadSession"),
            "uploadUrl": format!("{}/_upload/{session}", caller.state.base_url()),
            "expirationDateTime": date_time(now + LIFETIME),
            "nextExpectedRanges": ["0-"],
        }),
    ))
}

/// A request to the upload URL.
pub fn take(state: &State, request: &Request, session: &str) -> Answer {
    let missing = || refuse(404, "ErrorItemNotFound", "The upload session was not found or has expired.");
    let now = state.now();
    let ended = state.graph.uploads.with(|uploads| {
        let upload = uploads.get_mut(session).filter(|upload| upload.expires > now).ok_or_else(missing)?;
        match request.method.as_str() {
            "PUT" => upload.append(request)?,
            "GET" => {}
            "DELETE" => {
                uploads.remove(session);
                return Ok(Err(Response::new(204)));
            }
            _ => return Err(refuse(405, "ErrorInvalidRequest", "Only PUT, GET and DELETE are served on this URL.")),
        }
        let next = upload.received.len() as u64;
        if next < upload.size {
            let expires = date_time(upload.expires);
            let body = json!({"expirationDateTime": expires, "nextExpectedRanges": [next.to_string()]});
            return Ok(Err(ok(200, &body)));
        }
        uploads.remove(session).map(Ok).ok_or_else(missing)
    })?;
    match ended {
        Ok(upload) => finish(state, upload),
        Err(response) => Ok(response),
    }
}

impl Upload {
    fn append(&mut self, request: &Request) -> Result<(), Refusal> {
        let header = request.header("content-range").unwrap_or_default();
        let wrong = |text: &str| refuse(416, "ErrorInvalidContentRange", format!("{text}: '{header}'."));
        let range = header.strip_prefix("bytes ").and_then(|range| {
            let (range, total) = range.split_once('/')?;
            let (first, last) = range.split_once('-')?;
            Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total.parse::<u64>().ok()?))
        });
        let (first, last, total) = range.ok_or_else(|| wrong("Content-Range is missing or malformed"))?;
        if total != self.size || last >= total {
            return Err(wrong("Content-Range does not fit the size of the attachment"));
        }
        if first != self.received.len() as u64 {
            return Err(wrong("Content-Range does not begin where the last one ended"));
        }
        if last.checked_sub(first).is_none_or(|more| more + 1 != request.body.len() as u64) {
            return Err(wrong("Content-Range does not fit the length of the body"));
        }
        self.received.extend_from_slice(&request.body);
        Ok(())
    }
}

fn finish(state: &State, upload: Upload) -> Answer {
    let file = File::described(&upload.item, upload.received)?;
    let max = state.config.message_size_max;
    let added = state.mail.with(&upload.mailbox, |mailbox| add(mailbox, &upload.message, file, max));
    let at = added.ok_or_else(no_item)??;
    let (message, root) = (&upload.message, &upload.root);
    let id = attachment_id(message, at);
    let location = format!("{}/v1.0/{root}/messages('{message}')/attachments('{id}')", state.base_url());
    Ok(Response::new(201).header("Location", location))
}
