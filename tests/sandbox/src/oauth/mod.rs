//! The authorization server: RFC 6749, 7636 (PKCE), 8628 (device grant), 7009 (revocation), 9207 (iss), OpenID Connect
//! Core for the ID token. Refresh tokens rotate strictly: one shown twice ends its whole family.

mod authorize;
mod device;
mod pages;
mod sign;
mod token;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    http::{Request, Response},
    state::{Audience, Bearer, State, Subject},
};

pub struct OAuth {
    inner: Mutex<Inner>,
    signer: sign::Signer,
}

#[derive(Default)]
struct Inner {
    /// Cookie to address: who is signed in, in which browser.
    sessions: HashMap<String, String>,
    interactions: HashMap<String, authorize::Interaction>,
    codes: HashMap<String, token::Code>,
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    families: HashMap<u64, Family>,
    devices: HashMap<String, device::Device>,
    next_family: u64,
    /// What an administrator allowed for everybody, by client.
    for_everybody: HashMap<String, Vec<String>>,
}

/// One consent and every token that came of it.
#[derive(Clone)]
struct Family {
    subject: Subject,
    client_id: String,
    /// What the person allowed, with resources.
    scopes: Vec<String>,
    nonce: Option<String>,
    revoked: bool,
}

struct Access {
    family: u64,
    scopes: Vec<String>,
    /// Unix seconds of this provider's clock.
    expires_at: i64,
}

struct Refresh {
    family: u64,
    used: bool,
}

pub fn handle(state: &State, request: &Request) -> Response {
    let get = request.method == "GET";
    let post = request.method == "POST";
    let (first, id) = request.path.trim_start_matches('/').split_once('/').unwrap_or((&request.path[1..], ""));
    match first {
        ".well-known" if get => Response::json(200, &discovery(state.base_url())),
        "jwks" if get => Response::json(200, &state.oauth.signer.jwks()),
        "userinfo" => userinfo(state, request),
        "authorize" if get => authorize::start(state, request),
        "adminconsent" if get => authorize::start_for_everybody(state, request),
        "login" if get => authorize::login_page(state, id, None),
        "login" if post => authorize::log_in(state, id, request),
        "consent" if get => authorize::consent_page(state, id),
        "consent" if post => authorize::decide(state, id, request),
        "token" if post => token::answer(state, request),
        "revoke" if post => token::revoke(state, request),
        "device_authorization" if post => device::begin(state, request),
        "device" if get && id == "done" => pages::message(200, "You may go on", "Return to your device."),
        "device" if get => device::page(request, None),
        "device" if post => device::enter(state, request),
        "" if get => pages::message(200, "oauth-mail-sandbox", "A provider to develop against. See /_sandbox."),
        _ => pages::message(404, "Not found", "There is no such page here."),
    }
}

