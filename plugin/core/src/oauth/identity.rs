//! Who consented? A helpdesk must not read the personal mail of whoever happened to be signed in to the browser.
//!
//! Fails closed: each claim is read by itself, whatever its JSON type, and a claim that cannot be checked is a refusal.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization;
use url::Host;

use super::{discovery::issuer_matches, failure::provider_text};
use crate::{
    clock::UnixSeconds,
    error::{Error, Kind, Result, Who},
    limits,
    net::http::HttpAnswer,
    settings::{Account, Client},
};

/// Claims of an ID token or of the userinfo endpoint (OpenID Connect Core 2 and 5.1).
#[derive(Debug, Default)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// Reads and checks an ID token (OpenID Connect Core 3.1.3.7). It came from the token endpoint itself over TLS, which
    /// replaces the check of its signature (rule 6). `None`: it is encrypted (RFC 7516), which says nothing about anybody.
    ///
    /// # Errors
    /// `Refused`: it is neither a JWT nor a JWE, another server made it, it is for another client or request, or it has
    /// expired.
    pub fn of_id_token(token: &str, client: &Client, nonce: Option<&str>, now: UnixSeconds) -> Result<Option<Self>> {
        let claims = match Jwt::parse(token) {
            Some(Jwt::Encrypted) => return Ok(None),
            // Core section 2: never to a client that did not ask for it. Whoever sends it does not vouch for its words.
            Some(Jwt::Unsigned(_)) => return Err(foreign("is not signed (alg none)")),
            Some(Jwt::Signed(claims)) => claims,
            None => return Err(foreign("cannot be read: it is neither a signed nor an encrypted JWT")),
        };
        claims.check_issuer(client, true)?;
        claims.check_audience(client)?;
        claims.check_expiry(now)?;
        if let Some(wanted) = nonce {
            match claims.claim("nonce") {
                Some(Value::String(given)) if given == wanted => {}
                None => return Err(without_nonce()),
                Some(_) => return Err(foreign("was made for another consent")),
            }
        }
        Ok(Some(claims))
    }

    /// What the userinfo endpoint returned: a JSON object, or a JWT (Core 5.3.2), whose issuer, audience and expiry are
    /// checked where it has them. `None`: nothing that can be read.
    ///
    /// # Errors
    /// `Refused`: a JWT of another server, for another client, or one that has expired or is damaged.
    pub fn of_userinfo(answer: &HttpAnswer, client: &Client, now: UnixSeconds) -> Result<Option<Self>> {
        if let Some(claims) = answer.json() {
            return Ok(Some(Self(claims)));
        }
        let text = std::str::from_utf8(&answer.body).unwrap_or_default().trim();
        // A JSON string around it is a frequent slip of frameworks.
        let text = text.trim_matches('"');
        let is_jwt = answer.content_type.as_deref().is_some_and(|kind| kind.trim().starts_with("application/jwt"));
        let claims = match Jwt::parse(text) {
            Some(Jwt::Encrypted) => return Ok(None),
            // As good as the plain JSON that is taken above: both came over TLS from the configured place.
            Some(Jwt::Signed(claims) | Jwt::Unsigned(claims)) => claims,
            None if is_jwt => return Err(foreign("cannot be read: it is neither a signed nor an encrypted JWT")),
            None => return Ok(None),
        };
        if claims.claim("iss").is_some() {
            claims.check_issuer(client, false)?;
        }
        if claims.claim("aud").is_some() {
            claims.check_audience(client)?;
        }
        if claims.claim("exp").is_some() {
            claims.check_expiry(now)?;
        }
        Ok(Some(claims))
    }

    /// Is this the userinfo of the ID token's subject (OpenID Connect Core 5.3.2)?
    pub fn is_same_subject(&self, other: &Self) -> bool {
        match (self.claim("sub"), other.claim("sub")) {
            (Some(one), Some(other)) => scalar(one).is_some() && scalar(one) == scalar(other),
            _ => true,
        }
    }

    /// The names the provider gives the person, those first that a person recognises. A list is a list of names.
    pub fn names(&self) -> Vec<String> {
        // Whatever is there and does not say yes counts as no.
        let is_verified = self
            .claim("email_verified")
            .is_none_or(|said| scalar(said).is_some_and(|said| said.eq_ignore_ascii_case("true") || said == "1"));
        // `upn` and `unique_name` are Microsoft's.
        ["email", "emails", "preferred_username", "upn", "unique_name"]
            .into_iter()
            .filter(|name| is_verified || !name.starts_with("email"))
            .filter_map(|name| self.claim(name))
            .flat_map(texts)
            .filter(|name| !name.is_empty())
            .take(limits::IDENTITY_NAMES_MAX)
            .collect()
    }

    /// `null` is a claim that is not there.
    fn claim(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn check_issuer(&self, client: &Client, is_required: bool) -> Result<()> {
        let tenant = self.claim("tid").and_then(Value::as_str);
        let is_right = match (&client.issuer, self.claim("iss")) {
            (Some(expected), Some(Value::String(iss))) => issuer_matches(expected, iss, tenant),
            (None, Some(Value::String(iss))) => !iss.is_empty(),
            (Some(_), None) => !is_required,
            // Nothing is configured that it could be compared with.
            (None, None) => true,
            (_, Some(_)) => false,
        };
        match is_right {
            true => Ok(()),
            false => Err(foreign("was issued by another authorization server than the configured one")),
        }
    }

    /// Rules 3 to 5.
    fn check_audience(&self, client: &Client) -> Result<()> {
        let is_us = |value: &Value| value.as_str() == Some(client.client_id.as_str());
        let (is_ours, parties) = match self.claim("aud") {
            Some(Value::Array(many)) => (many.iter().any(is_us), many.len()),
            Some(one) => (is_us(one), 1),
            None => (false, 0),
        };
        let is_other_party = match self.claim("azp") {
            Some(azp) => !is_us(azp),
            None => parties > 1,
        };
        match is_ours && !is_other_party {
            true => Ok(()),
            false => Err(foreign("was made for another client")),
        }
    }

    fn check_expiry(&self, now: UnixSeconds) -> Result<()> {
        let end = self.claim("exp").and_then(Value::as_f64).map(|end| end as UnixSeconds);
        match end.is_some_and(|end| end.saturating_add(limits::ID_TOKEN_SKEW) >= now) {
            true => Ok(()),
            false => Err(foreign("has expired, does not say when it expires, or this machine's clock is wrong")),
        }
    }
}

