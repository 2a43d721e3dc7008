//! How the client proves itself to the token endpoint (RFC 6749 2.3.1). Decided before the first request: an
//! authorization code that was sent with the wrong method is spent.

use oauth2::AuthType;
use serde::{Deserialize, Serialize};

use super::discovery::Metadata;
use crate::{
    clock::Deadline,
    error::Result,
    net::{
        Net,
        http::{HttpAnswer, basic_credentials},
    },
    secret::Secret,
    settings::Client,
};

/// Stored with the grant, so that a refresh needs no discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClientAuth {
    /// Public client: `client_id` in the body.
    None,
    ClientSecretBasic,
    ClientSecretPost,
}

/// Token endpoints of Microsoft and Google document the secret in the body.
const POST_HOSTS: [&str; 6] = [
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
    "login.live.com",
    "oauth2.googleapis.com",
    "accounts.google.com",
];

impl ClientAuth {
    /// `client_secret_basic` is what a server must support (RFC 6749 2.3.1), and what metadata without a list mean
    /// (RFC 8414 section 2).
    pub fn decide(client: &Client, metadata: Option<&Metadata>) -> Self {
        if client.client_secret.is_none() {
            return Self::None;
        }
        if client.token_url.host_str().is_some_and(|host| POST_HOSTS.contains(&host)) {
            return Self::ClientSecretPost;
        }
        let listed = metadata.and_then(|metadata| metadata.token_endpoint_auth_methods_supported.as_ref());
        match listed {
            Some(methods) if methods.iter().any(|method| method == "client_secret_basic") => Self::ClientSecretBasic,
            Some(methods) if methods.iter().any(|method| method == "client_secret_post") => Self::ClientSecretPost,
            _ => Self::ClientSecretBasic,
        }
    }

    /// What was decided at the consent, unless a secret was added or removed since.
    pub fn still(self, client: &Client) -> Self {
        match (&client.client_secret, self) {
            (None, _) => Self::None,
            (Some(_), Self::None) => Self::decide(client, None),
            (Some(_), decided) => decided,
        }
    }

    /// Everything of the client that a server could echo and nobody may read: to be cut from its words.
    pub fn secrets(client: &Client) -> Vec<Secret> {
        let Some(secret) = &client.client_secret else { return Vec::new() };
        vec![secret.clone(), basic_credentials(&client.client_id, secret)]
    }

    pub fn auth_type(self) -> AuthType {
        match self {
            Self::ClientSecretBasic => AuthType::BasicAuth,
            Self::None | Self::ClientSecretPost => AuthType::RequestBody,
        }
    }

    /// POSTs `fields` together with the proof, for the endpoints that `oauth2` does not speak to for us.
    pub fn post(
        self,
        client: &Client,
        net: &Net,
        url: &url::Url,
        fields: &[(&str, &str)],
        deadline: Deadline,
    ) -> Result<HttpAnswer> {
        let mut fields = fields.to_vec();
        let basic = match (self, &client.client_secret) {
            (Self::ClientSecretBasic, Some(secret)) => Some((client.client_id.as_str(), secret)),
            (_, secret) => {
                fields.push(("client_id", &client.client_id));
                if let Some(secret) = secret {
                    fields.push(("client_secret", secret.expose()));
                }
                None
            }
        };
        net.http().post_form(url, &fields, basic, deadline)
    }
}
