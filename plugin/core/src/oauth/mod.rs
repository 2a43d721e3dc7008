//! Grants: how a person's consent becomes access tokens that stay alive.
//!
//! | file | |
//! |---|---|
//! | consent.rs | the authorize URL with state, PKCE and nonce; judging the redirect |
//! | device.rs | the code that a person enters on another device; asking whether they did |
//! | application.rs · client_credentials.rs · jwt_bearer.rs | tokens without a person: of the application itself, of a service account |
//! | admin_consent.rs | the link for the administrator of an organisation, and its redirect |
//! | redeem.rs · identity.rs | code exchange; who was it that consented |
//! | refresh.rs · flight.rs | handing out and renewing access tokens; one at a time, with pauses after failures |
//! | grant.rs · resource.rs · scopes.rs | the stored record; a token for each resource; what was granted, compared with what is needed |
//! | status.rs · revoke.rs | how it stands; ending it |
//! | token_request.rs · answer.rs · said.rs · failure.rs | asking the token endpoint, what its answers say and mean |
//! | client_auth.rs · assertion.rs · discovery.rs | how the client proves itself, by secret or signature; what the server says of itself |
//! | inspect.rs | the same for the diagnosis: held against the settings |
//!
//! ```text
//! start ──▶ (browser) ──▶ redeem ──┐
//! start_device ──▶ poll_device ────┼──▶ (mail server accepts) ──▶ keep ──▶ access_token … replace … ──▶ revoke
//! apply ───────────────────────────┘                                           │ invalid_grant
//!   ▲                                                                          ▼
//!   └────────────────────────────────────────────────────────────────── consent_required
//! ```
//!
//! There is no password grant: RFC 9700 2.4 forbids it, and no large provider takes it for mail any more.
//!
//! Sources: RFC 6749, 7523 (assertions), 8628 (device), 7636 (PKCE), 8252 and 9700 (practice), 9207 (iss), 8414
//! (metadata), 7009 (revocation), OpenID Connect Core 1.0.

mod admin_consent;
mod answer;
mod application;
mod assertion;
mod client_auth;
mod client_credentials;
mod consent;
mod device;
mod discovery;
mod failure;
mod flight;
mod grant;
mod identity;
mod inspect;
mod jwt_bearer;
mod redeem;
mod refresh;
mod resource;
mod revoke;
mod said;
mod scopes;
mod status;
mod token_request;

#[cfg(test)]
mod client_method_tests;
#[cfg(test)]
mod consent_safety_tests;
#[cfg(test)]
mod consent_tests;
#[cfg(test)]
mod dead_sign_in_tests;
#[cfg(test)]
mod grants_tests;
#[cfg(test)]
mod refresh_tests;

#[cfg(test)]
pub(crate) mod tests_support;

use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use url::Url;

use crate::{
    call,
    clock::{Clock, Deadline, UnixSeconds},
    error::{Result, Who},
    hex::hex,
    log::Logger,
    net::Net,
    seam,
    secret::Secret,
    settings::{Account, Client},
    store::{Store, Table},
};

pub use admin_consent::AdminConsented;
pub(crate) use admin_consent::for_administrators;
pub use device::{DeviceCode, Polled};
pub use inspect::{Inspected, Metadata, inspect};
pub use redeem::Redeemed;
pub use revoke::Revoked;
pub use scopes::Scopes;
pub use status::{About, State, Status, Warning, credentials_end};

/// Names the grant of an account: hex SHA-256 over authorization server, client and consenting user. Incoming and
/// outgoing forms of one mailbox share it, and so do the shared mailboxes of one consenting user.
pub fn grant_id(account: &Account) -> String {
    let client = &account.client;
    match client.grant.is_app_only() {
        // No person's tokens, and those of another mailbox at a server that issues them by mailbox.
        true => {
            hex_sha256(&[server_of(client), &client.client_id, &account.username.to_lowercase(), client.grant.name()])
        }
        false => grant_id_of(client, &account.consenting_user),
    }
}

/// All grants of one store. Cheap to clone; clones share their locks and back-off.
#[derive(Clone)]
pub struct Grants(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    clock: Clock,
    log: Logger,
    /// Who we are in leases; another one for each process and each `Grants`.
    owner: String,
    flights: flight::Flights,
    discovery: discovery::Discovery,
    /// Consents started here, to be forgotten when nobody completes them.
    started: Mutex<Vec<(String, UnixSeconds)>>,
}

/// A consent that waits for its redirect.
#[derive(Debug)]
pub struct Started {
    /// For the person's browser. Carries no secret.
    pub authorize_url: Url,
    /// Until when the redirect is accepted.
    pub expires_at: UnixSeconds,
}

/// A bearer token, good when it was handed out.
#[derive(Clone)]
pub struct AccessToken {
    secret: Secret,
    generation: u64,
    expires_at: Option<UnixSeconds>,
    granted: Arc<[String]>,
}

