//! Everything beyond the documented form, in one optional object of each form.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    form::{ANY, Field, MAIL, MOVABLE, NONE, PORT, Rule},
    pattern::Pattern,
    secret_ref::SecretRef,
};
use crate::limits::{AUTOMATIC_MAILS_MAX, BRAKE_MAILS_DEFAULT, MESSAGES_PER_MINUTE_MAX};

/// `advanced` of the incoming form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IncomingAdvanced {
    /// Fills in what is not filled in: URLs, scope, server and port of this provider.
    pub provider: Option<String>,
    /// Issuer identifier of the authorization server (RFC 8414); checked against what it answers.
    pub issuer: Option<String>,
    /// Where tokens are revoked (RFC 7009).
    pub revocation_url: Option<String>,
    /// Where the provider says who signed in (OpenID Connect).
    pub userinfo_url: Option<String>,
    /// Where the provider publishes the keys of its identity tokens.
    pub jwks_url: Option<String>,
    /// How the library comes by access tokens: a person consents in a browser, or elsewhere by a device code; or the
    /// application is let in by itself, with client credentials or as a service account.
    #[serde(default = "authorization_code")]
    pub grant: String,
    /// Where the client secret goes: the Authorization header (client_secret_basic), or the body (client_secret_post).
    /// Automatic follows the provider, and tries the body once where the header is refused.
    #[serde(default = "automatic")]
    pub client_authentication: String,
    /// Certificate of the application in place of its secret.
    pub client_certificate: Option<ClientCertificate>,
    /// JSON key of a Google service account with domain-wide delegation, for the grant jwt_bearer.
    pub service_account: Option<SecretRef>,
    /// Where device codes are given out (RFC 8628).
    pub device_authorization_url: Option<String>,
    /// Where an administrator consents for a whole organisation, at providers that have such a page.
    pub admin_consent_url: Option<String>,
    /// Until when the provider takes the client secret; the library warns before.
    pub client_secret_expires: Option<String>,
    /// PEM file with the certificates to trust in addition to the system's.
    pub ca_file: Option<String>,
    /// The HTTP proxy of every connection of this mailbox: off, environment (HTTPS_PROXY and NO_PROXY of the
    /// helpdesk's process), or the proxy's address. Left out, the plugin's configuration decides.
    pub proxy: Option<String>,
    /// Who signs in at the proxy.
    pub proxy_user: Option<String>,
    /// The password for the proxy: a text, {"env": "NAME"} or {"file": "/path"}; read again at each use.
    pub proxy_password: Option<SecretRef>,
    /// How the access token is presented to the mail server; auto asks the server.
    #[serde(default = "auto")]
    pub sasl_mechanism: String,
    /// Who signs in at the provider, when it is not the username: the delegate of a shared mailbox.
    pub consenting_user: Option<String>,
    /// Parameters to add to the Authorize URL.
    #[serde(default)]
    pub authorize_parameters: BTreeMap<String, String>,
    /// Folders to fetch from. \Archive, \Junk, \Trash, \Drafts and \Sent stand for the folder of that special use (RFC
    /// 6154), whatever the mail server calls it.
    #[serde(default = "inbox")]
    pub folders: Vec<String>,
    /// From when on mail is fetched from a folder for the first time: now, all, or a date.
    #[serde(default = "now")]
    pub fetch_since: String,
    /// With which protocol this mailbox was fetched before, when it goes on with another: what was imported over the former
    /// one is not imported again. Can be left out once a fetch has succeeded.
    pub moved_from: Option<String>,
    /// What happens to a message in the mailbox once it was imported.
    #[serde(default = "leave")]
    pub after_import: String,
    /// Folder for imported messages, when they are moved.
    pub processed_folder: Option<String>,
    /// What happens to a message in the mailbox once it was refused.
    #[serde(default = "leave")]
    pub after_refusal: String,
    /// Folder for refused messages, when they are moved.
    pub error_folder: Option<String>,
    /// How a subject names the request it belongs to; {id} stands for the request's number.
    #[serde(default = "subject_tag")]
    pub subject_tag: String,
    /// Addresses and domains that open new requests although new request creation by email is disabled.
    #[serde(default)]
    pub new_requests_from: Vec<String>,
    /// The line above which people answer, as the helpdesk writes it into its mail; what follows it is history.
    pub reply_delimiter: Option<String>,
    /// Servers whose Authentication-Results (RFC 8601) count, by their authserv-id; "-" is a server that writes none, as
    /// Exchange Online does. Microsoft's and Google's are known by themselves.
    #[serde(default)]
    pub trusted_authserv_ids: Vec<String>,
}

