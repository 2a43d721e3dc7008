//! How a grant stands, told without asking anybody.

use serde_json::{Value, json};

use super::{Inner, Scopes, assertion, failure::Failure, grant::Grant, grant_id, resource};
use crate::{
    clock::UnixSeconds,
    error::{Error, Kind, Result, Who},
    limits,
    settings::{Account, Client},
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
    /// What will need a person soon, or is not as it should be.
    pub warnings: Vec<Warning>,
    /// The last renewal failed; until when the provider is left alone.
    pub paused: Option<(Error, UnixSeconds)>,
}

/// Said before mail stops, and while it goes on.
#[derive(Clone, Debug)]
pub struct Warning {
    pub about: About,
    /// When it ends; `None`: it is so now.
    pub ends_at: Option<UnixSeconds>,
    /// What, and what to do.
    pub sentence: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    ClientSecret,
    Certificate,
    /// The consent, and the refresh token that stands for it.
    SignIn,
    /// It ends with the person's session at the provider.
    SignInEnds,
    /// There is no refresh token to renew it with.
    AccessToken,
    Scopes,
    Renewal,
    Store,
}

impl About {
    /// As the health of a mailbox calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientSecret => "client_secret",
            Self::Certificate => "certificate",
            Self::SignIn => "sign_in",
            Self::SignInEnds => "session",
            Self::AccessToken => "access_token",
            Self::Scopes => "scopes",
            Self::Renewal => "renewal",
            Self::Store => "store",
        }
    }

    pub fn who(self) -> Who {
        match self {
            Self::SignIn | Self::SignInEnds | Self::AccessToken | Self::Scopes => Who::MailboxOwner,
            Self::ClientSecret | Self::Certificate | Self::Store => Who::HelpdeskAdministrator,
            Self::Renewal => Who::Nobody,
        }
    }

    fn now(self, sentence: impl Into<String>) -> Warning {
        Warning { about: self, ends_at: None, sentence: sentence.into() }
    }

    fn ends(self, at: UnixSeconds, sentence: impl Into<String>) -> Warning {
        Warning { about: self, ends_at: Some(at), sentence: sentence.into() }
    }
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
            "warnings": self.warnings.iter().map(|warning| &warning.sentence).collect::<Vec<_>>(),
        })
    }
}

pub(super) fn status(inner: &Inner, account: &Account) -> Result<Status> {
    let id = grant_id(account);
    let now = inner.clock.now();
    // Never waits for a refresh in progress: while one runs, the record is what is known.
    let (unsaved, pause) = inner
        .flights
        .peek(&id, |memory| {
            let unsaved = memory.unsaved.as_ref().map(|(grant, _)| grant.clone());
            let own = resource::of_account(account);
            (unsaved, memory.pause.clone().filter(|pause| pause.resource == own))
        })
        .unwrap_or_default();
    let mut warnings = Vec::new();
    if unsaved.is_some() {
        warnings.push(About::Store.now("The renewed sign-in could not be saved yet; check the disk of the store."));
    }
    if inner.store.went_back().is_some_and(|at| (0..limits::STORE_BACK_TOLD).contains(&(now - at))) {
        warnings.push(About::Store.now(
            "The store went back to an earlier state: it was deleted, restored from a backup, or failed over to a \
             standby that was behind. What this process knew better was written back; mail of the lost time may come again.",
        ));
    }
    let grant = match unsaved.map(Ok).unwrap_or_else(|| stored(inner, &id, &mut warnings)) {
        Ok(grant) => Some(grant),
        Err(Some(e)) => return Err(e),
        Err(None) => None,
    };
    let ended = pause.as_ref().zip(grant.clone()).and_then(|(pause, mut grant)| {
        grant.select(&resource::of_account(account));
        pause.means_consent(&grant, now)
    });
    let paused = pause.map(|pause| (Failure::to_error(&pause.failure), pause.until)).filter(|_| ended.is_none());
    if let Some((failure, _)) = &paused {
        warnings.push(About::Renewal.now(format!("The last renewal failed and is tried again: {failure}")));
    }
    let mut status = describe(grant, account, now, warnings);
    status.paused = paused;
    if let (Some(failure), State::Authorized) = (ended, status.state) {
        status.state = State::ConsentRequired;
        status.reason = Some(failure.to_error());
    }
    Ok(status)
}

