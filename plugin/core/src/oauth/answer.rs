//! Reading what a token endpoint answers: tokens, leniently; refusals, into who must do what.
//!
//! A decision is only ever taken on `error` and the HTTP status, never on a number or a description: Microsoft asks for
//! it (its reference of error codes), and the rest of the world has no numbers.

use std::fmt;

use oauth2::{RefreshToken, Scope, basic::BasicTokenType};
use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use serde_json::Value;

use super::failure::{Failure, provider_text};
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
    #[serde(default)]
    refresh_token: Option<RefreshToken>,
    /// Google, for grants that end (`refresh_token_expires_in`).
    #[serde(default, deserialize_with = "seconds")]
    refresh_token_expires_in: Option<u64>,
    #[serde(default, rename = "scope", deserialize_with = "scope_list")]
    scopes: Option<Vec<Scope>>,
    #[serde(default)]
    id_token: Option<IdToken>,
}

impl TokenAnswer {
    pub fn id_token(&self) -> Option<&str> {
        self.id_token.as_ref().map(|token| token.0.as_str())
    }

    pub fn refresh_token_expires_in(&self) -> Option<u64> {
        self.refresh_token_expires_in
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
    let text = Option::<String>::deserialize(deserializer)?.map(|text| text.to_ascii_lowercase());
    Ok(match text.as_deref() {
        None | Some("" | "bearer") => BasicTokenType::Bearer,
        Some(other) => BasicTokenType::Extension(other.to_owned()),
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

/// RFC 6749 5.2, with what Microsoft and Google add.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default, deserialize_with = "text")]
    error: Option<String>,
    #[serde(default, deserialize_with = "text")]
    error_description: Option<String>,
    #[serde(default, deserialize_with = "numbers")]
    error_codes: Vec<u32>,
    #[serde(default, deserialize_with = "text", alias = "error_subtype")]
    suberror: Option<String>,
    #[serde(default, deserialize_with = "text")]
    trace_id: Option<String>,
    #[serde(default, deserialize_with = "text")]
    correlation_id: Option<String>,
    #[serde(default, deserialize_with = "text")]
    timestamp: Option<String>,
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Loose {
        Text(String),
        Other(IgnoredAny),
    }
    Ok(match Loose::deserialize(deserializer)? {
        Loose::Text(text) if !text.is_empty() => Some(text),
        Loose::Text(_) | Loose::Other(_) => None,
    })
}

/// However they are written: they only improve the wording, and must not hide the code beside them.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    let list = match Value::deserialize(deserializer)? {
        Value::Array(list) => list,
        one => vec![one],
    };
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())?.try_into().ok();
    Ok(list.iter().filter_map(number).collect())
}

/// Which request the answer is to: the same refusal of a code and of a refresh token sends different people.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Code,
    Refresh,
}

/// `None`: the answer holds tokens. `secrets` are what the request carried.
pub(super) fn refusal(answer: &HttpAnswer, host: &str, asked: Asked, secrets: &[&str]) -> Option<Failure> {
    let said = answer.json::<Refusal>();
    // Some servers refuse with status 200.
    if answer.is_success() && said.as_ref().is_some_and(|said| said.error.is_none()) {
        return None;
    }
    let code = said.as_ref().and_then(|said| said.error.clone());
    let mut failure = match (answer.status, code.as_deref()) {
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
            format!("{host} answered with HTTP {status} and no reason."),
            "Check Access Token URL; a firewall or proxy may be answering in the provider's place.",
        ),
    };
    failure.retry_after = answer.retry_after;
    describe(&mut failure, answer, said.unwrap_or_default(), secrets);
    Some(failure)
}

/// By the `error` alone, whatever came with it.
pub(super) fn coded(code: &str, host: &str, asked: Asked) -> Failure {
    match remedies::by_error(code, asked == Asked::Code) {
        Some(remedy) => Failure::known(remedy, host),
        None => Failure::new(
            Kind::AdminRequired,
            format!("{host} refused."),
            "The tenant administrator looks the code up at the provider.",
        ),
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

/// Adds the provider's words, ids and, for known numbers, better advice.
fn describe(failure: &mut Failure, answer: &HttpAnswer, said: Refusal, secrets: &[&str]) {
    let clean = |text: &str| provider_text(text, secrets);
    if let Some(code) = &said.error {
        let mut words = clean(code);
        let numbers: Vec<_> = said.error_codes.iter().take(8).map(|number| format!("AADSTS{number}")).collect();
        let details: Vec<_> = numbers.into_iter().chain(said.suberror.as_deref().map(&clean)).collect();
        if !details.is_empty() {
            words = format!("{words} ({})", details.join(", "));
        }
        if let Some(description) = said.error_description.as_deref().map(&clean).filter(|text| !text.is_empty()) {
            words = format!("{words}: {description}");
        }
        failure.words.provider_code = Some(words);
    } else if !answer.is_success() {
        failure.words.provider_code = Some(format!("HTTP {}", answer.status));
    }
    let ids: Vec<_> =
        [("trace_id", &said.trace_id), ("correlation_id", &said.correlation_id), ("timestamp", &said.timestamp)]
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", clean(value.as_deref()?))))
            .chain(answer.correlation.as_deref().map(&clean))
            .collect();
    if !ids.is_empty() {
        failure.words.correlation = Some(ids.join(" "));
    }
    // While the provider is busy nobody has to act, whatever else it says.
    if !failure.is_transient()
        && let Some(remedy) = particular(&said)
    {
        failure.words.advise(remedy);
    }
}

/// Better advice than the `error` has, for what Microsoft and Google say beside it. It never changes what is done.
fn particular(said: &Refusal) -> Option<Remedy> {
    let description = said.error_description.as_deref().unwrap_or_default();
    let mut numbers = said.error_codes.iter().copied().chain(numbers_in(description));
    numbers.find_map(remedies::by_aadsts).or_else(|| remedies::by_suberror(said.suberror.as_deref()?))
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