impl AccessToken {
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Counts the access tokens of a grant; for logs.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Its scopes.
    pub fn granted(&self) -> &[String] {
        &self.granted
    }

    /// `None`: the provider does not say.
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        self.expires_at
    }
}

impl Grants {
    pub fn new(store: Arc<dyn Store>, clock: Clock, log: Logger) -> Self {
        let mut random = [0; 16];
        // Without randomness the address still tells the instances of one machine apart; PKCE and state have their own.
        if getrandom::fill(&mut random).is_err() {
            random[..8].copy_from_slice(&(Arc::as_ptr(&store) as *const () as usize as u64).to_ne_bytes());
        }
        Self(Arc::new(Inner {
            store,
            clock,
            log,
            owner: hex(&random),
            flights: flight::Flights::default(),
            discovery: discovery::Discovery::default(),
            started: Mutex::default(),
        }))
    }

    /// Opens a consent: authorization code with PKCE S256 (RFC 7636) and a state that is good once, for ten minutes,
    /// and for exactly these settings. No network.
    ///
    /// # Errors
    /// Those of the store.
    pub fn start(&self, account: &Account, _net: &Net, _deadline: Deadline) -> Result<Started> {
        consent::start(&self.0, account, &[])
    }

    /// As [`Grants::start`], for `also` in the same window: those of them that live on the same grant.
    ///
    /// # Errors
    /// As [`Grants::start`].
    pub fn start_with(&self, account: &Account, also: &[Account]) -> Result<Started> {
        consent::start(&self.0, account, also)
    }

    /// The link with which an administrator consents for the whole organisation, also for `also`; `None` where the
    /// provider has none. It stays good as long as the settings. No network.
    pub fn admin_consent_url(&self, account: &Account, also: &[Account]) -> Option<Url> {
        admin_consent::link(&self.0, account, also)
    }

    /// Is this the redirect of the administrator's link? Then a mailbox owner can consent now. `None`: another one.
    ///
    /// # Errors
    /// `AdminRequired`: the administrator did not consent. `Refused`: it is of another mailbox.
    pub fn admin_consented(&self, account: &Account, redirect: &str) -> Result<Option<AdminConsented>> {
        admin_consent::judge(&self.0, account, redirect)
    }

    /// What a person does after an administrator's consent.
    pub fn after_admin_consent(&self, account: &Account) -> String {
        admin_consent::next(account)
    }

    /// Takes the whole URL that the browser was redirected to, checks it, redeems the code and finds out who consented.
    /// Nothing is kept: try [`Redeemed::access_token`] at the mail server, then call [`Grants::keep`].
    ///
    /// # Errors
    /// `Misuse`: not a URL. `Refused`: not the redirect of a consent that is waiting here, another server's, or another
    /// person's. `ConsentRequired`: declined, or the code is used up. `Settings`, `AdminRequired`: what the provider says
    /// about client, scope or redirect URL. `Transient`, `Throttled`: the consent must be started again later, the code is
    /// spent.
    pub fn redeem(&self, account: &Account, net: &Net, redirect: &str, deadline: Deadline) -> Result<Redeemed> {
        redeem::redeem(&self.0, account, net, redirect, deadline).map_err(|e| self.within_a_consent(e, account))
    }

    /// Asks for a device code (RFC 8628), in place of any that is waiting.
    ///
    /// # Errors
    /// `Settings`: nobody knows where device codes are given out. Else as [`Grants::redeem`].
    pub fn start_device(&self, account: &Account, net: &Net, deadline: Deadline) -> Result<DeviceCode> {
        device::start(&self.0, account, net, deadline).map_err(|e| self.within_a_consent(e, account))
    }

    /// Asks whether the person has entered the device code; never sooner than the server's interval, whoever asks. Goes on
    /// with what another process, or this one before its restart, has started.
    ///
    /// # Errors
    /// `ConsentRequired`: declined, or too late. `Misuse`: no code is waiting. Else as [`Grants::redeem`].
    pub fn poll_device(&self, account: &Account, net: &Net, deadline: Deadline) -> Result<Polled> {
        device::poll(&self.0, account, net, deadline).map_err(|e| self.with_link(e, account))
    }

    /// The first token of an application or a service account, to be tried at the mail server and then kept.
    ///
    /// # Errors
    /// `Settings`, `AdminRequired`: the provider does not let the application in. `Transient`, `Throttled`.
    pub fn apply(&self, account: &Account, net: &Net, deadline: Deadline) -> Result<Redeemed> {
        application::apply(&self.0, account, net, deadline).map_err(|e| self.within_a_consent(e, account))
    }

