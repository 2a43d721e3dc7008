//! What the authorization server says of itself, held against the settings. For the diagnosis: nothing is kept, and
//! nothing secret is sent.

use serde::Deserialize;
use url::Url;

use super::{discovery, failure::provider_text};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::{Error, Kind, Result},
    limits,
    net::Net,
    settings::{Client, GrantType, MICROSOFT_HOSTS},
};

/// An authorization server that answered.
#[derive(Debug)]
pub struct Inspected {
    /// Without query.
    pub asked: String,
    pub status: u16,
    /// Its own time (RFC 9110 section 6.6.1).
    pub date: Option<UnixSeconds>,
    pub metadata: Metadata,
}

#[derive(Debug)]
pub enum Metadata {
    /// No issuer is configured: only whether the token endpoint's host answers was looked at.
    NotConfigured,
    /// It publishes none that can be read.
    None,
    /// One sentence for each thing that is not as the settings have it.
    Found { differences: Vec<String> },
}

#[derive(Deserialize)]
struct Published {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    scopes_supported: Option<Vec<String>>,
    grant_types_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
}

/// Asks for the metadata (RFC 8414, OpenID Connect Discovery), or without an issuer for anything at the token endpoint.
///
/// # Errors
/// `Transient` when nobody answers; `AdminRequired` for an untrusted certificate; `Settings` when the metadata is that of
/// another issuer.
pub fn inspect(client: &Client, net: &Net, deadline: Deadline) -> Result<Inspected> {
    let deadline = deadline.at_most(limits::DISCOVERY_TIMEOUT);
    let Some(issuer) = &client.issuer else {
        let url = without_query(&client.token_url);
        let answer = net.http().get(&url, None, deadline)?;
        return Ok(Inspected {
            asked: url.into(),
            status: answer.status,
            date: answer.date,
            metadata: Metadata::NotConfigured,
        });
    };
    let mut last = None;
    for url in discovery::well_known(issuer) {
        let answer = net.http().get(&url, None, deadline)?;
        let published = answer.is_success().then(|| answer.json::<Published>()).flatten();
        let found = published.is_some();
        let metadata = match published {
            None => Metadata::None,
            Some(published) if !discovery::issuer_matches(issuer, &published.issuer, None) => {
                let other = provider_text(&published.issuer, &[]);
                return Err(Error::new(
                    Kind::Settings,
                    format!("The metadata at {url} is that of another issuer than the configured one."),
                )
                .remedy("Correct advanced › issuer: it must be exactly what the provider calls itself.")
                .provider_code(other));
            }
            Some(published) => Metadata::Found { differences: differences(&published, client) },
        };
        let inspected = Inspected { asked: url.into(), status: answer.status, date: answer.date, metadata };
        if found {
            return Ok(inspected);
        }
        last = Some(inspected);
    }
    last.ok_or_else(|| {
        Error::new(Kind::Settings, "The configured issuer is not a URL.").remedy("Correct advanced › issuer.")
    })
}

fn differences(published: &Published, client: &Client) -> Vec<String> {
    let mut found = Vec::new();
    let interactive = client.grant == GrantType::AuthorizationCode;
    let device = client.device_authorization_url.as_ref().filter(|_| client.grant == GrantType::DeviceCode);
    for (label, configured, published) in [
        ("Authorize URL", interactive.then_some(&client.authorize_url), &published.authorization_endpoint),
        ("Access Token URL", Some(&client.token_url), &published.token_endpoint),
        ("The device authorization URL", device, &published.device_authorization_endpoint),
    ] {
        let (Some(configured), Some(published)) = (configured, published) else { continue };
        if !Url::parse(published).is_ok_and(|published| is_same_endpoint(configured, &published)) {
            let (ours, theirs) = (without_query(configured), provider_text(published, &[]));
            found.push(format!("{label} is {ours}, but the provider publishes {theirs}."));
        }
    }
    let names = |list: &Option<Vec<String>>, name: &str| {
        list.as_ref().is_none_or(|list| list.iter().any(|one| one.eq_ignore_ascii_case(name)))
    };
    // Most providers list only the scopes of OpenID there; a scope that is a URL is one of an API.
    let unknown: Vec<&str> =
        client.scopes.iter().filter(|scope| !scope.contains("://")).map(String::as_str).collect::<Vec<_>>();
    let unknown: Vec<&str> = unknown.into_iter().filter(|scope| !names(&published.scopes_supported, scope)).collect();
    if !unknown.is_empty() {
        found.push(format!("The provider does not list {} among its scopes.", unknown.join(", ")));
    }
    if interactive && !names(&published.code_challenge_methods_supported, "S256") {
        found.push("The provider does not list PKCE with S256.".to_owned());
    }
    let grant = match client.grant {
        GrantType::AuthorizationCode => "authorization_code",
        GrantType::DeviceCode => "urn:ietf:params:oauth:grant-type:device_code",
        GrantType::ClientCredentials => "client_credentials",
        GrantType::JwtBearer => "urn:ietf:params:oauth:grant-type:jwt-bearer",
    };
    if !names(&published.grant_types_supported, grant) {
        found.push(format!("The provider does not list {grant} among its grants."));
    }
    found
}

/// Scheme, host, port and path; Microsoft's first path segment may be any name of the same tenant.
fn is_same_endpoint(configured: &Url, published: &Url) -> bool {
    let origin = |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    let is_microsoft = configured.host_str().is_some_and(|host| MICROSOFT_HOSTS.contains(&host));
    let path = |url: &Url| {
        let path = url.path().trim_end_matches('/').to_owned();
        if is_microsoft { path.splitn(3, '/').nth(2).unwrap_or_default().to_owned() } else { path }
    };
    origin(configured) == origin(published) && path(configured) == path(published)
}

fn without_query(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::tests_support::account;

    fn published(more: serde_json::Value) -> Published {
        let mut document = serde_json::json!({"issuer": "https://idp.test"});
        for (name, value) in more.as_object().into_iter().flatten() {
            document[name] = value.clone();
        }
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn an_endpoint_of_another_tenant_or_server_is_seen_and_a_synonym_is_not() {
        let same = |a: &str, b: &str| is_same_endpoint(&Url::parse(a).unwrap(), &Url::parse(b).unwrap());
        assert!(same("https://a.test/token?tenant=1", "https://a.test/token/"));
        assert!(!same("https://a.test/token", "https://b.test/token"));
        assert!(!same("https://a.test/x/token", "https://a.test/y/token"));
        let ms = "https://login.microsoftonline.com";
        assert!(same(&format!("{ms}/contoso.com/oauth2/v2.0/token"), &format!("{ms}/1234/oauth2/v2.0/token")));
        assert!(!same(&format!("{ms}/contoso.com/oauth2/token"), &format!("{ms}/1234/oauth2/v2.0/token")));
    }

    #[test]
    fn each_difference_is_named() {
        let mut client = account("https://idp.test").client;
        client.scopes = vec!["mail".into(), "https://api.test/Mail".into()];
        assert!(differences(&published(serde_json::json!({})), &client).is_empty());
        let found = differences(
            &published(serde_json::json!({
                "token_endpoint": "https://other.test/token",
                "authorization_endpoint": client.authorize_url.as_str(),
                "scopes_supported": ["openid"],
                "grant_types_supported": ["implicit"],
                "code_challenge_methods_supported": ["plain"],
            })),
            &client,
        );
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].starts_with("Access Token URL"), "{found:?}");
        assert!(found[1].contains(" mail ") && !found[1].contains("api.test"), "{found:?}");
    }
}
