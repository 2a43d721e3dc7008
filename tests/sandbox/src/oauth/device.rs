//! The device grant (RFC 8628).

use serde_json::json;

use super::{
    authorize::{Goal, Interaction, begin as begin_pages},
    error, pages, random, token,
};
use crate::{
    config::Client,
    http::{Form, Request, Response},
    state::State,
};

/// No vowels and no look-alikes (RFC 8628 section 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Seconds between two questions; the RFC's default of 5 would only make tests slow.
const INTERVAL: i64 = 1;

pub struct Device {
    client_id: String,
    scopes: Vec<String>,
    user_code: String,
    expires_at: i64,
    asked_at: Option<i64>,
    decision: Decision,
}

enum Decision {
    Pending,
    Denied,
    Allowed(String),
}

/// The device authorization endpoint.
pub fn begin(state: &State, request: &Request) -> Response {
    let form = request.form();
    let client = match token::authenticate(state, request, &form) {
        Ok(client) => client,
        Err(response) => return response,
    };
    let scopes: Vec<_> = form.field("scope").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    if scopes.is_empty() {
        return error(400, "invalid_scope", "AADSTS900144: The request must contain the parameter scope.");
    }
    let letters: String =
        random().bytes().take(8).map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).collect();
    let user_code = format!("{}-{}", &letters[..4], &letters[4..]);
    let (device_code, base) = (random(), state.base_url());
    let expires_at = state.now().unix_timestamp() + state.config.code_lifetime as i64;
    state.oauth.lock().devices.insert(
        device_code.clone(),
        Device {
            client_id: client.id.clone(),
            scopes,
            user_code: user_code.clone(),
            expires_at,
            asked_at: None,
            decision: Decision::Pending,
        },
    );
    Response::json(
        200,
        &json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": format!("{base}/device"),
            "verification_uri_complete": format!("{base}/device?user_code={user_code}"),
            "expires_in": state.config.code_lifetime,
            "interval": INTERVAL,
            "message": format!("Open {base}/device and enter the code {user_code}."),
        }),
    )
}

pub fn page(request: &Request, wrong: Option<&str>) -> Response {
    pages::device(request.parameter("user_code").unwrap_or_default(), false, wrong)
}

/// The code was typed in; then the person says that it is the one of the device; then come sign-in and consent.
pub fn enter(state: &State, request: &Request) -> Response {
    let form = request.form();
    let typed = form.field("user_code").unwrap_or_default().trim().to_ascii_uppercase();
    let now = state.now().unix_timestamp();
    let interaction = {
        let inner = state.oauth.lock();
        let mut devices = inner.devices.iter();
        let found = devices.find(|(_, device)| device.user_code == typed && device.expires_at > now);
        found.filter(|(_, device)| matches!(device.decision, Decision::Pending)).map(|(device_code, device)| {
            Interaction {
                client_id: device.client_id.clone(),
                scopes: device.scopes.clone(),
                goal: Goal::Device { device_code: device_code.clone() },
                login_hint: String::new(),
                user: None,
            }
        })
    };
    match interaction {
        None => page(request, Some("This code is unknown, used or over.")),
        Some(_) if form.field("confirm") != Some("yes") => pages::device(&typed, true, None),
        Some(interaction) => begin_pages(&state.oauth, interaction),
    }
}

/// `user` is who allowed it.
pub fn decide(state: &State, device_code: &str, user: Option<String>) -> Response {
    let allowed = user.is_some();
    if let Some(device) = state.oauth.lock().devices.get_mut(device_code) {
        device.decision = user.map_or(Decision::Denied, Decision::Allowed);
    }
    if allowed {
        Response::redirect("/device/done")
    } else {
        pages::message(200, "Denied", "The device was not connected.")
    }
}

/// The device asks at the token endpoint (RFC 8628 section 3.5).
pub fn poll(state: &State, client: &Client, form: &Form) -> Response {
    let mut inner = state.oauth.lock();
    let now = state.now().unix_timestamp();
    let code = form.field("device_code").unwrap_or_default();
    let Some(device) = inner.devices.get_mut(code).filter(|device| device.client_id == client.id) else {
        return error(400, "invalid_grant", "AADSTS9002313: The device code is unknown.");
    };
    let too_fast = device.asked_at.replace(now).is_some_and(|asked| now - asked < INTERVAL);
    match &device.decision {
        _ if device.expires_at <= now => error(400, "expired_token", "AADSTS70020: The device code has expired."),
        Decision::Pending if too_fast => error(400, "slow_down", "Ask less often."),
        Decision::Pending => error(400, "authorization_pending", "AADSTS70016: Authorization is pending."),
        Decision::Denied => error(400, "access_denied", "AADSTS65004: The person declined to consent."),
        Decision::Allowed(user) => {
            let (user, scopes) = (user.clone(), device.scopes.clone());
            inner.devices.remove(code);
            drop(inner);
            token::issue_for_device(state, client, user, scopes)
        }
    }
}
