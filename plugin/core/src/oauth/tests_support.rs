//! A store in memory and an authorization server on loopback, both of which a test can let fail.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, pem::PemObject},
};
use tempfile::NamedTempFile;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use crate::{
    clock::{Clock, Deadline},
    error::{Error, Kind, Result},
    log::Logger,
    net::{Egress, Net},
    oauth::Grants,
    secret::Secret,
    settings::{Account, Client, Direction, Endpoint, Protocol},
    store::{Record, Store, Table},
};

pub const CLIENT_SECRET: &str = "canary-client-secret";
pub const REDIRECT_URL: &str = "https://desk.test/oauth/callback?tenant=7";

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

pub fn account(base: &str) -> Account {
    let url = |path: &str| Url::parse(&format!("{base}{path}")).unwrap();
    Account {
        direction: Direction::Incoming,
        protocol: Protocol::Imap { server: Endpoint { host: "imap.test".into(), port: 993 } },
        label: None,
        username: "helpdesk@corp.test".into(),
        consenting_user: "helpdesk@corp.test".into(),
        client: Client {
            client_id: "client-1".into(),
            client_secret: Some(Secret::new(CLIENT_SECRET)),
            authorize_url: url("/authorize"),
            token_url: url("/token"),
            scopes: vec!["openid".into(), "mail".into(), "offline_access".into()],
            redirect_url: Url::parse(REDIRECT_URL).unwrap(),
            redirect_text: REDIRECT_URL.into(),
            client_secret_place: None,
            client_authentication: crate::settings::ClientAuthentication::Automatic,
            issuer: None,
            revocation_url: Some(url("/revoke")),
            userinfo_url: None,
            jwks_url: None,
            grant: crate::settings::GrantType::AuthorizationCode,
            client_secret_expires: None,
            certificate: None,
            service_account: None,
            device_authorization_url: None,
            admin_consent_url: None,
            authorize_parameters: vec![("prompt".into(), "consent".into()), ("state".into(), "evil".into())],
        },
        email_debug: false,
        mechanism: None,
        ca_file: None,
        proxy: Default::default(),
        fetching: None,
        sending: None,
    }
}

pub type Records = HashMap<(Table, String), (u64, Vec<u8>)>;

#[derive(Default)]
pub struct MemoryStore {
    records: Mutex<Records>,
    pub fail_reads: AtomicBool,
    pub fail_writes: AtomicBool,
    /// Fails the n-th write from now on (1: the next); 0: none.
    pub fail_write_in: AtomicUsize,
    /// As a store says that it may have gone back.
    pub epoch: AtomicUsize,
}

impl MemoryStore {
    pub fn backup(&self) -> Records {
        self.records.lock().unwrap().clone()
    }

    pub fn restore(&self, backup: &Records) {
        self.records.lock().unwrap().clone_from(backup);
    }

    pub fn count(&self, table: Table) -> usize {
        self.records.lock().unwrap().keys().filter(|(t, _)| *t == table).count()
    }
}

impl Store for MemoryStore {
    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst) as u64
    }

    fn read(&self, table: Table, id: &str) -> Result<Option<Record>> {
        if self.fail_reads.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Transient, "The store is away."));
        }
        let records = self.records.lock().unwrap();
        let found = records.get(&(table, id.to_owned()));
        Ok(found.map(|(version, bytes)| Record { version: *version, bytes: Zeroizing::new(bytes.clone()) }))
    }

    fn write(&self, table: Table, id: &str, expected: Option<u64>, bytes: &[u8]) -> Result<Option<u64>> {
        let countdown = self.fail_write_in.load(Ordering::SeqCst);
        if countdown > 0 {
            self.fail_write_in.store(countdown - 1, Ordering::SeqCst);
        }
        if countdown == 1 || self.fail_writes.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Transient, "The disk is full."));
        }
        let mut records = self.records.lock().unwrap();
        let key = (table, id.to_owned());
        let present = records.get(&key).map(|(version, _)| *version);
        if present != expected {
            return Ok(None);
        }
        let version = present.unwrap_or(0) + 1;
        records.insert(key, (version, bytes.to_vec()));
        Ok(Some(version))
    }

    fn take(&self, table: Table, id: &str) -> Result<Option<Record>> {
        let taken = self.records.lock().unwrap().remove(&(table, id.to_owned()));
        Ok(taken.map(|(version, bytes)| Record { version, bytes: Zeroizing::new(bytes) }))
    }

    fn delete(&self, table: Table, id: &str) -> Result<()> {
        self.records.lock().unwrap().remove(&(table, id.to_owned()));
        Ok(())
    }
}

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub accept_encoding: Option<String>,
    pub form: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// Status, further header lines, body.