/// `Err(None)`: there is none. What this process last knew stands in while the store is away: mail goes on with it too.
fn stored(inner: &Inner, id: &str, warnings: &mut Vec<Warning>) -> Result<Grant, Option<Error>> {
    match Grant::read(&*inner.store, id) {
        // What a store that went back has lost, the next use writes back.
        Ok(found) => {
            let found = found.map(|(grant, _)| grant);
            let newer = inner.flights.last(id).filter(|last| found.as_ref().is_some_and(|found| last.succeeds(found)));
            newer.or(found).ok_or(None)
        }
        Err(e) => {
            let last = inner.flights.last(id).filter(|_| e.is_transient()).ok_or_else(|| Some(e))?;
            warnings.push(About::Store.now(
                "The store cannot be reached, so this is what was last known; check the database and the way to it.",
            ));
            Ok(last)
        }
    }
}

pub(super) fn describe(
    grant: Option<Grant>,
    account: &Account,
    now: UnixSeconds,
    mut warnings: Vec<Warning>,
) -> Status {
    let Some(mut grant) = grant else {
        return Status {
            state: State::ConsentRequired,
            reason: Some(never_consented(account)),
            identity: None,
            scopes: Scopes::compare(account, &[]).nothing_granted(),
            expires_at: None,
            consented_at: None,
            renewed_at: None,
            warnings,
            paused: None,
        };
    };
    grant.select(&resource::of_account(account));
    let reason = match (&grant.refusal, &grant.refresh_token) {
        (None, _) if !grant.covers(account) => Some(never_asked(account)),
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
        expires_at: grant.expires_at.filter(|end| *end > 0),
        consented_at: Some(grant.consented_at),
        renewed_at: Some(grant.issued_at).filter(|at| *at > 0),
        warnings,
        paused: None,
    }
}

fn ahead(grant: &Grant, account: &Account, now: UnixSeconds) -> Vec<Warning> {
    let mut warnings = credentials_end(&account.client, now);
    let scopes = grant.scopes(account);
    if !scopes.missing.is_empty() {
        warnings.push(About::Scopes.now(format!(
            "The provider did not grant {}: open the consent window again and leave all boxes ticked, or correct Scope.",
            scopes.missing.join(", ")
        )));
    }
    warnings.extend(scopes.note().map(|note| About::Scopes.now(note)));
    match (&grant.refresh_token, grant.refresh_expires_at) {
        (None, _) if account.client.grant.is_app_only() => {}
        (None, _) => {
            let sentence = format!(
                "The provider gave no refresh token, so a person must consent again when the access token expires: {}",
                offline_advice(account)
            );
            warnings.push(Warning { about: About::AccessToken, ends_at: grant.expires_at, sentence });
        }
        (Some(_), Some(end)) if end - now < limits::EXPIRY_WARNING => warnings.push(About::SignIn.ends(
            end,
            format!("The provider ends this sign-in {}: open the consent window before.", in_days(end, now)),
        )),
        (Some(_), None) if ends_with_session(grant, account) => warnings.push(Warning {
            about: About::SignInEnds,
            ends_at: None,
            sentence: format!(
                "The provider ends this sign-in when it is not renewed for {}, or with the session of the person: add \
                 offline_access to Scope and consent again, or have the provider let the session of this app last longer.",
                span(grant.session_seconds.unwrap_or_default())
            ),
        }),
        _ => {}
    }
    warnings
}

/// Said once per status, and no change of health: it slides with each renewal. A day and more is as good as an offline
/// token where mail is fetched every few minutes.
fn ends_with_session(grant: &Grant, account: &Account) -> bool {
    let is_offline = grant.scopes(account).granted.iter().any(|scope| scope == "offline_access");
    !is_offline && grant.session_seconds.is_some_and(|seconds| (seconds as i64) < limits::EXPIRY_WARNING)
}

