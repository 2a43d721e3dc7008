//! Mailboxes of the sandbox provider, as the forms describe them, over each protocol.

use oauth_mail_core::{
    hooks::{Handle, Plugin},
    log::Logger,
};
use oauth_mail_sandbox::{
    Config, Error, Result, Sandbox,
    browser::{self, Person},
    mailbox::{Folder, Message},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::fixture::{self, STORE_KEY};

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

/// A sandbox, and a plugin with a store of its own.
pub struct Desk {
    pub sandbox: Sandbox,
    pub plugin: Plugin,
    pub protocol: Protocol,
    folder: TempDir,
}

impl Desk {
    /// # Panics
    /// When the sandbox does not start or the plugin cannot be made.
    pub fn new(protocol: Protocol, config: Config) -> Self {
        let sandbox = Sandbox::start(config).expect("the sandbox starts");
        let folder = tempfile::Builder::new().prefix("om-store").tempdir().expect("a folder");
        let plugin = plugin(&folder);
        Self { sandbox, plugin, protocol, folder }
    }

    /// Another plugin over the same store: after a restart.
    pub fn plugin_again(&self) -> Plugin {
        plugin(&self.folder)
    }

    /// Somebody's mailbox, consented. `change` sees the form first.
    ///
    /// # Panics
    /// When the settings do not open or the consent fails: then the scenario cannot begin.
    pub fn open(&self, name: &str, form: &str, change: impl FnOnce(&mut Value)) -> Handle {
        let handle = self.opened(name, form, change);
        let redirect = fixture::redirect_by(&handle, |url| consent(&self.sandbox, url, name)).expect("a redirect");
        fixture::complete(&handle, redirect.as_str()).unwrap_or_else(|e| panic!("consent of {name}: {e:?}"));
        handle
    }

    /// The same without a consent.
    ///
    /// # Panics
    /// When the settings do not open.
    pub fn opened(&self, name: &str, form: &str, change: impl FnOnce(&mut Value)) -> Handle {
        let mut settings = settings(&self.sandbox, self.protocol, name, form);
        change(&mut settings[form]);
        self.plugin.open(&settings.to_string()).unwrap_or_else(|e| panic!("open {name}: {e:?}"))
    }

    /// Into somebody's inbox.
    ///
    /// # Panics
    /// When there is no such mailbox.
    pub fn deliver(&self, name: &str, raw: &[u8]) {
        assert!(self.sandbox.state.mail.deliver("", &address(name), raw), "no mailbox of {name}");
    }

    /// What lies in a folder, seen by `look`.
    ///
    /// # Panics
    /// When there is no such mailbox or folder.
    pub fn look<T>(&self, name: &str, folder: &str, look: impl Fn(&Message) -> T) -> Vec<T> {
        let all = |folder: &mut Folder| folder.messages.iter().map(&look).collect();
        let found = self.sandbox.state.mail.with(&address(name), |mailbox| {
            let names: Vec<_> = mailbox.folders.iter().map(|folder| folder.name.clone()).collect();
            mailbox.folder(folder).map(all).ok_or(names)
        });
        match found {
            Some(Ok(found)) => found,
            other => panic!("no folder {folder} of {name}: {:?}", other.map(Result::err)),
        }
    }
}

fn plugin(folder: &TempDir) -> Plugin {
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let config = json!({"store": store, "key": {"value": STORE_KEY}, "private_networks": "allow"});
    Plugin::new(&config.to_string(), Logger::silent()).expect("a plugin")
}
