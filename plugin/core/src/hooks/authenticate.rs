//! `authenticate`: status, consent, revocation, diagnosis.
//!
//! | grant | |
//! |---|---|
//! | authorization_code | `start` → the host shows `authorize_url` → the provider redirects → `complete` with the whole redirect URL |
//! | device_code | `start` → the host shows `user_code` and `verification_uri` → `poll` every `interval_seconds` until it is no longer `device_code` |
//! | every one | where the provider has a page for administrators, `start` and `status` answer `admin_consent_url`; its redirect goes to `complete` too, which answers `admin_consent` and what comes next |
//! | client_credentials, jwt_bearer | `start`: nobody has to consent |
//!
//! Only when the mail server has accepted the new token for the configured mailbox is anything kept, and the answer
//! `authorized`; its `proof` says how. While the mail server is away, the consent of a person whom the provider names is
//! kept with `"proof": null`, and the next call proves it; any other one is given back.

use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{Context, Work, diagnose, health, request};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result, Who},
    oauth::{AdminConsented, Polled, Redeemed},
    settings::{self, Account, Direction, GrantType},
    transport::Proof,
};

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Status,
    Start,
    Complete,
    Poll,
    Revoke,
    Diagnose,
}

pub struct Request {
    pub action: Action,
    pub redirect: Option<String>,
    /// Settings whose scopes the same consent window asks for.
    pub also: Vec<Account>,
    pub diagnose: diagnose::Options,
    pub deadline: Deadline,
}

pub fn parse(text: &str) -> Result<Request> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        action: Action,
        redirect: Option<String>,
        #[serde(default)]
        also: Vec<Value>,
        deadline_ms: Option<u64>,
        send_to: Option<String>,
        #[serde(default)]
        send: bool,
        #[serde(default)]
        refresh: bool,
        #[serde(default)]
        verbose: bool,
    }
    let fields: Fields = request::parse("authenticate", text)?;
    if matches!(fields.action, Action::Complete) != fields.redirect.is_some() {
        return Err(Error::new(Kind::Misuse, "`redirect` belongs to the action `complete`, and only to it.")
            .remedy("Hand in the whole URL to which the provider redirected."));
    }
    let diagnose = diagnose::Options {
        send_to: fields.send_to.filter(|address| !address.trim().is_empty()),
        send: fields.send,
        refresh: fields.refresh,
        verbose: fields.verbose,
    };
    let asks = diagnose.send_to.is_some() || diagnose.send || diagnose.refresh || diagnose.verbose;
    if asks && !matches!(fields.action, Action::Diagnose) {
        return Err(Error::new(
            Kind::Misuse,
            "`send_to`, `send`, `refresh` and `verbose` belong to the action `diagnose`, and only to it.",
        ));
    }
    if !fields.also.is_empty() && !matches!(fields.action, Action::Start) {
        return Err(Error::new(Kind::Misuse, "`also` belongs to the action `start`, and only to it."));
    }
    let also = fields.also.iter().map(|document| settings::parse(&document.to_string())).collect::<Result<_>>()?;
    let deadline = request::deadline(fields.deadline_ms)?;
    Ok(Request { action: fields.action, redirect: fields.redirect, also, diagnose, deadline })
}

/// From what is stored, without the network.
pub fn status(context: &Context) -> Result<String> {
    let session = &context.session;
    let status = session.grants.status(&session.account);
    let health = health::look(context, status.as_ref());
    let mut answer = status?.to_json();
    answer["health"] = health.to_json();
    if let Some(link) = session.grants.admin_consent_url(&session.account, &[]) {
        answer["admin_consent_url"] = json!(link.as_str());
    }
    Ok(answer.to_string())
}

pub fn run(work: &mut Work, request: Request) -> Result<String> {
    let session = &work.context.session;
    let (account, net, deadline) = (&session.account, &session.net, request.deadline);
    match request.action {
        Action::Status => status(&work.context),
        Action::Diagnose => Ok(diagnose::run(work, &request.diagnose, deadline).to_string()),
        Action::Start => start(work, &request.also, deadline),
        Action::Complete => {
            let redirect = request.redirect.as_deref().unwrap_or_default();
            if let Some(given) = session.grants.admin_consented(account, redirect)? {
                return after_administrator(&work.context, &given);
            }
            only_with(GrantType::AuthorizationCode, account, "complete")?;
            let redeemed = session.grants.redeem(account, net, redirect, deadline)?;
            keep_if_accepted(work, redeemed, deadline)
        }
        Action::Poll => {
            only_with(GrantType::DeviceCode, account, "poll")?;
            match session.grants.poll_device(account, net, deadline)? {
                Polled::Authorized(redeemed) => keep_if_accepted(work, *redeemed, deadline),
                Polled::Pending { interval_seconds, expires_at } => Ok(json!({
                    "state": "device_code",
                    "interval_seconds": interval_seconds,
                    "expires_at": expires_at,
                })
                .to_string()),
            }
        }
        Action::Revoke => {
            let revoked = session.grants.revoke(account, net, deadline)?;
            // Whatever is still connected was opened with the token that is now gone.
            work.fetch.disconnect();
            work.send.disconnect();
            health::sign_in_changed(&work.context);
            Ok(revoked.to_json().to_string())
        }
    }
}

