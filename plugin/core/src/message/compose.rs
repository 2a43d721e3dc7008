//! From what the host wants said to the bytes that go over the wire.
//!
//! lettre's builder does the MIME; what it leaves to its caller is done here: control characters, long words, foreign
//! message ids, Bcc. The finished bytes are checked once more by [`wire::verify`].

use std::{
    borrow::Cow,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use lettre::{
    Address, Message,
    message::{
        Body, Mailbox, MultiPart, SinglePart,
        header::{self, ContentDisposition, ContentTransferEncoding, ContentType, HeaderName, HeaderValue},
    },
};
use mail_parser::MessageParser;
use serde::Deserialize;

use super::{
    address::{Envelope, Person, display_name, is_safe, one_line, parse_address},
    wire,
};
use crate::{
    clock::UnixSeconds,
    error::{Error, Kind, Result},
    guard::guarded,
    limits,
    settings::Sending,
};

/// The content of a `send_message` request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compose {
    pub to: Vec<Person>,
    pub cc: Vec<Person>,
    /// Only in the envelope, never in a header.
    pub bcc: Vec<Person>,
    pub subject: String,
    pub text: Option<String>,
    pub html: Option<String>,
    pub attachments: Vec<Attachment>,
    /// Message-ID of the message that this one answers.
    pub in_reply_to: Option<String>,
    /// References of the message that this one answers, oldest first.
    pub references: Vec<String>,
    /// In place of the account's "Reply to".
    pub reply_to: Option<Person>,
    /// `X-…` and those in [`HEADERS_ALLOWED`].
    pub headers: Vec<Header>,
    /// Written by a machine: marked so that no other machine answers it (RFC 3834).
    pub auto_submitted: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    pub name: String,
    /// Media type, `application/octet-stream` when missing or not usable.
    #[serde(default, rename = "type")]
    pub media_type: Option<String>,
    pub content_base64: String,
    /// What the HTML calls `cid:…`, without angle brackets.
    #[serde(default)]
    pub content_id: Option<String>,
    /// Shown inside the HTML; needs `content_id`.
    #[serde(default)]
    pub inline: bool,
}

/// Who gets it, where that differs from the headers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeRequest {
    /// Missing: the account's address. Empty: the null sender, nobody hears of a failure.
    #[serde(default)]
    pub from: Option<String>,
    pub to: Vec<String>,
}

/// Ready to be sent.
#[derive(Clone, Debug)]
pub struct Composed {
    pub raw: Vec<u8>,
    /// With angle brackets.
    pub message_id: String,
    pub envelope: Envelope,
}

/// Headers a host may set besides `X-…`. Those that say who, to whom, when and which are ours.
pub const HEADERS_ALLOWED: [&str; 13] = [
    "Auto-Submitted",
    "Comments",
    "Feedback-ID",
    "Importance",
    "Keywords",
    "List-Help",
    "List-ID",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "Organization",
    "Precedence",
    "Priority",
    "Sensitivity",
];

