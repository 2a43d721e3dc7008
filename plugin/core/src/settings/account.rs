//! The proven form of a settings document: an [`Account`] can only be made by [`super::parse`].

use std::{path::PathBuf, sync::Arc};

use lettre::Address;
use serde::Deserialize;
use url::Url;

use super::secret_ref::{Machine, SecretRef};
use crate::{clock::UnixSeconds, secret::Secret};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Incoming,
    Outgoing,
}

impl Direction {
    /// JSON pointer to the form inside the settings document.
    pub fn pointer(self) -> &'static str {
        match self {
            Self::Incoming => "/incoming",
            Self::Outgoing => "/outgoing",
        }
    }
}

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

/// How a TCP connection becomes a TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// TLS from the first byte (SMTPS, 465).
    Implicit,
    /// STARTTLS, required: without it nothing is said (587).
    StartTls,
}

/// One variant per protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    Imap { server: Endpoint },
    Smtp { server: Endpoint, alternate: Option<Endpoint>, tls: TlsMode },
    Ews { url: Url },
    Graph { base_url: Url },
    Gmail { base_url: Url },
}

/// Which SASL mechanism to use: by capability, or as the settings insist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Xoauth2,
    Oauthbearer,
}

/// How access tokens are come by. There is no password grant (RFC 9700 2.4 forbids it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GrantType {
    /// A person consents in a browser that comes back to the redirect URL (RFC 6749 4.1 with RFC 7636).
    #[default]
    AuthorizationCode,
    /// A person consents on any device, by a code shown here (RFC 8628).
    DeviceCode,
    /// Nobody consents: the application itself is allowed in (RFC 6749 4.4).
    ClientCredentials,
    /// A Google service account that may act for the mailbox (RFC 7523 section 2.1).
    JwtBearer,
}

impl GrantType {
    pub const ALL: [Self; 4] = [Self::AuthorizationCode, Self::DeviceCode, Self::ClientCredentials, Self::JwtBearer];

    /// The value of `advanced.grant`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::DeviceCode => "device_code",
            Self::ClientCredentials => "client_credentials",
            Self::JwtBearer => "jwt_bearer",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|grant| grant.name() == name)
    }

    /// No person takes part, and no refresh token is kept: a new access token is asked for in its place.
    pub fn is_app_only(self) -> bool {
        matches!(self, Self::ClientCredentials | Self::JwtBearer)
    }
}

/// Where the client secret goes (RFC 6749 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// As the provider says or is known for.
    #[default]
    Automatic,
    Basic,
    Post,
}

/// Where the client's certificate and its key are, PEM. Read at each use, so that both can be replaced on disk while
/// the library runs.
#[derive(Clone)]
pub struct CertificateRef {
    pub certificate: Arc<SecretRef>,
    pub private_key: Arc<SecretRef>,
    /// `kid` of the header (RFC 7515 4.1.4).
    pub key_id: Option<String>,
    /// The issuer in place of the token endpoint as audience (OpenID Connect Core 9, FAPI 2.0 5.3.3.1).
    pub names_issuer: bool,
}

/// The OAuth client and its authorization server.
#[derive(Clone)]
pub struct Client {
    pub grant: GrantType,
    pub client_id: String,
    /// `None`, and no certificate: a public client. As it was when the settings were read; see [`Client::secret`].
    pub client_secret: Option<Secret>,
    /// Where the secret is, when it is not in the settings themselves.
    pub client_secret_place: Option<Arc<SecretRef>>,
    pub client_authentication: ClientAuthentication,
    /// From when on the provider no longer takes the secret, as the person noted it.
    pub client_secret_expires: Option<UnixSeconds>,
    /// Takes the place of the secret (private_key_jwt, RFC 7523 section 2.2).
    pub certificate: Option<CertificateRef>,
    /// Google's JSON key; `Some` with [`GrantType::JwtBearer`].
    pub service_account: Option<Arc<SecretRef>>,
    pub authorize_url: Url,
    pub token_url: Url,
    pub scopes: Vec<String>,
    /// What the person registered at the provider.
    pub redirect_url: Url,
    /// The same as it was typed: providers compare it byte by byte (RFC 6749 3.1.2.3).
    pub redirect_text: String,
    /// From `advanced`, a preset, or discovery; `None` when nobody knows.
    pub issuer: Option<String>,
    /// RFC 8628 section 3.1.
    pub device_authorization_url: Option<Url>,
    /// Where an administrator consents for the whole organisation.
    pub admin_consent_url: Option<Url>,
    pub revocation_url: Option<Url>,
    pub userinfo_url: Option<Url>,
    pub jwks_url: Option<Url>,
    /// Added to the authorize URL: `access_type=offline`, `prompt=consent`.
    pub authorize_parameters: Vec<(String, String)>,
}

