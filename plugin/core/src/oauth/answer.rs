//! Reading what a token endpoint answers: tokens, leniently; refusals, into who must do what.
//!
//! What is done depends on what `error` means and on the HTTP status. A number or a description chooses the sentence
//! (Microsoft asks for that in its reference of error codes). One exception: an answer to a refresh that has no known code
//! is read for what it means, because many servers say only there that the refresh token has ended.

use std::fmt;

use oauth2::{RefreshToken, Scope, basic::BasicTokenType};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{
    failure::{Doubt, Failure, provider_text},
    said::{Said, meaning, speaks_of_a_dead_grant},
};
use crate::{
    error::Kind,
    limits,
    net::http::HttpAnswer,
    remedies::{self, Remedy},
};

/// RFC 6749 5.1, read as real servers write it: `expires_in` may be a string, `token_type` may be missing, `scope` may be
/// a list.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TokenAnswer {
    access_token: oauth2::AccessToken,
    #[serde(default = "bearer", deserialize_with = "token_type")]
    token_type: BasicTokenType,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
    #[serde(default, deserialize_with = "refresh_token")]
    refresh_token: Option<RefreshToken>,
    /// Google, for grants that end; Intuit writes `x_refresh_token_expires_in`.
    #[serde(default, deserialize_with = "seconds", alias = "x_refresh_token_expires_in")]
    refresh_token_expires_in: Option<u64>,
    /// Keycloak, for sign-ins that end with the session when they are not used; Okta and WSO2 write the others. Each of
    /// them slides with each renewal, or may.
    #[serde(default, deserialize_with = "seconds")]
    refresh_expires_in: Option<u64>,
    #[serde(default, deserialize_with = "seconds")]
    refresh_token_timeout: Option<u64>,
    #[serde(default, deserialize_with = "seconds")]
    authorization_expires_in: Option<u64>,
    #[serde(default, rename = "scope", deserialize_with = "scope_list")]
    scopes: Option<Vec<Scope>>,
    #[serde(default, deserialize_with = "id_token")]
    id_token: Option<IdToken>,
}

impl TokenAnswer {
    pub fn id_token(&self) -> Option<&str> {
        self.id_token.as_ref().map(|token| token.0.as_str())
    }

    pub fn refresh_token_expires_in(&self) -> Option<u64> {
        self.refresh_token_expires_in
    }

    /// After so many seconds without a renewal, or in all, the sign-in ends; the shortest one that was named.
    pub fn session_ends_in(&self) -> Option<u64> {
        [self.refresh_expires_in, self.refresh_token_timeout, self.authorization_expires_in].into_iter().flatten().min()
    }
}

impl oauth2::TokenResponse for TokenAnswer {
    type TokenType = BasicTokenType;

    fn access_token(&self) -> &oauth2::AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &BasicTokenType {
        &self.token_type
    }

    fn expires_in(&self) -> Option<std::time::Duration> {
        self.expires_in.map(std::time::Duration::from_secs)
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh_token.as_ref().filter(|token| !token.secret().is_empty())
    }

    fn scopes(&self) -> Option<&Vec<Scope>> {
        self.scopes.as_ref()
    }
}

/// OpenID Connect Core 3.1.3.3.
#[derive(Serialize, Deserialize)]
struct IdToken(String);

impl fmt::Debug for IdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdToken([redacted])")
    }
}

fn bearer() -> BasicTokenType {
    BasicTokenType::Bearer
}

fn token_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BasicTokenType, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let first = value.as_array().and_then(|list| list.first()).unwrap_or(&value);
    let text = first.as_str().map(|text| text.trim().to_ascii_lowercase());
    Ok(match text.as_deref() {
        None | Some("" | "bearer") => BasicTokenType::Bearer,
        Some(other) => BasicTokenType::Extension(other.to_owned()),
    })
}

/// What is not a text is not a token: `false` and `{}` stand for none.
fn refresh_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RefreshToken>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(RefreshToken::new(text)),
        _ => None,
    })
}

/// Of another type it is kept as text: whoever reads it refuses it.
fn id_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IdToken>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) => (!text.is_empty()).then_some(IdToken(text)),
        other => Some(IdToken(other.to_string())),
    })
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    // Absurd lifetimes saturate. What cannot be read counts as not said, and so does none at all: a token that were over
    // when it came would be renewed at every use.
    let number = number.filter(|number| number.is_finite() && *number >= 1.0);
    Ok(number.map(|number| (number as u64).min(limits::TOKEN_LIFETIME_MAX as u64)))
}