/// `advanced` of the outgoing form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OutgoingAdvanced {
    /// Fills in what is not filled in: URLs, scope, server and port of this provider.
    pub provider: Option<String>,
    /// Issuer identifier of the authorization server (RFC 8414); checked against what it answers.
    pub issuer: Option<String>,
    /// Where tokens are revoked (RFC 7009).
    pub revocation_url: Option<String>,
    /// Where the provider says who signed in (OpenID Connect).
    pub userinfo_url: Option<String>,
    /// Where the provider publishes the keys of its identity tokens.
    pub jwks_url: Option<String>,
    /// How the library comes by access tokens: a person consents in a browser, or elsewhere by a device code; or the
    /// application is let in by itself, with client credentials or as a service account.
    #[serde(default = "authorization_code")]
    pub grant: String,
    /// Where the client secret goes: the Authorization header (client_secret_basic), or the body (client_secret_post).
    /// Automatic follows the provider, and tries the body once where the header is refused.
    #[serde(default = "automatic")]
    pub client_authentication: String,
    /// Certificate of the application in place of its secret.
    pub client_certificate: Option<ClientCertificate>,
    /// JSON key of a Google service account with domain-wide delegation, for the grant jwt_bearer.
    pub service_account: Option<SecretRef>,
    /// Where device codes are given out (RFC 8628).
    pub device_authorization_url: Option<String>,
    /// Where an administrator consents for a whole organisation, at providers that have such a page.
    pub admin_consent_url: Option<String>,
    /// Until when the provider takes the client secret; the library warns before.
    pub client_secret_expires: Option<String>,
    /// PEM file with the certificates to trust in addition to the system's.
    pub ca_file: Option<String>,
    /// The HTTP proxy of every connection of this mailbox: off, environment (HTTPS_PROXY and NO_PROXY of the
    /// helpdesk's process), or the proxy's address. Left out, the plugin's configuration decides.
    pub proxy: Option<String>,
    /// Who signs in at the proxy.
    pub proxy_user: Option<String>,
    /// The password for the proxy: a text, {"env": "NAME"} or {"file": "/path"}; read again at each use.
    pub proxy_password: Option<SecretRef>,
    /// How the access token is presented to the mail server; auto asks the server.
    #[serde(default = "auto")]
    pub sasl_mechanism: String,
    /// Who signs in at the provider, when it is not the username: the delegate of a shared mailbox.
    pub consenting_user: Option<String>,
    /// Parameters to add to the Authorize URL.
    #[serde(default)]
    pub authorize_parameters: BTreeMap<String, String>,
    /// Who signs in at the SMTP server, when it is not the username: for a shared mailbox some servers want the delegate
    /// (Microsoft's do, and there it is the consenting user by itself).
    pub smtp_user: Option<String>,
    /// Address to send from, when it is not the username.
    pub from_address: Option<String>,
    /// TCP port of the alternate server, when it is not the first one's.
    pub alternate_port: Option<u16>,
    /// Automatic mails to one correspondent within 24 hours; more are refused, so that two machines cannot answer each
    /// other without end.
    #[serde(default = "automatic_mails_per_day")]
    pub automatic_mails_per_day: u32,
    /// Messages per minute of this mailbox; more wait. At Microsoft 30 by itself, elsewhere as many as the server takes.
    pub messages_per_minute: Option<u32>,
    /// Messages per minute of all mailboxes of this client id together; more wait.
    pub app_messages_per_minute: Option<u32>,
    /// IMAP server whose sent folder is looked into when the end of a sending is not known. Presets know it.
    pub sent_folder_server: Option<String>,
    /// TCP port of the sent folder's server.
    #[serde(default = "sent_folder_port")]
    pub sent_folder_port: u16,
}

/// `advanced.client_certificate`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClientCertificate {
    /// The certificate as PEM, as it was uploaded at the provider; the chain may follow it. A text, {"env": "NAME"} or
    /// {"file": "/path"}; read again at each use.
    pub certificate: SecretRef,
    /// The key that belongs to it, unencrypted PEM (RSA of 2048 bits or more, or EC on P-256); read again at each use.
    pub private_key: SecretRef,
    /// The name under which the provider knows the key (JWK `kid`), where it looks the key up by that.
    pub key_id: Option<String>,
    /// For whom the statement of the client is made: the token endpoint unless the issuer is chosen.
    pub audience: Option<String>,
}

