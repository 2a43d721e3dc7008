//! A token endpoint that forgives nothing: each refresh token is good once, and one that is used again ends its family
//! (RFC 9700 4.14.2). It counts, and it can hold a request at either side of its decision.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::{Error, Result, ca::Ca, tls_server::TlsServer};

pub const REDIRECT_URL: &str = "https://desk.test/callback";
/// Seconds.
pub const LIFETIME: i64 = 3_600;

/// Ends when dropped.
pub struct StrictIdp {
    /// `https://localhost:PORT`
    pub base: String,
    shared: Arc<Shared>,
    _server: TlsServer,
}

/// Where a refresh stops for ever: the client gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    BeforeAccepting,
    AfterAccepting,
}

/// Of one family; a family begins with a code, whose text names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Token requests with a refresh token.
    pub refreshes: usize,
    /// Of them, with one that had been used before.
    pub reused: usize,
    pub is_revoked: bool,
}

#[derive(Default)]
struct State {
    /// Refresh token to family.
    tokens: HashMap<String, String>,
    spent: HashSet<String>,
    families: HashMap<String, Counts>,
    issued: usize,
    hold: HashMap<String, Hold>,
    held: HashSet<String>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl StrictIdp {
    pub fn start(ca: &Ca) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let server = TlsServer::start(ca, {
            let shared = shared.clone();
            move |tcp, config| serve(tcp, config, &shared)
        })?;
        Ok(Self { base: format!("https://localhost:{}", server.port), shared, _server: server })
    }

    /// What a person would type for a mailbox whose tokens come from here.
    pub fn settings(&self, user: &str, ca: &Ca) -> Value {
        json!({"incoming": {
            "connection_protocol": "POP/IMAP/POPS/IMAPS",
            "authentication_type": "OAuth",
            "server_name": "localhost",
            "username": format!("{user}@example.test"),
            "email_addresses": [format!("{user}@example.test")],
            "protocol": "IMAPS",
            "port": 993,
            "fetch_interval_minutes": 1,
            "client_id": "race",
            "authorize_url": format!("{}/authorize", self.base),
            "access_token_url": format!("{}/token", self.base),
            "scope": "mail offline_access",
            "redirect_url": REDIRECT_URL,
            "advanced": {"ca_file": ca.ca_file},
        }})
    }

    pub fn counts(&self, family: &str) -> Counts {
        self.shared.lock().families.get(family).copied().unwrap_or_default()
    }

    /// The next refresh of this family, once.
    pub fn hold(&self, family: &str, hold: Hold) {
        self.shared.lock().hold.insert(family.to_owned(), hold);
    }

    /// Waits until that refresh is held.
    pub fn wait_held(&self, family: &str, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.shared.lock();
        while !state.held.contains(family) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: hold the line and never answer.
    fn answer(&self, form: &HashMap<String, String>) -> Option<(u16, Value)> {
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let mut state = self.lock();
        match field("grant_type") {
            "authorization_code" => {
                let family = field("code").to_owned();
                state.families.insert(family.clone(), Counts::default());
                Some((200, state.issue(&family)))
            }
            "refresh_token" => {
                let token = field("refresh_token").to_owned();
                let Some(family) = state.tokens.get(&token).cloned() else {
                    return Some((400, json!({"error": "invalid_grant"})));
                };
                let hold = state.hold.remove(&family);
                if hold == Some(Hold::BeforeAccepting) {
                    state.held.insert(family);
                    self.changed.notify_all();
                    return None;
                }
                let answer = state.refresh(&token, &family);
                if hold == Some(Hold::AfterAccepting) {
                    state.held.insert(family);
                    self.changed.notify_all();
                    return None;
                }
                Some(answer)
            }
            _ => Some((400, json!({"error": "unsupported_grant_type"}))),
        }
    }
}

impl State {
    fn refresh(&mut self, token: &str, family: &str) -> (u16, Value) {
        let is_reused = !self.spent.insert(token.to_owned());
        let counts = self.families.entry(family.to_owned()).or_default();
        counts.refreshes += 1;
        counts.reused += usize::from(is_reused);
        counts.is_revoked |= is_reused;
        if counts.is_revoked {
            return (400, json!({"error": "invalid_grant", "error_description": "the family was revoked"}));
        }
        (200, self.issue(family))
    }

    fn issue(&mut self, family: &str) -> Value {
        self.issued += 1;
        let refresh = format!("canary-refresh-{}-{family}", self.issued);
        self.tokens.insert(refresh.clone(), family.to_owned());
        json!({
            "access_token": format!("canary-access-{}-{family}", self.issued),
            "token_type": "Bearer",
            "expires_in": LIFETIME,
            "refresh_token": refresh,
        })
    }
}

/// With the authority's server certificate.
pub(crate) fn tls_config(ca: &Ca) -> Result<Arc<ServerConfig>> {
    let wrong = |e: &dyn std::fmt::Display| Error::new(format!("an authorization server: {e}"));
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&ca.server_certificate).map_err(|e| wrong(&e))?.collect();
    let key = PrivateKeyDer::from_pem_file(&ca.server_key).map_err(|e| wrong(&e))?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates.unwrap_or_default(), key))
        .map(Arc::new)
        .map_err(|e| wrong(&e))
}

fn serve(tcp: TcpStream, config: Arc<ServerConfig>, shared: &Shared) {
    let _ = tcp.set_nodelay(true);
    let _ = tcp.set_read_timeout(Some(Duration::from_secs(120)));
    let Ok(connection) = ServerConnection::new(config) else { return };
    let mut stream = BufReader::new(StreamOwned::new(connection, tcp));
    let Some(form) = read_form(&mut stream) else { return };
    let Some((status, body)) = shared.answer(&form) else {
        // Until the client is gone.
        let _ = stream.read(&mut [0]);
        return;
    };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let tls = stream.get_mut();
    let _ = tls.write_all((head + &body).as_bytes());
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

pub(crate) fn read_form(stream: &mut impl BufRead) -> Option<HashMap<String, String>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(form_urlencoded::parse(&body).into_owned().collect())
}
