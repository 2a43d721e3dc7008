//! The HTTP proxy: a tunnel by CONNECT (RFC 9110 9.3.6). TLS is verified inside it, end to end.
//!
//! The policy of [`Egress`] holds behind it as far as it can be known here. A literal address is judged. A name is
//! looked up and judged here, too; one that only the proxy knows is the proxy's to judge. The proxy's own address is
//! judged when a mailbox names the proxy; one that the operator names is allowed by that.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Read, Write},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper_util::client::proxy::matcher::Matcher;
use url::Url;
use zeroize::Zeroizing;

use super::{Egress, Plain, connect, resolve, unreachable_error};
use crate::{
    clock::Deadline,
    error::{About, Error, Kind, Result, Who},
    limits, seam,
    secret::Secret,
};

/// The password as it is now; an error is the first half of a sentence.
pub type Password = Arc<dyn Fn() -> Result<Option<Secret>, String> + Send + Sync>;

/// Who named the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// `advanced.proxy` of a mailbox.
    Mailbox,
    /// `proxy` of the plugin's configuration.
    Configuration,
    /// HTTPS_PROXY of the process.
    Environment,
}

impl NamedBy {
    fn place(self) -> &'static str {
        match self {
            Self::Mailbox => "advanced › Proxy",
            Self::Configuration => "\"proxy\" in the plugin's configuration",
            Self::Environment => "the environment variable HTTPS_PROXY",
        }
    }

    fn credentials(self) -> &'static str {
        match self {
            Self::Mailbox => "advanced › Proxy User and Proxy Password",
            Self::Configuration => "\"proxy_user\" and \"proxy_password\" in the plugin's configuration",
            Self::Environment => "the environment variable HTTPS_PROXY",
        }
    }
}

/// Cheap to clone. Shown as host and port.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<Password>,
    named_by: NamedBy,
    /// What NO_PROXY leaves out.
    proxied: Option<Matcher>,
    /// Names that were not found here, and when: a machine behind a proxy often has no DNS.
    unknown: Mutex<HashMap<String, Instant>>,
}

impl Proxy {
    /// `user` and `password` come before those in the URL. `no_proxy`: names, domains, addresses and networks that are
    /// connected to directly, as curl and others read NO_PROXY.
    ///
    /// # Errors
    /// What is wrong with the URL, as the first half of a sentence that does not repeat it.
    pub fn new(
        url: &str,
        user: Option<String>,
        password: Option<Password>,
        no_proxy: Option<&str>,
        named_by: NamedBy,
    ) -> Result<Self, &'static str> {
        let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let url = Url::parse(&whole).map_err(|_| "It is not the address of a proxy")?;
        match url.scheme() {
            "http" => {}
            "https" => return Err("It speaks to the proxy itself by TLS, which is not supported"),
            _ => return Err("It is not the address of an HTTP proxy"),
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("It names no host")?;
        let decoded = |text: &str| percent_decoded(text).ok_or("Its user or password is not encoded as in a URL");
        let in_url = if url.username().is_empty() { None } else { Some(decoded(url.username())?) };
        let in_url_password = url.password().map(decoded).transpose()?.map(Secret::new);
        let password = password
            .or_else(|| in_url_password.map(|secret| -> Password { Arc::new(move || Ok(Some(secret.clone()))) }));
        // The address is not used: only whether NO_PROXY lets a name through to it.
        let proxied = no_proxy.map(|list| Matcher::builder().all("http://proxy.invalid").no(list).build());
        Ok(Self(Arc::new(Inner {
            host: host.to_owned(),
            port: url.port().unwrap_or(80),
            user: user.or(in_url),
            password,
            named_by,
            proxied,
            unknown: Mutex::default(),
        })))
    }

    /// Is this server reached through the proxy?
    pub fn is_for(&self, host: &str) -> bool {
        let Some(matcher) = &self.0.proxied else { return true };
        match format!("https://{}/", in_url(host)).parse() {
            Ok(url) => matcher.intercept(&url).is_some(),
            Err(_) => true,
        }
    }

