//! Sockets, TLS and HTTP/1.1 (RFC 9112): one thread per connection, which is enough for one developer and lets a fault
//! stall or cut the raw stream.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Error, Result, admin,
    ca::Ca,
    config::Config,
    ews,
    faults::Face,
    graph,
    http::{Request, Response},
    imap, oauth, smtp,
    state::State,
};

/// A silent client is let go after this time; IMAP clients may be silent for 30 minutes, ours never are.
const SILENCE: Duration = Duration::from_secs(300);
const HEAD_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;

pub type Tls = StreamOwned<ServerConnection, TcpStream>;

/// A running provider. Dropping it closes every socket.
pub struct Sandbox {
    pub state: Arc<State>,
    pub https_port: u16,
    pub imaps_port: u16,
    pub smtps_port: u16,
    pub submission_port: u16,
    pub ca_file: PathBuf,
    sockets: Arc<Sockets>,
    _dir: TempDir,
}

struct Sockets {
    ended: AtomicBool,
    open: Mutex<(u64, HashMap<u64, TcpStream>)>,
}

impl Sandbox {
    /// On ports of 127.0.0.1 that the system chose, with a certificate authority made for it.
    pub fn start(config: Config) -> Result<Self> {
        Self::start_on(config, [0; 4])
    }

    /// `ports` are of HTTPS, IMAPS, SMTPS and submission; 0 lets the system choose.
    pub fn start_on(config: Config, ports: [u16; 4]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("oauth-mail-sandbox").tempdir()?;
        let ca = Ca::create(dir.path())?;
        let tls = Arc::new(server_config(&ca.server_certificate, &ca.server_key)?);
        let state = Arc::new(State::new(config));
        let sockets = Arc::new(Sockets { ended: AtomicBool::new(false), open: Mutex::default() });
        let serve = Serve { state: state.clone(), tls, sockets: sockets.clone() };

        let [https, imaps, smtps, submission] = ports.map(|port| TcpListener::bind(("127.0.0.1", port)));
        let (https, imaps, smtps, submission) = (https?, imaps?, smtps?, submission?);
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        let numbers = [port(&https)?, port(&imaps)?, port(&smtps)?, port(&submission)?];
        let _ = state.base_url.set(format!("https://localhost:{}", numbers[0]));

        serve.accept(https, |serve, tcp| serve_http(&serve.state, &mut serve.upgrade(tcp)?));
        serve.accept(imaps, |serve, tcp| imap::serve(&serve.state, &mut serve.upgrade(tcp)?));
        serve.accept(smtps, |serve, tcp| smtp::serve_tls(&serve.state, serve.upgrade(tcp)?));
        serve.accept(submission, |serve, tcp| smtp::serve_starttls(&serve.state, tcp, |tcp| serve.upgrade(tcp)));
        Ok(Self {
            state,
            https_port: numbers[0],
            imaps_port: numbers[1],
            smtps_port: numbers[2],
            submission_port: numbers[3],
            ca_file: ca.ca_file,
            sockets,
            _dir: dir,
        })
    }

    pub fn base_url(&self) -> &str {
        self.state.base_url()
    }

