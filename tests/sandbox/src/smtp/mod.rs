//! Submission (RFC 6409) with STARTTLS or TLS from the start, AUTH XOAUTH2 and OAUTHBEARER, SIZE, 8BITMIME, PIPELINING.
//!
//! Mail for mailboxes of this provider is delivered, and a copy lies in the sender's Sent Items, as at Exchange Online.
//! Mail for others is accepted and forgotten.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use time::OffsetDateTime;

use crate::{
    faults::Face,
    sasl,
    server::Tls,
    state::{Audience, State, Subject},
};

const LINE_MAX: u64 = 16 << 10;
const RECIPIENTS_MAX: usize = 500;

pub fn serve_tls(state: &State, tls: Tls) -> io::Result<()> {
    let mut stream = BufReader::new(tls);
    say(&mut stream, "220 localhost oauth-mail-sandbox ESMTP")?;
    Session::new(state).run(&mut stream, false).map(drop)
}

/// In the clear until STARTTLS; no mail before it.
pub fn serve_starttls(
    state: &State,
    tcp: TcpStream,
    upgrade: impl FnOnce(TcpStream) -> io::Result<Tls>,
) -> io::Result<()> {
    let mut stream = BufReader::new(tcp);
    say(&mut stream, "220 localhost oauth-mail-sandbox ESMTP")?;
    if Session::new(state).run(&mut stream, true)? {
        // What was sent before the handshake is forgotten with the buffer (RFC 3207 section 6).
        Session::new(state).run(&mut BufReader::new(upgrade(stream.into_inner())?), false)?;
    }
    Ok(())
}

struct Session<'a> {
    state: &'a State,
    /// The mailbox that was logged in to.
    login: Option<String>,
    sender: Option<String>,
    recipients: Vec<String>,
}

impl<'a> Session<'a> {
    fn new(state: &'a State) -> Self {
        Self { state, login: None, sender: None, recipients: Vec::new() }
    }

    /// `true`: STARTTLS was agreed.
    fn run<S: Read + Write>(&mut self, stream: &mut BufReader<S>, clear: bool) -> io::Result<bool> {
        while let Some(line) = read_line(stream)? {
            let (verb, rest) = line.split_once(' ').unwrap_or((line.as_str(), ""));
            let verb = verb.to_ascii_uppercase();
            self.state.faults.count(Face::Smtp, &verb, 0);
            let plan = self.state.faults.take(Face::Smtp, &verb).unwrap_or_default();
            std::thread::sleep(plan.delay);
            if plan.cut_after.is_some() {
                return Ok(false);
            }
            if plan.refuses() {
                say(stream, "451 4.3.2 A fault that was ordered.")?;
                continue;
            }
            if plan.malformed {
                say(stream, "\0 never heard of")?;
                continue;
            }
            match verb.as_str() {
                "EHLO" | "HELO" => self.hello(stream, clear)?,
                "STARTTLS" if clear => {
                    say(stream, "220 2.0.0 Ready to start TLS")?;
                    return Ok(true);
                }
                "QUIT" => {
                    say(stream, "221 2.0.0 Bye")?;
                    return Ok(false);
                }
                "NOOP" => say(stream, "250 2.0.0 Ok")?,
                "RSET" => {
                    self.forget();
                    say(stream, "250 2.0.0 Ok")?;
                }
                _ if clear => say(stream, "530 5.7.0 Must issue a STARTTLS command first")?,
                "AUTH" => self.auth(stream, rest)?,
                "MAIL" => self.mail(stream, rest)?,
                "RCPT" => self.rcpt(stream, rest)?,
                "DATA" => self.data(stream)?,
                _ => say(stream, "502 5.5.1 Command not implemented")?,
            }
        }
        Ok(false)
    }

    fn hello<S: Read + Write>(&mut self, stream: &mut BufReader<S>, clear: bool) -> io::Result<()> {
        self.forget();
        let last = if clear { "STARTTLS" } else { "AUTH XOAUTH2 OAUTHBEARER" };
        let size = self.state.config.message_size_max;
        let lines = ["localhost", &format!("SIZE {size}"), "8BITMIME", "PIPELINING", "ENHANCEDSTATUSCODES"];
        let lines: String = lines.iter().map(|line| format!("250-{line}\r\n")).collect();
        say(stream, &format!("{lines}250 {last}"))
    }

