//! HTTP to authorization servers: https only, no redirect followed, no cookie kept, bounded in time and size.

use std::{
    collections::HashMap,
    error::Error as StdError,
    fmt,
    io::{self, Read},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{
    Method,
    blocking::{Client, RequestBuilder, Response},
    dns::{Addrs, Name, Resolve, Resolving},
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION,
        RETRY_AFTER as RETRY_AFTER_HEADER,
    },
    redirect::Policy,
};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::{Egress, Proxy, connect, resolve, unreachable_error};
use crate::{
    clock::{Clock, Deadline, UnixSeconds},
    error::{About, Error, Kind, Result},
    limits, machine,
    seam::{self, Way},
    secret::Secret,
};

/// Cheap to clone; all clones share one client. The client (and its thread) starts with the first request.
#[derive(Clone)]
pub struct Http {
    shared: Arc<Shared>,
}

struct Shared {
    tls: Arc<ClientConfig>,
    egress: Egress,
    proxy: Option<Proxy>,
    permitted: Arc<Permitted>,
    client: Mutex<Option<Client>>,
    /// Connections that are kept for the next request.
    kept: usize,
}

/// Takes the pieces of a body.
pub type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// What came back, whatever the status.
pub struct HttpAnswer {
    pub status: u16,
    /// Retry-After, as seconds or as a date (RFC 9110 10.2.3); at most `limits::RETRY_AFTER_MAX`.
    pub retry_after: Option<Duration>,
    pub content_type: Option<String>,
    /// As the server names it; `None` or `identity`: the bytes as they are.
    pub content_encoding: Option<String>,
    /// Where a redirect leads, which is not followed.
    pub location: Option<String>,
    pub date: Option<UnixSeconds>,
    /// Request ids that the server gave in headers, as `name=value` words.
    pub correlation: Option<String>,
    /// At most `limits::HTTP_BODY_MAX` bytes. May hold tokens: wiped on drop, never logged.
    pub body: Zeroizing<Vec<u8>>,
}

impl HttpAnswer {
    /// The body as a JSON object; `None` when it is anything else (serde would read a list into a struct as well).
    /// serde's own error is dropped: it may quote the body.
    pub fn json<T: DeserializeOwned>(&self) -> Option<T> {
        let body = self.body.trim_ascii_start();
        body.starts_with(b"{").then(|| serde_json::from_slice(body).ok()).flatten()
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Http {
    pub fn new(tls: Arc<ClientConfig>, egress: Egress) -> Result<Self> {
        let permitted = Arc::new(Permitted::default());
        Ok(Self { shared: Arc::new(Shared { tls, egress, proxy: None, permitted, client: Mutex::new(None), kept: 0 }) })
    }

    /// Another client with the same trust and policy, through a proxy.
    pub fn through(&self, proxy: Option<Proxy>) -> Self {
        self.with(proxy, self.shared.kept)
    }

    /// Another client with the same trust and policy that keeps up to `kept` connections to a host open: for mail, where
    /// requests are many and can be repeated.
    pub fn kept(&self, kept: usize) -> Self {
        self.with(self.shared.proxy.clone(), kept)
    }

    fn with(&self, proxy: Option<Proxy>, kept: usize) -> Self {
        let (tls, egress) = (self.shared.tls.clone(), self.shared.egress.clone());
        let permitted = Arc::new(Permitted::default());
        Self { shared: Arc::new(Shared { tls, egress, proxy, permitted, client: Mutex::new(None), kept }) }
    }

    fn proxy_for(&self, host: &str) -> Option<&Proxy> {
        self.shared.proxy.as_ref().filter(|proxy| proxy.is_for(host))
    }

    /// # Errors
    /// `Transient` when there was no answer; `AdminRequired` for an untrusted certificate; `Refused` by the egress
    /// policy; `Settings` for a URL that is not https; `TooLarge` for a body over the limit. An answer with an error
    /// status is an answer.
    pub fn get(&self, url: &Url, bearer: Option<&Secret>, deadline: Deadline) -> Result<HttpAnswer> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(token) = bearer {
            headers.insert(AUTHORIZATION, self::bearer(token)?);
        }
        self.send(Method::GET, url, headers, None, deadline)
    }

    /// POSTs `fields` as application/x-www-form-urlencoded. `basic_auth`: client id and secret.
    ///
    /// # Errors
    /// As [`Http::get`].
    pub fn post_form(
        &self,
        url: &Url,
        fields: &[(&str, &str)],
        basic_auth: Option<(&str, &Secret)>,
        deadline: Deadline,
    ) -> Result<HttpAnswer> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        if let Some((id, secret)) = basic_auth {
            headers.insert(AUTHORIZATION, secret_header(&format!("Basic {}", basic_credentials(id, secret).expose()))?);
        }
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.post(url, headers, body.into_bytes(), deadline)
    }

