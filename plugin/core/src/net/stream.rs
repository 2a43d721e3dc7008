//! A TCP or TLS connection on which every read and write ends by a deadline.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustix::event::PollFlags;
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::wait;
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
    proxy: Option<String>,
}

impl Plain {
    /// `tcp` must not block.
    pub(super) fn new(tcp: TcpStream, address: SocketAddr, deadline: Deadline) -> Self {
        Self { timed: Timed { tcp, deadline }, address, proxy: None }
    }

    /// `address` is the proxy's.
    pub(super) fn through(self, proxy: String) -> Self {
        Self { proxy: Some(proxy), ..self }
    }

    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.timed.deadline = deadline;
    }

    /// Has something come that was not read? Nothing is waited for.
    pub fn has_unread(&self) -> bool {
        self.timed.has_come()
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
        Ok(Stream { tls, address: self.address, host: host.to_owned(), proxy: self.proxy })
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
    proxy: Option<String>,
}

/// What was negotiated: the proof of a secure connection that `authenticate` shows.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    pub server: String,
    /// The proxy's, where there is one.
    pub address: SocketAddr,
    /// Host and port of the proxy that the connection goes through.
    pub proxy: Option<String>,
    pub version: String,
    pub cipher_suite: String,
    /// SHA-256 of the server's certificate, lower-case hex.
    pub certificate_sha256: String,
}

impl TlsFacts {
    pub fn to_json(&self) -> Value {
        let mut facts = json!({
            "server": self.server,
            "address": self.address.to_string(),
            "tls_version": self.version,
            "cipher_suite": self.cipher_suite,
            "certificate_sha256": self.certificate_sha256,
        });
        if let Some(proxy) = &self.proxy {
            facts["proxy"] = json!(proxy);
        }
        facts
    }
}

impl Stream {
    /// Bounds every read and write from now on.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.tls.sock.timed.deadline = deadline;
    }

    /// Has something come that was not read? Nothing is waited for, and a session ticket is nothing. An end of the
    /// connection is left to the next read.
    pub fn has_unread(&mut self) -> bool {
        let StreamOwned { conn, sock } = &mut self.tls;
        loop {
            match conn.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() > 0 => return true,
                Ok(_) if sock.start < sock.end || sock.timed.has_come() => {}
                _ => return false,
            }
            if !matches!(conn.read_tls(sock), Ok(1..)) {
                return false;
            }
        }
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
            proxy: self.proxy.clone(),
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

/// A socket that does not block; its waits follow the deadline.
struct Timed {
    tcp: TcpStream,
    deadline: Deadline,
}

impl Timed {
    fn wait(&self) -> io::Result<Duration> {
        let left = self.deadline.left().min(limits::READ_TIMEOUT.max(Duration::from_millis(1)));
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// Tries, and waits only when there is nothing to do yet.
    fn when_ready(
        &mut self,
        for_what: PollFlags,
        mut attempt: impl FnMut(&mut TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let end = seam::instant() + self.wait()?;
        loop {
            match attempt(&mut self.tcp) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    wait::ready(&self.tcp, for_what, end.saturating_duration_since(seam::instant()))?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn has_come(&self) -> bool {
        matches!(self.tcp.peek(&mut [0]), Ok(1..))
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        seam::step("net.read")?;
        self.when_ready(PollFlags::IN, |tcp| tcp.read(buffer))
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        seam::step("net.write")?;
        self.when_ready(PollFlags::OUT, |tcp| tcp.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
        .remedy("Check that the port speaks TLS, and try again.")
        .source_error(e)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, TcpListener},
        time::Instant,
    };

    use super::*;

    #[test]
    fn a_silent_server_ends_a_read_and_a_write_at_the_deadline() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let wait = Duration::from_millis(2_500);
        let mut plain = Plain::new(tcp, listener.local_addr().unwrap(), Deadline::after(wait));
        let begun = Instant::now();
        let error = plain.read(&mut [0; 10]).unwrap_err();
        let took = begun.elapsed();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // By SO_RCVTIMEO it would be 170 ms late.
        assert!(took >= wait && took < wait + Duration::from_millis(100), "{took:?}");
        let wait = Duration::from_millis(300);
        plain.set_deadline(Deadline::after(wait));
        let begun = Instant::now();
        let error = loop {
            if let Err(error) = plain.write(&[0; 1 << 20]) {
                break error;
            }
        };
        let took = begun.elapsed();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(took >= wait && took < wait + Duration::from_millis(100), "{took:?}");
    }
}