    fn auth<S: Read + Write>(&mut self, stream: &mut BufReader<S>, rest: &str) -> io::Result<()> {
        let (mechanism, initial) = rest.split_once(' ').unwrap_or((rest, ""));
        if !["XOAUTH2", "OAUTHBEARER"].iter().any(|known| known.eq_ignore_ascii_case(mechanism)) {
            return say(stream, "504 5.7.4 Unrecognized authentication type");
        }
        let mut data = initial.trim().to_owned();
        if data.is_empty() {
            say(stream, "334 ")?;
            data = read_line(stream)?.unwrap_or_default();
        }
        let data = STANDARD.decode(data.trim()).unwrap_or_default();
        match sasl::login(self.state, &data, Audience::Outlook, &["SMTP.Send", "SMTP.SendAsApp"]) {
            Ok(mailbox) => {
                self.login = Some(mailbox);
                say(stream, "235 2.7.0 Authentication successful")
            }
            Err(details) => {
                say(stream, &format!("334 {details}"))?;
                read_line(stream)?;
                say(stream, "535 5.7.3 Authentication unsuccessful")
            }
        }
    }

    fn mail<S: Read + Write>(&mut self, stream: &mut BufReader<S>, rest: &str) -> io::Result<()> {
        let Some(login) = &self.login else {
            return say(stream, "530 5.7.57 Client not authenticated to send mail.");
        };
        let Some(sender) = path(rest, "FROM:") else { return say(stream, "501 5.1.7 Bad sender address syntax") };
        let size = rest.to_ascii_uppercase().split("SIZE=").nth(1).and_then(|size| size.trim().parse::<usize>().ok());
        if size.is_some_and(|size| size > self.state.config.message_size_max) {
            return say(stream, "552 5.3.4 Message size exceeds fixed limit");
        }
        let may = sender.is_empty() || self.state.may_open(&Subject::User(login.clone()), &sender);
        if !may {
            return say(stream, "550 5.7.60 SMTP; Client does not have permissions to send as this sender");
        }
        self.forget();
        self.sender = Some(sender);
        say(stream, "250 2.1.0 Sender OK")
    }

    fn rcpt<S: Read + Write>(&mut self, stream: &mut BufReader<S>, rest: &str) -> io::Result<()> {
        if self.sender.is_none() {
            return say(stream, "503 5.5.1 MAIL first");
        }
        let Some(recipient) = path(rest, "TO:").filter(|path| path.contains('@')) else {
            return say(stream, "501 5.1.3 Bad recipient address syntax");
        };
        if self.recipients.len() >= RECIPIENTS_MAX {
            return say(stream, "452 4.5.3 Too many recipients");
        }
        let own = recipient.to_lowercase().ends_with(&format!("@{}", crate::config::DOMAIN));
        if own && !self.state.config.mailbox_exists(&recipient) {
            return say(stream, "550 5.1.1 User unknown");
        }
        self.recipients.push(recipient);
        say(stream, "250 2.1.5 Recipient OK")
    }

    fn data<S: Read + Write>(&mut self, stream: &mut BufReader<S>) -> io::Result<()> {
        let (Some(sender), Some(login), false) = (self.sender.take(), self.login.clone(), self.recipients.is_empty())
        else {
            return say(stream, "503 5.5.1 RCPT first");
        };
        say(stream, "354 End data with <CR><LF>.<CR><LF>")?;
        let max = self.state.config.message_size_max;
        let mut raw = Vec::new();
        let mut size = 0;
        loop {
            let mut line = Vec::new();
            if stream.read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line == b".\r\n" {
                break;
            }
            let line = line.strip_prefix(b".").unwrap_or(&line);
            size += line.len();
            if size <= max {
                raw.extend_from_slice(line);
            }
        }
        if size > max {
            self.forget();
            return say(stream, "552 5.3.4 Message size exceeds fixed limit");
        }
        for recipient in std::mem::take(&mut self.recipients) {
            self.state.mail.deliver(&sender, &recipient, &raw);
        }
        let seen = BTreeSet::from(["\\Seen".to_owned()]);
        self.state.mail.with(&login, |mailbox| mailbox.append("Sent Items", raw, seen, OffsetDateTime::now_utc()));
        say(stream, "250 2.0.0 OK")
    }

    fn forget(&mut self) {
        self.sender = None;
        self.recipients.clear();
    }
}

/// The address of `FROM:<a@b> SIZE=1`.
fn path(rest: &str, word: &str) -> Option<String> {
    let start = rest.get(..word.len()).filter(|start| start.eq_ignore_ascii_case(word))?;
    let rest = rest[start.len()..].trim_start().strip_prefix('<')?;
    rest.split_once('>').map(|(address, _)| address.to_owned())
}

fn read_line<S: Read + Write>(stream: &mut BufReader<S>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let count = stream.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
    Ok((count > 0).then(|| String::from_utf8_lossy(&line).trim_end().to_owned()))
}

fn say<S: Read + Write>(stream: &mut BufReader<S>, text: &str) -> io::Result<()> {
    let inner = stream.get_mut();
    inner.write_all(format!("{text}\r\n").as_bytes())?;
    inner.flush()
}