    /// POSTs `body` with exactly these headers.
    ///
    /// # Errors
    /// As [`Http::get`].
    pub fn post(&self, url: &Url, headers: HeaderMap, body: Vec<u8>, deadline: Deadline) -> Result<HttpAnswer> {
        self.send(Method::POST, url, headers, Some(body), deadline)
    }

    fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<HttpAnswer> {
        let deadline = deadline.at_most(limits::HTTP_TIMEOUT);
        read(self.request(method, url, headers, body, deadline)?, url.host_str().unwrap_or_default(), deadline, None)
    }

    /// One request of at most `limit`. The body of a success goes to `sink` piece by piece and not into the answer; without
    /// a sink it is not read, and nothing that becomes of it makes the success an error.
    ///
    /// # Errors
    /// As [`Http::get`], and what `sink` says.
    #[allow(clippy::too_many_arguments)] // what an HTTP request consists of
    pub fn stream(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
        limit: Duration,
        deadline: Deadline,
        sink: Option<Sink<'_>>,
    ) -> Result<HttpAnswer> {
        let deadline = deadline.at_most(limit);
        let response = self.request(method, url, headers, body, deadline)?;
        let is_success = response.status().is_success();
        if is_success && sink.is_none() {
            return Ok(head(&response));
        }
        read(response, url.host_str().unwrap_or_default(), deadline, sink.filter(|_| is_success))
    }

