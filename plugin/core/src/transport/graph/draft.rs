//! Drafts: of the MIME itself while it fits into one request, and beyond that rebuilt from its parts.
//!
//! What rebuilding changes: Exchange writes the MIME, so boundaries, encodings and Date are its own, and beside an HTML body
//! the text alternative is what it makes of the HTML. Kept are subject, addresses, Message-ID, References and In-Reply-To,
//! every other field of the sender's, the body, and each attachment byte by byte with its name, type and Content-ID; a
//! message inside goes as a file. What would not survive it (signed, encrypted, reports, invitations) is refused.
//! Sources: Graph "Create message", "Attach large files to Outlook messages", "outlookItem extended properties";
//! MS-OXPROPS PidTagInternetReferences, PidTagInReplyToId, PS_INTERNET_HEADERS.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use url::Url;

use super::client::{self, Body, Client, Failure, misbehaved, segment};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    guard::guarded,
    limits,
    message::{
        charset,
        facts::Mailbox as Address,
        field::Name,
        mime::{Disposition, Leaf, Tree},
        wire,
    },
};

const REFERENCES: &str = "String 0x1039";
const IN_REPLY_TO: &str = "String 0x1042";
/// A field of any name, by PS_INTERNET_HEADERS.
const FIELD: &str = "String {00020386-0000-0000-C000-000000000046} Name ";

/// Fields that the draft has properties for, or that whoever writes the MIME writes.
const STRUCTURE: [&str; 20] = [
    "from",
    "sender",
    "to",
    "cc",
    "bcc",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "references",
    "in-reply-to",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
    "content-id",
    "received",
    "return-path",
    "importance",
    "disposition-notification-to",
];

pub fn of_mime(client: &Client, mime: Body, deadline: Deadline) -> Result<String, Failure> {
    made(&client.page("POST", &client.url("/messages")?, Some(mime), deadline)?)
}

/// A draft of ours that stays behind does no harm, so nothing is done about a failure.
pub fn discard(client: &Client, draft: &str, deadline: Deadline) {
    let _ = client.json("DELETE", &format!("/messages/{}", segment(draft)), None, deadline);
}

/// The same message, made anew from its parts. Nothing of it stays behind when that fails.
pub fn rebuilt(client: &Client, raw: &[u8], deadline: Deadline) -> Result<String, Failure> {
    let parts = guarded("reading a message", || Parts::of(raw))?;
    let id = made(&client.json("POST", "/messages", Some(&parts.draft), deadline)?)?;
    for (number, leaf) in parts.attachments.iter().enumerate() {
        if let Err(failure) = attach(client, &id, number + 1, leaf, deadline) {
            discard(client, &id, deadline);
            return Err(match failure {
                // The draft was allowed: this is no want of a permission.
                Failure::Refused(error) => Failure::Other(error),
                other => other,
            });
        }
    }
    Ok(id)
}

fn made(answer: &Value) -> Result<String, Failure> {
    let id = super::id_of(answer).ok_or_else(|| misbehaved("made a draft without an id"))?;
    Ok(id.to_owned())
}

/// What is made of a message.
struct Parts<'a> {
    draft: Value,
    attachments: Vec<Leaf<'a>>,
}