/// Builds the message of `request`, dated `now`. `message_id` has angle brackets.
///
/// # Errors
/// `Misuse` for an address, a header or an attachment that cannot be meant, and when nobody is to get it.
pub fn compose(request: &Compose, sending: &Sending, now: UnixSeconds, message_id: &str) -> Result<Composed> {
    let to = mailboxes(&request.to)?;
    let cc = mailboxes(&request.cc)?;
    let bcc = mailboxes(&request.bcc)?;
    let sender = parse_address(sending.from.as_ref())?;
    let envelope = envelope(
        Some(sender.clone()),
        to.iter().chain(&cc).chain(&bcc).map(|mailbox| mailbox.email.clone()).collect(),
    )?;
    let message_id = well_formed_id(message_id)
        .ok_or_else(|| Error::new(Kind::Misuse, "The message id is not of the form <left@right>."))?;

    let sender_name = sending.sender_name.as_deref().and_then(display_name);
    let date = UNIX_EPOCH + Duration::from_secs(u64::try_from(now).unwrap_or_default().min(LAST_SECOND));
    let from = Mailbox::new(sender_name, sender);
    let mut builder = Message::builder()
        .raw_header(address_header("From", &[from]))
        .date(date)
        .message_id(Some(message_id.clone()))
        .raw_header(text_header("Subject", &request.subject)?);
    let reply_to = match &request.reply_to {
        Some(person) => Some(person.mailbox()?),
        None => sending.reply_to.clone().map(Mailbox::from),
    };
    for (name, list) in [("Reply-To", reply_to.as_slice()), ("To", &to), ("Cc", &cc)] {
        if !list.is_empty() {
            builder = builder.raw_header(address_header(name, list));
        }
    }
    // An id that is not well-formed came from somebody else's mail: it is left out and must not stop the answer.
    let parent = request.in_reply_to.as_deref().and_then(well_formed_id);
    let references = thread(&request.references, parent.as_deref());
    if !references.is_empty() {
        // One id to a line: folding never has to cut, and long ids stay within the line limit.
        let value = references.join("\r\n ");
        builder = builder.raw_header(HeaderValue::dangerous_new_pre_encoded(
            HeaderName::new_from_ascii_str("References"),
            value.clone(),
            value,
        ));
    }
    if request.auto_submitted {
        let word = if parent.is_some() { "auto-replied" } else { "auto-generated" };
        builder = builder.raw_header(text_header("Auto-Submitted", word)?);
        // Exchange answers RFC 3834 marks with its own automatic replies unless told so (MS-OXCMAIL 2.1.3.2.20).
        builder = builder.raw_header(text_header("X-Auto-Response-Suppress", "All")?);
    }
    if let Some(parent) = parent {
        builder = builder.in_reply_to(parent);
    }
    for header in &request.headers {
        builder = builder.raw_header(extra_header(header)?);
    }

    let message = match body(request.text.as_deref(), request.html.as_deref(), &request.attachments)? {
        Part::Single(part) => builder.envelope(lettre_envelope(&envelope)?).singlepart(part),
        Part::Multi(parts) => builder.envelope(lettre_envelope(&envelope)?).multipart(parts),
    }
    .map_err(|e| Error::new(Kind::Misuse, "The message could not be put together.").source_error(e))?;
    let raw = message.formatted();
    wire::verify(&raw)?;
    Ok(Composed { raw, message_id, envelope })
}

