//! The outgoing "Mail Server Settings" form.

use serde::Deserialize;

use super::{
    advanced::{OUTGOING_ADVANCED, OutgoingAdvanced},
    form::{ANY, Connection, EWS, Field, HTTP, MAIL, NONE, OUTGOING_CONNECTIONS, PORT, Rule},
    incoming::oauth,
    oauth_fields,
    pattern::Pattern,
    secret_ref::SecretRef,
};

/// Port of SMTP with STARTTLS (RFC 6409) and of SMTPS (RFC 8314).
pub const SUBMISSION_PORT: u16 = 587;
pub const SUBMISSIONS_PORT: u16 = 465;

/// Through what a helpdesk sends its mail. Signing in is by OAuth 2.0.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Outgoing {
    /// How mail is sent. What else the form shows depends on it.
    pub connection_protocol: Connection,
    /// OAuth: a person signs in at the provider once; no password is kept here.
    #[serde(default = "oauth")]
    pub authentication_type: String,
    /// Host name or IP address of the SMTP server, without a port.
    pub server_name: Option<String>,
    /// Server to use when the first one cannot be reached.
    pub alternate_server_name: Option<String>,
    /// Address of the mail service: for EWS the full URL of Exchange.asmx; for Microsoft Graph and the Gmail API the
    /// base URL, needed only where it differs from the usual one.
    pub connect_url: Option<String>,
    /// Name with which the mailbox signs in. It may differ from its email address.
    pub username: String,
    /// Name that recipients see.
    pub sender_name: Option<String>,
    /// Address to which answers go, when it is not the sender's.
    pub reply_to: Option<String>,
    /// SMTP encrypts with STARTTLS after connecting, SMTPS from the first byte.
    #[cfg_attr(feature = "schema", schemars(extend("default" = "SMTP")))]
    pub protocol: Option<String>,
    /// Always on with OAuth: a bearer token never crosses a plaintext link.
    #[serde(default = "yes")]
    pub enable_tls: bool,
    /// TCP port of the server. It follows the protocol: 587 for SMTP, 465 for SMTPS.
    pub port: Option<u16>,
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
    /// Everything beyond the form. Leave it out unless a provider asks for it.
    pub advanced: OutgoingAdvanced,
}

pub(super) static FIELDS: &[Field] = &[
    Field {
        name: "connection_protocol",
        label: "Connection Protocol",
        rule: Rule::OneOf(OUTGOING_CONNECTIONS),
        shown: ANY,
        required: ANY,
        right: "choose \"SMTP/SMTPS\", \"EWS\", \"Microsoft Graph\" or \"Gmail API\"",
        examples: &[],
    },
    oauth_fields::AUTHENTICATION_TYPE,
    Field {
        name: "server_name",
        label: "Server Name / IP Address",
        rule: Rule::Text(Pattern::Host),
        shown: MAIL,
        required: MAIL,
        right: "enter the name or IP address of the SMTP server alone, such as smtp.example.com",
        examples: &["smtp.office365.com", "smtp.gmail.com"],
    },
    Field {
        name: "alternate_server_name",
        label: "Alternate Server Name / IP Address",
        rule: Rule::Text(Pattern::Host),
        shown: MAIL,
        required: NONE,
        right: "enter the name or IP address of a second SMTP server alone, or leave it out",
        examples: &["smtp2.example.com"],
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
        name: "sender_name",
        label: "Sender Name",
        rule: Rule::Text(Pattern::Line),
        shown: ANY,
        required: NONE,
        right: "enter one line of text, such as Example Helpdesk, or leave it out",
        examples: &["Example Helpdesk"],
    },
    Field {
        name: "reply_to",
        label: "Reply to",
        rule: Rule::Text(Pattern::Email),
        shown: ANY,
        required: NONE,
        right: "enter one address without a name, such as helpdesk@example.com, or leave it out",
        examples: &["helpdesk@example.com"],
    },
    Field {
        name: "protocol",
        label: "Protocol",
        rule: Rule::OneOf(&["SMTP", "SMTPS"]),
        shown: MAIL,
        required: NONE,
        right: "choose \"SMTP\" or \"SMTPS\"",
        examples: &[],
    },
    Field {
        name: "enable_tls",
        label: "Enable TLS",
        rule: Rule::Flag,
        shown: MAIL,
        required: NONE,
        right: "leave it on, or leave it out",
        examples: &[],
    },
    Field {
        name: "port",
        label: "Port",
        rule: PORT,
        shown: MAIL,
        required: NONE,
        right: "enter a whole number from 1 to 65535, usually 587 for SMTP and 465 for SMTPS",
        examples: &[],
    },
    oauth_fields::CLIENT_ID,
    oauth_fields::CLIENT_SECRET,
    oauth_fields::AUTHORIZE_URL,
    oauth_fields::ACCESS_TOKEN_URL,
    oauth_fields::SCOPE,
    oauth_fields::REDIRECT_URL,
    Field {
        name: "advanced",
        label: "Advanced",
        rule: Rule::Section(OUTGOING_ADVANCED),
        shown: ANY,
        required: NONE,
        right: "enter an object, or leave it out",
        examples: &[],
    },
];

fn yes() -> bool {
    true
}
