//! The token endpoint: RFC 6749 sections 4.1.3, 4.4, 6; revocation: RFC 7009. Refusals carry Microsoft's AADSTS numbers.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Access, Family, Inner, Refresh, audience, claims, device, error, random};
use crate::{
    config::Client,
    http::{Form, Request, Response},
    state::{Audience, State, Subject},
};

pub struct Code {
    client_id: String,
    scopes: Vec<String>,
    user: String,
    redirect_uri: String,
    challenge: Option<String>,
    nonce: Option<String>,
    expires_at: i64,
    /// The tokens that came of it, once it was redeemed.
    family: Option<u64>,
}

impl Code {
    pub fn new(
        state: &State,
        client_id: String,
        scopes: Vec<String>,
        user: String,
        redirect_uri: String,
        challenge: Option<String>,
        nonce: Option<String>,
    ) -> Self {
        let expires_at = state.now().unix_timestamp() + state.config.code_lifetime as i64;
        Self { client_id, scopes, user, redirect_uri, challenge, nonce, expires_at, family: None }
    }
}

pub fn answer(state: &State, request: &Request) -> Response {
    let form = request.form();
    let client = match authenticate(state, request, &form) {
        Ok(client) => client,
        Err(response) => return response,
    };
    match form.field("grant_type").unwrap_or_default() {
        "authorization_code" => redeem(state, client, &form),
        "refresh_token" => refresh(state, client, &form),
        "client_credentials" => client_credentials(state, client, &form),
        "urn:ietf:params:oauth:grant-type:device_code" => device::poll(state, client, &form),
        _ => error(400, "unsupported_grant_type", "AADSTS70003: The grant type is not supported."),
    }
}

/// Always 200, whether there was such a token or not.
pub fn revoke(state: &State, request: &Request) -> Response {
    let form = request.form();
    if let Err(response) = authenticate(state, request, &form) {
        return response;
    }
    let token = form.field("token").unwrap_or_default();
    let mut inner = state.oauth.lock();
    let family = inner.refresh.get(token).map(|refresh| refresh.family);
    let family = family.or_else(|| inner.access.get(token).map(|access| access.family));
    if let Some(family) = family.and_then(|number| inner.families.get_mut(&number)) {
        family.revoked = true;
    }
    Response::new(200)
}