/// Ids of the presets, in the order of `schema/presets.json`, and the one that fills nothing.
pub(super) const PROVIDERS: &[&str] = &[
    "microsoft365",
    "microsoft365_us_gov",
    "microsoft365_us_dod",
    "microsoft365_china",
    "google",
    "yahoo",
    "aol",
    "fastmail",
    "yandex",
    "mailru",
    "comcast",
    "generic",
];
pub(super) const MECHANISMS: &[&str] = &["auto", "XOAUTH2", "OAUTHBEARER"];
pub(super) const CLIENT_AUTHENTICATIONS: &[&str] = &["automatic", "client_secret_basic", "client_secret_post"];
pub(super) const AUDIENCES: &[&str] = &["token_endpoint", "issuer"];
const GRANTS: &[&str] = &["authorization_code", "device_code", "client_credentials", "jwt_bearer"];
/// Which cursors another protocol can go on from.
const FORMER: &[&str] = &["imap", "ews"];
const ACTIONS: &[&str] = &["leave", "mark_seen", "move", "delete"];

/// What the authorization request sets itself (RFC 6749, RFC 7636, OpenID Connect) or must never carry.
const RESERVED_PARAMETERS: &[&str] = &[
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

const HTTPS_RIGHT: &str = "enter an address that begins with https://, or leave it out";
const FOLDER_RIGHT: &str = "enter the name of a folder of the mailbox";

const fn field(name: &'static str, label: &'static str, rule: Rule, right: &'static str) -> Field {
    Field { name, label, rule, shown: ANY, required: NONE, right, examples: &[] }
}

const PROVIDER: Field = field(
    "provider",
    "Provider",
    Rule::OneOf(PROVIDERS),
    "choose microsoft365, microsoft365_us_gov, microsoft365_us_dod, microsoft365_china, google, yahoo, aol, fastmail, \
     yandex, mailru, comcast or generic",
);
const ISSUER: Field = Field {
    examples: &["https://accounts.google.com"],
    ..field(
        "issuer",
        "Issuer",
        Rule::Text(Pattern::HttpsUrl),
        "enter the provider's issuer that begins with https://, such as https://accounts.google.com, or leave it out",
    )
};
const REVOCATION_URL: Field = field("revocation_url", "Revocation URL", Rule::Text(Pattern::HttpsUrl), HTTPS_RIGHT);
const USERINFO_URL: Field = field("userinfo_url", "User Info URL", Rule::Text(Pattern::HttpsUrl), HTTPS_RIGHT);
const JWKS_URL: Field = field("jwks_url", "Key Set URL", Rule::Text(Pattern::HttpsUrl), HTTPS_RIGHT);
const GRANT: Field = field(
    "grant",
    "Grant",
    Rule::OneOf(GRANTS),
    "choose authorization_code, device_code, client_credentials or jwt_bearer",
);
const CLIENT_AUTHENTICATION: Field = field(
    "client_authentication",
    "Client Authentication",
    Rule::OneOf(CLIENT_AUTHENTICATIONS),
    "choose automatic, client_secret_basic or client_secret_post",
);
const CLIENT_CERTIFICATE: Field = field(
    "client_certificate",
    "Client Certificate",
    Rule::Section(CERTIFICATE_FIELDS),
    "enter an object with \"certificate\" and \"private_key\", or leave it out",
);
const PEM_RIGHT: &str = "enter {\"file\": \"/path\"} of a PEM file, {\"env\": \"NAME\"}, or the PEM text itself";
const CERTIFICATE_FIELDS: &[Field] = &[
    Field { required: ANY, ..field("certificate", "Certificate", Rule::Document, PEM_RIGHT) },
    Field { required: ANY, ..field("private_key", "Private Key", Rule::Document, PEM_RIGHT) },
    field(
        "key_id",
        "Key ID",
        Rule::Text(Pattern::Line),
        "enter the name under which the provider knows the key (kid), or leave it out",
    ),
    field("audience", "Audience", Rule::OneOf(AUDIENCES), "choose token_endpoint or issuer"),
];
const SERVICE_ACCOUNT: Field = field(
    "service_account",
    "Service Account Key",
    Rule::Document,
    "enter {\"file\": \"/path\"} of the JSON key that Google gave out, {\"env\": \"NAME\"}, or its text itself",
);
const DEVICE_AUTHORIZATION_URL: Field =
    field("device_authorization_url", "Device Authorization URL", Rule::Text(Pattern::HttpsUrl), HTTPS_RIGHT);
const ADMIN_CONSENT_URL: Field =
    field("admin_consent_url", "Admin Consent URL", Rule::Text(Pattern::HttpsUrl), HTTPS_RIGHT);
const CLIENT_SECRET_EXPIRES: Field = Field {
    examples: &["2027-11-01"],
    ..field(
        "client_secret_expires",
        "Client Secret Expires",
        Rule::Text(Pattern::Moment),
        "enter a date such as 2027-11-01, or leave it out",
    )
};
const CA_FILE: Field = Field {
    examples: &["/etc/ssl/certs/example-ca.pem"],
    ..field(
        "ca_file",
        "CA File",
        Rule::Text(Pattern::Path),
        "enter the absolute path of a PEM file, such as /etc/ssl/certs/example-ca.pem, or leave it out",
    )
};
const PROXY: Field = Field {
    examples: &["environment", "http://proxy.example.com:3128"],
    ..field(
        "proxy",
        "Proxy",
        Rule::Text(Pattern::Proxy),
        "enter off, environment, or an address such as http://proxy.example.com:3128, or leave it out",
    )
};
const PROXY_USER: Field = field(
    "proxy_user",
    "Proxy User",
    Rule::Text(Pattern::Line),
    "enter the name that signs in at the proxy, or leave it out",
);
const PROXY_PASSWORD: Field = field(
    "proxy_password",
    "Proxy Password",
    Rule::Secret,
    "enter the password, {\"env\": \"NAME\"} or {\"file\": \"/path\"}, or leave it out",
);
const SASL_MECHANISM: Field = Field {
    shown: MAIL,
    ..field("sasl_mechanism", "SASL Mechanism", Rule::OneOf(MECHANISMS), "choose auto, XOAUTH2 or OAUTHBEARER")
};
const CONSENTING_USER: Field = Field {
    examples: &["anna@example.com"],
    ..field(
        "consenting_user",
        "Consenting User",
        Rule::Text(Pattern::Line),
        "enter the name of the person who signs in at the provider, or leave it out",
    )
};
const AUTHORIZE_PARAMETERS: Field = field(
    "authorize_parameters",
    "Authorize Parameters",
    Rule::Parameters { reserved: RESERVED_PARAMETERS },
    "enter an object of names and texts, such as {\"prompt\": \"consent\"}",
);

pub(super) static INCOMING_ADVANCED: &[Field] = &[
    PROVIDER,
    ISSUER,
    REVOCATION_URL,
    USERINFO_URL,
    JWKS_URL,
    GRANT,
    CLIENT_AUTHENTICATION,
    CLIENT_CERTIFICATE,
    SERVICE_ACCOUNT,
    DEVICE_AUTHORIZATION_URL,
    ADMIN_CONSENT_URL,
    CLIENT_SECRET_EXPIRES,
    CA_FILE,
    PROXY,
    PROXY_USER,
    PROXY_PASSWORD,
    SASL_MECHANISM,
    CONSENTING_USER,
    AUTHORIZE_PARAMETERS,
    field(
        "folders",
        "Folders",
        Rule::List { item: Pattern::Line, min: 1 },
        "enter a list of one or more folder names, such as INBOX",
    ),
    Field {
        examples: &["now", "all", "2026-11-01", "2026-11-01T08:00:00Z"],
        ..field(
            "fetch_since",
            "Fetch Since",
            Rule::Text(Pattern::Since),
            "enter now, all, a date such as 2026-11-01, or a moment such as 2026-11-01T08:00:00Z",
        )
    },
    Field {
        shown: MOVABLE,
        ..field(
            "moved_from",
            "Moved From",
            Rule::OneOf(FORMER),
            "choose imap or ews, the protocol that this mailbox was fetched with before, or leave it out",
        )
    },
    field("after_import", "After Import", Rule::OneOf(ACTIONS), "choose leave, mark_seen, move or delete"),
    field("processed_folder", "Processed Folder", Rule::Text(Pattern::Line), FOLDER_RIGHT),
    field("after_refusal", "After Refusal", Rule::OneOf(ACTIONS), "choose leave, mark_seen, move or delete"),
    field("error_folder", "Error Folder", Rule::Text(Pattern::Line), FOLDER_RIGHT),
    Field {
        examples: &["[Request ID: ##{id}##]", "Ticket#{id}"],
        ..field(
            "subject_tag",
            "Subject Tag",
            Rule::Text(Pattern::SubjectTag),
            "enter a text that holds {id} once, such as [Request ID: ##{id}##]",
        )
    },
    Field {
        examples: &["ceo@example.com", "partner.example"],
        ..field(
            "new_requests_from",
            "New Requests From",
            Rule::List { item: Pattern::Sender, min: 0 },
            "enter a list of addresses and domains, such as ceo@example.com and partner.example",
        )
    },
    Field {
        examples: &["##- Please type your reply above this line -##"],
        ..field(
            "reply_delimiter",
            "Reply Delimiter",
            Rule::Text(Pattern::Line),
            "enter the line above which people answer",
        )
    },
    Field {
        examples: &["mx.example.com", "-"],
        ..field(
            "trusted_authserv_ids",
            "Trusted Authentication Servers",
            Rule::List { item: Pattern::Line, min: 0 },
            "enter a list of names that your mail servers write into Authentication-Results, such as mx.example.com",
        )
    },
];

pub(super) static OUTGOING_ADVANCED: &[Field] = &[
    PROVIDER,
    ISSUER,
    REVOCATION_URL,
    USERINFO_URL,
    JWKS_URL,
    GRANT,
    CLIENT_AUTHENTICATION,
    CLIENT_CERTIFICATE,
    SERVICE_ACCOUNT,
    DEVICE_AUTHORIZATION_URL,
    ADMIN_CONSENT_URL,
    CLIENT_SECRET_EXPIRES,
    CA_FILE,
    PROXY,
    PROXY_USER,
    PROXY_PASSWORD,
    SASL_MECHANISM,
    CONSENTING_USER,
    AUTHORIZE_PARAMETERS,
    Field {
        shown: MAIL,
        examples: &["anna@example.com"],
        ..field(
            "smtp_user",
            "SMTP User",
            Rule::Text(Pattern::Line),
            "enter the name that signs in at the SMTP server, or leave it out",
        )
    },
    Field {
        examples: &["helpdesk@example.com"],
        ..field(
            "from_address",
            "From Address",
            Rule::Text(Pattern::Email),
            "enter the address to send from, such as helpdesk@example.com",
        )
    },
    Field {
        shown: MAIL,
        ..field("alternate_port", "Alternate Port", PORT, "enter a whole number from 1 to 65535, or leave it out")
    },
    field(
        "automatic_mails_per_day",
        "Automatic Mails per Day",
        Rule::Whole { min: 1, max: AUTOMATIC_MAILS_MAX },
        "enter a whole number from 1 to 1000, or leave it out",
    ),
    field(
        "app_messages_per_minute",
        "Messages per Minute of the App",
        Rule::Whole { min: 1, max: MESSAGES_PER_MINUTE_MAX },
        "enter a whole number from 1 to 10000, or leave it out",
    ),
    field(
        "messages_per_minute",
        "Messages per Minute",
        Rule::Whole { min: 1, max: MESSAGES_PER_MINUTE_MAX },
        "enter a whole number from 1 to 10000, or leave it out",
    ),
    Field {
        shown: MAIL,
        examples: &["outlook.office365.com"],
        ..field(
            "sent_folder_server",
            "Sent Folder Server",
            Rule::Text(Pattern::Host),
            "enter the name of the IMAP server, such as outlook.office365.com, or leave it out",
        )
    },
    Field {
        shown: MAIL,
        ..field("sent_folder_port", "Sent Folder Port", PORT, "enter a whole number from 1 to 65535, or leave it out")
    },
];

fn authorization_code() -> String {
    "authorization_code".to_owned()
}

fn automatic() -> String {
    CLIENT_AUTHENTICATIONS[0].to_owned()
}

fn auto() -> String {
    "auto".to_owned()
}

fn inbox() -> Vec<String> {
    vec!["INBOX".to_owned()]
}

fn now() -> String {
    "now".to_owned()
}

fn leave() -> String {
    "leave".to_owned()
}

fn automatic_mails_per_day() -> u32 {
    BRAKE_MAILS_DEFAULT
}

fn sent_folder_port() -> u16 {
    super::incoming::imaps_port()
}

fn subject_tag() -> String {
    "[Request ID: ##{id}##]".to_owned()
}