impl Client {
    /// The client secret as it is now: one in a file may be replaced while the library runs.
    pub fn secret(&self) -> Option<Secret> {
        // What cannot be read now was good when the settings were read.
        let fresh = self.client_secret_place.as_ref().and_then(|place| place.resolve(&Machine).ok().flatten());
        fresh.or_else(|| self.client_secret.clone())
    }
}

/// From when on mail is fetched, for a folder that has no cursor yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Only what arrives after this moment (the default: years of old mail must not become requests).
    Now,
    /// What the server received at or after this moment.
    Moment(UnixSeconds),
    /// The whole folder.
    Everything,
}

impl Since {
    /// What was received before it is not wanted; `now`: when the folder is met for the first time.
    pub fn moment(self, now: UnixSeconds) -> UnixSeconds {
        match self {
            Self::Now => now,
            Self::Moment(moment) => moment,
            Self::Everything => 0,
        }
    }
}

/// The protocol that a mailbox was fetched with before (`advanced.moved_from`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Former {
    Imap,
    Ews,
}

impl Former {
    /// As a sentence calls it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Imap => "IMAP",
            Self::Ews => "EWS",
        }
    }
}

/// What the host's settings want done with a settled message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Leave,
    MarkSeen,
    Move { folder: String },
    Delete,
}

/// Only in incoming accounts.
#[derive(Clone, Debug)]
pub struct Fetching {
    pub email_addresses: Vec<Address>,
    pub interval_minutes: u32,
    pub disable_new_request_creation: bool,
    /// Who may open new requests all the same: addresses, and domains without `@`. In lower case.
    pub new_requests_from: Vec<String>,
    pub folders: Vec<String>,
    pub since: Since,
    /// Whose cursors are taken over.
    pub moved_from: Option<Former>,
    /// What settling does in the mailbox with imported and duplicate messages.
    pub after_import: Action,
    /// What settling does with refused ones.
    pub after_refusal: Action,
    /// How a subject names the request it belongs to: a literal text in which `{id}` stands, exactly once, for the
    /// request's id; no regular expression, and no other braces. Something always stands before `{id}`. Default
    /// `[Request ID: ##{id}##]`.
    pub subject_tag: String,
    /// The line above which people answer, as the host writes it into its mail.
    pub reply_delimiter: Option<String>,
    /// Whose Authentication-Results count; `-` is a server that writes no authserv-id.
    pub trusted_authserv_ids: Vec<String>,
}

/// Only in outgoing accounts.
#[derive(Clone, Debug)]
pub struct Sending {
    /// Who logs in at the SMTP server: `advanced.smtp_user`; else, at Microsoft, who consented (its SMTP servers know the
    /// owner of the token, not the shared mailbox); else the username.
    pub smtp_user: String,
    /// From address: `advanced.from_address`, else the username.
    pub from: Address,
    pub sender_name: Option<String>,
    pub reply_to: Option<Address>,
    /// The brake: automatic mails to one correspondent within `limits::BRAKE_WINDOW`.
    pub automatic_mails_per_day: u32,
    /// `None`: as many as the server takes.
    pub messages_per_minute: Option<u32>,
    /// The same for all mailboxes of one app registration together.
    pub app_messages_per_minute: Option<u32>,
    /// Where the sent folder is looked into when the end of a sending is not known.
    pub sent_folder_server: Option<Endpoint>,
}

/// Which HTTP proxy, as `advanced` and the plugin's configuration write it.
#[derive(Clone, Default, Deserialize)]
pub struct ProxyForm {
    /// `off`, `environment` or a URL; `None`: nothing is said.
    pub proxy: Option<String>,
    pub proxy_user: Option<String>,
    pub proxy_password: Option<SecretRef>,
}

/// Everything a session needs, checked.
#[derive(Clone)]
pub struct Account {
    pub direction: Direction,
    /// What the host calls the mailbox.
    pub label: Option<String>,
    pub protocol: Protocol,
    /// Who logs in: the mailbox. May differ from the address and, for a shared mailbox, from who consented.
    pub username: String,
    /// Who must consent: `advanced.consenting_user`, else the username.
    pub consenting_user: String,
    pub client: Client,
    pub email_debug: bool,
    pub mechanism: Option<Mechanism>,
    pub ca_file: Option<PathBuf>,
    pub proxy: ProxyForm,
    /// `Some` in incoming accounts.
    pub fetching: Option<Fetching>,
    /// `Some` in outgoing accounts.
    pub sending: Option<Sending>,
}

impl Account {
    /// How log lines and changes of health name the mailbox.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.username)
    }

    /// Who logs in at the mail server.
    pub fn login_user(&self) -> &str {
        self.sending.as_ref().map_or(&self.username, |sending| &sending.smtp_user)
    }
}