    /// A tunnel to `host:port`.
    ///
    /// # Errors
    /// `Refused` by the egress policy. Else the error names the proxy, and the field with which it can be mended:
    /// `Transient` when it is not there or cannot reach the server, `AdminRequired` when it refuses,
    /// `ServerMisbehaved` when it is not a proxy.
    pub(super) fn connect(&self, egress: &Egress, host: &str, port: u16, deadline: Deadline) -> Result<Plain> {
        self.judge(egress, host, port, deadline)?;
        let addresses = self.addresses(egress, deadline)?;
        deadline.check(&format!("a connection to the proxy {self}"))?;
        let connected = connect::race(&addresses, deadline)
            .map_err(|silent| self.unreachable(unreachable_error(&self.0.host, self.0.port, silent)))?;
        connected.tcp.set_nodelay(true).map_err(|e| self.absent("closed the connection").source_error(e))?;
        let mut plain = Plain::new(connected.tcp, connected.address, deadline).through(self.to_string());
        let target = format!("{}:{port}", in_url(host));
        let head = self.ask(&mut plain, &target)?;
        self.judged(&head, &target)?;
        Ok(plain)
    }

    /// Is the server allowed, as far as it is known here?
    pub(super) fn judge(&self, egress: &Egress, host: &str, port: u16, deadline: Deadline) -> Result<()> {
        let name = host.to_ascii_lowercase();
        let is_unknown = seam::lock("proxy.unknown", &self.0.unknown)
            .get(&name)
            .is_some_and(|since| seam::instant().saturating_duration_since(*since) < limits::ANSWERING_KEPT);
        if is_unknown {
            return Ok(());
        }
        let found = match resolve(host, port, deadline.at_most(limits::PROXY_LOOKUP_TIMEOUT)) {
            // What this machine lacks says nothing of the name.
            Err(error) if error.is_of_host() => return Err(error),
            found => found.ok(),
        };
        match found.filter(|addresses| !addresses.is_empty()) {
            // The proxy looks the name up again and may take any of them.
            Some(addresses) => addresses.iter().try_for_each(|address| egress.check(host, address.ip())),
            None => {
                let mut unknown = seam::lock("proxy.unknown", &self.0.unknown);
                if unknown.len() >= limits::PROXY_NAMES_MAX {
                    unknown.clear();
                }
                unknown.insert(name, seam::instant());
                Ok(())
            }
        }
    }

    /// Where the proxy is.
    pub(super) fn addresses(&self, egress: &Egress, deadline: Deadline) -> Result<Vec<SocketAddr>> {
        let Inner { host, port, named_by, .. } = &*self.0;
        let found = resolve(host, *port, deadline).map_err(|source| match source.is_of_host() {
            true => source,
            false => self.absent("cannot be found").source_error(source),
        })?;
        if *named_by != NamedBy::Mailbox {
            return Ok(found);
        }
        egress.permitted(host, found).map_err(|refused| {
            Error::new(refused.kind(), format!("Connections to the proxy {self} are not allowed here."))
                .remedy("Correct advanced › Proxy, or ask the operator of this helpdesk to name the proxy instead.")
                .who(Who::HelpdeskAdministrator)
                .source_error(refused)
        })
    }

    /// What kept this machine from connecting stays as it is.
    pub(super) fn unreachable(&self, source: Error) -> Error {
        if source.is_of_host() { source } else { self.absent("cannot be reached").source_error(source) }
    }

    pub(super) fn host(&self) -> &str {
        &self.0.host
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port
    }

    /// As reqwest takes it; the password is the present one.
    pub(super) fn url(&self) -> Option<Url> {
        let mut url = Url::parse(&format!("http://{self}/")).ok()?;
        if let Some(user) = &self.0.user {
            url.set_username(user).ok()?;
            url.set_password(self.password().ok()?.as_ref().map(Secret::expose)).ok()?;
        }
        Some(url)
    }

    /// # Errors
    /// `AdminRequired` when it cannot be read.
    pub(super) fn password(&self) -> Result<Option<Secret>> {
        let Some(password) = &self.0.password else { return Ok(None) };
        password().map_err(|why| {
            Error::new(Kind::AdminRequired, format!("The password for the proxy {self} cannot be used. {why}."))
                .remedy(format!("Correct {}.", self.0.named_by.credentials()))
                .who(Who::HelpdeskAdministrator)
                .with_about(About::Connection)
        })
    }

