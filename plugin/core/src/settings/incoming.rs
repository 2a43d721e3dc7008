//! The incoming "Mail Server Settings" form.

use serde::Deserialize;

use super::{
    advanced::{INCOMING_ADVANCED, IncomingAdvanced},
    form::{ANY, Connection, EWS, Field, HTTP, INCOMING_CONNECTIONS, MAIL, NONE, PORT, Rule},
    oauth_fields,
    pattern::Pattern,
    secret_ref::SecretRef,
};
use crate::limits::{FETCH_INTERVAL_MINUTES_MAX, FETCH_INTERVAL_MINUTES_MIN};

/// Where a helpdesk fetches its mail from. Signing in is by OAuth 2.0.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Incoming {
    /// How mail is fetched. What else the form shows depends on it.
    pub connection_protocol: Connection,
    /// OAuth: a person signs in at the provider once; no password is kept here.
    #[serde(default = "oauth")]
    pub authentication_type: String,
    /// Host name or IP address of the IMAP server, without a port.
    pub server_name: Option<String>,
    /// Address of the mail service: for EWS the full URL of Exchange.asmx; for Microsoft Graph and the Gmail API the
    /// base URL, needed only where it differs from the usual one.
    pub connect_url: Option<String>,
    /// Name with which the mailbox signs in. It may differ from its email address.
    pub username: String,
    /// Address or addresses at which this mailbox receives requests.
    pub email_addresses: Vec<String>,
    /// OAuth is supported for IMAPS only.
    #[serde(default = "imaps")]
    pub protocol: String,
    /// TCP port of the server.
    #[serde(default = "imaps_port")]
    pub port: u16,
    /// Identifier of the application that was registered at the provider.
    pub client_id: String,
    /// Secret of that application; empty for a public client. A text, or where to find it: {"env": "NAME"} names an
    /// environment variable, {"file": "/path"} a file.
    pub client_secret: Option<SecretRef>,
    /// Where the person signs in and consents.
    pub authorize_url: String,
    /// Where codes and refresh tokens are exchanged for access tokens.
    pub access_token_url: String,
    /// What is asked for, separated by spaces.
    pub scope: String,
    /// Where the provider sends the person back to. Register exactly this address at the provider.
    pub redirect_url: String,
    /// Minutes from one fetch to the next.
    #[serde(default = "five")]
    pub fetch_interval_minutes: u32,
    /// Writes a transcript of the conversation with the mail server to the log, without secrets.
    #[serde(default)]
    pub enable_email_debug: bool,
    /// Mail that answers no known request is left alone; replies to known requests still come in.
    #[serde(default)]
    pub disable_new_request_creation: bool,
    /// Everything beyond the form. Leave it out unless a provider asks for it.
    pub advanced: IncomingAdvanced,
}

pub(super) static FIELDS: &[Field] = &[
    Field {
        name: "connection_protocol",
        label: "Connection Protocol",
        rule: Rule::OneOf(INCOMING_CONNECTIONS),
        shown: ANY,
        required: ANY,
        right: "choose \"POP/IMAP/POPS/IMAPS\", \"EWS\", \"Microsoft Graph\" or \"Gmail API\"",
        examples: &[],
    },
    oauth_fields::AUTHENTICATION_TYPE,
    Field {
        name: "server_name",
        label: "Server Name / IP Address",
        rule: Rule::Text(Pattern::Host),
        shown: MAIL,
        required: MAIL,
        right: "enter the name or IP address of the IMAP server alone, such as imap.example.com",
        examples: &["outlook.office365.com", "imap.gmail.com"],
    },
    Field {
        name: "connect_url",
        label: "Connect URL",
        rule: Rule::Text(Pattern::HttpsUrl),
        shown: HTTP,
        required: EWS,
        right: oauth_fields::CONNECT_URL_RIGHT,
        examples: oauth_fields::CONNECT_URL_EXAMPLES,
    },
    oauth_fields::USERNAME,
    Field {
        name: "email_addresses",
        label: "Email Address(es)",
        rule: Rule::List { item: Pattern::Email, min: 1 },
        shown: ANY,
        required: ANY,
        right: "enter a list of one or more addresses, such as helpdesk@example.com",
        examples: &[],
    },
    Field {
        name: "protocol",
        label: "Protocol",
        rule: Rule::OneOf(&["IMAPS"]),
        shown: MAIL,
        required: NONE,
        right: "OAuth is supported for IMAPS only, so leave it at \"IMAPS\"",
        examples: &[],
    },
    Field {
        name: "port",
        label: "Port",
        rule: PORT,
        shown: MAIL,
        required: NONE,
        right: "enter a whole number from 1 to 65535, usually 993",
        examples: &[],
    },
    oauth_fields::CLIENT_ID,
    oauth_fields::CLIENT_SECRET,
    oauth_fields::AUTHORIZE_URL,
    oauth_fields::ACCESS_TOKEN_URL,
    oauth_fields::SCOPE,
    oauth_fields::REDIRECT_URL,
    Field {
        name: "fetch_interval_minutes",
        label: "Fetch emails every (minutes)",
        rule: Rule::Whole { min: FETCH_INTERVAL_MINUTES_MIN, max: FETCH_INTERVAL_MINUTES_MAX },
        shown: ANY,
        required: NONE,
        right: "enter a whole number of minutes from 1 to 1440",
        examples: &[],
    },
    Field {
        name: "enable_email_debug",
        label: "Enable Email Debug",
        rule: Rule::Flag,
        shown: ANY,
        required: NONE,
        right: "choose true or false",
        examples: &[],
    },
    Field {
        name: "disable_new_request_creation",
        label: "Disable new request creation by email",
        rule: Rule::Flag,
        shown: ANY,
        required: NONE,
        right: "choose true or false",
        examples: &[],
    },
    Field {
        name: "advanced",
        label: "Advanced",
        rule: Rule::Section(INCOMING_ADVANCED),
        shown: ANY,
        required: NONE,
        right: "enter an object, or leave it out",
        examples: &[],
    },
];

pub(super) fn oauth() -> String {
    "OAuth".to_owned()
}

fn imaps() -> String {
    "IMAPS".to_owned()
}

pub(super) fn imaps_port() -> u16 {
    993
}

fn five() -> u32 {
    5
}