impl<'a> Parts<'a> {
    fn of(raw: &'a [u8]) -> Result<Self> {
        if raw.len() as u64 > limits::GRAPH_MESSAGE_MAX {
            let max = limits::GRAPH_MESSAGE_MAX;
            return Err(Error::new(Kind::TooLarge, format!("Exchange takes messages of up to {max} bytes."))
                .remedy("Send fewer or smaller attachments, or a link to them."));
        }
        let Tree { root, report, leaves, flags } = Tree::of(raw);
        let whole = root.parameters(Name::ContentType);
        let whole = whole.as_ref().and_then(|parsed| parsed.value.split_once('/')).map_or("", |(_, subtype)| subtype);
        if report.is_some() || !flags.is_empty() || matches!(whole, "signed" | "encrypted") {
            return Err(cannot_be_rebuilt());
        }
        let (mut texts, mut pages, mut attachments) = (Vec::new(), Vec::new(), Vec::new());
        for leaf in leaves {
            let shown = leaf.disposition != Disposition::Attachment && leaf.name.is_none();
            match leaf.media_type.as_str() {
                "text/plain" if shown => texts.push(text(&leaf)),
                "text/html" if shown => pages.push(text(&leaf)),
                "application/pkcs7-mime"
                | "application/x-pkcs7-mime"
                | "application/pkcs7-signature"
                | "application/x-pkcs7-signature"
                | "application/pgp-encrypted"
                | "application/pgp-signature" => {
                    return Err(cannot_be_rebuilt());
                }
                // An invitation, or another form of the same text.
                kind if shown && kind.starts_with("text/") => return Err(cannot_be_rebuilt()),
                _ => attachments.push(leaf),
            }
        }
        let (kind, content) = match (pages.len(), texts.len()) {
            (0, _) => ("text", texts.join("\n")),
            (1, 0 | 1) => ("html", pages.concat()),
            _ => return Err(cannot_be_rebuilt()),
        };
        let first = |name| addresses(&root.mailboxes(name)).into_iter().next();
        let list = |name| addresses(&root.mailboxes(name));
        let ids = |name| root.ids(name).iter().map(|id| format!("<{id}>")).collect::<Vec<_>>().join(" ");
        let (headers, mut properties) = other_fields(raw);
        for (property, value) in [(REFERENCES, ids(Name::References)), (IN_REPLY_TO, ids(Name::InReplyTo))] {
            if !value.is_empty() {
                properties.push(json!({"id": property, "value": value}));
            }
        }
        let mut draft = json!({
            "subject": root.text(Name::Subject).unwrap_or_default(),
            "body": {"contentType": kind, "content": content},
            "toRecipients": list(Name::To), "ccRecipients": list(Name::Cc), "bccRecipients": list(Name::Bcc),
            "replyTo": list(Name::ReplyTo),
        });
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                draft[name] = value;
            }
        };
        set("from", first(Name::From));
        set("sender", first(Name::Sender));
        set("internetMessageId", root.ids(Name::MessageId).first().map(|id| json!(format!("<{id}>"))));
        set("internetMessageHeaders", (!headers.is_empty()).then(|| headers.into()));
        set("singleValueExtendedProperties", (!properties.is_empty()).then(|| properties.into()));
        let asked = |name: &str| wire::fields(raw).0.iter().any(|field| field.name.eq_ignore_ascii_case(name));
        set("isReadReceiptRequested", asked("disposition-notification-to").then(|| json!(true)));
        set("importance", importance(raw).map(|word| json!(word)));
        if draft.to_string().len() > limits::GRAPH_REQUEST_MAX {
            let max = limits::GRAPH_REQUEST_MAX;
            let message = format!("Microsoft Graph takes a body and header fields of up to {max} bytes.");
            return Err(Error::new(Kind::TooLarge, message).remedy("Attach the text as a file, or choose SMTP."));
        }
        Ok(Self { draft, attachments })
    }
}

fn text(leaf: &Leaf<'_>) -> String {
    charset::decoded(leaf.encoding.decode(leaf.body), leaf.charset.as_deref())
}

fn addresses(list: &[Address]) -> Vec<Value> {
    let one = |address: &Address| {
        let mut about = json!({"address": address.address});
        if let Some(name) = &address.name {
            about["name"] = json!(name);
        }
        json!({"emailAddress": about})
    };
    list.iter().map(one).collect()
}

fn importance(raw: &[u8]) -> Option<&'static str> {
    let (fields, _) = wire::fields(raw);
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case("importance"))?;
    let value = value(&raw[field.range.clone()]).to_ascii_lowercase();
    ["low", "normal", "high"].into_iter().find(|word| *word == value)
}

/// Graph takes a few X- fields by themselves; all others become named properties, which Exchange writes as fields.
fn other_fields(raw: &[u8]) -> (Vec<Value>, Vec<Value>) {
    let (mut headers, mut properties) = (Vec::new(), Vec::new());
    let (fields, _) = wire::fields(raw);
    for field in fields {
        if field.name.is_empty() || STRUCTURE.iter().any(|name| field.name.eq_ignore_ascii_case(name)) {
            continue;
        }
        let value = value(&raw[field.range.clone()]);
        let is_x = field.name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"));
        if is_x && headers.len() < limits::GRAPH_HEADERS_MAX {
            headers.push(json!({"name": field.name, "value": value}));
        } else {
            properties.push(json!({"id": format!("{FIELD}{}", field.name), "value": value}));
        }
    }
    (headers, properties)
}

