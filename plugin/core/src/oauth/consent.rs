//! Opening the consent window, and judging what comes back from it.

use std::collections::{BTreeMap, HashMap};

use oauth2::{AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, Scope, basic::BasicClient};
use serde::{Deserialize, Serialize};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::{
    Inner, Started,
    answer::{self, Asked},
    discovery::{Metadata, issuer_matches},
    failure::provider_text,
    grant::{Grant, secret_text, user_of},
    grant_id, hex_sha256, resource,
    token_request::as_typed,
};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::{Error, Kind, Result, Who},
    limits,
    net::Net,
    remedies,
    secret::Secret,
    settings::{Account, Client},
    store::Table,
};

/// Entropy of state and nonce, bytes. RFC 6749 10.10 asks for a chance below 2^-128.
const RANDOM_BYTES: u32 = 32;

/// What the request sets itself. `request` and `request_uri` would take the place of all of it (RFC 9101 section 5).
const RESERVED: [&str; 11] = [
    "response_type",
    "response_mode",
    "client_id",
    "redirect_uri",
    "request",
    "request_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
];

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
    /// What each account on this grant asks for; the window asks for all of it.
    #[serde(default)]
    asked: BTreeMap<String, Vec<String>>,
}

/// A redirect that passed every check.
pub(super) struct Accepted {
    pub code: Secret,
    pub code_verifier: Secret,
    /// Sent when `openid` is among the scopes.
    pub nonce: Option<String>,
    pub asked: BTreeMap<String, Vec<String>>,
}

