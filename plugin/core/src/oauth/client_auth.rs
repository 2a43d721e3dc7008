//! How the client proves itself to the token endpoint (RFC 6749 2.3.1, RFC 7523 2.2). Decided before the first request:
//! an authorization code that was sent with the wrong method is spent.

use oauth2::AuthType;
use serde::{Deserialize, Serialize};

use super::{
    assertion::{self, Padding},
    discovery::Metadata,
};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::Result,
    net::{
        Net,
        http::{HttpAnswer, basic_credentials},
    },
    secret::Secret,
    settings::{Client, MICROSOFT_HOSTS},
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
    /// `client_secret_basic` is what a server must support (RFC 6749 2.3.1), and what metadata without a list mean
    /// (RFC 8414 section 2). A certificate goes before a secret.
    pub fn decide(client: &Client, metadata: Option<&Metadata>) -> Self {
        let microsoft = client.token_url.host_str().is_some_and(|host| MICROSOFT_HOSTS.contains(&host));
        if client.certificate.is_some() {
            let listed =
                metadata.and_then(|metadata| metadata.token_endpoint_auth_signing_alg_values_supported.as_ref());
            let pss = listed.is_some_and(|algorithms| algorithms.iter().any(|algorithm| algorithm == "PS256"));
            // Microsoft, "Microsoft identity platform application authentication certificate credentials": PS256.
            return if pss || microsoft { Self::PrivateKeyJwtPss } else { Self::PrivateKeyJwt };
        }
        if client.client_secret.is_none() {
            return Self::None;
        }
        if microsoft || client.token_url.host_str().is_some_and(|host| POST_HOSTS.contains(&host)) {
            return Self::ClientSecretPost;
        }
        let listed = metadata.and_then(|metadata| metadata.token_endpoint_auth_methods_supported.as_ref());
        match listed {
            Some(methods) if methods.iter().any(|method| method == "client_secret_basic") => Self::ClientSecretBasic,
            Some(methods) if methods.iter().any(|method| method == "client_secret_post") => Self::ClientSecretPost,
            _ => Self::ClientSecretBasic,
        }
    }

    /// What was decided at the consent, unless a secret or a certificate was added or removed since.
    pub fn still(self, client: &Client) -> Self {
        let fits = match self {
            Self::PrivateKeyJwt | Self::PrivateKeyJwtPss => client.certificate.is_some(),
            Self::ClientSecretBasic | Self::ClientSecretPost => {
                client.certificate.is_none() && client.client_secret.is_some()
            }
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
            Self::ClientSecretBasic | Self::ClientSecretPost => client.client_secret.clone(),
            _ => None,
        };
        Ok(Proof { method: self, secret, assertion })
    }

    /// Everything of the client that a server could echo and nobody may read: to be cut from its words.
    pub fn secrets(client: &Client) -> Vec<Secret> {
        let Some(secret) = &client.client_secret else { return Vec::new() };
        vec![secret.clone(), basic_credentials(&client.client_id, secret)]
    }
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
