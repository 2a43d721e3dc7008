//! How the client proves itself to the token endpoint (RFC 6749 2.3.1, RFC 7523 2.2). Decided before the first request, and
//! corrected by it: where the Authorization header is refused, the body is tried once, and the other way round.

use oauth2::AuthType;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::{
    assertion::{self, Padding},
    discovery::Metadata,
    token_request::Trouble,
};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::Result,
    net::{
        Net,
        http::{HttpAnswer, basic_credentials},
    },
    secret::Secret,
    settings::{Client, ClientAuthentication, MICROSOFT_HOSTS},
};

/// Stored with the grant, so that a refresh needs no discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClientAuth {
    /// Public client: `client_id` in the body.
    None,
    ClientSecretBasic,
    ClientSecretPost,
    /// By certificate; an RSA key signs by RS256.
    PrivateKeyJwt,
    /// By certificate; an RSA key signs by PS256.
    PrivateKeyJwtPss,
}

/// Token endpoints of Google and, beside [`MICROSOFT_HOSTS`], of Microsoft that document the secret in the body.
const POST_HOSTS: [&str; 3] = ["login.live.com", "oauth2.googleapis.com", "accounts.google.com"];

/// RFC 7523 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

impl ClientAuth {
    /// As the settings say; else as the provider lists it. `client_secret_basic` is what a server must support (RFC 6749
    /// 2.3.1), and what metadata without a list mean (RFC 8414 section 2). A certificate goes before a secret.
    pub fn decide(client: &Client, metadata: Option<&Metadata>) -> Self {
        if client.certificate.is_some() {
            let listed = metadata.and_then(|metadata| metadata.signing_algorithms.as_ref());
            let lists = |wanted: &str| listed.is_some_and(|list| list.iter().any(|algorithm| algorithm == wanted));
            // A list names what the server can, not what this client is registered for: RS256 is the usual registration.
            // Microsoft, "Microsoft identity platform application authentication certificate credentials": PS256.
            let is_pss = is_at(client, &MICROSOFT_HOSTS) || (lists("PS256") && !lists("RS256"));
            return if is_pss { Self::PrivateKeyJwtPss } else { Self::PrivateKeyJwt };
        }
        let Some(secret) = client.secret() else { return Self::None };
        match client.client_authentication {
            ClientAuthentication::Basic => return Self::ClientSecretBasic,
            ClientAuthentication::Post => return Self::ClientSecretPost,
            ClientAuthentication::Automatic => {}
        }
        if documents_the_body(client) {
            return Self::ClientSecretPost;
        }
        let listed = metadata.and_then(|metadata| metadata.client_methods.as_ref());
        let lists = |wanted: &str| listed.is_some_and(|list| list.iter().any(|method| method == wanted));
        // Five servers of eight do not decode what RFC 6749 2.3.1 has encoded in the header.
        let is_changed = is_changed_by_encoding(&client.client_id) || is_changed_by_encoding(secret.expose());
        match (lists("client_secret_basic"), lists("client_secret_post")) {
            (true, true) if is_changed => Self::ClientSecretPost,
            (false, true) => Self::ClientSecretPost,
            _ => Self::ClientSecretBasic,
        }
    }

    /// What is worth a try where this was refused. The code or the refresh token is still good then: seen at eight servers
    /// of eight (LemonLDAP::NG, glewlwyd, Canaille, django-oidc-provider, Doorkeeper, node-oauth, emulate's two).
    ///
    /// Metadata name what a server can, not what a client is registered for: Canaille 0.3.6 lists both and takes one.
    fn second(self, client: &Client) -> Option<Self> {
        match self {
            _ if client.client_authentication != ClientAuthentication::Automatic => None,
            Self::ClientSecretBasic => Some(Self::ClientSecretPost),
            Self::ClientSecretPost if !documents_the_body(client) => Some(Self::ClientSecretBasic),
            _ => None,
        }
    }

    /// Sends a request by this method; where that is refused, by the next one, which `self` then is: the caller keeps it.
    ///
    /// # Errors
    /// Those of `send`, of the first try when the second one is refused, too.
    pub fn send<T>(
        &mut self,
        client: &Client,
        now: UnixSeconds,
        send: impl Fn(&Proof) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let first = send(&self.prove(client, now).map_err(Trouble::Other)?);
        let is_refused =
            |outcome: &Result<T, Trouble>| outcome.as_ref().is_err_and(|trouble| trouble.failure().refuses_client);
        let Some(second) = self.second(client).filter(|_| is_refused(&first)) else { return first };
        let again = send(&second.prove(client, now).map_err(Trouble::Other)?);
        match &again {
            _ if is_refused(&again) => first,
            Err(trouble) if trouble.failure().is_transient() => again,
            _ => {
                *self = second;
                again
            }
        }
    }

