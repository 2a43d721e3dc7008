//! Greeting, capabilities, AUTHENTICATE with XOAUTH2 or OAUTHBEARER, and what a refusal means.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use imap_proto::{Response, Status};
use zeroize::Zeroizing;

use super::{
    answer,
    conn::{Conn, Failure, settle, status_of, tag_of},
    framer::{Budget, Frame},
    guard::{Guard, Link, SharedWire, Wire},
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    guard, limits,
    settings::{Endpoint, Mechanism},
    transport::{Login, OpenError, Transcript},
};

/// Logs in on a fresh connection. Returns the mechanism that was used, too.
///
/// # Errors
/// `LoginRefused` when the server refused this token for this user, and said so; `Other` for everything that a fresh
/// token would not cure: `Unsupported` (no mechanism), `Throttled`, `Transient`, `ServerMisbehaved`.
pub fn login(
    mut link: Box<dyn Link>,
    server: &Endpoint,
    insisted: Option<Mechanism>,
    login: &Login<'_>,
    transcript: &Transcript,
    deadline: Deadline,
) -> Result<(Conn, Mechanism), OpenError> {
    link.set_deadline(deadline);
    let wire = SharedWire::new(Wire::new(link, transcript.clone()));
    let mut client = imap::Client::new(Guard::new(wire.clone()));
    let mut capabilities = greeting(&mut client, &wire)?;
    if capabilities.is_empty() {
        capabilities = before_login(&wire)?;
    }
    let mechanism = choose(insisted, &capabilities, &server.host)?;

    let sasl = Sasl::new(mechanism, server, login);
    let mut command = Zeroizing::new(name(mechanism).to_owned());
    let initial = Zeroizing::new(STANDARD.encode(sasl.initial.as_bytes()));
    // Tag, AUTHENTICATE and CRLF need less than 32 bytes.
    if capabilities.contains("SASL-IR") && command.len() + initial.len() + 32 < limits::IMAP_COMMAND_LINE_MAX {
        command.push(' ');
        command.push_str(&initial);
        sasl.initial_sent.set(true);
    }
    let outcome = guard::guarded("the IMAP client", || Ok(client.authenticate(command.as_str(), &sasl)))?;
    let session = match outcome {
        Ok(session) => session,
        Err((error, client)) => {
            let settled = settle::<()>(Err(error), &mut wire.lock());
            // Dropped, the client writes what it could not write before, for which it takes the lock.
            drop(client);
            let failure = match settled {
                Err(failure) => failure,
                Ok(()) => Failure::Bad(String::new()),
            };
            return Err(refusal(failure, &sasl, initial.len(), server, login));
        }
    };
    let offered = status_capabilities(wire.lock().last_status());

    // What is offered before and after login differs (RFC 3501 section 6.2.2; Exchange Online adds MOVE).
    let mut conn = Conn::new(session, wire, offered);
    if conn.capabilities.is_empty() {
        let mut found = BTreeSet::new();
        conn.bulk("CAPABILITY", Budget::CONTROL, &mut |frame| {
            found.extend(capabilities_in(&frame.line));
            Ok(())
        })
        .map_err(|failure| failure.into_error("name its capabilities"))?;
        conn.capabilities = found;
    }
    if conn.has("ID") {
        // Google asks for it. Its answer means nothing, and nobody waits for it: the guard and `bulk` pass over the
        // answers to tags that are not theirs.
        let tag = conn.next_bulk_tag();
        let id = format!("{tag} ID (\"name\" \"oauth-mail\" \"version\" \"{}\")\r\n", env!("CARGO_PKG_VERSION"));
        conn.wire().lock().send(id.as_bytes())?;
    }
    Ok((conn, mechanism))
}

/// The name as CAPABILITY and AUTHENTICATE have it.
pub fn name(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Xoauth2 => "XOAUTH2",
        Mechanism::Oauthbearer => "OAUTHBEARER",
    }
}

