//! From a server's name to a secure connection whose extensions are known.

use lettre::transport::smtp::{
    commands::{Ehlo, Starttls},
    extension::ClientId,
};

use super::{
    dialogue::{Connection, Dialogue},
    refusal,
    reply::Reply,
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    limits,
    net::{Net, Stream},
    settings::{Endpoint, TlsMode},
    transport::Transcript,
};

/// What EHLO said (RFC 5321 4.1.1.1). lettre's own list knows neither SIZE nor PIPELINING nor OAUTHBEARER.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) pipelining: bool,
    pub(super) eight_bit_mime: bool,
    pub(super) smtputf8: bool,
    pub(super) starttls: bool,
    /// RFC 1870: offered at all, and the limit in bytes where one was named.
    pub(super) size: Option<Option<u64>>,
    /// SASL mechanisms, upper case.
    pub(super) auth: Vec<String>,
}

/// Connects, reads the greeting, makes the connection secure, asks for the extensions. Nothing secret is said, so that
/// after an error another server may be tried.
pub(super) fn connect(
    net: &Net,
    server: &Endpoint,
    tls: TlsMode,
    transcript: &Transcript,
    deadline: Deadline,
) -> Result<(Dialogue<Stream>, Extensions)> {
    let host = server.host.as_str();
    match tls {
        TlsMode::Implicit => {
            let stream = net.connect_tls(host, server.port, deadline)?;
            let mut dialogue = Dialogue::new(stream, transcript.clone());
            dialogue.stream.set_deadline(deadline);
            greeting(&mut dialogue, host)?;
            let extensions = ehlo(&mut dialogue, host)?;
            Ok((dialogue, extensions))
        }
        TlsMode::StartTls => {
            let plain = net.connect_plain(host, server.port, deadline)?;
            let mut dialogue = Dialogue::new(plain, transcript.clone());
            dialogue.stream.set_deadline(deadline);
            greeting(&mut dialogue, host)?;
            if !ehlo(&mut dialogue, host)?.starttls {
                return Err(no_starttls(host));
            }
            let reply = dialogue.command(&Starttls.to_string()).map_err(|lost| lost.into_error(host, "STARTTLS"))?;
            if reply.code() != 220 {
                // RFC 3207 section 4: 454 is a temporary reason, and no other 4yz is about the port either.
                let error = if reply.is_transient() { refusal::transient(&reply, host) } else { no_starttls(host) };
                return Err(error.provider_code(reply.text()));
            }
            // RFC 3207 section 6 and CVE-2021-38371: what came in plaintext after the 220 was put there by somebody
            // else, and would be taken for the answer to a command given under TLS.
            if dialogue.has_unread() {
                return Err(Error::new(
                    Kind::ServerMisbehaved,
                    format!("{host} sent more than it was asked for before the connection was secure."),
                )
                .remedy(
                    "Somebody may be tampering with the connection; use port 465 (SMTPS) where the server has it.",
                ));
            }
            dialogue.show("C:", "(TLS handshake)");
            let stream = net.upgrade(dialogue.stream, host, deadline)?;
            let mut dialogue = Dialogue::new(stream, transcript.clone());
            dialogue.stream.set_deadline(deadline);
            // RFC 3207 4.2: what was learned before TLS is forgotten.
            let extensions = ehlo(&mut dialogue, host)?;
            Ok((dialogue, extensions))
        }
    }
}

fn greeting(dialogue: &mut Dialogue<impl Connection>, host: &str) -> Result<()> {
    let reply = dialogue.reply().map_err(|lost| lost.into_error(host, "the greeting"))?;
    match reply.code() {
        220 => Ok(()),
        421 | 450..=459 => Err(Error::new(Kind::Throttled, format!("{host} takes no connections right now."))
            .remedy("It is tried again later.")
            .retry_after(reply.retry_after().unwrap_or(limits::SMTP_THROTTLE_WAIT))
            .provider_code(reply.text())),
        _ if reply.is_transient() => Err(refusal::transient(&reply, host).provider_code(reply.text())),
        // Neither yes nor no: what answers there is out of step.
        ..400 => Err(Error::new(Kind::ServerMisbehaved, format!("{host} does not greet as a mail server does."))
            .remedy("Check server name and port.")
            .provider_code(reply.text())),
        _ => Err(Error::new(Kind::Refused, format!("{host} takes no mail from here."))
            .remedy("Check server name and port, and whether the server lets this machine's address in.")
            .provider_code(reply.text())),
    }
}

fn ehlo(dialogue: &mut Dialogue<impl Connection>, host: &str) -> Result<Extensions> {
    // An address literal: a container's host name tells nobody anything, and many servers refuse one without a dot.
    let line = Ehlo::new(ClientId::default()).to_string();
    let reply = dialogue.command(&line).map_err(|lost| lost.into_error(host, "EHLO"))?;
    match reply.code() {
        250 => Ok(extensions(&reply)),
        _ if reply.is_transient() => Err(refusal::transient(&reply, host).provider_code(reply.text())),
        ..400 => Err(refusal::out_of_step(&reply, "EHLO", host)),
        _ => Err(Error::new(Kind::Unsupported, format!("{host} does not speak ESMTP, which signing in needs."))
            .remedy("Use the provider's submission server (port 465 or 587).")
            .provider_code(reply.text())),
    }
}

fn extensions(reply: &Reply) -> Extensions {
    let mut found = Extensions::default();
    for line in reply.lines().skip(1) {
        // "AUTH=LOGIN" is the spelling of before RFC 2554
        let line = line.to_ascii_uppercase().replacen("AUTH=", "AUTH ", 1);
        let mut words = line.split_whitespace();
        match words.next() {
            Some("PIPELINING") => found.pipelining = true,
            Some("8BITMIME") => found.eight_bit_mime = true,
            Some("SMTPUTF8") => found.smtputf8 = true,
            Some("STARTTLS") => found.starttls = true,
            // RFC 1870 section 3: 0 says that there is no fixed limit
            Some("SIZE") => found.size = Some(words.next().and_then(|word| word.parse().ok()).filter(|&max| max > 0)),
            Some("AUTH") => found.auth.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    found
}

fn no_starttls(host: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{host} offers no secure connection (STARTTLS) on this port."))
        .remedy("Choose protocol SMTPS with port 465, or the port where the server offers STARTTLS (587).")
}

#[cfg(test)]
mod tests {
    use super::{super::reply::ReplyBuffer, *};

    #[test]
    fn extensions_are_read_in_any_spelling() {
        let text = "250-mx hello STARTTLS\r\n250-Pipelining\r\n250-size 0\r\n250-AUTH=PLAIN xoauth2\r\n250- \r\n250-\r\n250 8BITMIME\r\n";
        let reply = ReplyBuffer::default().read(&mut text.as_bytes()).unwrap();
        assert_eq!(
            extensions(&reply),
            Extensions {
                pipelining: true,
                eight_bit_mime: true,
                size: Some(None),
                auth: vec!["PLAIN".into(), "XOAUTH2".into()],
                ..Extensions::default()
            }
        );
    }
}