    /// What was decided at the consent, unless a secret or a certificate was added or removed since.
    pub fn still(self, client: &Client) -> Self {
        let has_secret = client.certificate.is_none() && client.client_secret.is_some();
        let fits = match self {
            Self::PrivateKeyJwt | Self::PrivateKeyJwtPss => client.certificate.is_some(),
            Self::ClientSecretBasic => client.client_authentication != ClientAuthentication::Post && has_secret,
            Self::ClientSecretPost => client.client_authentication != ClientAuthentication::Basic && has_secret,
            Self::None => client.certificate.is_none() && client.client_secret.is_none(),
        };
        if fits { self } else { Self::decide(client, None) }
    }

    /// What goes with one request. Certificate and key are read for it.
    ///
    /// # Errors
    /// `Settings`, at the certificate or its key.
    pub fn prove(self, client: &Client, now: UnixSeconds) -> Result<Proof> {
        let padding = if self == Self::PrivateKeyJwtPss { Padding::Pss } else { Padding::Pkcs1 };
        let assertion = match (self, &client.certificate) {
            (Self::PrivateKeyJwt | Self::PrivateKeyJwtPss, Some(reference)) => {
                Some(assertion::of_client(client, reference, padding, now)?)
            }
            _ => None,
        };
        let secret = match self {
            Self::ClientSecretBasic | Self::ClientSecretPost => client.secret(),
            _ => None,
        };
        Ok(Proof { method: self, secret, assertion })
    }

    /// Everything of the client that a server could echo and nobody may read: to be cut from its words.
    pub fn secrets(client: &Client) -> Vec<Secret> {
        let Some(secret) = client.secret() else { return Vec::new() };
        let pair = Secret::new(format!("{}:{}", client.client_id, secret.expose()));
        let header = basic_credentials(&client.client_id, &secret);
        client.client_secret.clone().into_iter().chain([secret, pair, header]).collect()
    }
}

fn documents_the_body(client: &Client) -> bool {
    is_at(client, &MICROSOFT_HOSTS) || is_at(client, &POST_HOSTS)
}

fn is_at(client: &Client, hosts: &[&str]) -> bool {
    client.token_url.host_str().is_some_and(|host| hosts.contains(&host))
}

fn is_changed_by_encoding(text: &str) -> bool {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>() != text
}

/// The client's proof of itself, for one request.
pub(super) struct Proof {
    method: ClientAuth,
    secret: Option<Secret>,
    assertion: Option<Secret>,
}

impl Proof {
    pub fn auth_type(&self) -> AuthType {
        match self.method {
            ClientAuth::ClientSecretBasic => AuthType::BasicAuth,
            _ => AuthType::RequestBody,
        }
    }

    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// Fields that go beside `client_id`.
    pub fn assertion_fields(&self) -> Vec<(&'static str, &str)> {
        let Some(assertion) = &self.assertion else { return Vec::new() };
        vec![("client_assertion_type", JWT_BEARER), ("client_assertion", assertion.expose())]
    }

    /// POSTs `fields` together with the proof, for the requests that `oauth2` does not make for us.
    pub fn post(
        &self,
        client: &Client,
        net: &Net,
        url: &url::Url,
        fields: &[(&str, &str)],
        deadline: Deadline,
    ) -> Result<HttpAnswer> {
        let mut fields = fields.to_vec();
        let basic = match (self.method, &self.secret) {
            (ClientAuth::ClientSecretBasic, Some(secret)) => Some((client.client_id.as_str(), secret)),
            (_, secret) => {
                fields.push(("client_id", &client.client_id));
                fields.extend(secret.iter().map(|secret| ("client_secret", secret.expose())));
                fields.extend(self.assertion_fields());
                None
            }
        };
        net.http().post_form(url, &fields, basic, deadline)
    }

    /// As [`ClientAuth::secrets`], with what this proof alone carries.
    pub fn secrets(&self, client: &Client) -> Vec<Secret> {
        let mut secrets = ClientAuth::secrets(client);
        secrets.extend(self.assertion.clone());
        secrets
    }
}