/// Of a whole field, unfolded.
fn value(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    let value = text.split_once(':').map_or("", |(_, value)| value);
    value.split("\r\n").map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn cannot_be_rebuilt() -> Error {
    Error::new(
        Kind::TooLarge,
        format!(
            "Above {} bytes Microsoft Graph takes a message in parts only, which this one would not survive: it is \
             signed, encrypted, a report, an invitation, or of another form that parts do not keep.",
            limits::GRAPH_MIME_MAX
        ),
    )
    .remedy("Send fewer or smaller attachments, or choose SMTP for outgoing mail.")
}

/// Each is decoded by itself.
fn attach(client: &Client, draft: &str, number: usize, leaf: &Leaf<'_>, deadline: Deadline) -> Result<(), Failure> {
    let bytes = leaf.encoding.decode(leaf.body);
    let ending = if leaf.media_type == "message/rfc822" { ".eml" } else { "" };
    let name = leaf.name.clone().unwrap_or_else(|| format!("attachment-{number}{ending}"));
    let is_inline = leaf.content_id.is_some() && leaf.disposition != Disposition::Attachment;
    let mut about = json!({"name": name, "contentType": leaf.media_type, "isInline": is_inline});
    if let Some(id) = &leaf.content_id {
        about["contentId"] = json!(id);
    }
    let path = format!("/messages/{}/attachments", segment(draft));
    // Two limits that leave a gap, depending on who counts what as a megabyte: a request has 4 MB, and a session begins at
    // 3 MB ("Attach large files to Outlook messages"). So what one of them refuses goes the other way.
    let room = about.to_string().len() + limits::GRAPH_POST_ROOM;
    let fits = bytes.len().div_ceil(3) * 4 + room <= limits::GRAPH_POST_MAX;
    let is_refused_for_size = |failure: &Failure| match failure {
        Failure::Other(error) => error.kind() == Kind::TooLarge,
        _ => false,
    };
    match if fits {
        post(client, &path, &about, &bytes, deadline)
    } else {
        upload(client, &path, &about, &bytes, deadline)
    } {
        Err(failure) if is_refused_for_size(&failure) && limits::GRAPH_GAP.contains(&bytes.len()) => {
            if fits {
                upload(client, &path, &about, &bytes, deadline)
            } else {
                post(client, &path, &about, &bytes, deadline)
            }
        }
        end => end,
    }
}

fn post(client: &Client, path: &str, about: &Value, bytes: &[u8], deadline: Deadline) -> Result<(), Failure> {
    let mut file = about.clone();
    file["@odata.type"] = json!("#microsoft.graph.fileAttachment");
    file["contentBytes"] = json!(BASE64_STANDARD.encode(bytes));
    client.json("POST", path, Some(&file), deadline).map(drop)
}

/// An upload session: pieces in order, and again what the server says it misses.
fn upload(client: &Client, path: &str, about: &Value, bytes: &[u8], deadline: Deadline) -> Result<(), Failure> {
    let mut item = about.clone();
    item["attachmentType"] = json!("file");
    item["size"] = json!(bytes.len());
    let session = client.url(&format!("{path}/createUploadSession"))?;
    let session = client.page("POST", &session, Some(client::json(&json!({"AttachmentItem": item}))), deadline)?;
    // https only, and within the egress policy, as every request.
    let link = session["uploadUrl"].as_str().filter(|link| link.len() <= limits::GRAPH_LINK_MAX);
    let url = link.and_then(|link| Url::parse(link).ok()).filter(|url| url.scheme() == "https");
    let url = url.ok_or_else(|| misbehaved("opened an upload session without an https address for it"))?;
    let mut missing = 0..bytes.len();
    // Twice as often as would do: whoever still misses something then takes nothing.
    for _ in 0..2 * bytes.len().div_ceil(limits::GRAPH_PIECE) {
        let piece = missing.start..missing.end.min(missing.start + limits::GRAPH_PIECE);
        let Some(part) = bytes.get(piece.clone()) else { break };
        // No token went there, so a 401 says nothing about ours.
        let expected =
            client.put_piece(&url, part, piece.start, bytes.len(), deadline).map_err(|failure| match failure {
                Failure::Unauthorized(error) | Failure::NotFound(error) => {
                    Error::new(Kind::Transient, "Microsoft Graph ended an upload session before its time.")
                        .remedy("The same message can be sent again.")
                        .source_error(error)
                        .into()
                }
                other => other,
            })?;
        missing = match expected {
            Some(range) => range,
            None if piece.end == bytes.len() => return Ok(()),
            // Where the answer to a piece in the middle names nothing, the next one follows.
            None => piece.end..bytes.len(),
        };
    }
    Err(Error::new(Kind::Transient, "Microsoft Graph did not take all of an attachment.")
        .remedy("The same message can be sent again; nothing of it was sent.")
        .into())
}
