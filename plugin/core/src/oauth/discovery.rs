//! Authorization server metadata (RFC 8414, OpenID Connect Discovery). Only ever fills what the settings leave open, and
//! only when they name an issuer; a server without it works as well.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use serde_json::{Map, Value};
use url::Url;

use super::failure::provider_text;
use crate::{
    clock::{Clock, Deadline, UnixSeconds},
    limits,
    log::Logger,
    net::Net,
    seam,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    pub issuer: String,
    pub userinfo_endpoint: Option<Url>,
    pub revocation_endpoint: Option<Url>,
    /// RFC 8628 section 4.
    pub device_authorization_endpoint: Option<Url>,
    /// `token_endpoint_auth_signing_alg_values_supported`.
    pub signing_algorithms: Option<Vec<String>>,
    /// `token_endpoint_auth_methods_supported`.
    pub client_methods: Option<Vec<String>>,
    /// RFC 9207 section 3.
    pub authorization_response_iss_parameter_supported: bool,
}

impl Metadata {
    /// Each member by itself: an odd one costs only itself. `None`: there is no issuer.
    fn read(document: &Map<String, Value>) -> Option<Self> {
        let url = |name: &str| {
            let url = Url::parse(document.get(name)?.as_str()?.trim()).ok()?;
            (url.scheme() == "https" && url.has_host()).then_some(url)
        };
        let list = |name: &str| match document.get(name)? {
            Value::Array(many) => Some(many.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            // One text in the place of a list of one.
            Value::String(text) => {
                Some(text.split([' ', ',']).filter(|part| !part.is_empty()).map(str::to_owned).collect())
            }
            _ => None,
        };
        Some(Self {
            issuer: document.get("issuer")?.as_str()?.to_owned(),
            userinfo_endpoint: url("userinfo_endpoint"),
            revocation_endpoint: url("revocation_endpoint"),
            device_authorization_endpoint: url("device_authorization_endpoint"),
            signing_algorithms: list("token_endpoint_auth_signing_alg_values_supported"),
            client_methods: list("token_endpoint_auth_methods_supported"),
            authorization_response_iss_parameter_supported: document
                .get("authorization_response_iss_parameter_supported")
                .is_some_and(|said| {
                    said == true || said.as_str().is_some_and(|said| said.eq_ignore_ascii_case("true"))
                }),
        })
    }
}

/// Asked once per issuer and day.
#[derive(Default)]
pub(super) struct Discovery(Mutex<HashMap<String, Known>>);

#[derive(Clone)]
struct Known {
    metadata: Option<Arc<Metadata>>,
    until: UnixSeconds,
}

impl Discovery {
    /// `None` when no issuer is configured, or when it could not be asked: never fatal.
    pub fn metadata(
        &self,
        issuer: Option<&str>,
        net: &Net,
        clock: &Clock,
        log: &Logger,
        deadline: Deadline,
    ) -> Option<Arc<Metadata>> {
        let issuer = issuer?;
        let now = clock.now();
        if let Some(known) = self.lock().get(issuer).filter(|known| known.until > now) {
            return known.metadata.clone();
        }
        let found = ask(issuer, net, deadline.at_most(limits::DISCOVERY_TIMEOUT));
        let known = match found {
            Ok(metadata) => Known { metadata: Some(Arc::new(metadata)), until: now + limits::DISCOVERY_LIFETIME },
            Err(why) => {
                log.info(format_args!("The metadata of the issuer could not be used ({why}); going on without."));
                Known { metadata: None, until: now + limits::DISCOVERY_RETRY }
            }
        };
        self.lock().insert(issuer.to_owned(), known.clone());
        known.metadata
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        seam::lock("oauth.discovered", &self.0)
    }
}

fn ask(issuer: &str, net: &Net, deadline: Deadline) -> Result<Metadata, String> {
    // Of the first address that has something: a 404 of the second is no reason.
    let mut why = Vec::new();
    for url in well_known(issuer) {
        match net.http().get(&url, None, deadline) {
            Ok(answer) if answer.is_success() => match answer.json().as_ref().and_then(Metadata::read) {
                // RFC 8414 3.3: metadata of another issuer must not be used.
                Some(metadata) if issuer_matches(issuer, &metadata.issuer, None) => return Ok(metadata),
                Some(metadata) => {
                    why.push(format!("it names another issuer, {}", provider_text(&metadata.issuer, &[])));
                }
                None => why.push("it is not a JSON object with an issuer".into()),
            },
            Ok(answer) => why.push(format!("HTTP {}", answer.status)),
            // No answer: the second address of the same host would give none either.
            Err(e) => return Err(e.message().to_owned()),
        }
    }
    let is_particular = |why: &&String| !why.starts_with("HTTP ");
    Err(why.iter().find(is_particular).or(why.first()).cloned().unwrap_or_else(|| "it is not a URL".into()))
}

/// OpenID appends to the issuer's path; RFC 8414 inserts before it.
pub(super) fn well_known(issuer: &str) -> Vec<Url> {
    let Ok(base) = Url::parse(issuer) else { return Vec::new() };
    let path = base.path().trim_end_matches('/').to_owned();
    let at = |path: String| {
        let mut url = base.clone();
        url.set_path(&path);
        url.set_query(None);
        url.set_fragment(None);
        url
    };
    vec![
        at(format!("{path}/.well-known/openid-configuration")),
        at(format!("/.well-known/oauth-authorization-server{path}")),
    ]
}

/// Simple string comparison (RFC 9207 2.4), with the two exceptions that exist: Microsoft's multi-tenant issuers stand
/// for each tenant, and Google writes its issuer with and without the scheme (OpenID Connect Core 3.1.3.7, note).
pub(super) fn issuer_matches(expected: &str, actual: &str, tenant: Option<&str>) -> bool {
    let expected = expected.trim_end_matches('/');
    let actual = actual.trim_end_matches('/');
    if expected == actual || (expected == "https://accounts.google.com" && actual == "accounts.google.com") {
        return true;
    }
    const MANY_TENANTS: [&str; 4] = ["common", "organizations", "consumers", "{tenantid}"];
    let parts = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let (expected, actual) = (parts(expected), parts(actual));
    expected.len() == actual.len()
        && expected.get(2).is_some_and(|host| {
            host.starts_with("login.microsoftonline.") || host == "login.partner.microsoftonline.cn"
        })
        && expected.iter().zip(&actual).enumerate().all(|(at, (e, a))| {
            e == a
                || (at == 3
                    && MANY_TENANTS.contains(&e.as_str())
                    && !a.is_empty()
                    && tenant.is_none_or(|tenant| tenant == a))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_only_itself() {
        let ms = "https://login.microsoftonline.com";
        for (expected, actual, tenant, same) in [
            ("https://a.test", "https://a.test", None, true),
            ("https://a.test", "https://a.test/", None, true),
            ("https://a.test", "https://b.test", None, false),
            ("https://a.test", "https://a.test.evil", None, false),
            ("https://a.test/common", "https://a.test/other", None, false),
            (&format!("{ms}/common/v2.0"), &format!("{ms}/1234/v2.0"), Some("1234"), true),
            (&format!("{ms}/common/v2.0"), &format!("{ms}/1234/v2.0"), Some("99"), false),
            (&format!("{ms}/common/v2.0"), &format!("{ms}/{{tenantid}}/v2.0"), None, true),
            (&format!("{ms}/1234/v2.0"), &format!("{ms}/99/v2.0"), None, false),
            (&format!("{ms}/common/v2.0"), "https://evil.test/1234/v2.0", None, false),
            ("https://accounts.google.com", "accounts.google.com", None, true),
        ] {
            assert_eq!(issuer_matches(expected, actual, tenant), same, "{expected} {actual}");
        }
    }

    #[test]
    fn fault_12_an_odd_member_costs_only_itself() {
        let good = serde_json::json!({
            "issuer": "https://a.test", "userinfo_endpoint": "https://a.test/me",
            "revocation_endpoint": "https://a.test/revoke", "device_authorization_endpoint": "https://a.test/device",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "token_endpoint_auth_signing_alg_values_supported": ["RS256"],
            "authorization_response_iss_parameter_supported": true,
        });
        let read = |document: &Value| Metadata::read(document.as_object().unwrap());
        let count = |found: &Metadata| {
            let endpoints =
                [&found.userinfo_endpoint, &found.revocation_endpoint, &found.device_authorization_endpoint];
            let lists = [&found.client_methods, &found.signing_algorithms];
            endpoints.iter().filter(|url| url.is_some()).count()
                + lists.iter().filter(|list| list.is_some()).count()
                + usize::from(found.authorization_response_iss_parameter_supported)
        };
        assert_eq!(count(&read(&good).unwrap()), 6);
        for name in good.as_object().unwrap().keys().filter(|name| *name != "issuer") {
            for odd in ["", "/revoke", "http://a.test/x", "https://"].map(Value::from).into_iter().chain([
                Value::from(5),
                Value::Null,
                serde_json::json!({}),
            ]) {
                let mut document = good.clone();
                document[name] = odd.clone();
                let found = read(&document).unwrap_or_else(|| panic!("{name} {odd}"));
                // A text in the place of a list is a list of one.
                let is_list = name.ends_with("_supported") && name.starts_with("token") && odd.is_string();
                assert_eq!(count(&found), if is_list { 6 } else { 5 }, "{name} {odd}");
            }
        }
        let mut document = good;
        document["token_endpoint_auth_methods_supported"] = "client_secret_post".into();
        document["authorization_response_iss_parameter_supported"] = "true".into();
        let found = read(&document).unwrap();
        assert_eq!(found.client_methods.as_deref(), Some(&["client_secret_post".to_owned()][..]));
        assert!(found.authorization_response_iss_parameter_supported);
        document["issuer"] = 5.into();
        assert!(read(&document).is_none());
    }

    #[test]
    fn both_places_of_the_metadata_are_asked() {
        let urls: Vec<_> = well_known("https://a.test/tenant/").into_iter().map(String::from).collect();
        assert_eq!(
            urls,
            [
                "https://a.test/tenant/.well-known/openid-configuration",
                "https://a.test/.well-known/oauth-authorization-server/tenant",
            ]
        );
    }
}
