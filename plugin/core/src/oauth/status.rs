//! How a grant stands, told without asking anybody.

use serde_json::{Value, json};

use super::{Inner, Scopes, grant::Grant, grant_id};
use crate::{
    clock::UnixSeconds,
    error::{Error, Kind, Result},
    limits,
    settings::Account,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Mail can be fetched and sent without a person.
    Authorized,
    /// A person must open the consent window; `Status::reason` says why.
    ConsentRequired,
}

#[derive(Debug)]
pub struct Status {
    pub state: State,
    /// Why consent is required.
    pub reason: Option<Error>,
    /// Who consented; `None`: nobody yet, or the provider does not say.
    pub identity: Option<String>,
    pub scopes: Scopes,
    /// Of the present access token. It is renewed by itself; `None`: unknown.
    pub expires_at: Option<UnixSeconds>,
    pub consented_at: Option<UnixSeconds>,
    pub renewed_at: Option<UnixSeconds>,
    /// What will need a person soon, or is not as configured; one sentence each.
    pub warnings: Vec<String>,
}

impl Status {
    pub fn to_json(&self) -> Value {
        json!({
            "state": match self.state {
                State::Authorized => "authorized",
                State::ConsentRequired => "consent_required",
            },
            "reason": self.reason.as_ref().map(Error::to_json),
            "identity": self.identity,
            "scopes": self.scopes.to_json(),
            "expires_at": self.expires_at,
            "consented_at": self.consented_at,
            "renewed_at": self.renewed_at,
            "warnings": self.warnings,
        })
    }
}

pub(super) fn status(inner: &Inner, account: &Account) -> Result<Status> {
    let id = grant_id(account);
    let now = inner.clock.now();
    // Never waits for a refresh in progress: while one runs, the record is what is known.
    let (unsaved, failure) = inner
        .flights
        .peek(&id, |memory| {
            let unsaved = memory.unsaved.as_ref().map(|(grant, _)| grant.clone());
            (unsaved, memory.pause.as_ref().map(|pause| pause.failure.to_error()))
        })
        .unwrap_or_default();
    let mut warnings = Vec::new();
    if unsaved.is_some() {
        warnings.push("The renewed sign-in could not be saved yet; check the disk of the store.".to_owned());
    }
    let grant = match unsaved {
        Some(grant) => Some(grant),
        None => Grant::read(&*inner.store, &id)?.map(|(grant, _)| grant),
    };
    warnings.extend(failure.map(|failure| format!("The last renewal failed and is tried again: {failure}")));
    Ok(describe(grant, account, now, warnings))
}

pub(super) fn describe(grant: Option<Grant>, account: &Account, now: UnixSeconds, mut warnings: Vec<String>) -> Status {
    let Some(grant) = grant else {
        return Status {
            state: State::ConsentRequired,
            reason: Some(never_consented(account)),
            identity: None,
            scopes: Scopes::compare(account, &[]).nothing_granted(),
            expires_at: None,
            consented_at: None,
            renewed_at: None,
            warnings,
        };
    };
    let reason = match (&grant.refusal, &grant.refresh_token) {
        (Some(words), _) => Some(words.to_error(Kind::ConsentRequired)),
        (None, None) if !grant.is_valid(now) && !account.client.grant.is_app_only() => Some(no_refresh_token(account)),
        _ => None,
    };
    if reason.is_none() {
        warnings.extend(ahead(&grant, account, now));
    }
    Status {
        state: if reason.is_none() { State::Authorized } else { State::ConsentRequired },
        reason,
        scopes: grant.scopes(account),
        identity: grant.identity,
        expires_at: grant.expires_at,
        consented_at: Some(grant.consented_at),
        renewed_at: Some(grant.issued_at),
        warnings,
    }
}

fn ahead(grant: &Grant, account: &Account, now: UnixSeconds) -> Vec<String> {
    let mut warnings = Vec::new();
    let scopes = grant.scopes(account);
    if !scopes.missing.is_empty() {
        warnings.push(format!(
            "The provider did not grant {}: open the consent window again and leave all boxes ticked, or correct Scope.",
            scopes.missing.join(", ")
        ));
    }
    warnings.extend(scopes.note());
    match (&grant.refresh_token, grant.refresh_expires_at) {
        (None, _) if account.client.grant.is_app_only() => {}
        (None, _) => warnings.push(format!(
            "The provider gave no refresh token, so a person must consent again when the access token expires: {}",
            offline_advice(account)
        )),
        (Some(_), Some(end)) if end - now < limits::REFRESH_EXPIRY_WARNING => warnings.push(format!(
            "The provider ends this sign-in in {} days: open the consent window before.",
            ((end - now) / 86_400).max(0)
        )),
        _ => {}
    }
    warnings
}

pub(super) fn never_consented(account: &Account) -> Error {
    if account.client.grant.is_app_only() {
        return Error::new(Kind::ConsentRequired, format!("{} has not been connected yet.", account.username))
            .remedy("Connect it from the settings; nobody has to sign in.");
    }
    Error::new(Kind::ConsentRequired, format!("Nobody has consented yet for {}.", account.username))
        .remedy(format!("Open the consent window from the settings and sign in as {}.", account.consenting_user))
}

pub(super) fn no_refresh_token(account: &Account) -> Error {
    Error::new(Kind::ConsentRequired, "The access token has expired, and the provider gave no refresh token with it.")
        .remedy(format!("Open the consent window again. So that it lasts: {}", offline_advice(account)))
}

fn offline_advice(account: &Account) -> &'static str {
    match account.client.token_url.host_str() {
        Some("oauth2.googleapis.com" | "accounts.google.com" | "www.googleapis.com") => {
            "have access_type=offline and prompt=consent among the authorize parameters under advanced."
        }
        _ => "add offline_access to Scope.",
    }
}
