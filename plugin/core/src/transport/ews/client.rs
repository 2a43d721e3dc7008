//! One request to EWS, and what its answer means.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{
    Method,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use roxmltree::Node;
use url::Url;

use super::{
    soap::{self, Body, Refusal, Version},
    splitter::Splitter,
};
use crate::{
    clock::Deadline,
    error::{About, Error, Kind, Result},
    limits,
    net::{
        Net,
        http::{self, Http, HttpAnswer},
    },
    remedies::{self, ews_codes},
    secret::Secret,
    settings::Account,
    transport::{Raw, Settled, Transcript},
};

pub struct Client {
    http: Http,
    url: Url,
    pub identity: Identity,
    /// The mailbox, for Exchange's own routing.
    anchor: Option<HeaderValue>,
    token: Secret,
    received: Arc<AtomicU64>,
    transcript: Transcript,
    /// Index in [`Version::ALL`]: the newest that this server has not refused.
    version: AtomicUsize,
    is_gromox: AtomicBool,
}

/// Whose mailbox it is, seen from the token.
pub enum Identity {
    Own,
    /// Another one's, or a shared one, which the person may open.
    Delegate {
        mailbox: String,
    },
    /// An application acts for it (ExchangeImpersonation).
    Application {
        mailbox: String,
    },
}

/// Answers that are acted on differently.
#[derive(Debug)]
pub enum Failure {
    /// HTTP 401.
    Unauthorized(Error),
    /// Refused with this ResponseCode.
    Code(String, Error),
    Other(Error),
}

impl Failure {
    /// A token that ends in the middle counts as a lost connection: it is opened once more, and there replaced once.
    pub fn into_error(self) -> Error {
        match self {
            Self::Unauthorized(error) => {
                Error::new(Kind::Transient, "Exchange no longer takes the token of this connection.")
                    .remedy("It is opened again with a fresh one.")
                    .source_error(error)
            }
            Self::Code(_, error) | Self::Other(error) => error,
        }
    }

    pub fn is(&self, codes: &[&str]) -> bool {
        matches!(self, Self::Code(code, _) if codes.contains(&code.as_str()))
    }