/// Takes raw MIME: line ends put right, Bcc removed, From, Date and Message-ID added where missing, checked. Without
/// `envelope` the recipients are those of To, Cc and Bcc.
///
/// # Errors
/// `Misuse` for bytes that no server may be given (the sentence names the line), and when nobody is to get it.
pub fn accept_raw(
    raw: &[u8],
    envelope_request: Option<&EnvelopeRequest>,
    sending: &Sending,
    now: UnixSeconds,
    message_id: &str,
) -> Result<Composed> {
    let raw = wire::normalise(raw)?;
    let (fields, header_end) = wire::fields(&raw);
    let has = |name: &str| fields.iter().any(|field| field.name.eq_ignore_ascii_case(name));

    // RFC 5322 section 3.6: once. Of two, a server and a reader may each believe another one.
    for name in ["From", "Sender", "Reply-To", "Subject", "Date", "Message-ID"] {
        if fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count() > 1 {
            let message = format!("The message has more than one {name} field.");
            return Err(Error::new(Kind::Misuse, message).remedy("Leave one of them (RFC 5322 section 3.6)."));
        }
    }
    let sender: Address = parse_address(sending.from.as_ref())?;
    let envelope = match envelope_request {
        Some(request) => request.envelope(&sender)?,
        None => envelope(Some(sender.clone()), header_recipients(&raw[..header_end])?)?,
    };
    let given_id = id_in(&raw, &fields);
    let chosen_id = match &given_id {
        Some(id) => id.clone(),
        None => well_formed_id(message_id)
            .ok_or_else(|| Error::new(Kind::Misuse, "The message id is not of the form <left@right>."))?,
    };

    let mut out = Vec::with_capacity(raw.len() + 256);
    if !has("From") {
        out.extend_from_slice(format!("From: {sender}\r\n").as_bytes());
    }
    if !has("Date") {
        out.extend_from_slice(format!("Date: {}\r\n", rfc5322_date(now)).as_bytes());
    }
    if given_id.is_none() {
        out.extend_from_slice(format!("Message-ID: {chosen_id}\r\n").as_bytes());
    }
    for field in &fields {
        let drop = ["Bcc", "Resent-Bcc"].iter().any(|name| field.name.eq_ignore_ascii_case(name))
            || (given_id.is_none() && field.name.eq_ignore_ascii_case("Message-ID"));
        if !drop {
            out.extend_from_slice(&raw[field.range.clone()]);
        }
    }
    if header_end == raw.len() {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(&raw[header_end..]);
    wire::verify(&out)?;
    Ok(Composed { raw: out, message_id: chosen_id, envelope })
}

/// The Message-ID that raw MIME brings along, with its angle brackets.
pub fn given_id(raw: &[u8]) -> Option<String> {
    let header = wire::normalise(&raw[..wire::header_end(raw)]).ok()?;
    id_in(&header, &wire::fields(&header).0)
}

fn id_in(raw: &[u8], fields: &[wire::Field<'_>]) -> Option<String> {
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case("Message-ID"))?;
    let (_, id) = std::str::from_utf8(&raw[field.range.clone()]).ok()?.split_once(':')?;
    well_formed_id(id)
}

impl EnvelopeRequest {
    /// # Errors
    /// `Misuse` for an address that is none, and when nobody is to get it.
    pub fn envelope(&self, sender: &Address) -> Result<Envelope> {
        let from = match self.from.as_deref().map(str::trim) {
            None => Some(sender.clone()),
            Some("" | "<>") => None,
            Some(address) => Some(parse_address(address)?),
        };
        envelope(from, self.to.iter().map(|address| parse_address(address)).collect::<Result<_>>()?)
    }
}

/// 9999-12-31T23:59:59Z, the last moment that an RFC 5322 date can say.
const LAST_SECOND: u64 = 253_402_300_799;

enum Part {
    Single(SinglePart),
    Multi(MultiPart),
}

/// mixed( related( alternative( text, html ), inline… ), attachment… ), without the layers that hold only one part.
fn body(text: Option<&str>, html: Option<&str>, attachments: &[Attachment]) -> Result<Part> {
    let (inline, attached): (Vec<_>, Vec<_>) =
        attachments.iter().partition(|file| file.inline && file.content_id.is_some() && html.is_some());
    let plain = |text: &str| SinglePart::plain(lines(text));
    let mut part = match (text, html) {
        (text, None) => Part::Single(plain(text.unwrap_or_default())),
        (None, Some(html)) => Part::Single(SinglePart::html(lines(html))),
        (Some(text), Some(html)) => {
            Part::Multi(MultiPart::alternative().singlepart(plain(text)).singlepart(SinglePart::html(lines(html))))
        }
    };
    for (files, around, is_related) in [(inline, MultiPart::related(), true), (attached, MultiPart::mixed(), false)] {
        if files.is_empty() {
            continue;
        }
        // RFC 2387 section 3.1: multipart/related names the type of its root.
        let root = match &part {
            Part::Single(_) => "text/html",
            Part::Multi(_) => "multipart/alternative",
        };
        let mut parts = match part {
            Part::Single(single) => around.singlepart(single),
            Part::Multi(multi) => around.multipart(multi),
        };
        if is_related
            && let Ok(kind) =
                ContentType::parse(&format!("multipart/related; type=\"{root}\"; boundary=\"{}\"", parts.boundary()))
        {
            parts.headers_mut().set(kind);
        }
        for file in files {
            parts = parts.singlepart(attachment(file)?);
        }
        part = Part::Multi(parts);
    }
    Ok(part)
}

fn attachment(file: &Attachment) -> Result<SinglePart> {
    let name = display_name(&file.name).unwrap_or_else(|| "attachment".into());
    let mut encoded = Cow::Borrowed(file.content_base64.as_bytes());
    if encoded.iter().any(u8::is_ascii_whitespace) {
        encoded.to_mut().retain(|byte| !byte.is_ascii_whitespace());
    }
    let content = STANDARD.decode(&*encoded).map_err(|e| {
        Error::new(Kind::Misuse, format!("The content of the attachment \u{201c}{name}\u{201d} is not base64."))
            .source_error(e)
    })?;
    drop(encoded);
    let is_mail = file.media_type.as_deref().is_some_and(|text| text.trim().eq_ignore_ascii_case("message/rfc822"));
    // RFC 2046 5.2.1: message/rfc822 may not be base64. One that cannot travel as it is goes as a file.
    let as_mail = if is_mail { mail_body(&content) } else { None };
    let content_type = match (is_mail, &as_mail) {
        (true, Some(_)) => ContentType::parse("message/rfc822").unwrap_or(ContentType::TEXT_PLAIN),
        (true, None) => octet_stream(),
        (false, _) => media_type(file.media_type.as_deref()),
    };
    let body = match as_mail {
        Some(body) => body,
        // Base64 always: quoted-printable and 7bit would touch line ends, and the host's bytes must arrive.
        None => Body::new_with_encoding(content, ContentTransferEncoding::Base64)
            .map_err(|_| Error::new(Kind::Internal, "An attachment could not be encoded."))?,
    };
    let mut part = SinglePart::builder().header(content_type);
    if let Some(id) = &file.content_id {
        part = part.header(Verbatim("Content-ID", format!("<{}>", content_id(id, &name)?)));
    }
    // Some read a file name as encoded words, although RFC 2047 section 5 forbids them there.
    if name.contains("=?") {
        let kind = if file.inline { "inline" } else { "attachment" };
        let value = format!("{kind};\r\n{}", extended_parameter("filename", &name));
        return Ok(part.header(Verbatim("Content-Disposition", value)).body(body));
    }
    let disposition =
        if file.inline { ContentDisposition::inline_with_name(&name) } else { ContentDisposition::attachment(&name) };
    Ok(part.header(disposition).body(body))
}

/// A forwarded message as it is, when it is fit for 7bit.
fn mail_body(content: &[u8]) -> Option<Body> {
    let normal = wire::normalise(content).ok()?;
    match wire::verify(&normal) {
        Ok(wire::Needs { eight_bit: false, .. }) => {
            Some(Body::dangerous_pre_encoded(normal.into_owned(), ContentTransferEncoding::SevenBit))
        }
        _ => None,
    }
}

/// Only a leaf type: a `multipart/*` with a boundary of its own would make parts of the content. Parameters stay, because
/// `method=REQUEST` makes an invitation of a calendar and `charset` letters of bytes.
fn media_type(given: Option<&str>) -> ContentType {
    let (essence, rest) = given.unwrap_or_default().split_once(';').unwrap_or((given.unwrap_or_default(), ""));
    let essence = essence.trim();
    let token = |text: &str| {
        !text.is_empty()
            && text.len() <= 127
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+._!#$&^".contains(&b))
    };
    let mut whole = essence.to_owned();
    for (name, value) in parameters(rest) {
        if token(&name) && !name.eq_ignore_ascii_case("boundary") && is_printable_ascii(&value) && value.len() <= 200 {
            whole.push_str(&format!("; {name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")));
        }
    }
    match essence.split_once('/') {
        Some((kind, sub))
            if token(kind)
                && token(sub)
                && !kind.eq_ignore_ascii_case("multipart")
                && !kind.eq_ignore_ascii_case("message") =>
        {
            ContentType::parse(&whole).or_else(|_| ContentType::parse(essence)).unwrap_or_else(|_| octet_stream())
        }
        _ => octet_stream(),
    }
}

