//! XOAUTH2 and OAUTHBEARER (RFC 7628) for IMAP and SMTP.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::state::{Audience, State};

/// The mailbox that is opened by `data`, the client's first message after base64.
///
/// # Errors
/// Base64 of the refusal's details, for the client to acknowledge.
pub fn login(state: &State, data: &[u8], face: Audience, scopes: &[&str]) -> Result<String, String> {
    let refused = |_| {
        let details = json!({"status": "400", "schemes": "Bearer", "scope": format!("https://outlook.office365.com/{}", scopes[0])});
        STANDARD.encode(details.to_string())
    };
    let text = String::from_utf8_lossy(data);
    let (mut user, mut token) = ("", "");
    for field in text.split('\x01') {
        if let Some(name) = field.strip_prefix("user=") {
            user = name;
        } else if let Some(rest) = field.strip_prefix("n,") {
            // The GS2 header: n,a=USER,
            user = rest.trim_end_matches(',').trim_start_matches("a=");
        } else if let Some((scheme, shown)) = field.strip_prefix("auth=").and_then(|rest| rest.split_once(' '))
            && scheme.eq_ignore_ascii_case("bearer")
        {
            token = shown.trim();
        }
    }
    let bearer = state.oauth.holder(state, token, face).map_err(refused)?;
    if !bearer.may(scopes) || !state.may_open(&bearer.subject, user) {
        return Err(refused(""));
    }
    Ok(user.to_owned())
}