fn start(work: &mut Work, also: &[Account], deadline: Deadline) -> Result<String> {
    let session = &work.context.session;
    let (account, net) = (&session.account, &session.net);
    let administrator = session.grants.admin_consent_url(account, also);
    let administrator = administrator.as_ref().map(Url::as_str);
    match account.client.grant {
        GrantType::AuthorizationCode => {
            let started = session.grants.start_with(account, also)?;
            Ok(json!({
                "state": "consent_required",
                "authorize_url": started.authorize_url.as_str(),
                "admin_consent_url": administrator,
                "expires_at": started.expires_at,
            })
            .to_string())
        }
        GrantType::DeviceCode => {
            let code = session.grants.start_device(account, net, deadline)?;
            Ok(json!({
                "state": "device_code",
                "user_code": code.user_code,
                "admin_consent_url": administrator,
                "verification_uri": code.verification_uri.as_str(),
                "verification_uri_complete": code.verification_uri_complete.as_ref().map(Url::as_str),
                "interval_seconds": code.interval_seconds,
                "expires_at": code.expires_at,
            })
            .to_string())
        }
        GrantType::ClientCredentials | GrantType::JwtBearer => {
            let redeemed = session.grants.apply(account, net, deadline)?;
            keep_if_accepted(work, redeemed, deadline)
        }
    }
}

/// The permissions are granted; nobody has signed in for the mailbox by that.
fn after_administrator(context: &Context, given: &AdminConsented) -> Result<String> {
    let session = &context.session;
    let mut answer = session.grants.status(&session.account)?.to_json();
    let next = session.grants.after_admin_consent(&session.account);
    answer["admin_consent"] = json!({"tenant": given.tenant});
    answer["message"] = json!(format!("An administrator has consented for the organisation. {next}"));
    Ok(answer.to_string())
}

fn only_with(grant: GrantType, account: &Account, action: &str) -> Result<()> {
    if account.client.grant == grant {
        return Ok(());
    }
    let message = format!("`{action}` belongs to the grant {}; these settings name another one.", grant.name());
    Err(Error::new(Kind::Misuse, message).remedy("Do what the answer to `start` asks for."))
}

fn keep_if_accepted(work: &mut Work, redeemed: Redeemed, deadline: Deadline) -> Result<String> {
    let proof = match prove(work, &redeemed, deadline) {
        Ok(proof) => proof,
        Err(error) if error.is_transient() => return without_proof(work, redeemed, error, deadline),
        Err(error) => return Err(error),
    };
    let session = &work.context.session;
    let status = session.grants.keep(&session.account, redeemed)?;
    health::sign_in_changed(&work.context);
    session.log.info(format_args!("Signed in; connected by {} to {}.", proof.protocol, proof.tls.server));
    Ok(success(status.to_json(), session.account.login_user(), &proof).to_string())
}

/// Does the mail server take the token for this mailbox? What was opened for it is used on.
fn prove(work: &mut Work, redeemed: &Redeemed, deadline: Deadline) -> Result<Proof> {
    let session = &work.context.session;
    match session.account.direction {
        Direction::Incoming => {
            let inbox = session.try_inbox(&redeemed.access_token(), deadline)?;
            let proof = inbox.proof();
            work.fetch.adopt(&work.context, inbox, deadline)?;
            Ok(proof)
        }
        Direction::Outgoing => {
            let outbox = session.try_outbox(&redeemed.access_token(), deadline)?;
            let proof = outbox.proof();
            work.send.adopt(outbox);
            Ok(proof)
        }
    }
}

/// The consent is good and the mail server is away. Where the provider said who consented, the consent is kept, and the
/// next fetch or mail proves it; where only the mail server could tell, it is given back.
fn without_proof(work: &mut Work, redeemed: Redeemed, error: Error, deadline: Deadline) -> Result<String> {
    let session = &work.context.session;
    let account = &session.account;
    // An application and a service account act for whom the settings say.
    if redeemed.identity().is_none() && !account.client.grant.is_app_only() {
        session.grants.abandon(account, &session.net, &redeemed, deadline);
        return Err(error
            .remedy("Start the consent again in a few minutes: this one could not be proven, and was given back.")
            .who(Who::MailboxOwner));
    }
    let mut status = session.grants.keep(account, redeemed)?.to_json();
    health::sign_in_changed(&work.context);
    session.log.warn(format_args!("The consent is kept without proof, since the mail server is away: {error}"));
    status["proof"] = Value::Null;
    status["message"] = json!(format!(
        "The consent is kept. {} The next connection shows whether the mail server takes it.",
        error.message()
    ));
    Ok(status.to_string())
}

/// The status, with what the success message of the form says.
fn success(mut status: Value, username: &str, proof: &Proof) -> Value {
    let server = &proof.tls.server;
    status["proof"] = proof.to_json();
    status["message"] =
        json!(format!("Connected to {server} as {username} over {} ({}).", proof.protocol, proof.tls.version));
    status
}