    /// Everything a client needs to know, as the program prints it.
    pub fn facts(&self) -> Value {
        let base = self.base_url();
        let config = &self.state.config;
        let user = |user: &crate::config::User| json!({"address": user.address, "password": user.password});
        json!({
            "host": "localhost",
            "issuer": base,
            "authorize_url": format!("{base}/authorize"),
            "token_url": format!("{base}/token"),
            "device_authorization_url": format!("{base}/device_authorization"),
            "revocation_url": format!("{base}/revoke"),
            "userinfo_url": format!("{base}/userinfo"),
            "jwks_url": format!("{base}/jwks"),
            "ews_url": format!("{base}/EWS/Exchange.asmx"),
            "graph_url": base,
            "admin_url": format!("{base}/_sandbox"),
            "ca_file": self.ca_file,
            "imaps_port": self.imaps_port,
            "smtps_port": self.smtps_port,
            "submission_port": self.submission_port,
            "client_id": "mail-native",
            "short_client_id": "mail-short",
            "tenant_client_id": "mail-tenant",
            "admin_consent_url": format!("{base}/adminconsent"),
            "domain": crate::config::DOMAIN,
            "users": config.users.iter().map(user).collect::<Vec<_>>(),
            "shared": config.shared.iter().map(|shared| &shared.address).collect::<Vec<_>>(),
            "scope": "openid offline_access mail",
            "scopes": {
                "imap": "openid offline_access https://outlook.office365.com/IMAP.AccessAsUser.All https://outlook.office365.com/SMTP.Send",
                "ews": "openid offline_access https://outlook.office365.com/EWS.AccessAsUser.All",
                "graph": "openid offline_access https://graph.microsoft.com/Mail.ReadWrite https://graph.microsoft.com/Mail.Send",
            },
        })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.sockets.ended.store(true, Ordering::SeqCst);
        // Wakes each accept.
        for port in [self.https_port, self.imaps_port, self.smtps_port, self.submission_port] {
            let _ = TcpStream::connect(("127.0.0.1", port));
        }
        let open = self.sockets.open.lock().unwrap_or_else(PoisonError::into_inner);
        for socket in open.1.values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

#[derive(Clone)]
struct Serve {
    state: Arc<State>,
    tls: Arc<ServerConfig>,
    sockets: Arc<Sockets>,
}

impl Serve {
    fn accept(&self, listener: TcpListener, face: impl Fn(&Self, TcpStream) -> io::Result<()> + Send + Sync + 'static) {
        let (serve, face) = (self.clone(), Arc::new(face));
        thread::spawn(move || {
            for tcp in listener.incoming() {
                if serve.sockets.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(tcp) = tcp else { continue };
                let (serve, face) = (serve.clone(), face.clone());
                thread::spawn(move || {
                    let number = serve.sockets.enter(&tcp);
                    // Whoever leaves in the middle is no error of ours.
                    let _ = face(&serve, tcp);
                    serve.sockets.leave(number);
                });
            }
        });
    }

    fn upgrade(&self, tcp: TcpStream) -> io::Result<Tls> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(SILENCE))?;
        tcp.set_write_timeout(Some(SILENCE))?;
        let connection = ServerConnection::new(self.tls.clone()).map_err(io::Error::other)?;
        Ok(StreamOwned::new(connection, tcp))
    }
}

impl Sockets {
    fn enter(&self, tcp: &TcpStream) -> u64 {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.0 += 1;
        let number = open.0;
        if let Ok(tcp) = tcp.try_clone() {
            open.1.insert(number, tcp);
        }
        number
    }

    fn leave(&self, number: u64) {
        let closed = self.open.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&number);
        if let Some(tcp) = closed {
            let _ = tcp.shutdown(Shutdown::Both);
        }
    }
}

fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig> {
    let doing = || Error::doing("setting up TLS");
    let chain =
        CertificateDer::pem_file_iter(certificate).map_err(doing())?.collect::<std::result::Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_file(key).map_err(Error::doing("setting up TLS"))?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::doing("setting up TLS"))?
        .with_no_client_auth()
        .with_single_cert(chain.map_err(Error::doing("setting up TLS"))?, key)
        .map_err(Error::doing("setting up TLS"))
}

fn serve_http(state: &State, stream: &mut Tls) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let request = match read_request(stream, &mut buffer, state.config.message_size_max * 2) {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return write_response(stream, &Response::text(400, "Bad request\n"), usize::MAX, true);
            }
            Err(error) => return Err(error),
        };
        let last = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let (face, handle) = route(&request.path);
        state.faults.count(face, &format!("{} {}", request.method, request.path), request.body.len());
        let plan = if face == Face::Admin { None } else { state.faults.take(face, &fault_line(&request)) };
        let plan = plan.unwrap_or_default();
        let slot = if face == Face::Graph { graph::admit(state, &request) } else { Ok(None) };
        thread::sleep(plan.delay);
        let response = match (&slot, plan.answer(face), plan.response_code()) {
            (Err(response), ..) => response.clone(),
            (_, Some(response), _) => match plan.only().map(|text| (text, handle(state, &request))) {
                Some((text, right)) if !right.holds(text) => right,
                _ => response,
            },
            (_, None, Some((code, only))) if face == Face::Ews => ews::refused(state, &request, code, only),
            (_, None, _) => handle(state, &request),
        };
        let response = plan.changed(response);
        // Before the answer is written: who has it may ask again at once.
        drop(slot);
        let response = if plan.malformed { spoiled(response) } else { response };
        state.faults.sent(face, response.body.len());
        write_response(stream, &response, plan.cut_after.unwrap_or(usize::MAX), last)?;
        if last || plan.cut_after.is_some() {
            break;
        }
    }
    stream.conn.send_close_notify();
    stream.flush()
}