fn greeting(client: &mut imap::Client<Guard>, wire: &SharedWire) -> Result<BTreeSet<String>> {
    let outcome = guard::guarded("the IMAP client", || Ok(client.read_greeting()))?;
    let line = settle(outcome, &mut wire.lock()).map_err(|failure| failure.into_error("greet"))?;
    if let Some(words) = answer::bye(&line) {
        return Err(answer::hung_up(&words));
    }
    match answer::parse(&line) {
        Some(Response::Data { status: Status::Ok, .. }) => Ok(answer::capabilities(&String::from_utf8_lossy(&line))),
        // The parser cannot read every list of capabilities.
        None if line.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"* OK ")) => {
            Ok(answer::capabilities(&String::from_utf8_lossy(&line)))
        }
        Some(Response::Data { status: Status::PreAuth, .. }) => Err(Error::new(
            Kind::ServerMisbehaved,
            "The server says that somebody is logged in already, before anybody did.",
        )
        .remedy("Use a server that asks who reads the mailbox; something in between may have logged in.")),
        _ => Err(Error::new(Kind::ServerMisbehaved, "What answers at this address is not an IMAP server.")
            .remedy("Check the server name and the port (993).")
            .provider_code(String::from_utf8_lossy(&line).trim().chars().take(200).collect::<String>())),
    }
}

/// Straight on the wire: the crate passes over a list that its parser cannot read.
fn before_login(wire: &SharedWire) -> Result<BTreeSet<String>> {
    const TAG: &str = "b0";
    let mut wire = wire.lock();
    wire.begin(Budget::CONTROL);
    wire.send(format!("{TAG} CAPABILITY\r\n").as_bytes())?;
    let (mut frame, mut found) = (Frame::default(), BTreeSet::new());
    loop {
        wire.next(&mut frame)?;
        if frame.is_untagged() {
            found.extend(capabilities_in(&frame.line));
        } else if tag_of(&frame) == TAG.as_bytes() {
            let status = status_of(wire.last_status());
            return status.map(|()| found).map_err(|failure| failure.into_error("name its capabilities"));
        }
    }
}

fn capabilities_in(lines: &[u8]) -> BTreeSet<String> {
    String::from_utf8_lossy(lines)
        .lines()
        .filter(|line| line.to_ascii_uppercase().starts_with("* CAPABILITY "))
        .flat_map(answer::capabilities)
        .collect()
}

/// From `OK [CAPABILITY …] Logged in`.
fn status_capabilities(status: &str) -> BTreeSet<String> {
    match answer::response_code(status) {
        Some(code) if code == "CAPABILITY" => answer::capabilities(status),
        _ => BTreeSet::new(),
    }
}

/// Microsoft offers only XOAUTH2, Yahoo officially only OAUTHBEARER; where both are, XOAUTH2 is the older practice.
fn choose(insisted: Option<Mechanism>, offered: &BTreeSet<String>, host: &str) -> Result<Mechanism> {
    if let Some(mechanism) = insisted {
        return Ok(mechanism);
    }
    [Mechanism::Xoauth2, Mechanism::Oauthbearer]
        .into_iter()
        .find(|mechanism| offered.contains(&format!("AUTH={}", name(*mechanism))))
        .ok_or_else(|| {
            let auth: Vec<&str> =
                offered.iter().filter(|entry| entry.starts_with("AUTH=")).map(String::as_str).collect();
            Error::new(Kind::Unsupported, format!("{host} does not offer OAuth over IMAP."))
                .remedy(
                    "Enable XOAUTH2 or OAUTHBEARER on the server, or set SASL Mechanism under advanced if it is known to work \
                     without being offered.",
                )
                .provider_code(if auth.is_empty() { "no AUTH= capability".to_owned() } else { auth.join(" ") })
        })
}

/// One SASL exchange (RFC 7628 section 3; XOAUTH2 as Google and Microsoft describe it).
struct Sasl {
    mechanism: Mechanism,
    initial: Zeroizing<String>,
    initial_sent: Cell<bool>,
    /// The server's error challenge, decoded.
    challenge: RefCell<Option<String>>,
}

impl Sasl {
    fn new(mechanism: Mechanism, server: &Endpoint, login: &Login<'_>) -> Self {
        let (user, token) = (login.username, login.token.expose());
        let initial = match mechanism {
            Mechanism::Xoauth2 => format!("user={user}\x01auth=Bearer {token}\x01\x01"),
            Mechanism::Oauthbearer => {
                // RFC 5801 section 4: a saslname writes `=` and `,` as =3D and =2C.
                let user = user.replace('=', "=3D").replace(',', "=2C");
                let Endpoint { host, port } = server;
                format!("n,a={user},\x01host={host}\x01port={port}\x01auth=Bearer {token}\x01\x01")
            }
        };
        Self {
            mechanism,
            initial: Zeroizing::new(initial),
            initial_sent: Cell::new(false),
            challenge: RefCell::new(None),
        }
    }
}