/// `name=token` and `name="quoted"`, as far as they can be read.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
            Some(quoted) => {
                let mut value = String::new();
                let mut chars = quoted.char_indices();
                let mut end = quoted.len();
                while let Some((at, c)) = chars.next() {
                    match c {
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        '\\' => value.extend(chars.next().map(|(_, c)| c)),
                        c => value.push(c),
                    }
                }
                (value, &quoted[end..])
            }
        };
        found.push((name.trim().to_owned(), value));
        rest = next.trim_start().trim_start_matches(';');
    }
    found
}

/// A header of a part with this value as it stands; lines were folded.
#[derive(Clone)]
struct Verbatim(&'static str, String);

impl header::Header for Verbatim {
    fn name() -> HeaderName {
        // Not asked for: `display` says it.
        HeaderName::new_from_ascii_str("X-Verbatim")
    }

    fn parse(text: &str) -> std::result::Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self("X-Verbatim", text.to_owned()))
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(self.0), self.1.clone(), self.1.clone())
    }
}

/// A content id that a received message had is sent back as it was, because the HTML names it so; other characters than
/// printable ASCII are percent-encoded, as in the URL (RFC 2392).
fn content_id(given: &str, name: &str) -> Result<String> {
    let inner = given.trim().trim_matches(['<', '>']);
    let mut id = String::with_capacity(inner.len());
    for byte in inner.bytes() {
        match byte {
            b' '..=b'~' => id.push(char::from(byte)),
            byte => id.push_str(&format!("%{byte:02X}")),
        }
    }
    let breaks = |c: char| c.is_control() || matches!(c, '<' | '>');
    if id.is_empty() || inner.contains(breaks) || id.len() > limits::MESSAGE_ID_MAX {
        return Err(Error::new(Kind::Misuse, format!("The content_id of \u{201c}{name}\u{201d} cannot be one."))
            .remedy("Use printable characters without angle brackets."));
    }
    Ok(id)
}

