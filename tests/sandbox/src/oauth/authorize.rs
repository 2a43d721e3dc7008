//! The authorize endpoint and its two pages (RFC 6749 section 4.1.1; RFC 7636; RFC 9207).

use url::{Host, Url};

use super::{OAuth, device, pages, random, token};
use crate::{
    config::Client,
    http::{Form, Request, Response},
    state::State,
};

const SESSION: &str = "sandbox_session";

const NEEDS_ADMINISTRATOR: [(&str, &str); 2] = [
    ("error", "access_denied"),
    ("error_description", "AADSTS90094: An administrator must consent to these permissions."),
];

/// A person is at the pages.
#[derive(Clone)]
pub struct Interaction {
    pub client_id: String,
    pub scopes: Vec<String>,
    pub goal: Goal,
    pub login_hint: String,
    pub user: Option<String>,
}

#[derive(Clone)]
pub enum Goal {
    Code {
        redirect_uri: String,
        state: String,
        challenge: Option<String>,
        nonce: Option<String>,
    },
    Device {
        device_code: String,
    },
    /// An administrator's, for everybody.
    Everybody {
        redirect_uri: String,
        state: String,
    },
}

pub fn start(state: &State, request: &Request) -> Response {
    let query = Form(request.query.clone());
    // Before the redirect URI is known to be the client's own, nothing may be sent there.
    let Some(client) = state.config.client(query.field("client_id").unwrap_or_default()) else {
        return pages::message(400, "Unknown application", "AADSTS700016: No application has this client_id.");
    };
    let redirect_uri = query.field("redirect_uri").unwrap_or_default();
    if !is_registered(client, redirect_uri) {
        let text = "AADSTS50011: The redirect URI does not match one that is registered for the application.";
        return pages::message(400, "Wrong redirect URI", text);
    }
    let given = query.field("state").unwrap_or_default().to_owned();
    let refuse = |code: &str, description: &str| {
        back(state, redirect_uri, &given, &[("error", code), ("error_description", description)])
    };
    if query.field("response_type") != Some("code") {
        return refuse("unsupported_response_type", "Only response_type=code is served.");
    }
    let challenge = query.field("code_challenge").map(str::to_owned);
    match query.field("code_challenge_method") {
        Some("S256") if challenge.is_some() => {}
        None if challenge.is_none() && client.secret.is_some() => {}
        _ => return refuse("invalid_request", "AADSTS501481: A code_challenge with the method S256 is needed."),
    }
    let scopes: Vec<_> = query.field("scope").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    if scopes.is_empty() {
        return refuse("invalid_scope", "AADSTS900144: The request must contain the parameter scope.");
    }
    let prompt = query.field("prompt").unwrap_or_default();
    let user = request.cookie(SESSION).and_then(|cookie| state.oauth.lock().sessions.get(cookie).cloned());
    if prompt == "none" {
        return refuse("interaction_required", "A person must consent.");
    }
    let user = user.filter(|_| !["login", "select_account"].iter().any(|word| prompt.contains(word)));
    let interaction = Interaction {
        client_id: client.id.clone(),
        scopes,
        goal: Goal::Code {
            redirect_uri: redirect_uri.to_owned(),
            state: given.clone(),
            challenge,
            nonce: query.field("nonce").map(str::to_owned),
        },
        login_hint: query.field("login_hint").unwrap_or_default().to_owned(),
        user,
    };
    begin(&state.oauth, interaction)
}

/// The page of the administrators: its redirect carries no code.
pub fn start_for_everybody(state: &State, request: &Request) -> Response {
    let query = Form(request.query.clone());
    let Some(client) = state.config.client(query.field("client_id").unwrap_or_default()) else {
        return pages::message(400, "Unknown application", "AADSTS700016: No application has this client_id.");
    };
    let redirect_uri = query.field("redirect_uri").unwrap_or_default().to_owned();
    if !is_registered(client, &redirect_uri) {
        let text = "AADSTS50011: The redirect URI does not match one that is registered for the application.";
        return pages::message(400, "Wrong redirect URI", text);
    }
    let scopes = query.field("scope").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let state_given = query.field("state").unwrap_or_default().to_owned();
    let interaction = Interaction {
        client_id: client.id.clone(),
        scopes,
        goal: Goal::Everybody { redirect_uri, state: state_given },
        login_hint: String::new(),
        user: None,
    };
    begin(&state.oauth, interaction)
}

/// Of the scopes those that a person may not consent to, with nobody's consent for everybody.
fn needs_administrator(state: &State, client_id: &str, user: &str, scopes: &[String]) -> bool {
    let is_restricted = state.config.client(client_id).is_some_and(|client| client.only_administrators_consent);
    let inner = state.oauth.lock();
    let allowed = inner.for_everybody.get(client_id).map(Vec::as_slice).unwrap_or_default();
    is_restricted && !is_administrator(state, user) && scopes.iter().any(|scope| !allowed.contains(scope))
}

fn is_administrator(state: &State, user: &str) -> bool {
    state.config.administrators.iter().any(|address| address.eq_ignore_ascii_case(user))
}