/// RFC 7519, by its form alone.
enum Jwt {
    Signed(Claims),
    /// `alg` is `none`, or there is no signature.
    Unsigned(Claims),
    Encrypted,
}

impl Jwt {
    fn parse(token: &str) -> Option<Self> {
        let parts: Vec<_> = token.split('.').take(6).collect();
        let header = part(parts.first()?)?;
        // RFC 7515 4.1.1 and RFC 7516 4.1.1: REQUIRED.
        let algorithm = header.get("alg").and_then(Value::as_str).filter(|name| !name.is_empty())?;
        match parts[..] {
            [_, payload, signature] => {
                let claims = Claims(part(payload)?);
                let is_signed = !algorithm.eq_ignore_ascii_case("none") && !signature.is_empty();
                Some(if is_signed { Self::Signed(claims) } else { Self::Unsigned(claims) })
            }
            [_, _, _, ciphertext, _] if !ciphertext.is_empty() => {
                header.get("enc").and_then(Value::as_str).map(|_| Self::Encrypted)
            }
            _ => None,
        }
    }
}

fn part(text: &str) -> Option<Map<String, Value>> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&json).ok()
}

/// A text, or a number as text: database ids come as either.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// All names in a claim: one, a list of them, or objects that hold one (SCIM's `value`, RFC 7643 2.4).
fn texts(value: &Value) -> Vec<String> {
    let entries: Vec<_> = match value {
        Value::Array(many) => many.iter().take(limits::IDENTITY_NAMES_MAX).filter_map(entry).collect(),
        one => entry(one).into_iter().collect(),
    };
    // LemonLDAP::NG joins the values of an attribute by `; ` where they are not sent as a list.
    let apart = |text: &String| text.split([';', ',']).map(|name| name.trim().to_owned()).collect::<Vec<_>>();
    entries.iter().flat_map(|text| if text.contains('@') { apart(text) } else { vec![text.clone()] }).collect()
}

fn entry(value: &Value) -> Option<String> {
    match value {
        Value::Object(fields) => ["value", "address", "email"].into_iter().find_map(|name| scalar(fields.get(name)?)),
        Value::Bool(_) => None,
        one => scalar(one),
    }
}

/// The name under which the consenting person is the wanted one. A login name says nothing about an address, nor the
/// other way round: then nothing is known.
///
/// # Errors
/// The name of the other person.
pub(super) fn matching(names: &[String], account: &Account) -> Result<Option<String>, String> {
    let wanted = canonical(&account.consenting_user);
    match names.iter().find(|name| canonical(name) == wanted) {
        Some(name) => Ok(Some(name.clone())),
        None => {
            let comparable = names.iter().find(|name| name.contains('@') == wanted.contains('@'));
            comparable.map_or(Ok(None), |other| Err(other.clone()))
        }
    }
}

/// One spelling for all that are surely the same name: no case, composed characters (NFC), the domain as A-labels (RFC
/// 5890), and Gmail's two domains and dots (Google, "Dots don't matter in Gmail addresses").
fn canonical(name: &str) -> String {
    let name: String = name.trim().to_lowercase().nfc().collect();
    let Some((local, domain)) = name.rsplit_once('@') else { return name };
    let domain = domain.trim_end_matches('.');
    let domain = match domain.is_ascii() {
        true => domain.to_owned(),
        false => Host::parse(domain).map_or_else(|_| domain.to_owned(), |host| host.to_string()),
    };
    match domain.as_str() {
        "gmail.com" | "googlemail.com" => format!("{}@gmail.com", local.replace('.', "")),
        _ => format!("{local}@{domain}"),
    }
}

pub(super) fn wrong_person(actual: &str, account: &Account) -> Error {
    let (actual, wanted) = (provider_text(actual, &[]), &account.consenting_user);
    Error::new(Kind::Refused, format!("The consent was given by {actual}, but these settings are for {wanted}."))
        .remedy(format!(
            "Start the consent again and sign in as {wanted} (in a private window, or after signing out {actual}). If \
             {actual} is the same mailbox under another name, or shall act for the mailbox {}, name {actual} as the \
             consenting user under advanced.",
            account.username
        ))
        .who(Who::MailboxOwner)
}

fn foreign(why: &str) -> Error {
    Error::new(Kind::Refused, format!("The provider's statement about who signed in {why}."))
        .remedy("Start the consent again; if it happens again, check the issuer, Client ID and Access Token URL.")
        .who(Who::HelpdeskAdministrator)
}

/// Seen at Doorkeeper, whose unchanged consent page does not pass the nonce on.
fn without_nonce() -> Error {
    Error::new(
        Kind::Refused,
        "The provider left the nonce out of its ID token, so the token cannot be tied to this consent.",
    )
    .remedy(
        "Have the provider's server return the nonce that it was sent. Or remove openid from Scope: the provider then \
         does not say who signed in, and the mail server's acceptance of the username decides.",
    )
    .who(Who::HelpdeskAdministrator)
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