pub type Answer = (u16, String, String);

pub fn json(status: u16, body: impl Into<String>) -> Answer {
    (status, "Content-Type: application/json\r\n".into(), body.into())
}

type Handler = Box<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// An https server on 127.0.0.1 with its own authority. Ends when dropped.
pub struct Idp {
    pub base: String,
    pub ca: NamedTempFile,
    shared: Arc<Shared>,
    port: u16,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    asked: Mutex<Vec<Asked>>,
    handler: Mutex<Arc<Handler>>,
    stop: AtomicBool,
}

impl Idp {
    pub fn new(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let certificate =
            rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let mut ca = NamedTempFile::new().unwrap();
        ca.write_all(authority_certificate.pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            asked: Mutex::default(),
            handler: Mutex::new(Arc::new(Box::new(handler))),
            stop: AtomicBool::new(false),
        });
        let thread = thread::spawn({
            let (shared, config) = (shared.clone(), Arc::new(config));
            move || {
                for tcp in listener.incoming() {
                    if shared.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let (Ok(tcp), shared, config) = (tcp, shared.clone(), config.clone()) else { continue };
                    thread::spawn(move || serve(tcp, config, &shared));
                }
            }
        });
        Self { base: format!("https://localhost:{port}"), ca, shared, port, thread: Some(thread) }
    }

    pub fn set(&self, handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        *self.shared.handler.lock().unwrap() = Arc::new(Box::new(handler));
    }

    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// All requests, in order.
    pub fn all_asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub fn net(&self) -> Net {
        Net::new(Some(self.ca.path()), Egress::default()).unwrap()
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(tcp: TcpStream, config: Arc<ServerConfig>, shared: &Shared) {
    let _ = tcp.set_read_timeout(Some(Duration::from_secs(10)));
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config).unwrap(), tcp));
    let mut line = String::new();
    if stream.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let (mut length, mut authorization, mut accept_encoding) = (0, None, None);
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorization = Some(value.to_owned()),
            "accept-encoding" => accept_encoding = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    let form = form_urlencoded::parse(&body).into_owned().collect();
    let asked = Asked { method, path, authorization, accept_encoding, form, body };
    shared.asked.lock().unwrap().push(asked.clone());
    let handler = shared.handler.lock().unwrap().clone();
    let (status, headers, body) = handler(&asked);
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    let tls = stream.get_mut();
    let _ = tls.write_all(head.as_bytes()).and_then(|()| tls.write_all(body.as_bytes()));
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

/// All that a test of grants needs.
pub struct Bench {
    pub idp: Idp,
    pub net: Net,
    pub store: Arc<MemoryStore>,
    pub clock: Clock,
    pub grants: Grants,
    pub account: Account,
    pub log: Arc<Mutex<String>>,
}

impl Bench {
    pub fn new(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let idp = Idp::new(handler);
        let (store, clock, log) = (Arc::new(MemoryStore::default()), Clock::default(), Arc::new(Mutex::default()));
        let grants = Self::grants_on(&store, &clock, &log);
        Self { net: idp.net(), account: account(&idp.base), idp, store, clock, grants, log }
    }

    /// What another process would have: the same store, nothing else.
    pub fn another(&self) -> Grants {
        Self::grants_on(&self.store, &self.clock, &self.log)
    }

    fn grants_on(store: &Arc<MemoryStore>, clock: &Clock, log: &Arc<Mutex<String>>) -> Grants {
        let log = log.clone();
        let logger = Logger::new(move |_, _, line| log.lock().unwrap().push_str(&format!("{line}\n")));
        Grants::new(store.clone(), clock.clone(), logger)
    }

    /// Starts a consent and returns its state.
    pub fn state(&self) -> String {
        let started = self.grants.start(&self.account, &self.net, soon()).unwrap();
        let pair = started.authorize_url.query_pairs().find(|(name, _)| name == "state");
        pair.unwrap().1.into_owned()
    }

    pub fn redirect(&self, rest: &str) -> String {
        format!("{REDIRECT_URL}&{rest}")
    }

    /// Consents and keeps the grant.
    pub fn consent(&self) {
        let redirect = self.redirect(&format!("state={}&code=canary-code", self.state()));
        let redeemed = self.grants.redeem(&self.account, &self.net, &redirect, soon()).unwrap();
        self.grants.keep(&self.account, redeemed).unwrap();
    }
}