fn scope_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Scope>>, D::Error> {
    let scope = |text: &str| Scope::new(text.to_owned());
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text.split_whitespace().map(scope).collect()),
        Value::Array(list) => Some(list.iter().filter_map(Value::as_str).map(scope).collect()),
        _ => None,
    })
}

/// Which request the answer is to: the same refusal of a code and of a refresh token sends different people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// An authorization code was redeemed, or a consent was declined.
    Code,
    /// A device code was asked for, or polled.
    Device,
    Refresh,
    /// Nobody's: of the application itself.
    Application,
    Revocation,
}

/// `None`: the answer holds tokens. `secrets` are what the request carried.
pub(super) fn refusal(answer: &HttpAnswer, host: &str, asked: Asked, secrets: &[&str]) -> Option<Failure> {
    let said = Said::read(answer);
    // Some servers refuse with status 200.
    if answer.is_success() && said.is_object && said.code.is_none() {
        return None;
    }
    let mut failure = match (answer.status, said.code.as_deref()) {
        (429, _) => throttled(host),
        (408 | 425 | 500.., _) => unwell(host, answer.status),
        (_, Some(code)) => coded(code, host, asked),
        (200..300, None) => Failure::new(
            Kind::ServerMisbehaved,
            format!("{host} answered with something that is no token answer."),
            "Check that Access Token URL is the provider's token endpoint, and that no proxy or portal answers in its place.",
        ),
        (300..400, None) => Failure::field(
            "/access_token_url",
            "Access Token URL",
            format!("{host} answers here with a redirect; enter the address of the token endpoint itself."),
        ),
        (404 | 405 | 410, None) => Failure::field(
            "/access_token_url",
            "Access Token URL",
            format!("{host} has no token endpoint at this address (HTTP {}).", answer.status),
        ),
        (status, None) => Failure::new(
            Kind::ServerMisbehaved,
            format!("{host} answered with HTTP {status} and no code."),
            "Check Access Token URL; a firewall or proxy may be answering in the provider's place.",
        ),
    };
    failure.retry_after = answer.retry_after;
    failure.doubt = doubt(answer.status, &said, &failure, asked);
    failure.code = said.code.as_deref().map(meaning);
    failure.refuses_client = match failure.code.as_deref() {
        Some(code) => ["invalid_client", "unauthorized_client"].contains(&code) && !failure.is_transient(),
        None => said.is_silent && matches!(answer.status, 401 | 403),
    };
    describe(&mut failure, answer, &said, secrets);
    Some(failure)
}

/// By the `error` alone, whatever came with it.
pub(super) fn coded(code: &str, host: &str, asked: Asked) -> Failure {
    let of_code = matches!(asked, Asked::Code | Asked::Device);
    let code = match (meaning(code).as_str(), asked) {
        // That is said of device codes (RFC 8628 3.5); of anything else it means what invalid_grant means.
        ("expired_token", Asked::Code | Asked::Refresh) => "invalid_grant".to_owned(),
        // RFC 6750 3.1 has it for access tokens; here it can only mean the refresh token.
        ("invalid_token", Asked::Code | Asked::Refresh) => "invalid_grant".to_owned(),
        (other, _) => other.to_owned(),
    };
    match remedies::by_error(&code, of_code) {
        Some(remedy) => Failure::known(remedy, host),
        None => Failure::new(
            Kind::AdminRequired,
            format!("{host} refused."),
            "The tenant administrator looks the code up at the provider.",
        ),
    }
}

/// Could this refusal of a refresh mean that the sign-in has ended, although its code does not say so?
fn doubt(status: u16, said: &Said, failure: &Failure, asked: Asked) -> Option<Doubt> {
    let code = said.code.as_deref().map(meaning).unwrap_or_default();
    let has_meaning = remedies::knows(&code) && code != "invalid_request";
    let is_about_something_else = failure.is_transient() || failure.kind == Kind::ConsentRequired || has_meaning;
    if asked != Asked::Refresh || !matches!(status, 400 | 401 | 403) || is_about_something_else {
        return None;
    }
    let speaks = |text: &Option<String>| text.as_deref().is_some_and(speaks_of_a_dead_grant);
    // 400 says that the request is bad, and of a request that was good before only the refresh token can be (glewlwyd).
    match (status == 400 && said.is_silent) || speaks(&said.code) || speaks(&said.description) {
        true => Some(Doubt::Likely),
        false => Some(Doubt::Possible),
    }
}

