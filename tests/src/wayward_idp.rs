//! A token endpoint that answers refreshes with whatever bytes a test hands it, or with none, until it is healed.

use std::{
    collections::HashMap,
    io::{BufReader, Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::{
    Result,
    ca::Ca,
    strict_idp::{LIFETIME, read_form},
    tls_server::TlsServer,
};

/// Refresh token that a consent brings.
pub const CONSENTED: &str = "canary-refresh-consented";

/// What happens to a refresh.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The whole answer, status line included.
    Bytes(Vec<u8>),
    /// The beginning of an answer; then the line breaks without TLS's goodbye.
    CutOff(Vec<u8>),
    /// One byte at a time, ten a second.
    Dripping(Vec<u8>),
    /// The request is read, and nothing is said.
    Silence,
    HangUp(HangUp),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    BeforeHandshake,
    BeforeReading,
    AfterReading,
}

/// Ends when dropped.
pub struct WaywardIdp {
    /// `https://localhost:PORT`
    pub base: String,
    shared: Arc<Shared>,
    _server: TlsServer,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None`: it is well, and rotates.
    reply: Option<Reply>,
    connections: usize,
    presented: Vec<String>,
    issued: usize,
}

impl WaywardIdp {
    pub fn start(ca: &Ca) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let server = TlsServer::start(ca, {
            let shared = shared.clone();
            move |tcp, config| serve(tcp, config, &shared)
        })?;
        Ok(Self { base: format!("https://localhost:{}", server.port), shared, _server: server })
    }

    /// From now on each refresh goes like this.
    pub fn misbehave(&self, reply: Reply) {
        self.shared.lock().reply = Some(reply);
    }

    pub fn heal(&self) {
        self.shared.lock().reply = None;
    }

    /// Accepted so far, one for each request.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// The refresh token that was read last.
    pub fn presented(&self) -> Option<String> {
        self.shared.lock().presented.last().cloned()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To one form.
    fn reply(&self, form: &HashMap<String, String>) -> Reply {
        let mut state = self.lock();
        let mut refresh_token = CONSENTED.to_owned();
        if let Some(token) = form.get("refresh_token") {
            state.presented.push(token.clone());
            if let Some(reply) = &state.reply {
                return reply.clone();
            }
            state.issued += 1;
            refresh_token = format!("canary-refresh-healed-{}", state.issued);
        }
        let access_token = refresh_token.replace("refresh", "access");
        let tokens = json!({"access_token": access_token, "token_type": "Bearer", "expires_in": LIFETIME,
            "refresh_token": refresh_token});
        Reply::Bytes(answer(200, &["Content-Type: application/json"], &tokens.to_string()))
    }
}

/// An answer with its Content-Length.
pub fn answer(status: u16, header_lines: &[&str], body: &str) -> Vec<u8> {
    let headers: String = header_lines.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

fn serve(mut tcp: TcpStream, config: Arc<ServerConfig>, shared: &Shared) {
    let _ = tcp.set_nodelay(true);
    let _ = tcp.set_read_timeout(Some(Duration::from_secs(30)));
    let hang_up = {
        let mut state = shared.lock();
        state.connections += 1;
        if let Some(Reply::HangUp(when)) = state.reply { Some(when) } else { None }
    };
    if hang_up == Some(HangUp::BeforeHandshake) {
        return;
    }
    let Ok(mut connection) = ServerConnection::new(config) else { return };
    while connection.is_handshaking() {
        if connection.complete_io(&mut tcp).is_err() {
            return;
        }
    }
    if hang_up == Some(HangUp::BeforeReading) {
        return;
    }
    let mut stream = BufReader::new(StreamOwned::new(connection, tcp));
    let Some(form) = read_form(&mut stream) else { return };
    let reply = shared.reply(&form);
    let tls = stream.get_mut();
    match reply {
        Reply::Bytes(bytes) => {
            let _ = tls.write_all(&bytes);
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        Reply::CutOff(bytes) => {
            let _ = tls.write_all(&bytes).and_then(|()| tls.flush());
        }
        Reply::Dripping(bytes) => {
            for byte in bytes {
                if tls.write_all(&[byte]).and_then(|()| tls.flush()).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
        // Until the client is gone.
        Reply::Silence => drop(tls.read(&mut [0])),
        Reply::HangUp(_) => {}
    }
}