impl imap::Authenticator for Sasl {
    type Response = Zeroizing<Vec<u8>>;

    /// The first challenge asks for the token, unless it was sent with the command; one with content is the error,
    /// which must be answered before the tagged NO comes: with nothing, or with one 0x01 (RFC 7628 section 3.2.3).
    fn process(&self, challenge: &[u8]) -> Self::Response {
        if !self.initial_sent.replace(true) {
            return Zeroizing::new(self.initial.as_bytes().to_vec());
        }
        let text = String::from_utf8_lossy(challenge).chars().take(400).collect::<String>();
        self.challenge.replace(Some(text));
        Zeroizing::new(match self.mechanism {
            Mechanism::Xoauth2 => Vec::new(),
            Mechanism::Oauthbearer => vec![1],
        })
    }
}

/// `sent_len`: bytes of the initial response as it went over the wire.
fn refusal(failure: Failure, sasl: &Sasl, sent_len: usize, server: &Endpoint, login: &Login<'_>) -> OpenError {
    let challenge = sasl.challenge.take();
    let words = match failure {
        Failure::No(words) => words,
        // BAD after the error challenge is a refusal in clumsy words; without one, the command was not understood.
        Failure::Bad(words) if challenge.is_some() => words,
        Failure::Bad(words) => return OpenError::Other(answer::refused("log in with OAuth", &words)),
        Failure::Fatal(error) if sent_len > limits::IMAP_COMMAND_LINE_MAX => {
            return OpenError::Other(
                Error::new(error.kind(), format!("{} hung up on an access token of unusual length.", server.host))
                    .remedy("Ask for fewer scopes or claims: many servers close the connection above 8,192 bytes.")
                    .source_error(error),
            );
        }
        Failure::Fatal(error) => return OpenError::Other(error),
    };
    if let Some(error) = answer::meaning(&words) {
        return OpenError::Other(error);
    }
    let code = match &challenge {
        Some(challenge) => format!("{words} {challenge}"),
        None => words,
    };
    OpenError::LoginRefused(
        Error::new(Kind::Refused, format!("{} does not let {} in with this token.", server.host, login.username))
            .remedy(
                "Check that the account that consented may read this mailbox, that IMAP is enabled for it and that the \
                 scope covers IMAP; then authorize again.",
            )
            .provider_code(code),
    )
}

#[cfg(test)]
mod tests {
    use imap::Authenticator;

    use super::*;
    use crate::secret::Secret;

    fn server() -> Endpoint {
        Endpoint { host: "imap.example.test".into(), port: 993 }
    }

    #[test]
    fn mechanism_follows_capability() {
        let offered = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(choose(None, &offered(&["AUTH=XOAUTH2", "AUTH=OAUTHBEARER"]), "h").unwrap(), Mechanism::Xoauth2);
        assert_eq!(choose(None, &offered(&["AUTH=PLAIN", "AUTH=OAUTHBEARER"]), "h").unwrap(), Mechanism::Oauthbearer);
        let error = choose(None, &offered(&["AUTH=PLAIN"]), "h").unwrap_err();
        assert_eq!((error.kind(), error.provider_code_text()), (Kind::Unsupported, Some("AUTH=PLAIN")));
        assert_eq!(choose(Some(Mechanism::Oauthbearer), &offered(&[]), "h").unwrap(), Mechanism::Oauthbearer);
    }

    #[test]
    fn a_comma_in_the_username_does_not_end_the_gs2_header() {
        let token = Secret::new("t0k");
        let login = Login { username: "a=b,c", token: &token };
        let sasl = Sasl::new(Mechanism::Oauthbearer, &server(), &login);
        assert_eq!(
            sasl.initial.as_str(),
            "n,a=a=3Db=2Cc,\x01host=imap.example.test\x01port=993\x01auth=Bearer t0k\x01\x01"
        );
        assert_eq!(&*sasl.process(b""), sasl.initial.as_bytes());
        assert_eq!(&*sasl.process(b"{\"status\":\"invalid_token\"}"), &[1]);
    }
}
