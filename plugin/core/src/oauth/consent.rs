//! Opening the consent window, and judging what comes back from it.

use std::collections::HashMap;

use oauth2::{AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, RedirectUrl, Scope, basic::BasicClient};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::{
    Inner, Started,
    answer::{self, Asked},
    discovery::{Metadata, issuer_matches},
    failure::provider_text,
    grant::secret_text,
    grant_id, hex_sha256,
};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::{Error, Kind, Result},
    limits,
    net::Net,
    secret::Secret,
    settings::{Account, Client},
    store::Table,
};

/// Entropy of state and nonce, bytes. RFC 6749 10.10 asks for a chance below 2^-128.
const RANDOM_BYTES: u32 = 32;

/// What a started consent was made for. Stored under the hash of its state: the store never holds a state that works.
#[derive(Serialize, Deserialize)]
struct Pending {
    grant: String,
    authorize_url: String,
    token_url: String,
    redirect_url: String,
    client_id: String,
    #[serde(with = "secret_text")]
    code_verifier: Secret,
    nonce: Option<String>,
    expires_at: UnixSeconds,
}

/// A redirect that passed every check.
pub(super) struct Accepted {
    pub code: Secret,
    pub code_verifier: Secret,
    /// Sent when `openid` is among the scopes.
    pub nonce: Option<String>,
}

pub(super) fn start(inner: &Inner, account: &Account) -> Result<Started> {
    let client = &account.client;
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let nonce = client
        .scopes
        .iter()
        .any(|scope| scope == "openid")
        .then(|| CsrfToken::new_random_len(RANDOM_BYTES).secret().clone());
    let oauth = BasicClient::new(ClientId::new(client.client_id.clone()))
        .set_auth_uri(AuthUrl::from_url(client.authorize_url.clone()))
        .set_redirect_uri(RedirectUrl::from_url(client.redirect_url.clone()));
    let mut request = oauth
        .authorize_url(|| CsrfToken::new_random_len(RANDOM_BYTES))
        .add_scopes(client.scopes.iter().cloned().map(Scope::new))
        .set_pkce_challenge(challenge);
    for (name, value) in own_parameters(account, nonce.as_deref()) {
        request = request.add_extra_param(name, value);
    }
    let (authorize_url, state) = request.url();

    let now = inner.clock.now();
    let expires_at = now + limits::CONSENT_LIFETIME.as_secs() as i64;
    let pending = Pending {
        grant: grant_id(account),
        authorize_url: client.authorize_url.to_string(),
        token_url: client.token_url.to_string(),
        redirect_url: client.redirect_url.to_string(),
        client_id: client.client_id.clone(),
        code_verifier: Secret::new(verifier.into_secret()),
        nonce,
        expires_at,
    };
    let bytes = Zeroizing::new(
        serde_json::to_vec(&pending)
            .map_err(|e| Error::new(Kind::Internal, "A consent could not be put into a record.").source_error(e))?,
    );
    let id = hex_sha256(&[state.secret()]);
    inner.forget_expired_consents(now);
    inner.store.write(Table::Consent, &id, None, &bytes)?;
    inner.remember_consent(id, expires_at);
    Ok(Started { authorize_url, expires_at })
}

/// `login_hint`, nonce, and what the settings add; nothing may take the place of what protects the exchange.
fn own_parameters(account: &Account, nonce: Option<&str>) -> Vec<(String, String)> {
    const RESERVED: [&str; 9] = [
        "response_type",
        "response_mode",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
    ];
    let mut parameters: Vec<_> = account
        .client
        .authorize_parameters
        .iter()
        .filter(|(name, _)| !RESERVED.contains(&name.as_str()))
        .cloned()
        .collect();
    if !parameters.iter().any(|(name, _)| name == "login_hint") {
        parameters.push(("login_hint".into(), account.consenting_user.clone()));
    }
    parameters.extend(nonce.map(|nonce| ("nonce".to_owned(), nonce.to_owned())));
    parameters
}

/// Judges `redirect`, the whole URL that the provider sent the browser to. Its state is used up by this, whatever the
/// outcome, once the redirect is known to belong to this account.
pub(super) fn accept(
    inner: &Inner,
    account: &Account,
    net: &Net,
    redirect: &str,
    deadline: Deadline,
) -> Result<Accepted> {
    let parameters = parameters(&account.client, redirect)?;
    let state = required(&parameters, "state")?;
    let pending = take_pending(inner, account, state)?;
    let metadata = inner.metadata(account, net, deadline);
    check_issuer(&account.client, metadata.as_deref(), parameters.get("iss").map(|iss| iss.as_str()))?;
    if parameters.contains_key("error") && parameters.contains_key("code") {
        return Err(refused("The redirect carries both a code and an error."));
    }
    if let Some(code) = parameters.get("error") {
        return Err(declined(account, code, parameters.get("error_description").map_or("", |text| text.as_str())));
    }
    let code = required(&parameters, "code")?;
    Ok(Accepted { code: Secret::new(code), code_verifier: pending.code_verifier, nonce: pending.nonce })
}

