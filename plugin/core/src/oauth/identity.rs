//! Who consented? A helpdesk must not read the personal mail of whoever happened to be signed in to the browser.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{discovery::issuer_matches, failure::provider_text};
use crate::{
    clock::UnixSeconds,
    error::{Error, Kind, Result},
    limits,
    settings::{Account, Client},
};

/// Claims of an ID token or of the userinfo endpoint (OpenID Connect Core 2 and 5.1; upn and unique_name: Microsoft).
#[derive(Default, Deserialize)]
pub(super) struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    #[serde(default)]
    aud: Value,
    azp: Option<String>,
    #[serde(default)]
    exp: Value,
    nonce: Option<String>,
    tid: Option<String>,
    email: Option<String>,
    #[serde(default)]
    email_verified: Value,
    preferred_username: Option<String>,
    upn: Option<String>,
    unique_name: Option<String>,
}

impl Claims {
    /// Reads and checks an ID token (OpenID Connect Core 3.1.3.7). It came from the token endpoint itself over TLS, which
    /// stands in for its signature (rule 6). `None`: not readable (an encrypted one), which says nothing about anybody.
    ///
    /// # Errors
    /// `Refused` when it was made by another server, for another client or request, or has expired.
    pub fn of_id_token(token: &str, client: &Client, nonce: Option<&str>, now: UnixSeconds) -> Result<Option<Self>> {
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Ok(None);
        };
        // Core section 2: never to a client that did not ask for it. Whoever sends it does not stand behind its words.
        if part::<Header>(header).is_some_and(|header| header.alg.eq_ignore_ascii_case("none")) {
            return Err(foreign("is not signed (alg none)"));
        }
        let Some(claims) = part::<Self>(payload) else { return Ok(None) };
        if let Some(expected) = &client.issuer
            && !claims.iss.as_deref().is_some_and(|iss| issuer_matches(expected, iss, claims.tid.as_deref()))
        {
            return Err(foreign("was issued by another authorization server than the configured one"));
        }
        let audience: Vec<_> = match &claims.aud {
            Value::String(one) => vec![one.as_str()],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let is_ours = audience.contains(&client.client_id.as_str());
        // Rules 3 to 5.
        let is_other_party = match &claims.azp {
            Some(azp) => *azp != client.client_id,
            None => audience.len() > 1,
        };
        if !is_ours || is_other_party {
            return Err(foreign("was made for another client"));
        }
        if claims.exp.as_f64().is_none_or(|exp| exp as i64 + limits::ID_TOKEN_SKEW < now) {
            return Err(foreign("has expired, or this machine's clock is wrong"));
        }
        if nonce.is_some_and(|nonce| claims.nonce.as_deref() != Some(nonce)) {
            return Err(foreign("was made for another consent"));
        }
        Ok(Some(claims))
    }

    /// Is this the userinfo of the ID token's subject (OpenID Connect Core 5.3.2)?
    pub fn is_same_subject(&self, other: &Self) -> bool {
        self.sub.is_none() || other.sub.is_none() || self.sub == other.sub
    }

    /// The names the provider gives the person, those first that a person recognises.
    pub fn names(&self) -> Vec<&str> {
        let unverified = self.email_verified == Value::Bool(false) || self.email_verified == "false";
        [
            self.email.as_deref().filter(|_| !unverified),
            self.preferred_username.as_deref(),
            self.upn.as_deref(),
            self.unique_name.as_deref(),
        ]
        .into_iter()
        .flatten()
        .filter(|name| !name.trim().is_empty())
        .collect()
    }
}

/// JOSE header (RFC 7515 section 4), what is looked at of it.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    alg: String,
}

fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The name under which the consenting person is the wanted one. A login name says nothing about an address, nor the
/// other way round: then nothing is known.
///
/// # Errors
/// The name of the other person.
pub(super) fn matching<'a>(names: &[&'a str], account: &Account) -> Result<Option<&'a str>, &'a str> {
    let wanted = account.consenting_user.trim().to_lowercase();
    match names.iter().find(|name| name.trim().to_lowercase() == wanted) {
        Some(name) => Ok(Some(name)),
        None => {
            let comparable = names.iter().find(|name| name.contains('@') == wanted.contains('@'));
            comparable.map_or(Ok(None), |other| Err(*other))
        }
    }
}

pub(super) fn wrong_person(actual: &str, account: &Account) -> Error {
    let (actual, wanted) = (provider_text(actual, &[]), &account.consenting_user);
    Error::new(Kind::Refused, format!("The consent was given by {actual}, but these settings are for {wanted}."))
        .remedy(format!("Start the consent again and sign in as {wanted} (in a private window, or after signing out {actual}); if {actual} shall act for the mailbox {}, name that account as the consenting user under advanced.", account.username))
}

fn foreign(why: &str) -> Error {
    Error::new(Kind::Refused, format!("The provider's statement about who signed in {why}."))
        .remedy("Start the consent again; if it happens again, check the issuer, Client ID and Access Token URL.")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oauth::tests_support::account;

    fn id_token(claims: Value) -> String {
        format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn an_id_token_made_for_something_else_is_refused() {
        let mut account = account("https://idp.test");
        account.client.issuer = Some("https://idp.test".into());
        let good =
            json!({"iss": "https://idp.test", "aud": "client-1", "exp": 2000, "nonce": "n", "email": "a@b.test"});
        let read = |claims: Value| Claims::of_id_token(&id_token(claims), &account.client, Some("n"), 1000);
        assert!(read(good.clone()).unwrap().is_some());
        for (name, value) in [
            ("iss", json!("https://evil.test")),
            ("iss", Value::Null),
            ("aud", json!("client-2")),
            ("aud", json!(["client-2"])),
            ("aud", Value::Null),
            ("exp", json!(600)),
            ("exp", Value::Null),
            ("nonce", json!("other")),
            ("nonce", Value::Null),
        ] {
            let mut bad = good.clone();
            bad[name] = value.clone();
            let error = read(bad).err().unwrap_or_else(|| panic!("{name} {value} was taken"));
            assert_eq!(error.kind(), Kind::Refused);
        }
        let mut many = good.clone();
        many["aud"] = json!(["client-1", "x"]);
        assert!(read(many.clone()).is_err(), "of two audiences nobody says whose it is");
        many["azp"] = json!("x");
        assert!(read(many.clone()).is_err());
        many["azp"] = json!("client-1");
        assert!(read(many).is_ok());
        for alg in ["none", "None", "NONE"] {
            let header = BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string());
            let unsigned = id_token(good.clone()).replace("e30.", &format!("{header}."));
            assert!(Claims::of_id_token(&unsigned, &account.client, Some("n"), 1000).is_err(), "{alg}");
        }
        for unreadable in ["", "a.b", "a.b.c.d.e", "e30.%%%.x", "e30.e30=.x"] {
            let _ = Claims::of_id_token(unreadable, &account.client, Some("n"), 1000);
        }
    }

    #[test]
    fn names_are_compared_without_case_and_an_unverified_address_counts_for_nothing() {
        let account = account("https://idp.test");
        assert_eq!(matching(&["Helpdesk@Corp.TEST"], &account).unwrap(), Some("Helpdesk@Corp.TEST"));
        assert_eq!(matching(&["guid", "helpdesk@corp.test"], &account).unwrap(), Some("helpdesk@corp.test"));
        assert_eq!(matching(&[], &account).unwrap(), None);
        assert_eq!(matching(&["helpdesk"], &account).unwrap(), None);
        assert_eq!(matching(&["ceo@corp.test"], &account).unwrap_err(), "ceo@corp.test");
        let claims: Claims =
            serde_json::from_value(json!({"email": "helpdesk@corp.test", "email_verified": false, "upn": "x@y"}))
                .unwrap();
        assert_eq!(claims.names(), ["x@y"]);
    }
}