fn throttled(host: &str) -> Failure {
    Failure::new(
        Kind::Throttled,
        format!("{host} asks to slow down."),
        "Nothing has to be done: it is tried again after a pause.",
    )
}

fn unwell(host: &str, status: u16) -> Failure {
    Failure::new(
        Kind::Transient,
        format!("{host} cannot answer at the moment (HTTP {status})."),
        "Nothing has to be done: it is tried again after a pause.",
    )
}

/// Adds the provider's words, ids and, for known numbers, a better sentence.
fn describe(failure: &mut Failure, answer: &HttpAnswer, said: &Said, secrets: &[&str]) {
    let clean = |text: &str| provider_text(text, secrets);
    let description = said.description.as_deref().map(&clean).filter(|text| !text.is_empty());
    let mut words = match &said.code {
        Some(code) => clean(code),
        None => format!("HTTP {}", answer.status),
    };
    let numbers: Vec<_> = said.numbers.iter().take(8).map(|number| format!("AADSTS{number}")).collect();
    let details: Vec<_> = numbers.into_iter().chain(said.details.iter().map(|detail| clean(detail))).collect();
    if !details.is_empty() {
        words = format!("{words} ({})", details.join(", "));
    }
    if let Some(description) = description {
        words = format!("{words}: {description}");
    }
    if said.code.is_some() || !answer.is_success() {
        failure.words.provider_code = Some(words);
    }
    let ids: Vec<_> = said
        .ids
        .iter()
        .map(|(name, value)| format!("{name}={}", clean(value)))
        .chain(answer.correlation.as_deref().map(&clean))
        .collect();
    if !ids.is_empty() {
        failure.words.correlation = Some(ids.join(" "));
    }
    if let Some(remedy) = particular(said) {
        failure.specify(remedy);
    }
}

/// A better sentence than the `error` has, for what Microsoft and Google say beside it.
fn particular(said: &Said) -> Option<Remedy> {
    let description = said.description.as_deref().unwrap_or_default();
    let mut numbers = said.numbers.iter().copied().chain(numbers_in(description));
    numbers
        .find_map(remedies::by_aadsts)
        .or_else(|| said.details.iter().find_map(|detail| remedies::by_suberror(detail)))
}

