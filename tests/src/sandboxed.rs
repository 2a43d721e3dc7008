//! Mailboxes of the sandbox provider, as the forms describe them, over each protocol.

use oauth_mail_sandbox::{
    Error, Result, Sandbox,
    browser::{self, Person},
};
use serde_json::{Value, json};
use url::Url;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// IMAPS and SMTP with STARTTLS.
    Imap,
    Ews,
    Graph,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Imap, Self::Ews, Self::Graph];

    /// As in the facts of the sandbox.
    pub fn name(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Ews => "ews",
            Self::Graph => "graph",
        }
    }
}

/// `{"incoming": …}` or `{"outgoing": …}` of NAME@example.test, as a person would type it. All mail is fetched.
pub fn settings(sandbox: &Sandbox, protocol: Protocol, name: &str, form: &str) -> Value {
    let facts = sandbox.facts();
    let address = address(name);
    let mut fields = json!({
        "authentication_type": "OAuth",
        "username": address,
        "client_id": facts["client_id"],
        "authorize_url": facts["authorize_url"],
        "access_token_url": facts["token_url"],
        "scope": facts["scopes"][protocol.name()],
        "redirect_url": crate::servers::REDIRECT_URL,
        "advanced": {
            "ca_file": facts["ca_file"],
            "issuer": facts["issuer"],
            "userinfo_url": facts["userinfo_url"],
            "jwks_url": facts["jwks_url"],
            "revocation_url": facts["revocation_url"],
        },
    });
    let more = match (protocol, form) {
        (Protocol::Imap, "incoming") => json!({
            "connection_protocol": "POP/IMAP/POPS/IMAPS", "server_name": facts["host"], "protocol": "IMAPS",
            "port": facts["imaps_port"],
        }),
        (Protocol::Imap, _) => json!({
            "connection_protocol": "SMTP/SMTPS", "server_name": facts["host"], "protocol": "SMTP", "enable_tls": true,
            "port": facts["submission_port"],
        }),
        (Protocol::Ews, _) => json!({"connection_protocol": "EWS", "connect_url": facts["ews_url"]}),
        (Protocol::Graph, _) => json!({"connection_protocol": "Microsoft Graph", "connect_url": facts["graph_url"]}),
    };
    for (name, value) in more.as_object().into_iter().flatten() {
        fields[name] = value.clone();
    }
    if form == "incoming" {
        fields["email_addresses"] = json!([address]);
        fields["advanced"]["fetch_since"] = json!("all");
    }
    json!({ form: fields })
}

pub fn address(name: &str) -> String {
    format!("{name}@{}", oauth_mail_sandbox::config::DOMAIN)
}

/// NAME signs in and allows; the redirect.
///
/// # Errors
/// When the pages do not lead to it.
pub fn consent(sandbox: &Sandbox, authorize_url: &str, name: &str) -> Result<Url> {
    let facts = sandbox.facts();
    let ca_file = facts["ca_file"].as_str().ok_or_else(|| Error::new("the sandbox has no certificate authority"))?;
    let (login, password) = (address(name), format!("{name}-password"));
    let person = Person { login: &login, password: &password, deny: false };
    browser::walk(ca_file.as_ref(), authorize_url, &person)
}
