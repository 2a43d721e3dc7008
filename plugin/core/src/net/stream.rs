//! A TCP or TLS connection on which every read and write ends by a deadline.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    hex::hex,
    limits,
    seam::{self, Way},
};

/// A connection before STARTTLS. Only a greeting and capabilities are ever read from it.
pub struct Plain {
    timed: Timed,
    address: SocketAddr,
}

impl Plain {
    pub(super) fn new(tcp: TcpStream, address: SocketAddr, deadline: Deadline) -> Self {
        Self { timed: Timed { tcp, deadline, armed_read: None, armed_write: None }, address }
    }

    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.timed.deadline = deadline;
    }

    pub(super) fn into_tls(mut self, config: &Arc<ClientConfig>, host: &str, deadline: Deadline) -> Result<Stream> {
        self.timed.deadline = deadline;
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned())
            .map_err(|e| Error::new(Kind::Settings, format!("{host} is not a server name.")).source_error(e))?;
        let connection = ClientConnection::new(config.clone(), name)
            .map_err(|e| Error::new(Kind::Internal, "TLS could not be set up.").source_error(e))?;
        let mut tls = StreamOwned::new(connection, Buffered::new(self.timed));
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).map_err(|e| handshake_error(host, e))?;
        }
        Ok(Stream { tls, address: self.address, host: host.to_owned() })
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = seam::passing(Way::Received, buffer.len(), || self.timed.wait())?;
        let count = self.timed.read(&mut buffer[..len])?;
        seam::passed(Way::Received, count);
        Ok(count)
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = seam::passing(Way::Sent, bytes.len(), || self.timed.wait())?;
        let count = self.timed.write(&bytes[..len])?;
        seam::passed(Way::Sent, count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A verified TLS connection. Reads and writes fail with `TimedOut` when the deadline passes, or when nothing moves
/// for `limits::READ_TIMEOUT`.
pub struct Stream {
    tls: StreamOwned<ClientConnection, Buffered>,
    address: SocketAddr,
    host: String,
}

/// What was negotiated: the proof of a secure connection that `authenticate` shows.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    pub server: String,
    pub address: SocketAddr,
    pub version: String,
    pub cipher_suite: String,
    /// SHA-256 of the server's certificate, lower-case hex.
    pub certificate_sha256: String,
}

impl TlsFacts {
    pub fn to_json(&self) -> Value {
        json!({
            "server": self.server,
            "address": self.address.to_string(),
            "tls_version": self.version,
            "cipher_suite": self.cipher_suite,
            "certificate_sha256": self.certificate_sha256,
        })
    }
}

impl Stream {
    /// Bounds every read and write from now on.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.tls.sock.timed.deadline = deadline;
    }

    /// Reads, and sends nothing of what a write that failed has left behind.
    pub fn only_reading(&mut self) -> impl Read + '_ {
        OnlyReading(self)
    }

    pub fn facts(&self) -> TlsFacts {
        let connection = &self.tls.conn;
        let certificate = connection.peer_certificates().and_then(|chain| chain.first());
        TlsFacts {
            server: self.host.clone(),
            address: self.address,
            version: match connection.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3".into(),
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2".into(),
                other => format!("{other:?}"),
            },
            cipher_suite: connection
                .negotiated_cipher_suite()
                .map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
            certificate_sha256: certificate.map_or_else(String::new, |der| hex(&Sha256::digest(der))),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = seam::passing(Way::Received, buffer.len(), || self.tls.sock.timed.wait())?;
        let count = self.tls.read(&mut buffer[..len])?;
        seam::passed(Way::Received, count);
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = seam::passing(Way::Sent, bytes.len(), || self.tls.sock.timed.wait())?;
        let count = self.tls.write(&bytes[..len])?;
        seam::passed(Way::Sent, count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tls.flush()
    }
}

struct OnlyReading<'a>(&'a mut Stream);

impl Read for OnlyReading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let tls = &mut self.0.tls;
        let len = seam::passing(Way::Received, buffer.len(), || tls.sock.timed.wait())?;
        loop {
            match tls.conn.reader().read(&mut buffer[..len]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                end => return end.inspect(|&count| seam::passed(Way::Received, count)),
            }
            tls.conn.read_tls(&mut tls.sock)?;
            tls.conn.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

/// Takes from the socket what has come, in one system call: rustls asks for 4 KB at a time, and each of its calls would
/// also wake a server that waits for room in the window.
struct Buffered {
    timed: Timed,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffered {
    fn new(timed: Timed) -> Self {
        Self { timed, buffer: vec![0; limits::TLS_READ_BUFFER].into_boxed_slice(), start: 0, end: 0 }
    }
}

impl Read for Buffered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.end = self.timed.read(&mut self.buffer)?;
        }
        let len = into.len().min(self.end - self.start);
        into[..len].copy_from_slice(&self.buffer[self.start..self.start + len]);
        self.start += len;
        Ok(len)
    }
}

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.timed.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket whose timeouts follow the deadline.
struct Timed {
    tcp: TcpStream,
    deadline: Deadline,
    /// The timeout last set: setting it anew for each read would cost a system call for nothing.
    armed_read: Option<Duration>,
    armed_write: Option<Duration>,
}

impl Timed {
    fn wait(&self) -> io::Result<Duration> {
        let left = self.deadline.left().min(limits::READ_TIMEOUT.max(Duration::from_millis(1)));
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// A timeout that was set a moment ago and is close enough to the wanted one stays. "Close enough" is 20 ms: whoever waits
/// for the call is to hear how it ended, and gives up 200 ms after its deadline.
fn stale(armed: Option<Duration>, wait: Duration) -> bool {
    armed.is_none_or(|set| set > wait + Duration::from_millis(20) || set + Duration::from_secs(1) < wait)
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        seam::step("net.read")?;
        let wait = self.wait()?;
        if stale(self.armed_read, wait) {
            self.tcp.set_read_timeout(Some(wait))?;
            self.armed_read = Some(wait);
        }
        self.tcp.read(buffer).map_err(timed_out)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        seam::step("net.write")?;
        let wait = self.wait()?;
        if stale(self.armed_write, wait) {
            self.tcp.set_write_timeout(Some(wait))?;
            self.armed_write = Some(wait);
        }
        self.tcp.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Linux says `WouldBlock` where it means that the timeout passed.
fn timed_out(e: io::Error) -> io::Error {
    if e.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { e }
}

fn handshake_error(host: &str, e: io::Error) -> Error {
    if let Some(rustls::Error::InvalidCertificate(reason)) =
        e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        return Error::new(Kind::AdminRequired, format!("The certificate of {host} is not trusted: {reason}."))
            .remedy("Use the server name that stands in the certificate; for a private authority, name its PEM file under advanced › CA file.")
            .source_error(e);
    }
    Error::new(Kind::Transient, format!("No secure connection to {host} could be made."))
        .remedy("Check that the port speaks TLS; it is tried again at the next interval.")
        .source_error(e)
}