    fn ask(&self, plain: &mut Plain, target: &str) -> Result<Vec<u8>> {
        let broken = |e: io::Error| match e.kind() {
            io::ErrorKind::TimedOut => self.absent("gave no answer in time").source_error(e),
            _ => self.absent("closed the connection without an answer").source_error(e),
        };
        let mut request = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
        if let Some(user) = &self.0.user {
            let password = self.password()?.unwrap_or_default();
            let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
            let encoded = Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()));
            request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", &*encoded));
        }
        request.push_str("\r\n");
        plain.write_all(request.as_bytes()).map_err(broken)?;
        loop {
            // Not a byte more than the head: what follows is the server's.
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
                if head.len() >= limits::PROXY_HEAD_MAX {
                    return Err(self.no_proxy("sent a head without end"));
                }
                plain.read_exact(&mut byte).map_err(|e| match e.kind() {
                    io::ErrorKind::UnexpectedEof if !head.is_empty() => {
                        self.no_proxy("closed the connection in the middle of its answer")
                    }
                    _ => broken(e),
                })?;
                head.push(byte[0]);
                if head.len() == 5 && head != b"HTTP/" {
                    return Err(self.no_proxy("did not answer in HTTP"));
                }
            }
            // The final answer follows an interim one (RFC 9110 15.2).
            if !status_of(&head).is_some_and(|status| (100..200).contains(&status)) {
                return Ok(head);
            }
        }
    }

    fn judged(&self, head: &[u8], target: &str) -> Result<()> {
        let Some(status) = status_of(head) else { return Err(self.no_proxy("did not answer in HTTP")) };
        let by = self.0.named_by;
        let (kind, message, remedy) = match status {
            200..=299 => return Ok(()),
            // tinyproxy answers 401 to wrong ones.
            401 | 407 if self.0.user.is_some() => (
                Kind::AdminRequired,
                format!("The proxy {self} refuses the user and password ({status})."),
                format!("Correct {}.", by.credentials()),
            ),
            401 | 407 => (
                Kind::AdminRequired,
                format!("The proxy {self} asks for a user and a password ({status})."),
                format!("Enter them in {}.", by.credentials()),
            ),
            408 | 429 | 500.. => (
                Kind::Transient,
                format!("The proxy {self} cannot connect to {target} ({status})."),
                format!("Check the server name and the port. If they are right, check the proxy, or {}.", by.place()),
            ),
            _ => (
                Kind::AdminRequired,
                format!("The proxy {self} does not allow connections to {target} ({status})."),
                format!("Ask the administrator of the proxy to allow {target} for CONNECT, or correct {}.", by.place()),
            ),
        };
        let said: String = String::from_utf8_lossy(head).lines().next().unwrap_or_default().chars().take(120).collect();
        let error = Error::new(kind, message).remedy(remedy).with_about(About::Connection);
        Err(error.who(Who::HelpdeskAdministrator).source_error(io::Error::other(said)))
    }

    fn absent(&self, what: &str) -> Error {
        Error::new(Kind::Transient, format!("The proxy {self} {what}."))
            .remedy(format!("Check that the proxy runs and that {} names it.", self.0.named_by.place()))
            .who(Who::HelpdeskAdministrator)
            .with_about(About::Connection)
    }

    fn no_proxy(&self, what: &str) -> Error {
        Error::new(Kind::ServerMisbehaved, format!("{self} is not an HTTP proxy: it {what}."))
            .remedy(format!("Correct {}.", self.0.named_by.place()))
            .who(Who::HelpdeskAdministrator)
            .with_about(About::Connection)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", in_url(&self.0.host), self.0.port)
    }
}

/// An IPv6 address in brackets.
fn in_url(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

fn status_of(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let status = std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?;
    status.parse().ok().filter(|status| (100..600).contains(status))
}

fn percent_decoded(text: &str) -> Option<String> {
    let pair = format!("x={}", text.replace('+', "%2B"));
    let (_, decoded) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
    (!decoded.contains('\u{fffd}') && !decoded.chars().any(char::is_control)).then(|| decoded.into_owned())
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
