//! The proven form of a settings document: an [`Account`] can only be made by [`super::parse`].

use std::path::PathBuf;

use lettre::Address;
use url::Url;

use crate::{clock::UnixSeconds, secret::Secret};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The OAuth client and its authorization server.
#[derive(Clone)]
pub struct Client {
    pub client_id: String,
    /// `None`: a public client.
    pub client_secret: Option<Secret>,
    pub authorize_url: Url,
    pub token_url: Url,
    pub scopes: Vec<String>,
    /// What the person registered at the provider.
    pub redirect_url: Url,
    /// From `advanced`, a preset, or discovery; `None` when nobody knows.
    pub issuer: Option<String>,
    pub revocation_url: Option<Url>,
    pub userinfo_url: Option<Url>,
    pub jwks_url: Option<Url>,
    /// Added to the authorize URL: `access_type=offline`, `prompt=consent`.
    pub authorize_parameters: Vec<(String, String)>,
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
    pub folders: Vec<String>,
    pub since: Since,
    /// What settling does in the mailbox with imported and duplicate messages.
    pub after_import: Action,
    /// What settling does with refused ones.
    pub after_refusal: Action,
    /// How a subject names the request it belongs to: a literal text in which `{id}` stands, exactly once, for the
    /// request's id; no regular expression, and no other braces. Something always stands before `{id}`. Default
    /// `[Request ID: ##{id}##]`.
    pub subject_tag: String,
}

/// Only in outgoing accounts.
#[derive(Clone, Debug)]
pub struct Sending {
    /// From address: `advanced.from_address`, else the username.
    pub from: Address,
    pub sender_name: Option<String>,
    pub reply_to: Option<Address>,
}

/// Everything a session needs, checked.
#[derive(Clone)]
pub struct Account {
    pub direction: Direction,
    pub protocol: Protocol,
    /// Who logs in: the mailbox. May differ from the address and, for a shared mailbox, from who consented.
    pub username: String,
    /// Who must consent: `advanced.consenting_user`, else the username.
    pub consenting_user: String,
    pub client: Client,
    pub email_debug: bool,
    pub mechanism: Option<Mechanism>,
    pub ca_file: Option<PathBuf>,
    /// `Some` in incoming accounts.
    pub fetching: Option<Fetching>,
    /// `Some` in outgoing accounts.
    pub sending: Option<Sending>,
}
