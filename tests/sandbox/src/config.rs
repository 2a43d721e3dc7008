//! The provider as a document: people, mailboxes, clients. [`Config::default`] needs none.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub users: Vec<User>,
    /// Mailboxes that nobody signs in to.
    pub shared: Vec<Shared>,
    pub clients: Vec<Client>,
    /// Lifetime of an access token, seconds, 1 to 86400.
    pub token_lifetime: u64,
    /// Puts a new refresh token into every answer; the old one works no more, and showing it again ends the whole family.
    pub rotate_refresh_tokens: bool,
    /// Authorization codes and device codes end after this time, seconds.
    pub code_lifetime: u64,
    /// Larger mail is refused, bytes.
    pub message_size_max: usize,
    /// `false`: every request to EWS is answered 403, as for a blocked tenant.
    pub ews_enabled: bool,
    /// The newest RequestServerVersion that EWS takes: `Exchange2010_SP2`, `Exchange2016`, …
    pub ews_version: String,
    /// `true`: EWS takes any SyncState and begins anew for one that it does not know, as gromox does.
    pub ews_any_sync_state: bool,
    /// So many requests to Graph at once for one mailbox and application; one more is answered 429. 0: no limit.
    pub graph_concurrency: usize,
    /// Addresses of mailboxes that Graph does not reach: 404 MailboxNotEnabledForRESTAPI.
    pub on_premises: Vec<String>,
    /// Addresses of those who may consent for everybody.
    pub administrators: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Also the name to sign in with.
    pub address: String,
    pub password: String,
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shared {
    pub address: String,
    #[serde(default)]
    pub name: String,
    /// Addresses of the users who may read it and send as it.
    pub delegates: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    pub id: String,
    /// `None`: a public client, which must come with PKCE.
    #[serde(default)]
    pub secret: Option<String>,
    /// Accepted at the authorize endpoint. Any port of 127.0.0.1 with any path is accepted besides (RFC 8252 section 7.3).
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// What the administrator granted to the application itself: `Mail.ReadWrite`, `full_access_as_app`, …
    #[serde(default)]
    pub roles: Vec<String>,
    /// Instead of [`Config::token_lifetime`].
    #[serde(default)]
    pub token_lifetime: Option<u64>,
    /// As in a default Microsoft 365 tenant: a person is refused (AADSTS90094) until an administrator has consented.
    #[serde(default)]
    pub only_administrators_consent: bool,
}

pub const DOMAIN: &str = "example.test";

/// # Defaults
/// alice and bob (password NAME-password), the shared mailbox support@ of which alice is a delegate, the public client
/// `mail-native`, its twin `mail-short` with tokens of 6 seconds, `mail-tenant`
/// to which only administrators consent (bob is one), and the confidential client `mail-app` with the secret
/// `mail-app-secret` and all roles. Tokens live an hour, refresh tokens rotate.
impl Default for Config {
    fn default() -> Self {
        let roles = [
            "Mail.ReadWrite",
            "Mail.Send",
            "User.Read.All",
            "full_access_as_app",
            "IMAP.AccessAsApp",
            "SMTP.SendAsApp",
        ];
        let public = |id: &str, token_lifetime| Client {
            id: id.into(),
            secret: None,
            redirect_uris: Vec::new(),
            roles: Vec::new(),
            token_lifetime,
            only_administrators_consent: false,
        };
        Self {
            users: vec![Self::user("alice"), Self::user("bob")],
            shared: vec![Shared {
                address: format!("support@{DOMAIN}"),
                name: "Support".into(),
                delegates: vec![format!("alice@{DOMAIN}")],
            }],
            clients: vec![
                public("mail-native", None),
                public("mail-short", Some(6)),
                Client { only_administrators_consent: true, ..public("mail-tenant", None) },
                Client {
                    secret: Some("mail-app-secret".into()),
                    roles: roles.map(str::to_owned).to_vec(),
                    ..public("mail-app", None)
                },
            ],
            token_lifetime: 3600,
            rotate_refresh_tokens: true,
            code_lifetime: 600,
            message_size_max: 64 << 20,
            ews_enabled: true,
            ews_version: "Exchange2016".into(),
            ews_any_sync_state: false,
            graph_concurrency: 4,
            on_premises: Vec::new(),
            administrators: vec![format!("bob@{DOMAIN}")],
        }
    }
}

impl Config {
    /// NAME@example.test with the password NAME-password.
    pub fn user(name: &str) -> User {
        let mut display = name.to_owned();
        if let Some(first) = display.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        User { address: format!("{name}@{DOMAIN}"), password: format!("{name}-password"), name: display }
    }

    pub fn client(&self, id: &str) -> Option<&Client> {
        self.clients.iter().find(|client| client.id == id)
    }

    pub fn is_delegate(&self, user: &str, mailbox: &str) -> bool {
        self.shared.iter().any(|shared| {
            shared.address.eq_ignore_ascii_case(mailbox)
                && shared.delegates.iter().any(|delegate| delegate.eq_ignore_ascii_case(user))
        })
    }

    pub fn mailbox_exists(&self, address: &str) -> bool {
        self.mailboxes().any(|(known, _)| known.eq_ignore_ascii_case(address))
    }

    /// Address and display name of every mailbox.
    pub fn mailboxes(&self) -> impl Iterator<Item = (&str, &str)> {
        let users = self.users.iter().map(|user| (user.address.as_str(), user.name.as_str()));
        users.chain(self.shared.iter().map(|shared| (shared.address.as_str(), shared.name.as_str())))
    }
}
