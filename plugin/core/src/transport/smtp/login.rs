//! AUTH with an access token: XOAUTH2 (Google, Microsoft) and OAUTHBEARER (RFC 7628).

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{
    connect::Extensions,
    dialogue::Dialogue,
    refusal,
    reply::{NoReply, Reply},
};
use crate::{
    error::{Error, Kind},
    limits,
    net::Stream,
    settings::{Endpoint, Mechanism},
    transport::{Login, OpenError},
};

/// Why the login failed.
pub(super) enum LoginError {
    /// The connection broke: another server may be tried.
    Lost(Error),
    Failed(OpenError),
}

/// Signs in. The token goes into the AUTH line only when the whole line stays short: Postfix cuts command lines at
/// 2,048 bytes and then reports "Invalid base64 data", but takes 12,288 in a line of its own.
pub(super) fn login(
    dialogue: &mut Dialogue<Stream>,
    extensions: &Extensions,
    server: &Endpoint,
    wanted: Option<Mechanism>,
    login: &Login<'_>,
) -> Result<Mechanism, LoginError> {
    let mechanism = choose(extensions, server, wanted).map_err(|error| LoginError::Failed(error.into()))?;
    let name = name(mechanism);
    let response = initial_response(mechanism, server, login).map_err(|error| LoginError::Failed(error.into()))?;
    let lost = |lost: NoReply| LoginError::Lost(lost.into_error(&server.host, "the sign-in"));

    let line = Zeroizing::new(format!("AUTH {name} {}\r\n", *response));
    let shown = format!("{{{} bytes}}", response.len());
    let mut reply = if line.len() <= limits::SMTP_COMMAND_LINE_MAX {
        dialogue.secret_command(&line, &format!("AUTH {name} {shown}")).map_err(lost)?
    } else {
        let reply = dialogue.command(&format!("AUTH {name}\r\n")).map_err(lost)?;
        if reply.code() == 334 {
            let line = Zeroizing::new(format!("{}\r\n", *response));
            dialogue.secret_command(&line, &shown).map_err(lost)?
        } else {
            reply
        }
    };
    let mut challenge = None;
    if reply.code() == 334 {
        let text = reply.lines().next().unwrap_or_default();
        let text = STANDARD.decode(text.trim()).map_or_else(
            |_| text.to_owned(),
            |bytes| String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).take(512).collect(),
        );
        dialogue.show("S:", &format!("334 {text}"));
        challenge = Some(text);
        // The challenge says what was wrong; the server refuses only after it was answered.
        let answer = match mechanism {
            Mechanism::Xoauth2 => "\r\n",
            Mechanism::Oauthbearer => "AQ==\r\n",
        };
        reply = dialogue.command(answer).map_err(lost)?;
    }
    // Whatever it asked before: with 235 it let us in (RFC 4954 section 6).
    if reply.code() == 235 {
        return Ok(mechanism);
    }
    if reply.code() < 400 {
        let error = refusal::out_of_step(&reply, "the sign-in", &server.host);
        return Err(LoginError::Lost(error));
    }
    Err(LoginError::Failed(refused(&reply, challenge.as_deref(), server)))
}

pub(super) fn name(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Xoauth2 => "XOAUTH2",
        Mechanism::Oauthbearer => "OAUTHBEARER",
    }
}

/// XOAUTH2 first: where both are offered it is the one that every provider's own programs use.
fn choose(extensions: &Extensions, server: &Endpoint, wanted: Option<Mechanism>) -> Result<Mechanism, Error> {
    let offers = |mechanism: Mechanism| extensions.auth.iter().any(|offered| offered == name(mechanism));
    let candidates = wanted.map_or(vec![Mechanism::Xoauth2, Mechanism::Oauthbearer], |one| vec![one]);
    candidates.into_iter().find(|&mechanism| offers(mechanism)).ok_or_else(|| {
        let wanted = wanted.map_or("OAuth", name);
        Error::new(Kind::Unsupported, format!("{} offers no sign-in with {wanted}.", server.host))
            .remedy("Check server name and port, and ask the provider whether OAuth is switched on for SMTP.")
            .provider_code(format!("AUTH {}", extensions.auth.join(" ")))
    })
}

fn initial_response(mechanism: Mechanism, server: &Endpoint, login: &Login<'_>) -> Result<Zeroizing<String>, Error> {
    let token = login.token.expose();
    // Either would end a field of the response early.
    if login.username.contains(['\x01', '\0']) || token.contains(|c: char| c.is_control()) {
        return Err(Error::new(Kind::Refused, "The user name or the token holds a control character."));
    }
    let text = Zeroizing::new(match mechanism {
        Mechanism::Xoauth2 => format!("user={}\x01auth=Bearer {token}\x01\x01", login.username),
        Mechanism::Oauthbearer => {
            // RFC 5801 section 4: "=" and "," of a name are escaped
            let user = login.username.replace('=', "=3D").replace(',', "=2C");
            format!("n,a={user},\x01host={}\x01port={}\x01auth=Bearer {token}\x01\x01", server.host, server.port)
        }
    });
    Ok(Zeroizing::new(STANDARD.encode(text.as_bytes())))
}

/// No challenge and no known words means "cannot say": Postfix answers the same 535 when the authorization server is
/// down, and blaming the token then would send a person to a consent window for nothing.
fn refused(reply: &Reply, challenge: Option<&str>, server: &Endpoint) -> OpenError {
    const KNOWN: [&str; 5] = [
        "5.7.3 ",                             // Exchange Online: token, scope or user do not match
        "Application-specific password",      // Gmail, where no mail scope was granted
        "BadCredentials",                     // Gmail's help link
        "Username and Password not accepted", // Gmail
        "invalid_token",                      // RFC 6750
    ];
    let host = &server.host;
    let mut code = reply.text();
    if let Some(challenge) = challenge {
        code = format!("{code} {challenge}");
    }
    if reply.is_transient() {
        return OpenError::Other(refusal::transient(reply, host).provider_code(code));
    }
    let judged_the_token = KNOWN.iter().any(|known| code.contains(known));
    if let Some(error) = refusal::known(reply, host) {
        let error = error.provider_code(code);
        // A policy may judge a fresh token otherwise; a switch of the tenant or the mailbox does not.
        let by_policy = reply.says("5.7.139") && !reply.says("SmtpClientAuthentication");
        return if judged_the_token || by_policy { OpenError::LoginRefused(error) } else { OpenError::Other(error) };
    }
    if challenge.is_none() && !judged_the_token {
        let error = match reply.code() {
            525 => Error::new(Kind::AdminRequired, format!("{host} says that the account is disabled."))
                .remedy("The tenant administrator enables the account."),
            500..=504 | 534 => Error::new(Kind::Unsupported, format!("{host} does not take this way of signing in."))
                .remedy("Choose the other mechanism under advanced, or ask the provider whether OAuth is switched on for SMTP."),
            538 | 530 => Error::new(Kind::Refused, format!("{host} wants something else before the sign-in.")),
            _ => Error::new(Kind::Transient, format!("{host} could not check the sign-in."))
                .remedy("It is tried again later; if it stays so, check that the authorization server can be reached from the mail server."),
        };
        return OpenError::Other(error.provider_code(code));
    }
    OpenError::LoginRefused(
        Error::new(Kind::Refused, format!("{host} refused the sign-in with this token."))
            .remedy("Check that the username is the mailbox of the account that consented, that sending by SMTP is part of the scope, and that it is switched on for the mailbox.")
            .provider_code(code),
    )
}
