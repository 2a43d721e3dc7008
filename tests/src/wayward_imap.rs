//! An IMAP server with one folder, in which some messages are poison: they end the connection, break the protocol, or are
//! refused. Dovecot does none of that on demand.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::{Result, ca::Ca, tls_server::TlsServer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// The connection ends in the middle of the message.
    HangUp,
    /// What follows the message is a line longer than any that is accepted.
    Flood,
    /// `NO`, whenever it is among what is asked for.
    Refused,
    /// `OK`, and not a word of it, as Cyrus does when it cannot open the file.
    LeftOut,
}

/// Ends when dropped.
pub struct WaywardImap {
    pub port: u16,
    shared: Arc<Shared>,
    _server: TlsServer,
}

/// By UID.
type Mail = BTreeMap<u32, (Vec<u8>, Option<Poison>)>;

#[derive(Default)]
struct Shared {
    mail: Mutex<Mail>,
    /// `None`: whoever comes is let in.
    check: Option<Box<Check>>,
    /// How often all sessions were ended.
    ended: AtomicUsize,
}

/// Of user and access token.
type Check = dyn Fn(&str, &str) -> bool + Send + Sync;

impl WaywardImap {
    pub fn start(ca: &Ca) -> Result<Self> {
        Self::with(ca, Shared::default())
    }

    /// Lets in whose user and access token pass.
    pub fn checking(ca: &Ca, check: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> Result<Self> {
        Self::with(ca, Shared { check: Some(Box::new(check)), ..Shared::default() })
    }

    fn with(ca: &Ca, shared: Shared) -> Result<Self> {
        let shared = Arc::new(shared);
        let server = TlsServer::start(ca, {
            let shared = shared.clone();
            move |tcp, config| drop(serve(tcp, config, &shared))
        })?;
        Ok(Self { port: server.port, shared, _server: server })
    }

    /// A message arrives.
    pub fn deliver(&self, raw: &[u8], poison: Option<Poison>) {
        let mut mail = self.shared.lock();
        let uid = mail.keys().next_back().map_or(1, |last| last + 1);
        mail.insert(uid, (raw.to_vec(), poison));
    }

    /// Sessions that are open end with their next command.
    pub fn end_sessions(&self) {
        self.shared.ended.fetch_add(1, SeqCst);
    }

    /// What is there becomes poison, or well.
    pub fn make(&self, poison: Option<Poison>) {
        self.shared.lock().values_mut().for_each(|(_, old)| *old = poison);
    }
}

impl Shared {
    /// The initial response of XOAUTH2: `user=…^Aauth=Bearer …^A^A`.
    fn lets_in(&self, response: &str) -> bool {
        let Some(check) = &self.check else { return true };
        let text = STANDARD.decode(response).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let part = |start: &str| text.split('\x01').find_map(|part| part.strip_prefix(start));
        matches!((part("user="), part("auth=Bearer ")), (Some(user), Some(token)) if check(user, token))
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Stream = BufReader<StreamOwned<ServerConnection, TcpStream>>;

fn serve(tcp: TcpStream, config: Arc<ServerConfig>, shared: &Shared) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(Duration::from_secs(60)))?;
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, tcp));
    let ended = shared.ended.load(SeqCst);
    say(&mut stream, "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n")?;
    loop {
        let mut line = String::new();
        // Longer than any command of ours.
        if (&mut stream).take(65_536).read_line(&mut line)? == 0 || shared.ended.load(SeqCst) != ended {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (tag, verb) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_ascii_uppercase());
        let rest: Vec<&str> = words.collect();
        match (verb.as_str(), rest.first().map(|word| word.to_ascii_uppercase()).as_deref()) {
            ("CAPABILITY", _) => say(&mut stream, "* CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2 UIDPLUS\r\n")?,
            ("AUTHENTICATE", _) => {
                let initial = match rest.get(1) {
                    Some(initial) => (*initial).to_owned(),
                    None => {
                        say(&mut stream, "+ \r\n")?;
                        let mut answer = String::new();
                        (&mut stream).take(65_536).read_line(&mut answer)?;
                        answer
                    }
                };
                if !shared.lets_in(initial.trim()) {
                    // An error challenge, and the client's empty answer.
                    say(&mut stream, "+ eyJzdGF0dXMiOiI0MDEifQ==\r\n")?;
                    (&mut stream).take(65_536).read_line(&mut String::new())?;
                    say(&mut stream, &format!("{tag} NO [AUTHENTICATIONFAILED] no such token\r\n"))?;
                    continue;
                }
            }
            ("EXAMINE" | "SELECT", _) => {
                let mail = shared.lock();
                let next = mail.keys().next_back().map_or(1, |last| last + 1);
                let lines = format!("* {} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT {next}] x\r\n", mail.len());
                drop(mail);
                say(&mut stream, &lines)?;
            }
            ("UID", Some("FETCH")) => {
                let uids = set(rest.get(1).copied().unwrap_or_default());
                let bodies = line.to_ascii_uppercase().contains("BODY.PEEK[]");
                if !fetch(&mut stream, shared, &uids, bodies)? {
                    say(&mut stream, &format!("{tag} NO [SERVERBUG] one of them cannot be read\r\n"))?;
                    continue;
                }
            }
            _ => {}
        }
        say(&mut stream, &format!("{tag} OK done\r\n"))?;
        if verb == "LOGOUT" {
            return Ok(());
        }
    }
}

/// `false`: refused.
fn fetch(stream: &mut Stream, shared: &Shared, uids: &[(u32, u32)], bodies: bool) -> std::io::Result<bool> {
    let wanted: Vec<_> = {
        let mail = shared.lock();
        let asked = |uid: &u32| uids.iter().any(|(first, last)| (first..=last).contains(&uid));
        mail.iter().filter(|(uid, _)| asked(uid)).map(|(uid, (raw, poison))| (*uid, raw.clone(), *poison)).collect()
    };
    if bodies && wanted.iter().any(|(_, _, poison)| *poison == Some(Poison::Refused)) {
        return Ok(false);
    }
    for (uid, raw, poison) in wanted {
        if !bodies {
            say(stream, &format!("* {uid} FETCH (UID {uid} RFC822.SIZE {})\r\n", raw.len()))?;
            continue;
        }
        if poison == Some(Poison::LeftOut) {
            continue;
        }
        let out = stream.get_mut();
        write!(out, "* {uid} FETCH (UID {uid} BODY[] {{{}}}\r\n", raw.len())?;
        match poison {
            Some(Poison::HangUp) => {
                out.write_all(&raw[..raw.len() / 2])?;
                out.flush()?;
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            Some(Poison::Flood) => {
                out.write_all(&raw)?;
                out.write_all(&vec![b'x'; 512 * 1024])?;
            }
            _ => {
                out.write_all(&raw)?;
                out.write_all(b")\r\n")?;
            }
        }
        out.flush()?;
    }
    Ok(true)
}

fn set(text: &str) -> Vec<(u32, u32)> {
    let number = |text: &str| if text == "*" { Some(u32::MAX) } else { text.parse().ok() };
    text.split(',')
        .filter_map(|part| match part.split_once(':') {
            Some((first, last)) => Some((number(first)?, number(last)?)),
            None => number(part).map(|one| (one, one)),
        })
        .collect()
}

fn say(stream: &mut Stream, text: &str) -> std::io::Result<()> {
    let out = stream.get_mut();
    out.write_all(text.as_bytes())?;
    out.flush()
}