/// `also`: accounts on the same grant, whose scopes the same window asks for.
pub(super) fn start(inner: &Inner, account: &Account, also: &[Account]) -> Result<Started> {
    let client = &account.client;
    let asked = asked(inner, account, also);
    let scopes = resource::union([&*client.scopes].into_iter().chain(asked.values().map(Vec::as_slice)));
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let nonce =
        scopes.iter().any(|scope| scope == "openid").then(|| CsrfToken::new_random_len(RANDOM_BYTES).secret().clone());
    let oauth = BasicClient::new(ClientId::new(client.client_id.clone()))
        .set_auth_uri(AuthUrl::from_url(without_reserved(&client.authorize_url)))
        .set_redirect_uri(as_typed(client));
    let mut request = oauth
        .authorize_url(|| CsrfToken::new_random_len(RANDOM_BYTES))
        .add_scopes(scopes.into_iter().map(Scope::new))
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
        redirect_url: client.redirect_text.clone(),
        client_id: client.client_id.clone(),
        code_verifier: Secret::new(verifier.into_secret()),
        nonce,
        expires_at,
        asked,
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

/// What the accounts ask for that live on this grant, each by its latest settings. A consent for one
/// must not take from another what it had: a refresh token is good for what its own window asked.
pub(super) fn asked(inner: &Inner, account: &Account, also: &[Account]) -> BTreeMap<String, Vec<String>> {
    let id = grant_id(account);
    // One that cannot be read is replaced by this consent; one that the provider ended has no accounts left.
    let stored = Grant::read(&*inner.store, &id).ok().flatten().filter(|(grant, _)| grant.refusal.is_none());
    let mut asked = stored.map(|(grant, _)| grant.asked).unwrap_or_default();
    for account in also.iter().filter(|other| grant_id(other) == id).chain([account]) {
        asked.insert(user_of(account), account.client.scopes.clone());
    }
    asked
}

/// What Authorize URL has already goes along, once, unless it is ours to say (RFC 6749 3.1: not more than once).
pub(super) fn without_reserved(authorize_url: &Url) -> Url {
    let mut kept: Vec<(String, String)> = Vec::new();
    let mut is_clean = true;
    for (name, value) in authorize_url.query_pairs() {
        let is_new = !RESERVED.contains(&name.as_ref()) && !kept.iter().any(|(there, _)| *there == name);
        is_clean &= is_new;
        if is_new {
            kept.push((name.into_owned(), value.into_owned()));
        }
    }
    let mut url = authorize_url.clone();
    if !is_clean {
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
    }
    url
}

/// `login_hint`, nonce, and what the settings and their preset add. Nothing may take the place of what protects the
/// exchange, and what Authorize URL has is not said again.
fn own_parameters(account: &Account, nonce: Option<&str>) -> Vec<(String, String)> {
    let client = &account.client;
    let is_free =
        |name: &str| !RESERVED.contains(&name) && !client.authorize_url.query_pairs().any(|(there, _)| there == name);
    let mut parameters: Vec<(String, String)> = Vec::new();
    let hint = ("login_hint".to_owned(), account.consenting_user.clone());
    for (name, value) in client.authorize_parameters.iter().cloned().chain([hint]) {
        if is_free(&name) && !parameters.iter().any(|(there, _)| *there == name) {
            parameters.push((name, value));
        }
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
    let parameters = parameters(&account.client, redirect, &[])?;
    let state = match parameters.get("state").map(|state| state.as_str()) {
        Some(state) if !state.is_empty() => state,
        _ => return Err(stateless(account, &parameters)),
    };
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
    // RFC 6749 appendix A.11. Nothing else may reach a request.
    if !code.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return Err(refused("The code of the redirect holds characters that no code has."));
    }
    Ok(Accepted {
        code: Secret::new(code),
        code_verifier: pending.code_verifier,
        nonce: pending.nonce,
        asked: pending.asked,
    })
}

pub(super) type Parameters = HashMap<String, Zeroizing<String>>;

/// The redirect's own parameters, each of them once (RFC 6749 3.1). `shared`: names that the Redirect URL may have too.
pub(super) fn parameters(client: &Client, redirect: &str, shared: &[&str]) -> Result<Parameters> {
    if redirect.len() > limits::REDIRECT_MAX {
        return Err(refused("The redirect URL is too long."));
    }
    let redirect = redirect.trim();
    // The parser would drop line breaks and tabs silently.
    if redirect.chars().any(char::is_control) {
        return Err(refused("The redirect URL holds a line break or another control character."));
    }
    let url = Url::parse(redirect).map_err(|_| {
        Error::new(Kind::Misuse, "What was handed over is not a URL.")
            .remedy("Hand over the whole address that the browser was sent to after the consent.")
    })?;
    let mut pairs = Vec::new();
    for (name, value) in url.query_pairs() {
        pairs.push((name.into_owned(), Zeroizing::new(value.into_owned())));
    }
    if !is_registered_place(&url, &client.redirect_url) || !take_registered(&mut pairs, &client.redirect_url) {
        return Err(elsewhere(&url, client));
    }
    unsupported_mode(&url, &pairs)?;
    let registered: Vec<_> = client.redirect_url.query_pairs().map(|(name, _)| name).collect();
    let mut parameters = Parameters::new();
    for (name, value) in pairs {
        let is_registered = registered.iter().any(|own| *own == name) && !shared.contains(&&*name);
        if is_registered || parameters.contains_key(&name) {
            let name: String = provider_text(&name, &[]).chars().take(40).collect();
            return Err(refused(format!("The redirect carries the parameter {name} twice.")));
        }
        parameters.insert(name, value);
    }
    Ok(parameters)
}

/// Nobody can act on a redirect that arrived elsewhere without what arrived, what was expected, and why they differ.
fn elsewhere(url: &Url, client: &Client) -> Error {
    let registered = &client.redirect_url;
    let place = |url: &Url| {
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let place = format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path());
        // A query that lost its question mark stands in the path: code and state are not shown.
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let is_long = |text: &str| text.split(|c| !is_word(c)).any(|run| run.len() >= limits::SECRET_RUN);
        if url != registered && is_long(&place) {
            return format!("{}://…", url.scheme());
        }
        place.chars().take(limits::PROVIDER_TEXT_MAX / 2).collect::<String>()
    };
    let (arrived, expected) = (place(url), place(registered));
    let slash = |url: &Url| url.path().trim_end_matches('/').to_owned();
    let local = |url: &Url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let same = "enter the same address as Redirect URL, in the helpdesk's own public address and at the provider";
    let cure = if (url.scheme(), registered.scheme()) == ("http", "https") {
        "A reverse proxy ends TLS and the helpdesk does not know: have the proxy pass the scheme on (X-Forwarded-Proto), \
         or set the helpdesk's public address."
            .to_owned()
    } else if url.scheme() != registered.scheme() {
        format!("The scheme differs: {same}.")
    } else if url.host_str() != registered.host_str() && local(url) && local(registered) {
        format!("localhost and 127.0.0.1 are two names to a provider: {same}.")
    } else if url.host_str() != registered.host_str() {
        format!("The host name differs; a reverse proxy may replace it, or the helpdesk has two names: {same}.")
    } else if url.port_or_known_default() != registered.port_or_known_default() {
        format!("The port differs; a reverse proxy or a container may map it: {same}.")
    } else if url.path() != registered.path() && slash(url) == slash(registered) {
        format!("A slash at the end differs: {same}, with or without the slash.")
    } else if url.path() != registered.path() {
        format!("The path differs; a reverse proxy may cut or add a prefix: {same}.")
    } else {
        format!("The Redirect URL's own parameters are missing or changed, or it names a user: {same}.")
    };
    Error::new(
        Kind::Refused,
        format!(
            "This redirect did not arrive at the Redirect URL of these settings. It arrived at {arrived}, the settings \
             say {expected}."
        ),
    )
    .remedy(format!("{cure} Start the consent again when that is done."))
    .who(Who::HelpdeskAdministrator)
}