fn span(seconds: u64) -> String {
    match (seconds / 3_600, seconds / 86_400) {
        (0..2, _) => format!("{} minutes", seconds.div_ceil(60)),
        (hours, 0..2) => format!("{hours} hours"),
        (_, days) => format!("{days} days"),
    }
}

/// What the client proves itself with, when it ends soon or has ended.
pub fn credentials_end(client: &Client, now: UnixSeconds) -> Vec<Warning> {
    let soon = |end: &UnixSeconds| end - now < limits::EXPIRY_WARNING;
    let mut warnings = Vec::new();
    if let Some(end) = client.client_secret_expires.filter(soon) {
        warnings.push(About::ClientSecret.ends(
            end,
            format!(
                "The client secret ends {}: make a new one at the provider and enter it here before, with its date.",
                in_days(end, now)
            ),
        ));
    }
    // One that cannot be read is the fault of the next request to the provider, with its field.
    let certificate = client.certificate.as_ref().and_then(|reference| assertion::certificate_end(reference).ok());
    if let Some(end) = certificate.filter(soon) {
        warnings.push(About::Certificate.ends(
            end,
            format!(
                "The client certificate ends {}: register a new one at the provider and put it and its key in place before.",
                in_days(end, now)
            ),
        ));
    }
    warnings
}

fn in_days(end: UnixSeconds, now: UnixSeconds) -> String {
    match (end - now).div_euclid(86_400) {
        ..0 => format!("now (its date was {})", assertion::day(end)),
        0 => "within a day".to_owned(),
        1 => "in one day".to_owned(),
        days => format!("in {days} days"),
    }
}

pub(super) fn never_consented(account: &Account) -> Error {
    if account.client.grant.is_app_only() {
        return Error::new(Kind::ConsentRequired, format!("{} has not been connected yet.", account.username))
            .remedy("Connect it from the settings; nobody has to sign in.");
    }
    Error::new(Kind::ConsentRequired, format!("Nobody has consented yet for {}.", account.username))
        .remedy(format!("Open the consent window from the settings and sign in as {}.", account.consenting_user))
}

/// The grant has a consent for another resource only.
pub(super) fn never_asked(account: &Account) -> Error {
    let needed = Scopes::compare(account, &[]).needed.join(" ");
    Error::new(
        Kind::ConsentRequired,
        format!("The consent of {} does not cover {needed}: it was never asked for.", account.consenting_user),
    )
    .remedy(format!("Open the consent window from the settings and sign in as {}.", account.consenting_user))
}

pub(super) fn no_refresh_token(account: &Account) -> Error {
    Error::new(Kind::ConsentRequired, "The access token has expired, and the provider gave no refresh token with it.")
        .remedy(format!("Open the consent window again. So that it lasts: {}", offline_advice(account)))
}

fn offline_advice(account: &Account) -> &'static str {
    let client = &account.client;
    let is_google = ["oauth2.googleapis.com", "accounts.google.com", "www.googleapis.com"]
        .iter()
        .any(|host| client.token_url.host_str() == Some(host));
    let asks_offline = client.scopes.iter().any(|scope| scope == "offline_access");
    let is_consent = |name: &str, value: &str| name == "prompt" && value.split_whitespace().any(|one| one == "consent");
    let asks_consent = client.authorize_parameters.iter().any(|(name, value)| is_consent(name, value))
        || client.authorize_url.query_pairs().any(|(name, value)| is_consent(&name, &value));
    match (is_google, asks_offline, asks_consent) {
        (true, ..) => "have access_type=offline and prompt=consent among the authorize parameters under advanced.",
        (_, false, _) => "add offline_access to Scope.",
        // OpenID Connect Core 11: without the prompt a server must ignore the scope.
        (_, true, false) => {
            "add prompt=consent to the authorize parameters under advanced, and have the provider allow this client \
             refresh tokens."
        }
        (_, true, true) => "have the provider allow this client refresh tokens (offline_access).",
    }
}