/// RFC 2231 section 3 and 4: UTF-8 in percent-encoding, in numbered pieces, one to a line.
fn extended_parameter(name: &str, value: &str) -> String {
    const PIECE: usize = 50;
    let mut pieces = vec![String::new()];
    for byte in value.bytes() {
        let encoded = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        match pieces.last_mut() {
            Some(last) if last.len() + encoded.len() <= PIECE => last.push_str(&encoded),
            _ => pieces.push(encoded),
        }
    }
    if let [only] = pieces.as_slice() {
        return format!(" {name}*=utf-8''{only}");
    }
    let numbered = pieces.iter().enumerate().map(|(number, piece)| {
        let charset = if number == 0 { "utf-8''" } else { "" };
        format!(" {name}*{number}*={charset}{piece}")
    });
    numbered.collect::<Vec<_>>().join(";\r\n")
}

fn octet_stream() -> ContentType {
    ContentType::parse("application/octet-stream").unwrap_or(ContentType::TEXT_PLAIN)
}

/// Text with CRLF line ends and without NUL. lettre would insert each missing CR on its own, quadratic in the size.
fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 32);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                out.push_str("\r\n");
            }
            '\n' => out.push_str("\r\n"),
            '\0' => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

fn mailboxes(people: &[Person]) -> Result<Vec<Mailbox>> {
    people.iter().map(Person::mailbox).collect()
}

fn envelope(from: Option<Address>, mut to: Vec<Address>) -> Result<Envelope> {
    let mut seen = std::collections::HashSet::new();
    to.retain(|address| seen.insert(address.clone()));
    if to.is_empty() {
        return Err(Error::new(Kind::Misuse, "The message has no recipient.").remedy("Fill to, cc or bcc."));
    }
    if let Some(bad) = from.iter().chain(&to).find(|address| !is_safe(address)) {
        return Err(Error::new(Kind::Misuse, format!("{} cannot be used as an address.", one_line(bad.as_ref()))));
    }
    Ok(Envelope { from, to })
}