    /// Errors say whether the request can have been written ([`Error::is_unwritten`]).
    fn request(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<Response> {
        let host = url.host_str().unwrap_or_default();
        let request = self.prepare(method, url, headers, body, deadline).map_err(Error::unwritten)?;
        seam::step("http.send").map_err(|e| broken_off(host, e))?;
        request.send().map_err(|e| {
            let proxy = self.proxy_for(host);
            if e.is_connect() || e.is_timeout() {
                self.shared.permitted.silent(proxy.map_or(host, Proxy::host));
            }
            match proxy {
                None => no_answer(host, e),
                Some(proxy) => match self.told_by(proxy, url, &e, deadline) {
                    Some(error) => error.source_error(e.without_url()).unwritten(),
                    None => no_answer(&format!("{host}, through the proxy {proxy},"), e),
                },
            }
        })
    }

    /// The client does not say what the proxy answered to CONNECT: it is asked once more.
    fn told_by(&self, proxy: &Proxy, url: &Url, e: &reqwest::Error, deadline: Deadline) -> Option<Error> {
        if !e.is_connect() || certificate_fault(e).is_some() || machine::Lack::of(e).is_some() {
            return None;
        }
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        proxy.connect(&self.shared.egress, host, port, deadline.at_most(limits::CONNECT_TIMEOUT)).err()
    }

    fn prepare(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<RequestBuilder> {
        let host = url.host_str().unwrap_or_default();
        if url.scheme() != "https" || host.is_empty() {
            return Err(Error::new(Kind::Settings, format!("{} is not an https URL.", origin(url)))
                .remedy("Tokens only travel over https: correct the URL."));
        }
        let port = url.port_or_known_default().unwrap_or(443);
        let connecting = deadline.at_most(limits::CONNECT_TIMEOUT);
        match self.proxy_for(host) {
            Some(proxy) => {
                proxy.judge(&self.shared.egress, host, port, connecting)?;
                proxy.password()?;
                let addresses = proxy.addresses(&self.shared.egress, connecting)?;
                self.permit(proxy.host(), proxy.port(), addresses, connecting).map_err(|e| proxy.unreachable(e))?;
            }
            None => {
                let addresses = self.shared.egress.permitted(host, resolve(host, port, connecting)?)?;
                self.permit(host, port, addresses, connecting)?;
            }
        }
        let left = deadline.check(&format!("an answer of {host}"))?;
        let request = self.client()?.request(method, url.clone()).headers(headers).timeout(left);
        Ok(match body {
            Some(body) => request.body(body),
            None => request,
        })
    }

    /// Keeps the addresses that the policy allows: the client can connect to no others. Of several the one that answers comes first: the client would give each its part of
    /// the time only after the one before it.
    fn permit(&self, host: &str, port: u16, mut addresses: Vec<SocketAddr>, deadline: Deadline) -> Result<()> {
        if addresses.len() > 1 {
            let answering = match self.shared.permitted.answering(host, port).filter(|one| addresses.contains(one)) {
                Some(known) => known,
                None => {
                    let connected =
                        connect::race(&addresses, deadline).map_err(|e| unreachable_error(host, port, e))?;
                    self.shared.permitted.answered(host, connected.address);
                    connected.address
                }
            };
            addresses.retain(|address| *address != answering);
            addresses.insert(0, answering);
        }
        self.shared.permitted.put(host, addresses);
        Ok(())
    }

    fn client(&self) -> Result<Client> {
        let mut slot = seam::lock("http.client", &self.shared.client);
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let mut builder = Client::builder().no_proxy();
        if let Some(proxy) = self.shared.proxy.clone() {
            builder = builder.proxy(reqwest::Proxy::custom(move |url| {
                proxy.is_for(url.host_str().unwrap_or_default()).then(|| proxy.url()).flatten()
            }));
        }
        let client = builder
            .tls_backend_preconfigured((*self.shared.tls).clone())
            .dns_resolver(self.shared.permitted.clone())
            .redirect(Policy::none())
            .https_only(true)
            .referer(false)
            .connect_timeout(limits::CONNECT_TIMEOUT)
            // A token request that dies on a stale connection leaves open whether the refresh token was used up, and
            // there is one such request an hour: none is kept there.
            .pool_max_idle_per_host(self.shared.kept)
            .user_agent(concat!("oauth-mail/", env!("CARGO_PKG_VERSION")))
            .build()
            // Its runtime needs descriptors and a thread, and does not say which of them it did not get.
            .map_err(|e| {
                let doing = "The HTTP client could not be set up.";
                machine::or_else_now(doing, e, |e| machine::Lack::Threads.error(doing).source_error(e))
            })?;
        *slot = Some(client.clone());
        Ok(client)
    }
}

/// What follows `Basic`: client id and secret, each form-encoded before they are joined (RFC 6749 2.3.1).
pub fn basic_credentials(id: &str, secret: &Secret) -> Secret {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encode(id), encode(secret.expose())));
    Secret::new(BASE64_STANDARD.encode(pair.as_bytes()))
}

/// Name resolution for the client: only what [`Http::permit`] put there.
#[derive(Default)]
struct Permitted {
    addresses: Mutex<HashMap<String, Vec<SocketAddr>>>,
    /// Which of several answered, and when.
    answering: Mutex<HashMap<String, Vec<(SocketAddr, Instant)>>>,
}

impl Permitted {
    /// Hosts come from settings and their metadata; more than this many is somebody's mistake.
    const HOSTS_MAX: usize = 256;