/// RFC 6749 section 2.3.1: client_secret_basic and client_secret_post; none for public clients.
pub fn authenticate<'a>(state: &'a State, request: &Request, form: &Form) -> Result<&'a Client, Response> {
    let basic = request.header("authorization").and_then(|header| header.strip_prefix("Basic ")).and_then(|encoded| {
        let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (id, secret) = text.split_once(':')?;
        let decode = |text: &str| {
            url::form_urlencoded::parse(format!("v={text}").as_bytes()).next().map(|(_, value)| value.into_owned())
        };
        Some((decode(id)?, decode(secret)?))
    });
    let (id, secret) = match &basic {
        Some((id, secret)) => (id.as_str(), Some(secret.as_str())),
        None => (form.field("client_id").unwrap_or_default(), form.field("client_secret")),
    };
    let Some(client) = state.config.client(id) else {
        return Err(error(400, "unauthorized_client", "AADSTS700016: Application was not found in the directory."));
    };
    match (&client.secret, secret) {
        (None, None) => Ok(client),
        (Some(known), Some(shown)) if known == shown => Ok(client),
        (Some(_), Some(_)) => Err(error(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")),
        (Some(_), None) => {
            let text = "AADSTS7000218: The request body must contain client_assertion or client_secret.";
            Err(error(401, "invalid_client", text))
        }
        (None, Some(_)) => Err(error(
            401,
            "invalid_client",
            "AADSTS700025: Client is public so client_secret should not be presented.",
        )),
    }
}

fn redeem(state: &State, client: &Client, form: &Form) -> Response {
    let mut inner = state.oauth.lock();
    let now = state.now().unix_timestamp();
    let Some(code) = inner.codes.get(form.field("code").unwrap_or_default()) else {
        return error(400, "invalid_grant", "AADSTS9002313: The code is malformed or invalid.");
    };
    if let Some(family) = code.family {
        // RFC 6749 section 4.1.2: what came of a code that is shown twice is taken back.
        if let Some(family) = inner.families.get_mut(&family) {
            family.revoked = true;
        }
        return error(400, "invalid_grant", "AADSTS54005: OAuth2 Authorization code was already redeemed.");
    }
    let verified = match &code.challenge {
        None => form.field("code_verifier").is_none(),
        Some(challenge) => form
            .field("code_verifier")
            .is_some_and(|verifier| URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())) == *challenge),
    };
    if code.expires_at <= now {
        return error(400, "invalid_grant", "AADSTS70008: The provided authorization code has expired.");
    }
    if code.client_id != client.id || form.field("redirect_uri") != Some(code.redirect_uri.as_str()) {
        return error(400, "invalid_grant", "AADSTS500112: The reply address does not match the one of the request.");
    }
    if !verified {
        return error(400, "invalid_grant", "AADSTS501481: The Code_Verifier does not match the code_challenge.");
    }
    let wanted = match wanted(form, &code.scopes) {
        Ok(wanted) => wanted,
        Err(response) => return response,
    };
    let family = Family {
        subject: Subject::User(code.user.clone()),
        client_id: client.id.clone(),
        scopes: code.scopes.clone(),
        nonce: code.nonce.clone(),
        revoked: false,
    };
    let number = inner.found(family);
    if let Some(code) = inner.codes.get_mut(form.field("code").unwrap_or_default()) {
        code.family = Some(number);
    }
    issue(state, &mut inner, client, number, wanted)
}

fn refresh(state: &State, client: &Client, form: &Form) -> Response {
    let mut inner = state.oauth.lock();
    let shown = form.field("refresh_token").unwrap_or_default();
    let Some(Refresh { family: number, used }) = inner.refresh.get_mut(shown) else {
        return error(400, "invalid_grant", "AADSTS9002313: The refresh token is malformed or invalid.");
    };
    let (number, was_used) = (*number, *used);
    *used = state.config.rotate_refresh_tokens;
    let Some(family) = inner.families.get_mut(&number) else {
        return error(400, "invalid_grant", "AADSTS50173: The grant is gone.");
    };
    if family.client_id != client.id {
        return error(400, "invalid_grant", "AADSTS700003: The token was issued to another client.");
    }
    if was_used {
        family.revoked = true;
    }
    if family.revoked {
        return error(400, "invalid_grant", "AADSTS50173: The provided grant has expired due to it being revoked.");
    }
    let wanted = match wanted(form, &family.scopes) {
        Ok(wanted) => wanted,
        Err(response) => return response,
    };
    issue(state, &mut inner, client, number, wanted)
}

/// The scopes that a token request names: a part of what was consented to. Of one resource only: see [`issue`].
fn wanted(form: &Form, consented: &[String]) -> Result<Option<Vec<String>>, Response> {
    let wanted: Option<Vec<String>> =
        form.field("scope").map(|scope| scope.split_whitespace().map(str::to_owned).collect());
    match wanted.iter().flatten().find(|scope| !consented.contains(scope)) {
        Some(more) => {
            let text = format!("AADSTS65001: The person has not consented to use the application with {more}.");
            Err(error(400, "invalid_grant", &text))
        }
        None => Ok(wanted),
    }
}