/// `AADSTS50105: …`: the redirect of a refused consent has the number only here.
pub(super) fn numbers_in(description: &str) -> impl Iterator<Item = u32> {
    description.split("AADSTS").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use oauth2::TokenResponse;
    use zeroize::Zeroizing;

    use super::*;

    fn answer(status: u16, body: &str) -> HttpAnswer {
        HttpAnswer {
            status,
            retry_after: None,
            content_type: None,
            content_encoding: None,
            location: None,
            date: None,
            correlation: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    fn kind_of(status: u16, body: &str) -> Option<Kind> {
        refusal(&answer(status, body), "idp.test", Asked::Refresh, &[]).map(|failure| failure.kind)
    }

    #[test]
    fn a_transient_fault_never_asks_for_a_new_consent() {
        for (status, body) in [
            (408, ""),
            (429, r#"{"error":"invalid_grant"}"#),
            (500, r#"{"error":"invalid_grant"}"#),
            (502, "<html>Bad Gateway</html>"),
            (503, ""),
            (504, "<html>"),
            (400, r#"{"error":"temporarily_unavailable"}"#),
            (400, r#"{"error":"server_error"}"#),
            (400, r#"{"error":"slow_down"}"#),
        ] {
            let failure = refusal(&answer(status, body), "idp.test", Asked::Refresh, &[]).unwrap();
            assert!(failure.is_transient(), "{status} {body}");
        }
        for (status, body) in
            [(200, "<html>portal"), (400, "<html>"), (403, "<html>"), (404, ""), (302, ""), (200, "[]")]
        {
            assert_ne!(kind_of(status, body), Some(Kind::ConsentRequired), "{status} {body}");
            assert!(kind_of(status, body).is_some(), "{status} {body}");
        }
    }

    #[test]
    fn each_code_goes_to_who_must_act() {
        for (code, kind) in [
            ("invalid_grant", Kind::ConsentRequired),
            ("interaction_required", Kind::ConsentRequired),
            ("consent_required", Kind::ConsentRequired),
            ("invalid_client", Kind::Settings),
            ("invalid_scope", Kind::Settings),
            ("unauthorized_client", Kind::AdminRequired),
            ("unsupported_grant_type", Kind::AdminRequired),
            ("never_heard_of", Kind::AdminRequired),
        ] {
            assert_eq!(kind_of(400, &format!(r#"{{"error":"{code}"}}"#)), Some(kind), "{code}");
            assert_eq!(kind_of(200, &format!(r#"{{"error":"{code}"}}"#)), Some(kind), "{code} with status 200");
        }
    }

    #[test]
    fn a_refusal_keeps_numbers_and_ids_and_loses_secrets() {
        let body = r#"{"error":"invalid_client","error_description":"AADSTS7000222: secret s3cr3t-canary expired",
            "error_codes":[7000222],"trace_id":"t-1","correlation_id":"c-2","suberror":"bad_token"}"#;
        let failure = refusal(&answer(401, body), "idp.test", Asked::Refresh, &["s3cr3t-canary"]).unwrap();
        let document = failure.to_error().to_json().to_string();
        for wanted in
            ["AADSTS7000222", "bad_token", "trace_id=t-1", "correlation_id=c-2", "/client_secret", "invalid_client"]
        {
            assert!(document.contains(wanted), "{wanted} in {document}");
        }
        assert!(!document.contains("canary"));
    }

    #[test]
    fn a_number_chooses_the_sentence_and_never_what_is_done() {
        for number in [53003, 7000222, 50057, 90033, 1] {
            let body = format!(r#"{{"error":"invalid_grant","error_codes":[{number}],"suberror":"message_only"}}"#);
            let failure = refusal(&answer(400, &body), "idp.test", Asked::Refresh, &[]).unwrap();
            assert_eq!(failure.kind, Kind::ConsentRequired, "{number}");
        }
        let said = |body: &str| refusal(&answer(400, body), "idp.test", Asked::Refresh, &[]).unwrap().to_error();
        let error = said(r#"{"error":"invalid_grant","error_description":"AADSTS53003: Access has been blocked."}"#);
        assert!(error.remedy_text().unwrap().contains("Conditional Access"));
        assert_eq!(error.link_text(), Some("https://login.microsoftonline.com/error?code=53003"));
        assert_eq!(error.who_acts(), crate::error::Who::TenantAdministrator);
        let error = said(r#"{"error":"invalid_grant","error_subtype":"invalid_rapt"}"#);
        assert!(error.remedy_text().unwrap().contains("session control"));
        let error = said(r#"{"error":"invalid_grant","error_codes":[123456789]}"#);
        assert!(error.provider_code_text().unwrap().contains("AADSTS123456789"), "an unknown number passes through");
    }

    #[test]
    fn odd_types_in_a_refusal_do_not_hide_its_code() {
        assert_eq!(
            kind_of(
                400,
                r#"{"error":"invalid_grant","error_description":{"x":1},"suberror":3,"error_codes":"7000222"}"#
            ),
            Some(Kind::ConsentRequired)
        );
    }

    #[test]
    fn tokens_are_read_as_real_servers_write_them() {
        let read = |body: &str| serde_json::from_str::<TokenAnswer>(body).unwrap();
        let answer = read(r#"{"access_token":"a","expires_in":"3599","scope":"x y","refresh_token":""}"#);
        assert_eq!(answer.expires_in().unwrap().as_secs(), 3599);
        assert_eq!(answer.token_type(), &BasicTokenType::Bearer);
        assert_eq!(answer.scopes().unwrap().len(), 2);
        assert!(answer.refresh_token().is_none());
        let answer =
            read(r#"{"access_token":"a","token_type":"BEARER","expires_in":-5,"scope":["x"],"refresh_token":null}"#);
        assert!(answer.expires_in().is_none());
        assert_eq!(answer.token_type(), &BasicTokenType::Bearer);
        assert!(read(r#"{"access_token":"a","expires_in":"soon"}"#).expires_in().is_none());
        assert!(!format!("{:?}", read(r#"{"access_token":"canary","id_token":"canary"}"#)).contains("canary"));
    }
}
