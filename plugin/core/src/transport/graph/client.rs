//! One request to Graph, and what its answer means.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::{
    Method,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;
use url::Url;

use crate::{
    clock::Deadline,
    error::{About, Error, Kind, Result},
    limits,
    net::{
        Net,
        http::{self, Http, HttpAnswer, Sink},
    },
    remedies::{self, ews_codes},
    secret::Secret,
    settings::Account,
    transport::Transcript,
};

/// Content-Type and bytes of a request.
pub type Body = (&'static str, Vec<u8>);

pub fn json(body: &Value) -> Body {
    ("application/json", body.to_string().into_bytes())
}

pub struct Client {
    http: Http,
    base: Url,
    /// `/me`, or `/users/{name}` for shared mailboxes and applications.
    mailbox: String,
    token: Secret,
    received: Arc<AtomicU64>,
    transcript: Transcript,
}

/// Answers that are acted on differently.
pub enum Failure {
    /// HTTP 401: the token ended, or was revoked (a claims challenge of continuous access evaluation).
    Unauthorized(Error),
    /// HTTP 404: moved, deleted, or never there.
    NotFound(Error),
    /// Graph forgot what the link stands for (410, or 40x with syncStateNotFound).
    Resync(Error),
    /// HTTP 403.
    Refused(Error),
    Other(Error),
}

impl Failure {
    /// A token that ends in the middle counts as a lost connection: it is opened once more, and there replaced once.
    pub fn into_error(self) -> Error {
        match self {
            Self::Unauthorized(error) => {
                Error::new(Kind::Transient, "Microsoft Graph no longer takes the token of this connection.")
                    .remedy("It is opened again with a fresh one.")
                    .source_error(error)
            }
            Self::NotFound(error) | Self::Resync(error) | Self::Refused(error) | Self::Other(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Client {
    pub fn new(account: &Account, net: &Net, base: &Url, token: &Secret, transcript: &Transcript) -> Self {
        let own =
            !account.client.grant.is_app_only() && account.consenting_user.eq_ignore_ascii_case(&account.username);
        let mailbox = if own { "/me".to_owned() } else { format!("/users/{}", segment(&account.username)) };
        let http = net.http().kept(limits::GRAPH_PARALLEL);
        let transcript = transcript.clone();
        Self { http, base: base.clone(), mailbox, token: token.clone(), received: Arc::default(), transcript }
    }

    pub fn received(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    pub fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// A URL below the mailbox.
    pub fn url(&self, path: &str) -> Result<Url> {
        let base = self.base.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}{}{path}", self.mailbox))
            .map_err(|e| Error::new(Kind::Internal, "A Graph URL could not be built.").source_error(e))
    }

    /// The same, as it stands in a batch.
    pub fn relative(&self, path: &str) -> String {
        format!("{}{path}", self.mailbox)
    }

    pub fn batch_url(&self) -> Result<Url> {
        let base = self.base.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}/$batch"))
            .map_err(|e| Error::new(Kind::Internal, "A Graph URL could not be built.").source_error(e))
    }

    /// A link that Graph gave out. The token goes to no other place than where the settings say Graph is.
    pub fn link(&self, text: &str) -> Result<Url> {
        let url = Url::parse(text).map_err(|e| misbehaved("gave out a link that is no URL").source_error(e))?;
        let inside = url.path().starts_with(self.base.path().trim_end_matches('/'));
        if url.origin() != self.base.origin() || !inside || text.len() > limits::GRAPH_LINK_MAX {
            return Err(misbehaved("gave out a link that leads elsewhere; the token was not sent there"));
        }
        Ok(url)
    }

    pub fn json(&self, method: &str, path: &str, body: Option<&Value>, deadline: Deadline) -> Result<Value, Failure> {
        self.page(method, &self.url(path)?, body.map(json), deadline)
    }

    /// One request whose answer is JSON, or nothing: `Null`.
    pub fn page(&self, method: &str, url: &Url, body: Option<Body>, deadline: Deadline) -> Result<Value, Failure> {
        let mut bytes = Vec::new();
        let mut keep = |part: &[u8]| {
            if bytes.len() + part.len() > limits::GRAPH_PAGE_BYTES_MAX {
                return Err(misbehaved("sent a page that is larger than any should be"));
            }
            bytes.extend_from_slice(part);
            Ok(())
        };
        let answer = self.call(method, url, body, deadline, Some(&mut keep))?;
        if let Some(coding) = coded(&answer) {
            return Err(misbehaved(&format!("sent an answer in the coding {coding}, which nobody asked for")).into());
        }
        if bytes.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        let value = serde_json::from_slice(&bytes);
        Ok(value.map_err(|_| misbehaved("sent an answer that is no JSON"))?)
    }

    /// One request; the body of a success goes to `sink`, and is not read without one. The answer has the rest.
    pub fn call(
        &self,
        method: &str,
        url: &Url,
        body: Option<Body>,
        deadline: Deadline,
        sink: Option<Sink<'_>>,
    ) -> Result<HttpAnswer, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        // Without it any coding is acceptable (RFC 9110 12.5.3), and none is undone here.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(AUTHORIZATION, http::bearer(&self.token)?);
        let prefer = HeaderName::from_static("prefer");
        headers.insert(prefer.clone(), HeaderValue::from_static("IdType=\"ImmutableId\""));
        if let Ok(size) = HeaderValue::from_str(&format!("odata.maxpagesize={}", limits::GRAPH_PAGE)) {
            headers.append(prefer, size);
        }
        let body = body.map(|(kind, body)| {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            body
        });
        self.exchange(method, url, headers, body, deadline, sink)
    }

    /// One piece of an attachment, to the URL that an upload session gave out. It is good for that session by itself, may
    /// lead to another host, and gets no token. What is still missing, as the answer names it.
    pub fn put_piece(
        &self,
        url: &Url,
        piece: &[u8],
        at: usize,
        total: usize,
        deadline: Deadline,
    ) -> Result<Option<Range<usize>>, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let range = HeaderValue::from_str(&format!("bytes {at}-{}/{total}", at + piece.len() - 1));
        headers.insert(
            CONTENT_RANGE,
            range.map_err(|e| Error::new(Kind::Internal, "A range is no header.").source_error(e))?,
        );
        let mut bytes = Vec::new();
        let mut keep = |part: &[u8]| {
            let room = limits::GRAPH_PAGE_BYTES_MAX.saturating_sub(bytes.len());
            bytes.extend_from_slice(&part[..part.len().min(room)]);
            Ok(())
        };
        self.exchange("PUT", url, headers, Some(piece.to_vec()), deadline, Some(&mut keep))?;
        Ok(expected(&serde_json::from_slice(&bytes).unwrap_or(Value::Null), total))
    }

    fn exchange(
        &self,
        method: &str,
        url: &Url,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
        deadline: Deadline,
        sink: Option<Sink<'_>>,
    ) -> Result<HttpAnswer, Failure> {
        if self.transcript.is_on() {
            let sent = body.as_ref().map_or(0, Vec::len);
            self.transcript.line("C:", format!("{method} {} {{{sent} bytes}}", shown(url)).as_bytes());
        }
        let verb = Method::from_bytes(method.as_bytes())
            .map_err(|e| Error::new(Kind::Internal, "An HTTP method is none.").source_error(e))?;
        let (received, mut bytes) = (&self.received, 0);
        let mut counted = sink.map(|sink| {
            |part: &[u8]| {
                received.fetch_add(part.len() as u64, Ordering::Relaxed);
                bytes += part.len();
                sink(part)
            }
        });
        let sink = counted.as_mut().map(|sink| sink as Sink<'_>);
        let answer = self.http.stream(verb, url, headers, body, limits::GRAPH_TIMEOUT, deadline, sink);
        if self.transcript.is_on() {
            let line = match &answer {
                Ok(answer) => {
                    let code = refusal_code(answer).map(|code| format!(" {code}")).unwrap_or_default();
                    let ids = answer.correlation.as_deref().unwrap_or_default();
                    format!("{}{code} {{{} bytes}} {ids}", answer.status, bytes + answer.body.len())
                }
                Err(error) => format!("({})", error.message()),
            };
            self.transcript.line("S:", line.trim_end().as_bytes());
        }
        let answer = answer?;
        self.received.fetch_add(1, Ordering::Relaxed);
        if answer.is_success() { Ok(answer) } else { Err(Refusal::of(&answer).failure()) }
    }
}

/// The coding of a body that is not what it stands for (RFC 9110 8.4).
pub fn coded(answer: &HttpAnswer) -> Option<String> {
    let coding = answer.content_encoding.as_deref()?.trim();
    let is_plain = coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    (!is_plain).then(|| coding.chars().filter(char::is_ascii_graphic).take(20).collect())
}

/// The first of `nextExpectedRanges` (`"26"`, `"26-"`, `"26-49"`): what of an attachment is still missing.
fn expected(answer: &Value, total: usize) -> Option<Range<usize>> {
    let range = answer["nextExpectedRanges"].as_array()?.first()?.as_str()?.trim();
    let (first, last) = range.split_once('-').unwrap_or((range, ""));
    let first: usize = first.trim().parse().ok()?;
    let end = last.trim().parse().map_or(total, |last: usize| last.saturating_add(1).min(total));
    (first < end).then_some(first..end)
}

/// A URL for the transcript: ids shortened, of the query only the names.
fn shown(url: &Url) -> String {
    let short = |part: &str| match part.len() {
        0..=24 => part.to_owned(),
        // Percent-encoded: ASCII only.
        len => format!("{}…{}", &part[..8], &part[len - 8..]),
    };
    let mut text: String = url.path().split('/').map(short).collect::<Vec<_>>().join("/");
    let names: Vec<String> =
        url.query_pairs().map(|(name, _)| short(&name.replace(|c: char| !c.is_ascii(), "?"))).collect();
    if !names.is_empty() {
        text.push_str(&format!("?{}", names.join("&")));
    }
    text
}

fn refusal_code(answer: &HttpAnswer) -> Option<String> {
    (!answer.is_success()).then(|| Refusal::of(answer).code).filter(|code| !code.is_empty())
}

/// An answer that is no success: of a request, or of one inside a batch, which has a status and a wait of its own.
pub struct Refusal {
    status: u16,
    code: String,
    wait: Option<Duration>,
    correlation: Option<String>,
}

impl Refusal {
    fn of(answer: &HttpAnswer) -> Self {
        let body: Option<Value> = answer.json();
        Self {
            status: answer.status,
            code: code(body.as_ref().unwrap_or(&Value::Null)),
            wait: answer.retry_after,
            correlation: answer.correlation.clone(),
        }
    }

    pub fn inside(one: &Value) -> Self {
        let headers = one["headers"].as_object();
        let wait =
            headers.and_then(|headers| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after")));
        let wait = wait.and_then(|(_, wait)| match wait {
            Value::String(wait) => http::retry_after(wait, None),
            // JSON may write it as a number, too.
            wait => wait.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds.ceil()).ok()),
        });
        Self {
            status: one["status"].as_u64().and_then(|status| status.try_into().ok()).unwrap_or_default(),
            code: code(&one["body"]),
            wait: wait.map(|wait| wait.min(limits::RETRY_AFTER_MAX)),
            correlation: None,
        }
    }

    /// `code` and the ids are passed on verbatim; unknown codes keep the status's meaning.
    pub fn failure(self) -> Failure {
        let Self { status, code, wait, correlation } = self;
        let by_status = format!("HTTP {status}");
        // Graph's mail API passes the codes of Exchange on.
        let of_exchange = ews_codes::about(&code);
        let known =
            remedies::by_graph(&code).or_else(|| remedies::by_ews(&code)).or_else(|| remedies::by_graph(&by_status));
        let usual = match status {
            // 509: more bytes than a mailbox may move.
            429 | 509 => Kind::Throttled,
            // 412 and 421: another state, another server; nothing was done.
            408 | 409 | 412 | 421 | 423 | 500..=599 => Kind::Transient,
            401 | 403 | 404 => Kind::Refused,
            413 => Kind::TooLarge,
            _ => Kind::ServerMisbehaved,
        };
        let usual = match of_exchange.and_then(ews_codes::kind) {
            Some(kind) if !matches!(status, 403 | 429) => kind,
            _ => usual,
        };
        let wait = wait.filter(|_| matches!(status, 429 | 503 | 504));
        let kind =
            if status == 429 || wait.is_some() { Kind::Throttled } else { known.map_or(usual, |row| row.kind()) };
        let message = known.and_then(|row| row.what("Microsoft Graph"));
        let mut said =
            Error::new(kind, message.unwrap_or_else(|| format!("Microsoft Graph answered with status {status}.")))
                .provider_code(if code.is_empty() { by_status } else { format!("{status} {code}") })
                .with_status(status);
        if !code.is_empty() {
            said = said.with_code(&code);
        }
        let said_by_all = known.is_some() || code.is_empty();
        said = said.with_about(match (of_exchange, kind) {
            (Some(about), _) => about,
            // A code that nobody knows speaks of nothing that is known.
            (None, _) if !said_by_all => About::Unknown,
            (None, Kind::Transient | Kind::Throttled) => About::Server,
            // RFC 9110 15.5.5: it does not say of what.
            (None, _) if status == 404 && code.is_empty() => About::Unknown,
            (None, Kind::Refused | Kind::AdminRequired | Kind::Settings | Kind::ConsentRequired) => About::Mailbox,
            (None, _) => About::Unknown,
        });
        if let Some(row) = known {
            said = said.remedy(row.sentence());
            if row.kind() == kind {
                said = said.who(row.who());
            }
            if let Some(link) = row.link() {
                said = said.link(link);
            }
        }
        if let Some(wait) = wait {
            said = said.retry_after(wait);
        }
        if let Some(ids) = &correlation {
            said = said.correlation(ids);
        }
        match status {
            410 => Failure::Resync(said),
            _ if ["syncstatenotfound", "syncstateinvalid", "resyncrequired"]
                .contains(&code.to_lowercase().as_str()) =>
            {
                Failure::Resync(said)
            }
            401 => Failure::Unauthorized(said),
            403 => Failure::Refused(said),
            404 => Failure::NotFound(said),
            _ => Failure::Other(said),
        }
    }
}

fn code(body: &Value) -> String {
    let code = body["error"]["code"].as_str().unwrap_or_default();
    code.chars().filter(|c| !c.is_control()).take(limits::GRAPH_CODE_MAX).collect()
}

pub fn misbehaved(what: &str) -> Error {
    Error::new(Kind::ServerMisbehaved, format!("Microsoft Graph {what}."))
        .remedy("It is tried again; if it keeps happening, check Connect URL.")
}

/// Percent-encodes everything but unreserved characters (RFC 3986 2.3).
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