fn client_credentials(state: &State, client: &Client, form: &Form) -> Response {
    if client.secret.is_none() {
        return error(401, "invalid_client", "AADSTS7000218: A public client has no credentials of its own.");
    }
    let scope = form.field("scope").unwrap_or_default();
    let resource = scope.strip_suffix("/.default");
    let face = match resource {
        Some("https://outlook.office365.com" | "https://outlook.office.com" | "https://ps.outlook.com") => {
            Audience::Outlook
        }
        Some("https://graph.microsoft.com") => Audience::Graph,
        _ if scope == "mail" => Audience::Any,
        _ => {
            let text = "AADSTS1002012: Client credential flows must have a scope value with /.default suffixed to the resource.";
            return error(400, "invalid_scope", text);
        }
    };
    let of_graph = |role: &&String| ["Mail.", "User."].iter().any(|start| role.starts_with(start));
    let scopes = match face {
        Audience::Any => vec!["mail".to_owned()],
        Audience::Graph => {
            client.roles.iter().filter(of_graph).map(|role| format!("https://graph.microsoft.com/{role}")).collect()
        }
        Audience::Outlook => {
            let roles = client.roles.iter().filter(|role| !of_graph(role));
            roles.map(|role| format!("https://outlook.office365.com/{role}")).collect()
        }
    };
    let mut inner = state.oauth.lock();
    let number = inner.found(Family {
        subject: Subject::App(client.id.clone()),
        client_id: client.id.clone(),
        scopes,
        nonce: None,
        revoked: false,
    });
    issue(state, &mut inner, client, number, None)
}

impl Inner {
    fn found(&mut self, family: Family) -> u64 {
        self.next_family += 1;
        self.families.insert(self.next_family, family);
        self.next_family
    }
}

/// A family for a person who allowed a device.
pub fn issue_for_device(state: &State, client: &Client, user: String, scopes: Vec<String>) -> Response {
    let mut inner = state.oauth.lock();
    let number = inner.found(Family {
        subject: Subject::User(user),
        client_id: client.id.clone(),
        scopes,
        nonce: None,
        revoked: false,
    });
    issue(state, &mut inner, client, number, None)
}

/// `scopes`: fewer than the family's, in a refresh.
fn issue(state: &State, inner: &mut Inner, client: &Client, number: u64, scopes: Option<Vec<String>>) -> Response {
    let Some(family) = inner.families.get(&number).cloned() else {
        return error(500, "server_error", "The grant is gone.");
    };
    let scopes = scopes.unwrap_or_else(|| family.scopes.clone());
    if audience(&scopes).is_none() {
        let text = "AADSTS28000: Provided value for the input parameter scope is not valid because it contains more than one resource.";
        return error(400, "invalid_request", text);
    }
    let now = state.now().unix_timestamp();
    let lifetime = client.token_lifetime.unwrap_or(state.config.token_lifetime);
    let access_token = random();
    let mut answer = json!({
        "token_type": "Bearer",
        "expires_in": lifetime,
        "access_token": access_token,
        "scope": scopes.iter().filter(|scope| *scope != "offline_access").cloned().collect::<Vec<_>>().join(" "),
    });
    let is_person = matches!(family.subject, Subject::User(_));
    if is_person && family.scopes.iter().any(|scope| scope == "offline_access") {
        let refresh_token = random();
        answer["refresh_token"] = refresh_token.as_str().into();
        inner.refresh.insert(refresh_token, Refresh { family: number, used: false });
    }
    if let (Subject::User(address), true) = (&family.subject, scopes.iter().any(|scope| scope == "openid")) {
        let mut claims = claims(state, address);
        claims["iss"] = state.base_url().into();
        claims["aud"] = client.id.as_str().into();
        claims["iat"] = now.into();
        claims["exp"] = (now + lifetime.max(300) as i64).into();
        if let Some(nonce) = &family.nonce {
            claims["nonce"] = nonce.as_str().into();
        }
        answer["id_token"] = state.oauth.signer.jwt(&claims).into();
    }
    inner.access.insert(access_token, Access { family: number, scopes, expires_at: now + lifetime as i64 });
    inner.access.retain(|_, access| access.expires_at > now - 86_400);
    Response::json(200, &answer).header("Cache-Control", "no-store")
}
