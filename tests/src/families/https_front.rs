//! HTTPS before a server that speaks HTTP, which writes down what is asked. It stays when the server is away: the
//! connection ends then, as at a load balancer without a backend.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use url::form_urlencoded;

use crate::{Result, ca::Ca, tls_server::TlsServer};

const LINE_MAX: u64 = 64 * 1024;
const BODY_MAX: u64 = 1024 * 1024;
const SILENCE: Duration = Duration::from_secs(30);

pub struct Front {
    /// `https://localhost:PORT`
    pub base: String,
    forms: Forms,
    _server: TlsServer,
}

type Form = HashMap<String, String>;
/// What was sent as a form, path and fields, oldest first.
type Forms = Arc<Mutex<Vec<(String, Form)>>>;

impl Front {
    pub fn start(ca: &Ca, backend: u16) -> Result<Self> {
        let forms = Forms::default();
        let server = TlsServer::start(ca, {
            let forms = forms.clone();
            move |tcp, config| drop(serve(tcp, config, backend, &forms))
        })?;
        Ok(Self { base: format!("https://localhost:{}", server.port), forms, _server: server })
    }

    /// This field of each form that was sent with this grant type.
    pub fn sent(&self, grant_type: &str, field: &str) -> Vec<String> {
        let forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |form: &&Form| form.get("grant_type").is_some_and(|given| given == grant_type);
        forms.iter().map(|(_, form)| form).filter(fits).filter_map(|form| form.get(field).cloned()).collect()
    }
}

/// One request for each connection.
fn serve(tcp: TcpStream, config: Arc<ServerConfig>, backend: u16, forms: &Forms) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(SILENCE))?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut client = BufReader::new(StreamOwned::new(connection, tcp));
    let first = line(&mut client)?;
    let (mut head, mut length, mut is_form) = (first.clone(), 0, false);
    loop {
        let header = line(&mut client)?;
        if header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
            "content-type" => is_form = value.contains("application/x-www-form-urlencoded"),
            "connection" => continue,
            _ => {}
        }
        head.push_str(&header);
    }
    head.push_str("X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n");
    let mut body = Vec::new();
    (&mut client).take(BODY_MAX.min(length)).read_to_end(&mut body)?;
    if is_form {
        let path = first.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let form = form_urlencoded::parse(&body).into_owned().collect();
        forms.lock().unwrap_or_else(PoisonError::into_inner).push((path, form));
    }
    let mut server = TcpStream::connect(("127.0.0.1", backend))?;
    server.set_read_timeout(Some(SILENCE))?;
    server.write_all(head.as_bytes())?;
    server.write_all(&body)?;
    let tls = client.get_mut();
    io::copy(&mut server, tls)?;
    tls.conn.send_close_notify();
    tls.flush()
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    match stream.take(LINE_MAX).read_line(&mut text)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(text),
    }
}