fn lettre_envelope(envelope: &Envelope) -> Result<lettre::address::Envelope> {
    lettre::address::Envelope::new(envelope.from.clone(), envelope.to.clone())
        .map_err(|e| Error::new(Kind::Misuse, "The message has no recipient.").source_error(e))
}

/// The addresses of To, Cc and Bcc. mail-parser reads groups, comments and encoded names; what it calls an address is
/// then read again by the one parser that the wire uses.
fn header_recipients(header: &[u8]) -> Result<Vec<Address>> {
    guarded("the parser of mail headers", || {
        let Some(message) = MessageParser::default().parse_headers(header) else { return Ok(Vec::new()) };
        let mut recipients = Vec::new();
        for header in message.headers() {
            let is_recipient = ["To", "Cc", "Bcc"].iter().any(|name| header.name.as_str().eq_ignore_ascii_case(name));
            let Some(list) = header.value.as_address().filter(|_| is_recipient) else { continue };
            for one in list.iter() {
                let text = one.address.as_deref().filter(|text| !text.is_empty()).or(one.name.as_deref());
                recipients.push(parse_address(text.unwrap_or_default())?);
            }
        }
        Ok(recipients)
    })
}

/// The parent's References, then the parent (RFC 5322 3.6.4): each once, at most `limits::REFERENCES_MAX`.
fn thread(references: &[String], parent: Option<&str>) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    let given = references.iter().flat_map(|text| text.split_whitespace()).filter_map(well_formed_id);
    for id in given.filter(|id| Some(id.as_str()) != parent).chain(parent.map(str::to_owned)) {
        if !ids.contains(&id) {
            ids.push(id);
        }
        if ids.len() > limits::REFERENCES_MAX {
            ids.remove(1);
        }
    }
    ids
}

/// `<left@right>` of printable ASCII without spaces or further brackets; a missing pair of brackets is added.
fn well_formed_id(text: &str) -> Option<String> {
    let text = text.trim();
    let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
    let good = !inner.is_empty()
        && inner.len() <= limits::MESSAGE_ID_MAX
        && inner.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>'));
    if good { Some(format!("<{inner}>")) } else { None }
}

fn extra_header(header: &Header) -> Result<HeaderValue> {
    /// With the longest name, a line stays within the 998 bytes of RFC 5322.
    const WORD_MAX: usize = 900;
    let name = header.name.as_str();
    let is_name = (3..=76).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    let allowed = name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("X-"))
        || HEADERS_ALLOWED.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    if !is_name || !allowed {
        return Err(Error::new(
            Kind::Misuse,
            format!(
                "The header \u{201c}{}\u{201d} may not be set.",
                one_line(name).chars().take(80).collect::<String>()
            ),
        )
        .remedy(format!("Allowed are X-… and {}.", HEADERS_ALLOWED.join(", "))));
    }
    let value = one_line(&header.value);
    let fits = is_printable_ascii(&value) && value.split(' ').all(|word| word.len() <= WORD_MAX);
    // Structured: encoded words would be taken as they stand (RFC 2047 section 5).
    let is_list = name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("List-"));
    if fits && (is_list || !value.contains("=?")) {
        let folded = folded(name.len() + 1, &value);
        return Ok(HeaderValue::dangerous_new_pre_encoded(header_name(name)?, value, folded));
    }
    if is_list {
        let message = format!("The header {name} takes printable ASCII, at most {} bytes without a space.", WORD_MAX);
        return Err(Error::new(Kind::Misuse, message).remedy("Write a URL with percent-encoding, or a shorter one."));
    }
    text_header(name, &value)
}