/// Without the state nothing proves that the answer belongs to a consent of ours; what it says is shown all the same.
fn stateless(account: &Account, parameters: &Parameters) -> Error {
    let missing = "The redirect lacks the parameter state";
    let Some(code) = parameters.get("error").filter(|code| !code.is_empty()) else {
        return refused(format!("{missing}."));
    };
    let description = parameters.get("error_description").map_or("", |text| text.as_str());
    let told = declined(account, code, description);
    let words = told.provider_code_text().unwrap_or_default().to_owned();
    let error = Error::new(
        Kind::Refused,
        format!(
            "{missing}, so it is not proven that it belongs to this consent. It says that the consent was not given: \
             {words}"
        ),
    )
    .remedy(told.remedy_text().unwrap_or("Start the consent again.").to_owned())
    .who(told.who_acts())
    .provider_code(format!("{words} (unproven)"));
    if told.needs_admin_consent() { error.admin_consent() } else { error }
}

/// All but the query, which is looked at pair by pair.
fn is_registered_place(url: &Url, registered: &Url) -> bool {
    url.scheme() == registered.scheme()
        && url.host_str() == registered.host_str()
        && url.port_or_known_default() == registered.port_or_known_default()
        && url.path() == registered.path()
        && url.username() == registered.username()
        && url.password() == registered.password()
}

/// Takes the registered URL's own parameters away (RFC 6749 3.1.2 keeps them); `false` when one is missing.
fn take_registered(pairs: &mut Vec<(String, Zeroizing<String>)>, registered: &Url) -> bool {
    registered.query_pairs().all(|(name, value)| {
        let at = pairs.iter().position(|(n, v)| *n == name && **v == value);
        at.map(|at| pairs.remove(at)).is_some()
    })
}

/// Only the query is asked for. An answer that comes in another way was not made for our request.
fn unsupported_mode(url: &Url, pairs: &[(String, Zeroizing<String>)]) -> Result<()> {
    let has = |name: &str| pairs.iter().any(|(n, _)| n == name);
    let why = if has("response") {
        "The provider packed its answer into a signed response (JARM), which this library does not read."
    } else if ["access_token", "id_token", "refresh_token"].into_iter().any(has) {
        "The redirect carries tokens, which nobody asked for: they could be anybody's."
    } else if url.fragment().is_some_and(|fragment| {
        let names = ["code", "state", "error", "iss", "access_token", "id_token", "response"];
        form_urlencoded::parse(fragment.as_bytes()).any(|(name, _)| names.contains(&name.as_ref()))
    }) {
        "The provider put its answer behind a # (response_mode=fragment); only answers in the query are read."
    } else {
        return Ok(());
    };
    Err(refused(why).remedy(
        "Have the provider's app registration use the authorization code flow with response_mode query, and remove any \
         response type or mode from Authorize URL; then start the consent again.",
    ))
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
        return Err(refused("This consent was started for another mailbox, client or provider."));
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
        && pending.redirect_url == client.redirect_text
        && Url::parse(&pending.redirect_url).is_ok_and(|url| url == client.redirect_url)
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
        Some(iss) if is_issuer(metadata.map_or(expected, |metadata| &metadata.issuer), iss) => Ok(()),
        Some(iss) => Err(refused("The answer comes from another authorization server than the configured one.")
            .provider_code(format!("iss={}", provider_text(iss, &[])))),
        None if required => Err(refused(
            "The answer does not say which authorization server it comes from, although this one always does.",
        )),
        None => Ok(()),
    }
}

/// Simple string comparison: no case, no slash is passed over. Only Microsoft's issuers of many tenants have other names.
fn is_issuer(expected: &str, iss: &str) -> bool {
    let is_for_many = expected.contains("/common/")
        || expected.contains("/organizations/")
        || expected.contains("/consumers/")
        || expected.contains("/{tenantid}/");
    expected == iss || (is_for_many && issuer_matches(expected, iss, None))
}

/// RFC 6749 4.1.2.1: the provider ended the consent without a code.
fn declined(account: &Account, code: &str, description: &str) -> Error {
    let host = account.client.authorize_url.host_str().unwrap_or_default();
    // Microsoft says `access_denied` with the number of an administrator's part, too.
    let of_administrator =
        answer::numbers_in(description).find_map(remedies::by_aadsts).filter(|remedy| remedy.needs_admin_consent());
    let error = match (of_administrator, code) {
        (Some(remedy), _) => remedy.error(remedy.what(host).unwrap_or_default()),
        (None, "access_denied") => Error::new(Kind::ConsentRequired, "The consent was declined in the consent window.")
            .remedy(format!("Open the consent window again, sign in as {} and accept; if an administrator's approval is asked for, get it first.", account.consenting_user)),
        (None, _) => {
            let mut failure = answer::coded(code, host, Asked::Code);
            if let Some(remedy) = answer::numbers_in(description).find_map(remedies::by_aadsts) {
                failure.specify(remedy);
            }
            failure.to_error()
        }
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
        .who(Who::MailboxOwner)
}