    fn put(&self, host: &str, addresses: Vec<SocketAddr>) {
        let mut map = seam::lock("http.permitted", &self.addresses);
        if map.len() >= Self::HOSTS_MAX {
            map.clear();
        }
        map.insert(host.to_ascii_lowercase(), addresses);
    }

    fn answered(&self, host: &str, address: SocketAddr) {
        let mut map = seam::lock("http.answering", &self.answering);
        if map.len() >= Self::HOSTS_MAX {
            map.clear();
        }
        let known = map.entry(host.to_ascii_lowercase()).or_default();
        known.retain(|(one, _)| one.port() != address.port());
        known.push((address, seam::instant()));
    }

    fn answering(&self, host: &str, port: u16) -> Option<SocketAddr> {
        let map = seam::lock("http.answering", &self.answering);
        let known = map.get(&host.to_ascii_lowercase())?;
        let (address, since) = known.iter().find(|(one, _)| one.port() == port)?;
        (seam::instant().saturating_duration_since(*since) < limits::ANSWERING_KEPT).then_some(*address)
    }

    fn silent(&self, host: &str) {
        seam::lock("http.answering", &self.answering).remove(&host.to_ascii_lowercase());
    }
}

impl Resolve for Permitted {
    fn resolve(&self, name: Name) -> Resolving {
        let map = seam::lock("http.permitted", &self.addresses);
        let found = map.get(&name.as_str().to_ascii_lowercase()).cloned();
        Box::pin(std::future::ready(match found {
            Some(addresses) => Ok(Box::new(addresses.into_iter()) as Addrs),
            None => Err(io::Error::other("this name was not permitted").into()),
        }))
    }
}

/// Everything but the body.
fn head(response: &Response) -> HttpAnswer {
    let headers = response.headers();
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let date = text(DATE).and_then(|date| http_date(&date));
    HttpAnswer {
        status: response.status().as_u16(),
        retry_after: text(RETRY_AFTER_HEADER).and_then(|wait| retry_after(&wait, date)),
        content_type: text(CONTENT_TYPE),
        content_encoding: text(CONTENT_ENCODING),
        location: text(LOCATION),
        date,
        correlation: correlation(headers),
        body: Zeroizing::new(Vec::with_capacity(limits::HTTP_CHUNK)),
    }
}

fn read(mut response: Response, host: &str, deadline: Deadline, mut sink: Option<Sink<'_>>) -> Result<HttpAnswer> {
    let mut answer = head(&response);
    let mut chunk = Zeroizing::new([0; limits::HTTP_CHUNK]);
    loop {
        deadline.check(&format!("the rest of an answer of {host}"))?;
        seam::step("http.read").map_err(|e| broken_off(host, e))?;
        match receive(&mut response, &mut chunk[..], deadline).map_err(|e| broken_off(host, e))? {
            0 => return Ok(answer),
            n if sink.is_some() => {
                if let Some(sink) = &mut sink {
                    sink(&chunk[..n])?;
                }
            }
            n if answer.body.len() + n > limits::HTTP_BODY_MAX => {
                return Err(Error::new(
                    Kind::TooLarge,
                    format!("{host} sent an answer larger than {} bytes.", limits::HTTP_BODY_MAX),
                )
                .remedy("Check that the URL is the provider's token endpoint."));
            }
            n => answer.body.extend_from_slice(&chunk[..n]),
        }
    }
}

/// Of the body, as far as the seam lets it come.
fn receive(response: &mut Response, chunk: &mut [u8], deadline: Deadline) -> io::Result<usize> {
    let len = match seam::passing(Way::Received, chunk.len(), || Ok(deadline.left()))? {
        // A body has a length, or a last chunk.
        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
        len => len,
    };
    let count = response.read(&mut chunk[..len])?;
    seam::passed(Way::Received, count);
    Ok(count)
}

