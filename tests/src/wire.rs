//! Raw protocol over TLS, written without the library under test, so that both cannot share a mistake.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

use crate::{Error, Result};

const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

pub use oauth_mail_sandbox::client::{http_client, tls_config};

/// SASL messages, before base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Xoauth2,
    Oauthbearer,
}

impl Mechanism {
    pub const BOTH: [Self; 2] = [Self::Xoauth2, Self::Oauthbearer];

    pub fn name(self) -> &'static str {
        match self {
            Self::Xoauth2 => "XOAUTH2",
            Self::Oauthbearer => "OAUTHBEARER",
        }
    }

    /// Base64 of what the client says first (RFC 7628 section 3.1, and Google's XOAUTH2 page).
    pub fn initial_response(self, user: &str, token: &str) -> String {
        STANDARD.encode(match self {
            Self::Xoauth2 => format!("user={user}\x01auth=Bearer {token}\x01\x01"),
            Self::Oauthbearer => format!("n,a={user},\x01auth=Bearer {token}\x01\x01"),
        })
    }
}

/// One TLS connection, lines in and out.
pub struct Wire {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Wire {
    /// TLS from the first byte.
    pub fn tls(ca_file: &Path, port: u16) -> Result<Self> {
        Self::upgrade(ca_file, connect(port)?)
    }

    /// Greeting, EHLO and STARTTLS before it.
    pub fn smtp_starttls(ca_file: &Path, port: u16) -> Result<Self> {
        let mut tcp = BufReader::new(connect(port)?);
        smtp_reply(&mut tcp)?;
        for command in ["EHLO client.test", "STARTTLS"] {
            write!(tcp.get_mut(), "{command}\r\n")?;
            smtp_reply(&mut tcp)?;
        }
        Self::upgrade(ca_file, tcp.into_inner())
    }

    fn upgrade(ca_file: &Path, tcp: TcpStream) -> Result<Self> {
        let name = ServerName::try_from("localhost").map_err(Error::doing("localhost"))?;
        let connection = ClientConnection::new(Arc::new(tls_config(ca_file)?), name).map_err(Error::doing("TLS"))?;
        Ok(Self { stream: BufReader::with_capacity(1 << 16, StreamOwned::new(connection, tcp)) })
    }

    /// Without its CRLF. An error when the server closes.
    pub fn read_line(&mut self) -> Result<String> {
        read_line(&mut self.stream)
    }

    pub fn write_line(&mut self, line: &str) -> Result<()> {
        self.write_all(format!("{line}\r\n").as_bytes())
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes)?;
        Ok(self.stream.get_mut().flush()?)
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        Ok(self.stream.read(buffer)?)
    }

    /// One IMAP command; every line up to and with the tagged one. Literals are returned as the lines they contain.
    pub fn imap(&mut self, command: &str) -> Result<Vec<String>> {
        self.write_line(&format!("t {command}"))?;
        let mut lines = Vec::new();
        loop {
            lines.push(self.read_line()?);
            if lines.last().is_some_and(|line| line.starts_with("t ")) {
                return Ok(lines);
            }
        }
    }

    /// Logs in with an initial response. `Err` holds the challenge and the refusal.
    pub fn imap_login(&mut self, mechanism: Mechanism, user: &str, token: &str) -> Result<Result<(), Vec<String>>> {
        self.read_line()?;
        let response = mechanism.initial_response(user, token);
        self.write_line(&format!("t AUTHENTICATE {} {response}", mechanism.name()))?;
        let mut lines = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.starts_with("+ ") {
                self.write_line("")?;
            }
            let done = line.starts_with("t ");
            let accepted = line.starts_with("t OK");
            lines.push(line);
            if done {
                return Ok(if accepted { Ok(()) } else { Err(lines) });
            }
        }
    }

    /// One SMTP command; code and text of the reply.
    pub fn smtp(&mut self, command: &str) -> Result<(u16, String)> {
        self.write_line(command)?;
        smtp_reply(&mut self.stream)
    }

    /// The greeting, or the reply to data that was written.
    pub fn smtp_reply(&mut self) -> Result<(u16, String)> {
        smtp_reply(&mut self.stream)
    }

    /// AUTH with the challenge answered; the last reply.
    pub fn smtp_login(&mut self, mechanism: Mechanism, user: &str, token: &str) -> Result<(u16, String)> {
        let response = mechanism.initial_response(user, token);
        let reply = self.smtp(&format!("AUTH {} {response}", mechanism.name()))?;
        if reply.0 == 334 { self.smtp("") } else { Ok(reply) }
    }

    /// MAIL, RCPT, DATA; the reply to the final dot, or the first refusal.
    pub fn smtp_message(&mut self, from: &str, to: &str, raw: &[u8]) -> Result<(u16, String)> {
        for command in [format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{to}>"), "DATA".to_owned()] {
            let reply = self.smtp(&command)?;
            if reply.0 >= 400 {
                return Ok(reply);
            }
        }
        self.write_all(&dot_stuffed(raw))?;
        self.smtp_reply()
    }
}

/// RFC 5321 section 4.5.2, with the final dot.
pub fn dot_stuffed(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 64 + 5);
    for line in raw.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

pub fn smtp_reply(reader: &mut impl BufRead) -> Result<(u16, String)> {
    let mut text = String::new();
    loop {
        let line = read_line(reader)?;
        let code = line.get(..3).and_then(|code| code.parse().ok());
        let code = code.ok_or_else(|| Error::new(format!("not an SMTP reply: {line}")))?;
        text.push_str(line.get(4..).unwrap_or_default());
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok((code, text));
        }
        text.push('\n');
    }
}

fn read_line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(Error::new("the server closed the connection"));
    }
    let line = String::from_utf8_lossy(&line);
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn connect(port: u16) -> Result<TcpStream> {
    let tcp =
        TcpStream::connect(("127.0.0.1", port)).map_err(Error::doing(format_args!("connecting to port {port}")))?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(SILENCE_TIMEOUT))?;
    tcp.set_write_timeout(Some(SILENCE_TIMEOUT))?;
    Ok(tcp)
}