fn route(path: &str) -> (Face, fn(&State, &Request) -> Response) {
    let lower = path.to_ascii_lowercase();
    if lower.starts_with("/_sandbox") {
        (Face::Admin, admin::handle)
    } else if lower.starts_with("/ews/") {
        (Face::Ews, ews::handle)
    } else if lower.starts_with("/v1.0/") || lower.starts_with("/beta/") || lower.starts_with("/_upload/") {
        (Face::Graph, graph::handle)
    } else {
        (Face::Oauth, oauth::handle)
    }
}

/// What a fault's `match` is looked for in: method, path, and of a SOAP request what it asks for.
fn fault_line(request: &Request) -> String {
    let action = request.header("soapaction").unwrap_or_default();
    let start = String::from_utf8_lossy(&request.body[..request.body.len().min(4096)]);
    format!("{} {} {action} {start}", request.method, request.path)
}

/// Half of the answer, as if that were all.
fn spoiled(mut response: Response) -> Response {
    response.body.truncate(response.body.len() / 2);
    response.body.extend_from_slice(b"\0<{");
    response
}

fn read_request(stream: &mut Tls, buffer: &mut Vec<u8>, body_max: usize) -> io::Result<Option<Request>> {
    let (mut request, head) = loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(buffer).map_err(|_| io::ErrorKind::InvalidData)? {
            httparse::Status::Complete(head) => break (own(&parsed), head),
            httparse::Status::Partial if buffer.len() > HEAD_MAX => return Err(io::ErrorKind::InvalidData.into()),
            httparse::Status::Partial => {
                if more(stream, buffer)? == 0 {
                    return Ok(None);
                }
            }
        }
    };
    buffer.drain(..head);
    if request.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if request.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        request.body = read_chunks(stream, buffer, body_max)?;
    } else {
        let length =
            request.header("content-length").map_or(Ok(0), str::parse).map_err(|_| io::ErrorKind::InvalidData)?;
        request.body = take(stream, buffer, length, body_max)?;
    }
    Ok(Some(request))
}

fn own(parsed: &httparse::Request<'_, '_>) -> Request {
    let target = parsed.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Request {
        method: parsed.method.unwrap_or_default().to_ascii_uppercase(),
        path: path.to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers: parsed.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect(),
        body: Vec::new(),
    }
}

/// RFC 9112 section 7.1, without trailers.
fn read_chunks(stream: &mut Tls, buffer: &mut Vec<u8>, max: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(2).position(|pair| pair == b"\r\n") {
                break end;
            }
            if buffer.len() > HEAD_MAX || more(stream, buffer)? == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        };
        let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        buffer.drain(..end + 2);
        let chunk = take(stream, buffer, size, max.saturating_sub(body.len()))?;
        body.extend_from_slice(&chunk);
        take(stream, buffer, 2, 2)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn take(stream: &mut Tls, buffer: &mut Vec<u8>, count: usize, max: usize) -> io::Result<Vec<u8>> {
    if count > max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    while buffer.len() < count {
        if more(stream, buffer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let rest = buffer.split_off(count);
    Ok(std::mem::replace(buffer, rest))
}

fn more(stream: &mut Tls, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; 16 << 10];
    let count = stream.read(&mut piece)?;
    buffer.extend_from_slice(&piece[..count]);
    Ok(count)
}

/// `cut_after`: so many bytes of the body, then nothing more.
fn write_response(stream: &mut Tls, response: &Response, cut_after: usize, last: bool) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if response.status != 204 {
        head.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    head.push_str(if last { "Connection: close\r\n\r\n" } else { "\r\n" });
    stream.write_all(head.as_bytes())?;
    stream.write_all(&response.body[..response.body.len().min(cut_after)])?;
    stream.flush()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        303 => "See Other",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
