//! Microsoft Graph v1.0, the mail part: `/me` and `/users/{id}` below `/v1.0`, `$batch`, upload sessions.
//!
//! Source: <https://learn.microsoft.com/graph/api/resources/mail-api-overview>
//!
//! The mailboxes hold MIME alone; what JSON says of a message is read out of it, and a draft's JSON is written into it.

mod access;
mod attachments;
mod batch;
mod concurrency;
mod delta;
mod draft;
mod folders;
mod messages;
mod query;
mod send;
mod translate;
mod upload;
mod view;

use std::borrow::Cow;

use serde_json::{Value, json};
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};
use url::Url;

pub use concurrency::admit;

use self::access::Caller;
use crate::{
    http::{Request, Response},
    state::{Audience, State},
};

/// Of one request, bytes (<https://learn.microsoft.com/graph/outlook-large-attachments>).
const REQUEST_MAX: usize = 4 << 20;
const DATE_TIME: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
const HTTP_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// What this face keeps beside the mailboxes.
pub struct Graph {
    running: concurrency::Running,
    uploads: upload::Uploads,
    delta: delta::Epoch,
}

impl Graph {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { running: Default::default(), uploads: Default::default(), delta: delta::Epoch::new() }
    }

    /// Every delta link that was given out stands for nothing from now on: 410 with syncStateNotFound, or another refusal.
    pub fn expire_delta_links(&self, refusal: Option<(u16, String)>) {
        self.delta.renew(refusal);
    }
}

/// Why a request is refused: status, code and message of the OData error.
#[derive(Debug)]
pub struct Refusal {
    status: u16,
    code: Cow<'static, str>,
    text: String,
    location: Option<String>,
}

fn refuse(status: u16, code: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Refusal {
    Refusal { status, code: code.into(), text: text.into(), location: None }
}

type Answer = Result<Response, Refusal>;

pub fn handle(state: &State, request: &Request) -> Response {
    let id = guid();
    let mut response = answer(state, request).unwrap_or_else(|refusal| error(&refusal, state, request, &id));
    let now = state.now().to_offset(UtcOffset::UTC).format(HTTP_DATE).unwrap_or_default();
    response = response.header("Date", now).header("request-id", id);
    match request.header("client-request-id") {
        Some(own) if own.bytes().all(|byte| byte.is_ascii_graphic()) => response.header("client-request-id", own),
        _ => response,
    }
}

fn answer(state: &State, request: &Request) -> Answer {
    if request.body.len() > REQUEST_MAX {
        return Err(refuse(413, "BadRequest", "The maximum request length supported is 4MB."));
    }
    let path: Vec<String> =
        segments(&request.path).ok_or_else(|| refuse(400, "BadRequest", "The path is malformed."))?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    if let ["_upload", session] = path[..] {
        return upload::take(state, request, session);
    }
    let ["v1.0", rest @ ..] = &path[..] else {
        return Err(refuse(404, "BadRequest", "Only v1.0 is served here."));
    };
    let bearer = match state.oauth.bearer(state, request, Audience::Graph) {
        Ok(bearer) => bearer,
        Err(response) => return Ok(response),
    };
    let (root, rest) = match rest {
        ["$batch"] => return batch::run(state, request),
        ["me", rest @ ..] => (None, rest),
        ["users", user, rest @ ..] => (Some(*user), rest),
        _ => return Err(no_segment(rest)),
    };
    let caller = Caller::new(state, request, bearer, root)?;
    dispatch(&caller, rest)
}

fn dispatch(caller: &Caller<'_>, path: &[&str]) -> Answer {
    match (caller.request.method.as_str(), path) {
        ("GET", []) => caller.profile(),
        ("POST", ["sendMail"]) => send::send_mail(caller),
        ("POST", ["translateExchangeIds"]) => translate::translate(caller),
        ("GET", ["mailFolders"]) => folders::list(caller, None),
        ("POST", ["mailFolders"]) => folders::create(caller, None),
        ("GET", ["mailFolders", folder]) => folders::get(caller, folder),
        ("GET", ["mailFolders", folder, "childFolders"]) => folders::list(caller, Some(folder)),
        ("POST", ["mailFolders", folder, "childFolders"]) => folders::create(caller, Some(folder)),
        ("GET", ["mailFolders", folder, "messages", "delta"]) => delta::delta(caller, folder),
        (_, ["mailFolders", folder, "messages", rest @ ..]) => messages::dispatch(caller, Some(folder), rest),
        (_, ["messages", rest @ ..]) => messages::dispatch(caller, None, rest),
        (_, rest) => Err(no_segment(rest)),
    }
}

/// Decoded; `users('x')` is `users`, `x`, and functions lose their parentheses and namespace.
fn segments(path: &str) -> Option<Vec<String>> {
    let mut segments = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let part = percent_decoded(part)?;
        let part = part.strip_prefix("microsoft.graph.").unwrap_or(&part);
        match part.strip_suffix("')").and_then(|part| part.split_once("('")) {
            Some((name, key)) => segments.extend([name.to_owned(), key.replace("''", "'")]),
            None => segments.push(part.strip_suffix("()").unwrap_or(part).to_owned()),
        }
    }
    Some(segments)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let (pair, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

fn no_segment(path: &[&str]) -> Refusal {
    let last = path.last().copied().unwrap_or_default();
    refuse(
        400,
        "BadRequest",
        format!("Resource not found for the segment '{last}', or this method is not served on it."),
    )
}

fn error(refusal: &Refusal, state: &State, request: &Request, id: &str) -> Response {
    let client = request.header("client-request-id").unwrap_or(id);
    let date = state.now().to_offset(UtcOffset::UTC).format(DATE_TIME).unwrap_or_default();
    let inner = json!({"date": date.trim_end_matches('Z'), "request-id": id, "client-request-id": client});
    let body = json!({"error": {"code": refusal.code, "message": refusal.text, "innerError": inner}});
    let response = Response::json(refusal.status, &body);
    match &refusal.location {
        Some(location) => response.header("Location", location.as_str()),
        None => response,
    }
}

/// A success with a body.
fn ok(status: u16, body: &Value) -> Response {
    let kind = "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8";
    Response::of(status, kind, body.to_string().into_bytes())
}

/// The body of a request as a JSON object.
fn json_body(request: &Request) -> Result<Value, Refusal> {
    let body: Option<Value> = serde_json::from_slice(&request.body).ok();
    body.filter(Value::is_object)
        .ok_or_else(|| refuse(400, "BadRequest", "Unable to read JSON request payload. Please ensure it is an object."))
}

/// Is the body MIME, in base64?
fn is_mime(request: &Request) -> bool {
    request.header("content-type").is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/plain"))
}

fn date_time(time: OffsetDateTime) -> String {
    time.to_offset(UtcOffset::UTC).format(DATE_TIME).unwrap_or_default()
}

/// Where the request was sent to, its path, and these query options.
fn link(state: &State, request: &Request, query: &[(String, String)]) -> String {
    let place = request.header("host").map_or_else(|| state.base_url().to_owned(), |host| format!("https://{host}"));
    let base = format!("{place}{}", request.path);
    Url::parse_with_params(&base, query).map(String::from).unwrap_or(base)
}

fn guid() -> String {
    let mut bytes = [0; 16];
    // It names a request and nothing more; zeros do no harm.
    let _ = getrandom::fill(&mut bytes);
    as_guid(&bytes)
}

fn as_guid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