/// Printable ASCII as it is, broken only at its spaces; `column`: what stands before it on its line.
fn folded(mut column: usize, value: &str) -> String {
    const LINE_MAX: usize = 76;
    let mut folded = String::with_capacity(value.len() + value.len() / 16);
    for (index, word) in value.split(' ').enumerate() {
        column += 1 + word.len();
        if index > 0 && column > LINE_MAX {
            folded.push_str("\r\n");
            column = 1 + word.len();
        }
        if index > 0 {
            folded.push(' ');
        }
        folded.push_str(word);
    }
    folded
}

fn is_printable_ascii(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn header_name(name: &str) -> Result<HeaderName> {
    HeaderName::new_from_ascii(name.to_owned())
        .map_err(|e| Error::new(Kind::Misuse, "A header's name is not usable.").source_error(e))
}

/// A header of addresses, one to a line: lettre does not fold between names without spaces, and reads what it has so
/// far again for each one added.
fn address_header(field: &'static str, list: &[Mailbox]) -> HeaderValue {
    let shown = |(number, mailbox): (usize, &Mailbox)| match &mailbox.name {
        None => mailbox.email.to_string(),
        // In quotes `=?` would still be taken for an encoded word by some (RFC 2047 section 5, rule 3 notwithstanding).
        Some(name) if is_printable_ascii(name) && !name.contains("=?") => {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{quoted}\" <{}>", mailbox.email)
        }
        Some(name) => {
            let column = if number == 0 { field.len() + 2 } else { 1 };
            format!("{}\r\n <{}>", encoded_words(name, column), mailbox.email)
        }
    };
    let encoded = list.iter().enumerate().map(shown).collect::<Vec<_>>().join(",\r\n ");
    // The builder looks into the unencoded value of From for one address.
    let plain = list.first().map(|mailbox| mailbox.email.to_string()).unwrap_or_default();
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(field), plain, encoded)
}

/// An unstructured header. Plain words are folded by lettre; everything else becomes encoded words (RFC 2047), also
/// words too long to fold and text that would be taken for an encoded word.
fn text_header(name: &str, value: &str) -> Result<HeaderValue> {
    const WORD_MAX: usize = 70;
    let header = header_name(name)?;
    let value = one_line(value);
    let plain =
        is_printable_ascii(&value) && !value.contains("=?") && value.split(' ').all(|word| word.len() <= WORD_MAX);
    if plain {
        return Ok(HeaderValue::new(header, value));
    }
    let encoded = encoded_words(&value, name.len() + 2);
    Ok(HeaderValue::dangerous_new_pre_encoded(header, value, encoded))
}

/// RFC 2047 section 2: words of at most 75 characters in lines of at most 76, cut between characters, one to a line.
/// `column`: what stands before the first.
fn encoded_words(text: &str, column: usize) -> String {
    const LINE_MAX: usize = 76;
    const AROUND: usize = "=?utf-8?B??=".len();
    let room = |column: usize| LINE_MAX.saturating_sub(column + AROUND) / 4 * 3;
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut left = room(column);
    // A name that takes the line for itself: the first word begins on the next.
    let first = if left < 4 { "\r\n " } else { "" };
    if !first.is_empty() {
        left = room(1);
    }
    for c in text.chars() {
        if word.len() + c.len_utf8() > left {
            words.push(std::mem::take(&mut word));
            left = room(1);
        }
        word.push(c);
    }
    words.push(word);
    let words: Vec<_> = words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word))).collect();
    format!("{first}{}", words.join("\r\n "))
}

fn rfc5322_date(now: UnixSeconds) -> String {
    time::OffsetDateTime::from_unix_timestamp(now)
        .ok()
        .and_then(|moment| moment.format(&time::format_description::well_known::Rfc2822).ok())
        .unwrap_or_else(|| "Thu, 01 Jan 1970 00:00:00 +0000".into())
}

#[cfg(test)]
#[path = "compose_tests.rs"]
mod tests;