impl OAuth {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { inner: Mutex::default(), signer: sign::Signer::new() }
    }

    /// Who the request's bearer token is, for a face of this audience.
    ///
    /// # Errors
    /// The answer to give: 401 with WWW-Authenticate (RFC 6750 section 3).
    pub fn bearer(&self, state: &State, request: &Request, face: Audience) -> Result<Bearer, Response> {
        let refused = |error: &str| {
            let header = format!("Bearer realm=\"\", error=\"invalid_token\", error_description=\"{error}\"");
            let code = json!({"code": "InvalidAuthenticationToken", "message": error});
            let response = match face {
                Audience::Graph => Response::json(401, &json!({"error": code})),
                _ => Response::new(401),
            };
            Err(response.header("WWW-Authenticate", header))
        };
        let Some(token) = request.bearer() else { return refused("Access token is empty.") };
        self.holder(state, token, face).or_else(refused)
    }

    /// Who an access token is.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn holder(&self, state: &State, token: &str, face: Audience) -> Result<Bearer, &'static str> {
        let inner = self.lock();
        let access = inner.access.get(token).ok_or("The token is unknown.")?;
        let family = inner.families.get(&access.family).ok_or("The token is unknown.")?;
        if family.revoked {
            return Err("The token was revoked.");
        }
        if access.expires_at <= state.now().unix_timestamp() {
            return Err("Lifetime validation failed, the token is expired.");
        }
        let audience = audience(&access.scopes).ok_or("The token is for no resource.")?;
        if !audience.serves(face) {
            return Err("Invalid audience.");
        }
        Ok(Bearer {
            subject: family.subject.clone(),
            client_id: family.client_id.clone(),
            scopes: access.scopes.iter().map(|scope| without_resource(scope).to_owned()).collect(),
            audience,
        })
    }

    /// Takes every consent of a person back, as an administrator would.
    pub fn revoke_user(&self, address: &str) {
        for family in self.lock().families.values_mut() {
            family.revoked |= matches!(&family.subject, Subject::User(user) if user.eq_ignore_ascii_case(address));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn discovery(base: &str) -> Value {
    json!({
        "issuer": base,
        "authorization_endpoint": format!("{base}/authorize"),
        "token_endpoint": format!("{base}/token"),
        "device_authorization_endpoint": format!("{base}/device_authorization"),
        "revocation_endpoint": format!("{base}/revoke"),
        "userinfo_endpoint": format!("{base}/userinfo"),
        "jwks_uri": format!("{base}/jwks"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [
            "authorization_code", "refresh_token", "client_credentials", "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_post", "client_secret_basic"],
        "code_challenge_methods_supported": ["S256"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "subject_types_supported": ["public"],
        "scopes_supported": ["openid", "offline_access", "email", "profile", "mail"],
        "claims_supported": ["sub", "email", "email_verified", "preferred_username", "name"],
        "authorization_response_iss_parameter_supported": true,
    })
}

fn userinfo(state: &State, request: &Request) -> Response {
    // Whatever the token is for, it may say whom it stands for.
    let token = request.bearer().unwrap_or_default();
    let found = [Audience::Outlook, Audience::Graph].map(|face| state.oauth.holder(state, token, face));
    match found.into_iter().find_map(Result::ok).map(|bearer| bearer.subject) {
        Some(Subject::User(address)) => Response::json(200, &claims(state, &address)),
        _ => Response::json(401, &json!({"error": "invalid_token"}))
            .header("WWW-Authenticate", "Bearer error=\"invalid_token\""),
    }
}

fn claims(state: &State, address: &str) -> Value {
    let name = state.config.users.iter().find(|user| user.address == address).map_or("", |user| user.name.as_str());
    json!({"sub": address, "email": address, "email_verified": true, "preferred_username": address, "name": name})
}

/// `None` for scopes of two resources, and for none.
fn audience(scopes: &[String]) -> Option<Audience> {
    let mut found = None;
    for scope in scopes {
        let this = if scope == "mail" {
            Audience::Any
        } else if scope.starts_with("https://outlook.office365.com/")
            || scope.starts_with("https://outlook.office.com/")
        {
            Audience::Outlook
        } else if scope.starts_with("https://graph.microsoft.com/") || scope.contains('.') {
            // A scope without a resource is Graph's at Microsoft.
            Audience::Graph
        } else {
            continue;
        };
        if found.is_some_and(|found| found != this) {
            return None;
        }
        found = Some(this);
    }
    // Who only signs in may ask who it is.
    Some(found.unwrap_or(Audience::Graph))
}

fn without_resource(scope: &str) -> &str {
    scope.strip_prefix("https://").and_then(|rest| rest.split_once('/')).map_or(scope, |(_, name)| name)
}

pub(crate) fn random() -> String {
    let mut bytes = [0; 32];
    // Without randomness there is nothing to serve.
    getrandom::fill(&mut bytes).unwrap_or_else(|error| panic!("The system gives no random bytes: {error}"));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// RFC 6749 section 5.2.
fn error(status: u16, code: &str, description: &str) -> Response {
    Response::json(status, &json!({"error": code, "error_description": description}))
        .header("Cache-Control", "no-store")
}