fn correlation(headers: &HeaderMap) -> Option<String> {
    // The last two are Exchange's: the server, and what its front end says of an error.
    const NAMES: [&str; 7] = [
        "x-ms-request-id",
        "client-request-id",
        "request-id",
        "x-request-id",
        "x-correlation-id",
        "x-feserver",
        "x-caserrorcode",
    ];
    let words: Vec<_> = NAMES
        .iter()
        .filter_map(|name| Some((name, headers.get(*name)?.to_str().ok()?)))
        .map(|(name, value)| format!("{name}={}", value.chars().take(80).collect::<String>()))
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Retry-After, as seconds or as a date (RFC 9110 10.2.3). `date`: the sender's own clock.
pub fn retry_after(text: &str, date: Option<UnixSeconds>) -> Option<Duration> {
    let seconds = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => http_date(text)?.saturating_sub(date.unwrap_or_else(|| Clock::default().now())).max(0) as u64,
    };
    Some(Duration::from_secs(seconds).min(limits::RETRY_AFTER_MAX))
}

fn http_date(text: &str) -> Option<UnixSeconds> {
    OffsetDateTime::parse(text.trim(), &Rfc2822).ok().map(OffsetDateTime::unix_timestamp)
}

/// `Authorization: Bearer`, marked as secret.
///
/// # Errors
/// `ServerMisbehaved` for a token that no header can carry.
pub fn bearer(token: &Secret) -> Result<HeaderValue> {
    secret_header(&format!("Bearer {}", token.expose()))
}

fn secret_header(text: &str) -> Result<HeaderValue> {
    // The error would hold nothing of the text, but says nothing useful either.
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Error::new(Kind::ServerMisbehaved, "A token or a client secret holds characters that no header can carry.")
            .remedy("Enter the client secret again; if it is right, start the consent again.")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn no_answer(host: &str, e: reqwest::Error) -> Error {
    let e = e.without_url();
    if let Some(lack) = machine::Lack::of(&e) {
        let unwritten = e.is_connect();
        let error = lack.error(&format!("{host} cannot be connected to.")).source_error(e);
        return if unwritten { error.unwritten() } else { error };
    }
    // While connecting: name, TCP, TLS. All that came later may have followed the request.
    let unwritten = e.is_connect();
    let error = match certificate_fault(&e) {
        Some(reason) => {
            Error::new(Kind::AdminRequired, format!("The certificate of {host} is not trusted: {reason}."))
                .remedy("Use the server name that stands in the certificate; for a private authority, name its PEM file under advanced › CA file.")
        }
        None => {
            let message = match &e {
                e if e.is_timeout() => format!("{host} gave no answer in time."),
                e if e.is_connect() => format!("{host} cannot be reached."),
                _ => format!("{host} closed the connection without an answer."),
            };
            Error::new(Kind::Transient, message)
                .remedy("It is tried again later; if it keeps happening, check the URL, the network and the firewall.")
        }
    };
    let error = error.with_about(About::Connection).source_error(e);
    if unwritten { error.unwritten() } else { error }
}

fn broken_off(host: &str, e: io::Error) -> Error {
    Error::new(Kind::Transient, format!("{host} broke off in the middle of an answer."))
        .remedy("It is tried again later.")
        .with_about(About::Connection)
        .source_error(e)
}

fn certificate_fault(e: &(dyn StdError + 'static)) -> Option<impl fmt::Display + use<>> {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(rustls::Error::InvalidCertificate(reason)) = e.downcast_ref() {
            return Some(reason.clone());
        }
        // `io::Error::source` skips the error it wraps.
        let wrapped = e.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|e| e as &(dyn StdError + 'static)).or_else(|| e.source());
    }
    None
}

/// Scheme, host and port: what of a URL may stand in an error.
fn origin(url: &Url) -> String {
    format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_understood_in_both_forms_and_bounded() {
        let date = http_date("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date, Some(784_111_777));
        assert_eq!(retry_after("120", date), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", date), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", date), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999999", date), Some(limits::RETRY_AFTER_MAX));
        assert_eq!(retry_after("soon", date), None);
    }
}
