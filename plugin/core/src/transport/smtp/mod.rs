//! SMTP submission (RFC 6409): SMTPS on 465, STARTTLS on 587, with OAuth.
//!
//! lettre gives commands, addresses and the reply parser. The dialogue is ours, because lettre waits 40 ms for each
//! message (no TCP_NODELAY before its next release), knows no PIPELINING, no SIZE, no OAUTHBEARER, reads replies
//! without bound, and loses the 334 challenge that says why a token was refused.

mod connect;
mod dialogue;
mod login;
mod refusal;
pub mod reply;
mod send;

use std::time::Instant;

use lettre::transport::smtp::commands::Quit;

use self::{connect::Extensions, dialogue::Dialogue, login::LoginError, send::After};
use super::{Envelope, Login, Offer, OpenError, Outbox, Outcome, Proof, Transcript};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    limits,
    log::Logger,
    net::{Net, Stream, TlsFacts},
    seam,
    settings::{Account, Endpoint, Mechanism, Protocol, TlsMode},
};

/// One authenticated submission session, kept warm between messages. One transaction at a time.
pub struct SmtpOutbox {
    dialogue: Dialogue<Stream>,
    extensions: Extensions,
    server: Endpoint,
    tls: TlsMode,
    mechanism: Mechanism,
    /// Since when nothing was said.
    idle_since: Instant,
    broken: bool,
    lost: bool,
}

/// Connects and signs in. The alternate server is tried when the first cannot be reached, cannot be made secure or
/// sends us away before the sign-in; never when it refused the sign-in.
///
/// # Errors
/// `LoginRefused` only when the server judged the token: after a 334 challenge, or in words known to mean that. A
/// 535 without either is what Postfix answers when the authorization server is down: `Other`, transient.
pub fn open(
    account: &Account,
    net: &Net,
    login: &Login<'_>,
    transcript: &Transcript,
    log: &Logger,
    deadline: Deadline,
) -> Result<Box<dyn Outbox>, OpenError> {
    let Protocol::Smtp { server, alternate, tls } = &account.protocol else {
        return Err(Error::new(Kind::Internal, "These settings are not for SMTP.").into());
    };
    let attempt = |server: &Endpoint, deadline: Deadline| {
        open_one(server, *tls, account.mechanism, net, login, transcript, deadline)
            .map(|outbox| Box::new(outbox) as Box<dyn Outbox>)
    };
    let Some(alternate) = alternate else {
        return attempt(server, deadline).map_err(Attempt::into_open_error);
    };
    // A first server that swallows packets must leave time for the second.
    let first = match attempt(server, deadline.at_most(deadline.left() / 2)) {
        Ok(outbox) => return Ok(outbox),
        Err(Attempt::Failed(error)) => return Err(error),
        Err(Attempt::Unreachable(error)) => error,
    };
    log.warn(format_args!("{first} The alternate server {} is tried.", alternate.host));
    match attempt(alternate, deadline) {
        Ok(outbox) => Ok(outbox),
        Err(Attempt::Failed(error)) => Err(error),
        Err(Attempt::Unreachable(error)) => {
            log.warn(format_args!("{error}"));
            Err(first.into())
        }
    }
}

/// A server as it is before anybody signs in.
pub struct Reached {
    pub tls: TlsFacts,
    /// SASL mechanisms that it offers, upper case.
    pub mechanisms: Vec<String>,
}

/// Goes as far as the sign-in would begin (greeting, STARTTLS, extensions) and hangs up. For the diagnosis.
///
/// # Errors
/// Those of the connection; `Unsupported` without STARTTLS or ESMTP; `Refused` when the greeting sends us away.
pub fn reach(server: &Endpoint, tls: TlsMode, net: &Net, deadline: Deadline) -> Result<Reached> {
    let (dialogue, extensions) = connect::connect(net, server, tls, &Transcript::default(), deadline)?;
    Ok(Reached { tls: dialogue.stream.facts(), mechanisms: extensions.auth })
}

/// How an attempt at one server ended.
enum Attempt {
    /// Nothing was decided: another server may be asked.
    Unreachable(Error),
    Failed(OpenError),
}

impl Attempt {
    fn into_open_error(self) -> OpenError {
        match self {
            Self::Unreachable(error) => error.into(),
            Self::Failed(error) => error,
        }
    }
}

fn open_one(
    server: &Endpoint,
    tls: TlsMode,
    wanted: Option<Mechanism>,
    net: &Net,
    login: &Login<'_>,
    transcript: &Transcript,
    deadline: Deadline,
) -> Result<SmtpOutbox, Attempt> {
    let (mut dialogue, extensions) =
        connect::connect(net, server, tls, transcript, deadline).map_err(Attempt::Unreachable)?;
    let mechanism = login::login(&mut dialogue, &extensions, server, wanted, login).map_err(|error| match error {
        LoginError::Lost(error) => Attempt::Unreachable(error),
        LoginError::Failed(error) => Attempt::Failed(error),
    })?;
    Ok(SmtpOutbox {
        dialogue,
        extensions,
        server: server.clone(),
        tls,
        mechanism,
        idle_since: seam::instant(),
        broken: false,
        lost: false,
    })
}

impl Outbox for SmtpOutbox {
    fn proof(&self) -> Proof {
        Proof {
            protocol: match self.tls {
                TlsMode::Implicit => "SMTPS",
                TlsMode::StartTls => "SMTP + STARTTLS",
            },
            mechanism: login::name(self.mechanism),
            port: self.server.port,
            tls: self.dialogue.stream.facts(),
        }
    }

    fn send(&mut self, envelope: &Envelope, raw: &[u8], deadline: Deadline, offer: Offer<'_>) -> Outcome {
        self.lost = false;
        if self.broken {
            self.lost = true;
            let error = Error::new(Kind::Transient, format!("The connection to {} is closed.", self.server.host));
            return Outcome::Retry { error, after: None };
        }
        let (outcome, after) =
            send::send(&mut self.dialogue, &self.extensions, &self.server.host, envelope, raw, deadline, offer);
        self.broken = after != After::Ready;
        self.lost = after == After::BrokenAtOnce && !deadline.left().is_zero();
        self.idle_since = seam::instant();
        outcome
    }

    fn is_fresh(&mut self) -> bool {
        !self.broken && seam::instant().saturating_duration_since(self.idle_since) < limits::SMTP_IDLE_KEEP
    }

    fn lost(&self) -> bool {
        self.lost
    }
}

impl Drop for SmtpOutbox {
    /// Says goodbye when that costs nothing. Never on a broken connection: see [`After::Broken`].
    fn drop(&mut self) {
        if !self.broken {
            self.dialogue.stream.set_deadline(Deadline::after(limits::SMTP_GOODBYE_TIMEOUT));
            let _ = self.dialogue.command(&Quit.to_string());
        }
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod tests;