type Parameters = HashMap<String, Zeroizing<String>>;

/// The redirect's own parameters, each of those that matter once (RFC 6749 3.1).
fn parameters(client: &Client, redirect: &str) -> Result<Parameters> {
    if redirect.len() > limits::REDIRECT_MAX {
        return Err(refused("The redirect URL is too long."));
    }
    let url = Url::parse(redirect.trim()).map_err(|_| {
        Error::new(Kind::Misuse, "What was handed over is not a URL.")
            .remedy("Hand over the whole address that the browser was sent to after the consent.")
    })?;
    let registered = &client.redirect_url;
    let same_place = url.scheme() == registered.scheme()
        && url.host_str() == registered.host_str()
        && url.port_or_known_default() == registered.port_or_known_default()
        && url.path() == registered.path()
        && url.username() == registered.username()
        && url.password() == registered.password()
        && registered.query_pairs().all(|wanted| url.query_pairs().any(|pair| pair == wanted));
    if !same_place {
        return Err(refused("This redirect did not arrive at the Redirect URL of these settings."));
    }
    let mut parameters = Parameters::new();
    for (name, value) in url.query_pairs() {
        let name = name.into_owned();
        let matters = ["state", "code", "iss", "error", "error_description"].contains(&name.as_str());
        if parameters.insert(name.clone(), Zeroizing::new(value.into_owned())).is_some() && matters {
            return Err(refused(format!("The redirect carries the parameter {name} twice.")));
        }
    }
    Ok(parameters)
}

fn required<'a>(parameters: &'a Parameters, name: &str) -> Result<&'a str> {
    match parameters.get(name).map(|value| value.as_str()) {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(refused(format!("The redirect lacks the parameter {name}."))),
    }
}

fn take_pending(inner: &Inner, account: &Account, state: &str) -> Result<Pending> {
    let unknown =
        || refused("This consent is not known here: its window was opened too long ago, or it was completed already.");
    let id = hex_sha256(&[state]);
    // Looked at before it is taken: a redirect handed to the wrong account must not use up another's consent.
    let pending = parse(&inner.store.read(Table::Consent, &id)?.ok_or_else(unknown)?.bytes)?;
    if pending.grant != grant_id(account) {
        return Err(refused("This consent was started for another mailbox."));
    }
    // Of any number of callers one gets it.
    let pending = parse(&inner.store.take(Table::Consent, &id)?.ok_or_else(unknown)?.bytes)?;
    if pending.expires_at <= inner.clock.now() {
        return Err(refused("The consent took longer than ten minutes."));
    }
    let client = &account.client;
    let same_settings = pending.grant == grant_id(account)
        && pending.authorize_url == client.authorize_url.as_str()
        && pending.token_url == client.token_url.as_str()
        && pending.redirect_url == client.redirect_url.as_str()
        && pending.client_id == client.client_id;
    if !same_settings {
        return Err(refused("The settings were changed after the consent window was opened."));
    }
    Ok(pending)
}

fn parse(bytes: &[u8]) -> Result<Pending> {
    serde_json::from_slice(bytes).map_err(|_| refused("The record of this consent cannot be read."))
}

/// RFC 9207 2.4. Without a known issuer there is nothing to compare with.
fn check_issuer(client: &Client, metadata: Option<&Metadata>, iss: Option<&str>) -> Result<()> {
    let Some(expected) = client.issuer.as_deref() else { return Ok(()) };
    let required = metadata.is_some_and(|metadata| metadata.authorization_response_iss_parameter_supported);
    match iss {
        Some(iss) if issuer_matches(expected, iss, None) => Ok(()),
        Some(iss) => Err(refused("The answer comes from another authorization server than the configured one.")
            .provider_code(format!("iss={}", provider_text(iss, &[])))),
        None if required => Err(refused(
            "The answer does not say which authorization server it comes from, although this one always does.",
        )),
        None => Ok(()),
    }
}

/// RFC 6749 4.1.2.1: the provider ended the consent without a code.
fn declined(account: &Account, code: &str, description: &str) -> Error {
    let host = account.client.authorize_url.host_str().unwrap_or_default();
    let error = match code {
        "access_denied" => Error::new(Kind::ConsentRequired, "The consent was declined in the consent window.")
            .remedy(format!("Open the consent window again, sign in as {} and accept; if an administrator's approval is asked for, get it first.", account.consenting_user)),
        _ => answer::coded(code, host, Asked::Code).to_error(),
    };
    let mut words = provider_text(code, &[]);
    if !description.is_empty() {
        words = format!("{words}: {}", provider_text(description, &[]));
    }
    error.provider_code(words)
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(Kind::Refused, message)
        .remedy("Start the consent again from the settings, and complete it in the window that opens.")
}
