//! `authenticate`: status, consent, revocation.
//!
//! `start` → the host shows `authorize_url` → the provider redirects → `complete` with the whole redirect URL. Only when
//! the mail server has accepted the new token for the configured mailbox is anything kept, and the answer `authorized`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, Work, request};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    settings::Direction,
    transport::Proof,
};

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Status,
    Start,
    Complete,
    Revoke,
}

pub struct Request {
    pub action: Action,
    pub redirect: Option<String>,
    pub deadline: Deadline,
}

pub fn parse(text: &str) -> Result<Request> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        action: Action,
        redirect: Option<String>,
        deadline_ms: Option<u64>,
    }
    let fields: Fields = request::parse("authenticate", text)?;
    if matches!(fields.action, Action::Complete) != fields.redirect.is_some() {
        return Err(Error::new(Kind::Misuse, "`redirect` belongs to the action `complete`, and only to it.")
            .remedy("Hand in the whole URL to which the provider redirected."));
    }
    Ok(Request { action: fields.action, redirect: fields.redirect, deadline: request::deadline(fields.deadline_ms)? })
}

/// From what is stored, without the network.
pub fn status(context: &Context) -> Result<String> {
    let session = &context.session;
    Ok(session.grants.status(&session.account)?.to_json().to_string())
}

pub fn run(work: &mut Work, request: Request) -> Result<String> {
    let session = &work.context.session;
    let (account, net, deadline) = (&session.account, &session.net, request.deadline);
    match request.action {
        Action::Status => status(&work.context),
        Action::Start => {
            let started = session.grants.start(account, net, deadline)?;
            Ok(json!({
                "state": "consent_required",
                "authorize_url": started.authorize_url.as_str(),
                "expires_at": started.expires_at,
            })
            .to_string())
        }
        Action::Complete => complete(work, request.redirect.as_deref().unwrap_or_default(), deadline),
        Action::Revoke => {
            let revoked = session.grants.revoke(account, net, deadline)?;
            // Whatever is still connected was opened with the token that is now gone.
            work.fetch.disconnect();
            work.send.disconnect();
            Ok(revoked.to_json().to_string())
        }
    }
}

fn complete(work: &mut Work, redirect: &str, deadline: Deadline) -> Result<String> {
    let session = &work.context.session;
    let redeemed = session.grants.redeem(&session.account, &session.net, redirect, deadline)?;
    let proof = match session.account.direction {
        Direction::Incoming => {
            let inbox = session.try_inbox(&redeemed.access_token(), deadline)?;
            let proof = inbox.proof();
            work.fetch.adopt(&work.context, inbox, deadline)?;
            proof
        }
        Direction::Outgoing => {
            let outbox = session.try_outbox(&redeemed.access_token(), deadline)?;
            let proof = outbox.proof();
            work.send.adopt(outbox);
            proof
        }
    };
    let status = session.grants.keep(&session.account, redeemed)?;
    session.log.info(format_args!("Consent completed; connected by {} to {}.", proof.protocol, proof.tls.server));
    Ok(success(status.to_json(), &session.account.username, &proof).to_string())
}

/// The status, with what the success message of the form says.
fn success(mut status: Value, username: &str, proof: &Proof) -> Value {
    let server = &proof.tls.server;
    status["proof"] = proof.to_json();
    status["message"] =
        json!(format!("Connected to {server} as {username} over {} ({}).", proof.protocol, proof.tls.version));
    status
}