    /// Makes a redeemed consent durable, in place of any earlier one.
    ///
    /// # Errors
    /// Those of the store; `Misuse` when it was redeemed for other settings.
    pub fn keep(&self, account: &Account, redeemed: Redeemed) -> Result<Status> {
        if redeemed.id != grant_id(account) {
            return Err(crate::Error::new(crate::Kind::Misuse, "This consent was redeemed for another account."));
        }
        let grant = call::recording(|| refresh::keep(&self.0, &redeemed.id, redeemed.grant))?;
        Ok(status::describe(Some(grant), account, self.0.clock.now(), Vec::new()))
    }

    /// Gives back the tokens of a consent that cannot be kept: to drop them would leave a grant that nobody knows.
    pub fn abandon(&self, account: &Account, net: &Net, redeemed: &Redeemed, deadline: Deadline) {
        redeem::abandon(&self.0, account, net, redeemed, deadline);
    }

    /// The present access token; renewed first when it would end before the next fetch, or within `limits::TOKEN_EARLY`.
    ///
    /// # Errors
    /// `ConsentRequired` when only a person can help: remembered, nothing more is asked of the provider until a new
    /// consent. `Settings`, `AdminRequired`: the provider refuses the client. `Transient`, `Throttled`: no answer; the
    /// provider is left alone for a pause, during which the error comes at once.
    pub fn access_token(&self, account: &Account, net: &Net, deadline: Deadline) -> Result<AccessToken> {
        refresh::current(&self.0, account, net, None, deadline).map_err(|e| self.with_link(e, account))
    }

    /// Another access token than `refused`, which a server did not take. Asks the provider only when nobody else did
    /// meanwhile, and a few times an hour at most.
    ///
    /// # Errors
    /// As [`Grants::access_token`]; `Refused` when fresh tokens are refused again and again.
    pub fn replace(
        &self,
        account: &Account,
        net: &Net,
        refused: &AccessToken,
        deadline: Deadline,
    ) -> Result<AccessToken> {
        refresh::current(&self.0, account, net, Some(refused), deadline).map_err(|e| self.with_link(e, account))
    }

    /// How the grant stands. No network, no waiting; that nobody has consented is a status, not an error.
    ///
    /// # Errors
    /// Those of the store.
    pub fn status(&self, account: &Account) -> Result<Status> {
        let mut status = status::status(&self.0, account)?;
        status.reason = status.reason.map(|reason| self.with_link(reason, account));
        Ok(status)
    }

    /// Ends the grant at the provider (RFC 7009) and removes it here. A provider that fails does not keep it here: what it
    /// said stands in the note.
    ///
    /// # Errors
    /// Those of the store.
    pub fn revoke(&self, account: &Account, net: &Net, deadline: Deadline) -> Result<Revoked> {
        device::forget(&self.0, account)?;
        revoke::revoke(&self.0, account, net, deadline)
    }

    fn within_a_consent(&self, error: crate::Error, account: &Account) -> crate::Error {
        self.with_link(within_a_consent(error, account), account)
    }

    fn with_link(&self, error: crate::Error, account: &Account) -> crate::Error {
        admin_consent::with_link(&self.0, account, error)
    }
}

impl Inner {
    fn metadata(&self, account: &Account, net: &Net, deadline: Deadline) -> Option<Arc<discovery::Metadata>> {
        let log = self.log(account);
        self.discovery.metadata(account.client.issuer.as_deref(), net, &self.clock, &log, deadline)
    }

    fn log(&self, account: &Account) -> Logger {
        self.log.for_mailbox(account.label())
    }

    fn remember_consent(&self, id: String, expires_at: UnixSeconds) {
        seam::lock("oauth.started", &self.started).push((id, expires_at));
    }

    fn forget_expired_consents(&self, now: UnixSeconds) {
        let mut started = seam::lock("oauth.started", &self.started);
        started.retain(|(id, expires_at)| {
            // What cannot be deleted now is tried again at the next consent.
            *expires_at > now || self.store.delete(Table::Consent, id).is_err()
        });
    }
}

/// Nothing is tried again by itself while a person waits: state and code are used up.
fn within_a_consent(error: crate::Error, account: &Account) -> crate::Error {
    match (error.is_transient(), account.client.grant.is_app_only()) {
        (true, false) => error.remedy("Start the consent again in a few minutes.").who(Who::MailboxOwner),
        (true, true) => error.remedy("Connect the mailbox again in a few minutes.").who(Who::HelpdeskAdministrator),
        (false, _) => error,
    }
}

fn grant_id_of(client: &Client, user: &str) -> String {
    hex_sha256(&[server_of(client), &client.client_id, &user.trim().to_lowercase()])
}

fn server_of(client: &Client) -> &str {
    client.issuer.as_deref().unwrap_or(client.token_url.as_str()).trim_end_matches('/')
}

/// Each part with its length, so that no two lists read the same.
fn hex_sha256(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}
