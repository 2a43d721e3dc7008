//! Fields that both forms have in the same words.

use super::{
    form::{ANY, Field, NONE, Rule},
    pattern::Pattern,
};

pub(super) const AUTHENTICATION_TYPE: Field = Field {
    name: "authentication_type",
    label: "Authentication Type",
    rule: Rule::OneOf(&["OAuth"]),
    shown: ANY,
    required: NONE,
    right: "choose \"OAuth\"",
    examples: &[],
};

pub(super) const CONNECT_URL_RIGHT: &str =
    "enter an address that begins with https://, such as https://mail.example.com/EWS/Exchange.asmx";
pub(super) const CONNECT_URL_EXAMPLES: &[&str] =
    &["https://outlook.office365.com/EWS/Exchange.asmx", "https://mail.example.com/EWS/Exchange.asmx"];

pub(super) const USERNAME: Field = Field {
    name: "username",
    label: "Username",
    rule: Rule::Text(Pattern::Line),
    shown: ANY,
    required: ANY,
    right: "enter the name with which the mailbox signs in, such as helpdesk@example.com",
    examples: &["helpdesk@example.com"],
};

pub(super) const CLIENT_ID: Field = Field {
    name: "client_id",
    label: "Client ID",
    rule: Rule::Text(Pattern::Line),
    shown: ANY,
    required: ANY,
    right: "enter the identifier of the application that you registered at the provider",
    examples: &["11111111-2222-3333-4444-555555555555"],
};

pub(super) const CLIENT_SECRET: Field = Field {
    name: "client_secret",
    label: "Client Secret",
    rule: Rule::Secret,
    shown: ANY,
    required: NONE,
    right: "enter the secret as one line of text, or {\"env\": \"NAME\"} or {\"file\": \"/path\"}",
    examples: &[],
};

pub(super) const AUTHORIZE_URL: Field = Field {
    name: "authorize_url",
    label: "Authorize URL",
    rule: Rule::Text(Pattern::HttpsUrl),
    shown: ANY,
    required: ANY,
    right: "enter the provider's address that begins with https://, such as https://login.example.com/oauth2/authorize",
    examples: &["https://accounts.google.com/o/oauth2/v2/auth"],
};

pub(super) const ACCESS_TOKEN_URL: Field = Field {
    name: "access_token_url",
    label: "Access Token URL",
    rule: Rule::Text(Pattern::HttpsUrl),
    shown: ANY,
    required: ANY,
    right: "enter the provider's address that begins with https://, such as https://login.example.com/oauth2/token",
    examples: &["https://oauth2.googleapis.com/token"],
};

pub(super) const SCOPE: Field = Field {
    name: "scope",
    label: "Scope",
    rule: Rule::Text(Pattern::Scope),
    shown: ANY,
    required: ANY,
    right: "enter the scopes separated by spaces, such as https://mail.google.com/",
    examples: &["https://mail.google.com/"],
};

pub(super) const REDIRECT_URL: Field = Field {
    name: "redirect_url",
    label: "Redirect URL",
    rule: Rule::Text(Pattern::RedirectUrl),
    shown: ANY,
    required: ANY,
    right: "enter the address of the helpdesk as registered at the provider, such as https://desk.example.com/oauth/redirect",
    examples: &["https://desk.example.com/oauth/redirect", "http://127.0.0.1:8080/callback"],
};