    pub fn is_folder_missing(&self) -> bool {
        self.is(&["ErrorFolderNotFound", "ErrorSyncFolderNotFound", "ErrorItemNotFound"])
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// The server does not know this schema version.
const TOO_NEW: [&str; 3] =
    ["ErrorInvalidServerVersion", "ErrorIncorrectSchemaVersion", "ErrorInvalidSchemaVersionForMailboxVersion"];

/// The only code that says of an item that it is not there. An id that is malformed or invalid may be the server's error.
pub const ITEM_NOT_FOUND: &str = "ErrorItemNotFound";

/// Of one response message.
pub type Outcome<'a> = Result<Node<'a, 'a>, Failure>;

impl Client {
    pub fn new(account: &Account, net: &Net, url: &Url, token: &Secret, transcript: &Transcript) -> Self {
        let mailbox = account.username.clone();
        let identity = if account.client.grant.is_app_only() {
            Identity::Application { mailbox }
        } else if account.consenting_user.eq_ignore_ascii_case(&account.username) {
            Identity::Own
        } else {
            Identity::Delegate { mailbox }
        };
        Self {
            http: net.http().kept(limits::EWS_PARALLEL),
            url: url.clone(),
            identity,
            anchor: HeaderValue::from_str(&account.username).ok(),
            token: token.clone(),
            received: Arc::default(),
            transcript: transcript.clone(),
            version: AtomicUsize::new(0),
            is_gromox: AtomicBool::new(false),
        }
    }

    pub fn received(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    /// Does this server hand on the Bcc field to all recipients? Known from the first answer on.
    pub fn shows_bcc(&self) -> bool {
        self.is_gromox.load(Ordering::Relaxed)
    }

    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Asks for `operation`; `body` says it in a schema version, `read` takes what came of each item, and the MIME of those
    /// that have some.
    ///
    /// # Errors
    /// A fault of the whole request. What is wrong with single items stands in their outcomes.
    pub fn ask<T>(
        &self,
        operation: &str,
        body: &dyn Fn(Version) -> String,
        deadline: Deadline,
        read: impl FnOnce(Vec<Outcome<'_>>, Vec<Result<Raw>>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        loop {
            let index = self.version.load(Ordering::Relaxed).min(Version::ALL.len() - 1);
            let (version, is_oldest) = (Version::ALL[index], index + 1 == Version::ALL.len());
            let is_too_new = |failure: &Failure| !is_oldest && failure.is(&TOO_NEW);
            match self.exchange(operation, soap::envelope(version, &self.identity, body(version)), deadline) {
                Err(failure) if is_too_new(&failure) => {}
                Err(failure) => return Err(failure),
                Ok((answer, text, contents)) => {
                    let document = soap::parse(&text).ok_or_else(no_answer)?;
                    if soap::is_of_gromox(&document) {
                        self.is_gromox.store(true, Ordering::Relaxed);
                    }
                    let outcomes = match soap::body(&document).ok_or_else(no_answer)? {
                        Body::Fault(refusal) => Err(self.refused(refusal, &answer)),
                        Body::Messages(messages) => Ok(messages
                            .into_iter()
                            .map(|message| message.map_err(|refusal| self.refused(refusal, &answer)))
                            .collect::<Vec<_>>()),
                    };
                    let refusal = match &outcomes {
                        Err(failure) => Some(failure),
                        Ok(outcomes) => outcomes.iter().find_map(|outcome| outcome.as_ref().err()),
                    };
                    if !refusal.is_some_and(is_too_new) {
                        return read(outcomes?, contents);
                    }
                }
            }
            self.version.store(index + 1, Ordering::Relaxed);
        }
    }

    /// The same where one answer is expected.
    pub fn ask_one<T>(
        &self,
        operation: &str,
        body: &dyn Fn(Version) -> String,
        deadline: Deadline,
        read: impl FnOnce(Node<'_, '_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.ask(operation, body, deadline, |mut outcomes, _| match (outcomes.pop(), outcomes.is_empty()) {
            (Some(outcome), true) => read(outcome?),
            _ => Err(misbehaved("answered something else than it was asked").into()),
        })
    }

    /// What became of each of `ids`.
    pub fn ask_each(
        &self,
        operation: &str,
        ids: &[&str],
        body: &dyn Fn(Version) -> String,
        deadline: Deadline,
    ) -> Result<Vec<Result<Settled>>, Failure> {
        self.ask(operation, body, deadline, |outcomes, _| {
            if outcomes.len() != ids.len() {
                return Err(misbehaved("left out answers").into());
            }
            let each = outcomes.into_iter().map(|outcome| outcome.map(|_| Settled::Done).map_err(Failure::into_error));
            Ok(each.collect())
        })
    }

    fn exchange(
        &self,
        operation: &str,
        envelope: String,
        deadline: Deadline,
    ) -> Result<(HttpAnswer, String, Vec<Result<Raw>>), Failure> {
        self.transcript.line("C:", format!("{operation} {{{} bytes}}", envelope.len()).as_bytes());
        let headers = self.headers()?;
        let (mut splitter, mut bytes) = (Splitter::default(), 0);
        let body = Some(envelope.into_bytes());
        let limit = limits::EWS_TIMEOUT;
        let mut split = |part: &[u8]| {
            self.received.fetch_add(part.len() as u64, Ordering::Relaxed);
            bytes += part.len();
            splitter.put(part)
        };
        let answer = self.http.stream(Method::POST, &self.url, headers, body, limit, deadline, Some(&mut split));
        let answer = answer.inspect_err(|error| self.transcript.line("S:", error.message().as_bytes()))?;
        self.received.fetch_add(1, Ordering::Relaxed);
        let size = bytes.max(answer.body.len());
        let ids = answer.correlation.as_deref().unwrap_or_default();
        self.transcript.line("S:", format!("{} {{{size} bytes}} {ids}", answer.status).as_bytes());
        if !answer.is_success() {
            return Err(self.failure(&answer));
        }
        let (text, contents) = splitter.end()?;
        Ok((answer, text, contents))
    }

    pub fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/xml"));
        // Without it any coding is acceptable (RFC 9110 12.5.3), and none is undone here.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(AUTHORIZATION, http::bearer(&self.token)?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/xml; charset=utf-8"));
        if let Some(anchor) = &self.anchor {
            headers.insert(HeaderName::from_static("x-anchormailbox"), anchor.clone());
        }
        Ok(headers)
    }

    /// Of an answer that is no success: a fault in XML, or a word of what stands before EWS.
    fn failure(&self, answer: &HttpAnswer) -> Failure {
        let status = answer.status;
        if let Some(refusal) = fault(&answer.body) {
            return self.refused(refusal, answer);
        }
        let code = match status {
            // Exchange Online says no more than that: the tenant, the app or the licence.
            403 if is_online(self.host()) => "HTTP 403".to_owned(),
            403 => "HTTP 403 on-premises".to_owned(),
            // A page that says sorry, or a page to sign in at.
            300..=399 if answer.location.as_deref().is_some_and(|to| to.contains("genericerrorpage")) => {
                "HTTP 503".to_owned()
            }
            300..=399 | 404 | 405 => "HTTP 404".to_owned(),
            _ => format!("HTTP {status}"),
        };
        let usual = match status {
            408 | 500..=599 => Kind::Transient,
            429 => Kind::Throttled,
            413 => Kind::TooLarge,
            _ => Kind::ServerMisbehaved,
        };
        let error = self.said(&code, &format!("HTTP {status}"), usual, answer.retry_after, answer);
        let error = error.with_about(match status {
            401 | 403 => About::Mailbox,
            408 | 429 | 500..=599 => About::Server,
            _ => About::Unknown,
        });
        if status == 401 { Failure::Unauthorized(error) } else { Failure::Other(error) }
    }

    /// An unknown code keeps the meaning of the status that it came with, and speaks of nothing that is known.
    fn refused(&self, refusal: Refusal, answer: &HttpAnswer) -> Failure {
        let Refusal { code, inner, back_off_ms, primary } = refusal;
        // What was wrapped says more than what it was wrapped in.
        let code = inner.filter(|_| code == "ErrorInternalServerError").unwrap_or(code);
        let about = ews_codes::about(&code);
        let usual = if answer.status >= 500 && about.is_none() { Kind::Transient } else { Kind::ServerMisbehaved };
        let usual = about.and_then(ews_codes::kind).unwrap_or(usual);
        let wait = back_off_ms.map(Duration::from_millis).or(answer.retry_after);
        let mut error = self.said(&code, &code, usual, wait, answer).with_code(&code);
        error = error.with_about(about.unwrap_or_default());
        if let Some(address) = primary {
            error = error.remedy(format!("Enter {address} as Username: it is the primary address of this mailbox."));
        }
        Failure::Code(code, error)
    }

    fn said(&self, code: &str, shown: &str, usual: Kind, wait: Option<Duration>, answer: &HttpAnswer) -> Error {
        let known = remedies::by_ews(code);
        let kind = match known.map_or(usual, |row| row.kind()) {
            Kind::Transient if wait.is_some() => Kind::Throttled,
            kind => kind,
        };
        let what = known.and_then(|row| row.what(self.host()));
        let mut error = Error::new(kind, what.unwrap_or_else(|| format!("Exchange refused: {shown}.")));
        error = error.with_status(answer.status);
        if !shown.is_empty() {
            error = error.provider_code(shown);
        }
        if let Some(row) = known {
            error = error.remedy(row.sentence());
            if row.kind() == kind {
                error = error.who(row.who());
            }
            if let Some(link) = row.link() {
                error = error.link(link);
            }
        }
        if let Some(wait) = wait {
            error = error.retry_after(wait.min(limits::RETRY_AFTER_MAX));
        }
        if let Some(ids) = &answer.correlation {
            error = error.correlation(ids);
        }
        error
    }
}

/// The fault in an answer that is no success, read under the same bounds as any other.
fn fault(body: &[u8]) -> Option<Refusal> {
    let mut splitter = Splitter::default();
    splitter.put(body).ok()?;
    let (text, _) = splitter.end().ok()?;
    let document = soap::parse(&text)?;
    match soap::body(&document)? {
        Body::Fault(refusal) => Some(refusal),
        Body::Messages(_) => None,
    }
}

/// Exchange Online, in any of its clouds.
pub fn is_online(host: &str) -> bool {
    const HOSTS: [&str; 6] = [
        "outlook.office365.com",
        "outlook.office.com",
        "outlook.office365.us",
        "outlook-dod.office365.us",
        "partner.outlook.cn",
        "outlook.cn",
    ];
    HOSTS.iter().any(|known| host.eq_ignore_ascii_case(known))
}

fn no_answer() -> Error {
    misbehaved("sent something that is no answer of EWS")
}

pub fn misbehaved(what: &str) -> Error {
    Error::new(Kind::ServerMisbehaved, format!("Exchange {what}."))
        .remedy("It is tried again; if it keeps happening, check that Connect URL ends in /EWS/Exchange.asmx.")
}