/// To the first page that is needed.
pub fn begin(oauth: &OAuth, interaction: Interaction) -> Response {
    let (id, page) = (random(), if interaction.user.is_some() { "consent" } else { "login" });
    oauth.lock().interactions.insert(id.clone(), interaction);
    Response::redirect(format!("/{page}/{id}"))
}

pub fn login_page(state: &State, id: &str, wrong: Option<&str>) -> Response {
    match state.oauth.lock().interactions.get(id) {
        Some(interaction) => pages::login(id, &interaction.login_hint, wrong),
        None => over(),
    }
}

pub fn log_in(state: &State, id: &str, request: &Request) -> Response {
    let form = request.form();
    let (login, password) = (form.field("login").unwrap_or_default(), form.field("password").unwrap_or_default());
    let user = state.config.users.iter().find(|user| user.address.eq_ignore_ascii_case(login.trim()));
    let Some(user) = user.filter(|user| user.password == password) else {
        return login_page(state, id, Some("Address or password is wrong."));
    };
    let session = random();
    let mut inner = state.oauth.lock();
    let Some(interaction) = inner.interactions.get_mut(id) else { return over() };
    interaction.user = Some(user.address.clone());
    inner.sessions.insert(session.clone(), user.address.clone());
    Response::redirect(format!("/consent/{id}"))
        .header("Set-Cookie", format!("{SESSION}={session}; Path=/; HttpOnly; Secure; SameSite=Lax"))
}

pub fn consent_page(state: &State, id: &str) -> Response {
    let interaction = state.oauth.lock().interactions.get(id).cloned();
    if let Some(Interaction {
        client_id,
        scopes,
        goal: Goal::Code { redirect_uri, state: given, .. },
        user: Some(user),
        ..
    }) = &interaction
        && needs_administrator(state, client_id, user, scopes)
    {
        state.oauth.lock().interactions.remove(id);
        return back(state, redirect_uri, given, &NEEDS_ADMINISTRATOR);
    }
    match &interaction {
        Some(Interaction { client_id, scopes, user: Some(user), .. }) => pages::consent(id, client_id, user, scopes),
        Some(_) => Response::redirect(format!("/login/{id}")),
        None => over(),
    }
}

pub fn decide(state: &State, id: &str, request: &Request) -> Response {
    let allowed = request.form().field("consent") == Some("yes");
    let Some(Interaction { client_id, scopes, goal, user: Some(user), .. }) =
        state.oauth.lock().interactions.remove(id)
    else {
        return over();
    };
    match goal {
        Goal::Device { device_code } => device::decide(state, &device_code, allowed.then_some(user)),
        Goal::Everybody { redirect_uri, state: given } if !allowed || !is_administrator(state, &user) => {
            let description = "AADSTS65004: Nobody with the right to it consented for the organisation.";
            back(state, &redirect_uri, &given, &[("error", "access_denied"), ("error_description", description)])
        }
        Goal::Everybody { redirect_uri, state: given } => {
            state.oauth.lock().for_everybody.insert(client_id, scopes);
            let tenant = crate::config::DOMAIN;
            back(state, &redirect_uri, &given, &[("admin_consent", "True"), ("tenant", tenant)])
        }
        Goal::Code { redirect_uri, state: given, .. } if needs_administrator(state, &client_id, &user, &scopes) => {
            back(state, &redirect_uri, &given, &NEEDS_ADMINISTRATOR)
        }
        Goal::Code { redirect_uri, state: given, .. } if !allowed => {
            let description = "AADSTS65004: The person declined to consent.";
            back(state, &redirect_uri, &given, &[("error", "access_denied"), ("error_description", description)])
        }
        Goal::Code { redirect_uri, state: given, challenge, nonce } => {
            let code = random();
            let made = token::Code::new(state, client_id, scopes, user, redirect_uri.clone(), challenge, nonce);
            state.oauth.lock().codes.insert(code.clone(), made);
            back(state, &redirect_uri, &given, &[("code", &code)])
        }
    }
}

fn back(state: &State, redirect_uri: &str, given: &str, parameters: &[(&str, &str)]) -> Response {
    let Ok(mut url) = Url::parse(redirect_uri) else {
        return pages::message(400, "Wrong redirect URI", "It cannot be read.");
    };
    let mut query = url.query_pairs_mut();
    query.extend_pairs(parameters);
    if !given.is_empty() {
        query.append_pair("state", given);
    }
    query.append_pair("iss", state.base_url());
    drop(query);
    Response::redirect(url.as_str())
}

/// Exactly, or on loopback with any port (RFC 8252 section 7.3).
fn is_registered(client: &Client, redirect_uri: &str) -> bool {
    if client.redirect_uris.iter().any(|known| known == redirect_uri) {
        return true;
    }
    Url::parse(redirect_uri).is_ok_and(|url| {
        let loopback = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        loopback && matches!(url.scheme(), "http" | "https")
    })
}

fn over() -> Response {
    pages::message(400, "This page is over", "It was used already, or this sandbox was started anew. Begin again.")
}
