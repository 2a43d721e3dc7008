//! TLS and OAuth before a server that has neither: `AUTHENTICATE XOAUTH2` and `OAUTHBEARER` become `LOGIN` with the test's
//! password, or, before SMTP, end here. After the login it passes on what comes, and breaks connections on request.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::{Result, ca::Ca, tls_server::TlsServer};

/// A line of a server before the login, at most.
const LINE_MAX: u64 = 64 * 1024;
const POLL: Duration = Duration::from_millis(5);

pub struct Proxy {
    pub port: u16,
    cuts: Arc<Cuts>,
    _server: TlsServer,
}

#[derive(Default)]
struct Cuts {
    /// Connections that are still to be broken.
    left: AtomicUsize,
    /// Each after so many bytes of the server.
    after: AtomicI64,
}

impl Proxy {
    pub fn start(ca: &Ca, backend: u16, user: &str, password: &str) -> Result<Self> {
        let cuts = Arc::new(Cuts::default());
        let login = format!("LOGIN \"{user}\" \"{password}\"");
        let server = TlsServer::start(ca, {
            let cuts = cuts.clone();
            move |tcp, config| drop(carry(tcp, config, backend, |client, server| log_in(client, server, &login), &cuts))
        })?;
        Ok(Self { port: server.port, cuts, _server: server })
    }

    pub fn before_smtp(ca: &Ca, backend: u16) -> Result<Self> {
        let cuts = Arc::new(Cuts::default());
        let server = TlsServer::start(ca, {
            let cuts = cuts.clone();
            move |tcp, config| drop(carry(tcp, config, backend, log_in_smtp, &cuts))
        })?;
        Ok(Self { port: server.port, cuts, _server: server })
    }

    /// The next `times` connections break after so many bytes from the server.
    pub fn cut(&self, times: usize, after: i64) {
        self.cuts.after.store(after, SeqCst);
        self.cuts.left.store(times, SeqCst);
    }

    pub fn cuts_left(&self) -> usize {
        self.cuts.left.load(SeqCst)
    }
}

fn carry(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    backend: u16,
    log_in: impl Fn(&mut Client, &mut BufReader<TcpStream>) -> io::Result<bool>,
    cuts: &Cuts,
) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut client = BufReader::new(StreamOwned::new(connection, tcp));
    let backend = TcpStream::connect(("127.0.0.1", backend))?;
    backend.set_nodelay(true)?;
    let mut server = BufReader::new(backend);
    if !log_in(&mut client, &mut server)? {
        return Ok(());
    }
    // Both ends may speak: each is asked in turn, for a moment.
    client.get_ref().sock.set_read_timeout(Some(POLL))?;
    server.get_ref().set_read_timeout(Some(POLL))?;
    let (mut buffer, mut passed) = (vec![0; 64 * 1024], 0_i64);
    let is_idle = |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    loop {
        match client.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => server.get_mut().write_all(&buffer[..count])?,
            Err(error) if is_idle(&error) => {}
            Err(_) => break,
        }
        loop {
            match server.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    passed += count as i64;
                    let stream = client.get_mut();
                    if passed > cuts.after.load(SeqCst)
                        && cuts.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
                    {
                        let _ = stream.sock.shutdown(Shutdown::Both);
                        return Ok(());
                    }
                    stream.sock.set_read_timeout(None)?;
                    stream.write_all(&buffer[..count])?;
                    stream.flush()?;
                    stream.sock.set_read_timeout(Some(POLL))?;
                }
                Err(error) if is_idle(&error) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

type Client = BufReader<StreamOwned<ServerConnection, TcpStream>>;

/// `false`: the client left before.
fn log_in(client: &mut Client, server: &mut BufReader<TcpStream>, login: &str) -> io::Result<bool> {
    let greeting = line(server)?;
    say(client, &offering(&greeting))?;
    loop {
        let command = line(client)?;
        let mut words = command.split_whitespace();
        let (Some(tag), Some(verb)) = (words.next(), words.next()) else { return Ok(false) };
        let is_oauth = verb.eq_ignore_ascii_case("AUTHENTICATE");
        if is_oauth {
            words.next();
            let initial = match words.next() {
                Some(initial) => initial.to_owned(),
                None => {
                    say(client, "+ \r\n")?;
                    line(client)?
                }
            };
            if !is_token(&initial) {
                say(client, &format!("{tag} NO [AUTHENTICATIONFAILED] no token\r\n"))?;
                continue;
            }
            server.get_mut().write_all(format!("{tag} {login}\r\n").as_bytes())?;
        } else {
            server.get_mut().write_all(command.as_bytes())?;
        }
        loop {
            let answer = line(server)?;
            if answer.is_empty() {
                return Ok(false);
            }
            let is_last = answer.split_whitespace().next() == Some(tag);
            let passes = answer.split_whitespace().nth(1).is_some_and(|word| word.eq_ignore_ascii_case("OK"));
            say(client, &if is_oauth { answer } else { offering(&answer) })?;
            if is_last && is_oauth && passes {
                return Ok(true);
            }
            if is_last {
                break;
            }
        }
    }
}

/// Until the client has shown a token. `false`: it left before.
fn log_in_smtp(client: &mut Client, server: &mut BufReader<TcpStream>) -> io::Result<bool> {
    say(client, &line(server)?)?;
    loop {
        let command = line(client)?;
        let mut words = command.split_whitespace();
        let Some(verb) = words.next() else { return Ok(false) };
        if verb.eq_ignore_ascii_case("AUTH") {
            let shown = words.nth(1).is_some_and(is_token);
            say(client, if shown { "235 2.7.0 ok\r\n" } else { "535 5.7.8 no token\r\n" })?;
            if shown {
                return Ok(true);
            }
            continue;
        }
        server.get_mut().write_all(command.as_bytes())?;
        let mut is_first = true;
        loop {
            let answer = line(server)?;
            let is_last = answer.as_bytes().get(3) != Some(&b'-');
            if verb.eq_ignore_ascii_case("EHLO") && is_last && !is_first {
                say(client, "250-AUTH XOAUTH2 OAUTHBEARER\r\n")?;
            }
            say(client, &answer)?;
            if is_last {
                break;
            }
            is_first = false;
        }
    }
}

fn is_token(initial: &str) -> bool {
    STANDARD
        .decode(initial.trim())
        .is_ok_and(|text| String::from_utf8_lossy(&text).split('\x01').any(|part| part.starts_with("auth=Bearer ")))
}

/// Capabilities before the login, with OAuth among them.
fn offering(line: &str) -> String {
    line.replace("CAPABILITY ", "CAPABILITY AUTH=XOAUTH2 SASL-IR ").replace("IMAP4REV1", "IMAP4rev1")
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    stream.take(LINE_MAX).read_line(&mut text)?;
    Ok(text)
}

fn say(client: &mut Client, text: &str) -> io::Result<()> {
    let stream = client.get_mut();
    stream.write_all(text.as_bytes())?;
    stream.flush()
}
