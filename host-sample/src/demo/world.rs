//! What the steps of the demo work on: servers, two people, a helpdesk.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use oauth_mail_abi::{Account, Library};
use serde_json::{Value, json};
use url::Url;

use super::Protocol;
use crate::{
    cli::{Consented, consent_with},
    failure::{Failure, Result},
    helpdesk::Helpdesk,
    host::{Direction, Host, Settings},
    interrupt,
    listener::Listener,
    output::Output,
    servers::Servers,
};

/// Numbers of the two users that the servers were asked for.
pub const DESK: usize = 0;
pub const CUSTOMER: usize = 1;

const CONSENT_PATIENCE: Duration = Duration::from_secs(90);
/// From a mail server's 250 to the message in the mailbox.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub library_path: Option<PathBuf>,
    pub servers_path: Option<PathBuf>,
    pub protocol: Protocol,
    pub output: Output,
    pub servers: Option<Servers>,
    pub library: Option<Library>,
    pub desk: Option<Host>,
    pub customer: Option<Host>,
    /// The redirect that was redeemed.
    pub redirect: Option<Url>,
    /// Message-ID of the customer's first mail.
    pub question_id: String,
    /// Message-ID of the helpdesk's reply.
    pub reply_id: String,
    folder: PathBuf,
    keep: bool,
}

impl World {
    pub fn new(
        library: Option<&Path>,
        servers: Option<&Path>,
        protocol: Protocol,
        keep: bool,
        output: Output,
    ) -> Result<Self> {
        let name = format!("oauth-mail-demo-{}-{}", std::process::id(), protocol.name());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)
            .map_err(|error| Failure::other(format!("The folder {} cannot be made: {error}.", folder.display())))?;
        Ok(Self {
            library_path: library.map(Path::to_owned),
            servers_path: servers.map(Path::to_owned),
            protocol,
            output,
            servers: None,
            library: None,
            desk: None,
            customer: None,
            redirect: None,
            question_id: String::new(),
            reply_id: String::new(),
            folder,
            keep,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn servers(&self) -> Result<&Servers> {
        self.servers.as_ref().ok_or_else(|| missing("servers"))
    }

    pub fn desk(&self) -> Result<&Host> {
        self.desk.as_ref().ok_or_else(|| missing("helpdesk"))
    }

    pub fn customer(&self) -> Result<&Host> {
        self.customer.as_ref().ok_or_else(|| missing("customer"))
    }

    /// A plugin of its own for `user`, with the settings of [`Self::settings`].
    pub fn host(&self, name: &str, user: usize, client_id: Option<&str>) -> Result<Host> {
        let document = self.settings(user, client_id)?;
        let library = self.library.as_ref().ok_or_else(|| missing("library"))?;
        Host::start(library, Settings::new(self.folder.join(format!("{name}.json")), document)?, &self.output)
    }

    /// As [`Self::host`], incoming over IMAP and outgoing over Graph, whatever the walk is about.
    pub fn mixed_host(&self, name: &str, user: usize, client_id: &str) -> Result<Host> {
        let mut document = self.settings(user, Some(client_id))?;
        let facts = &self.servers()?.facts;
        for (direction, protocol) in [(Direction::Incoming, Protocol::Imap), (Direction::Outgoing, Protocol::Graph)] {
            let form = &mut document[direction.name()];
            form["scope"] = facts["scopes"][protocol.name()].clone();
            merge(form, self.connection_over(protocol, direction)?);
            if protocol == Protocol::Imap
                && let Some(form) = form.as_object_mut()
            {
                form.remove("connect_url");
            }
            if protocol == Protocol::Graph
                && let Some(form) = form.as_object_mut()
            {
                for field in ["server_name", "protocol", "enable_tls", "port"] {
                    form.remove(field);
                }
            }
        }
        let library = self.library.as_ref().ok_or_else(|| missing("library"))?;
        Host::start(library, Settings::new(self.folder.join(format!("{name}.json")), document)?, &self.output)
    }

    /// As [`Self::host`], with the page where administrators consent.
    pub fn tenant_host(&self, name: &str, user: usize, client_id: &str, page: &str) -> Result<Host> {
        let mut document = self.settings(user, Some(client_id))?;
        for direction in [Direction::Incoming, Direction::Outgoing] {
            document[direction.name()]["advanced"]["admin_consent_url"] = page.into();
        }
        let library = self.library.as_ref().ok_or_else(|| missing("library"))?;
        Host::start(library, Settings::new(self.folder.join(format!("{name}.json")), document)?, &self.output)
    }

    /// Sends a person to `url`: where the provider leads the browser to.
    pub fn redirect_of(&self, host: &Host, url: &str, person: usize) -> Result<Url> {
        let redirect = crate::cli::redirect_url(host, Direction::Incoming)?;
        let listener = Listener::bind(&redirect)?
            .ok_or_else(|| Failure::other("The Redirect URL of the demo is not on this machine."))?;
        let walk = self.servers()?.walk(url, person);
        match listener.wait(CONSENT_PATIENCE) {
            Ok(redirected) => {
                let url = redirected.url.clone();
                redirected.answer("Thank you", "You can close this window and go back to the helpdesk.");
                Ok(url)
            }
            Err(failure) => Err(walk.try_recv().ok().and_then(Result::err).unwrap_or(failure)),
        }
    }

    /// What a person would type into the two forms.
    pub fn settings(&self, user: usize, client_id: Option<&str>) -> Result<Value> {
        let servers = self.servers()?;
        let (address, _) = servers.user(user);
        let mut advanced = json!({"ca_file": servers.text("ca_file"), "issuer": servers.text("issuer")});
        for name in ["revocation_url", "userinfo_url", "jwks_url"] {
            if let Some(url) = servers.facts[name].as_str() {
                advanced[name] = url.into();
            }
        }
        // The provider issues refresh tokens only when it has asked the person.
        advanced["authorize_parameters"] = json!({"prompt": "consent"});
        let oauth = json!({
            "authentication_type": "OAuth",
            "username": address,
            "client_id": client_id.unwrap_or(servers.text("client_id")),
            "authorize_url": servers.text("authorize_url"),
            "access_token_url": servers.text("token_url"),
            "scope": servers.facts["scopes"][self.protocol.name()].as_str().unwrap_or(servers.text("scope")),
            "redirect_url": format!("http://127.0.0.1:{}/callback", free_port()?),
            "advanced": advanced,
        });
        let mut incoming = oauth.clone();
        merge(
            &mut incoming,
            json!({
                "email_addresses": [address],
                "fetch_interval_minutes": 1,
            }),
        );
        merge(&mut incoming, self.connection(Direction::Incoming)?);
        incoming["advanced"]["fetch_since"] = "all".into();
        let mut outgoing = oauth;
        merge(
            &mut outgoing,
            json!({
                "sender_name": if user == DESK { "Example Helpdesk" } else { "Bob Customer" },
                "reply_to": address,
            }),
        );
        merge(&mut outgoing, self.connection(Direction::Outgoing)?);
        Ok(json!({"plugin": {"private_networks": "allow"}, "incoming": incoming, "outgoing": outgoing}))
    }

    /// The fields that say where the server is.
    fn connection(&self, direction: Direction) -> Result<Value> {
        self.connection_over(self.protocol, direction)
    }

    fn connection_over(&self, protocol: Protocol, direction: Direction) -> Result<Value> {
        let facts = &self.servers()?.facts;
        let url = |protocol: &str, fact: &str| json!({"connection_protocol": protocol, "connect_url": facts[fact]});
        let host = facts["host"].as_str().unwrap_or("localhost");
        Ok(match (protocol, direction) {
            (Protocol::Imap, Direction::Incoming) => json!({
                "connection_protocol": "POP/IMAP/POPS/IMAPS",
                "server_name": host,
                "protocol": "IMAPS",
                "port": facts["imaps_port"],
            }),
            (Protocol::Imap, Direction::Outgoing) => json!({
                "connection_protocol": "SMTP/SMTPS",
                "server_name": host,
                "protocol": "SMTP",
                "enable_tls": true,
                "port": facts["submission_port"],
            }),
            (Protocol::Ews, _) => url("EWS", "ews_url"),
            (Protocol::Graph, _) => url("Microsoft Graph", "graph_url"),
        })
    }

    pub fn helpdesk(&self) -> Result<Helpdesk> {
        Helpdesk::open(&self.folder.join("helpdesk.db"))
    }

    /// `account`'s consent window, in which `person` signs in.
    pub fn consent(&self, host: &Host, account: &Account, person: usize) -> Result<Consented> {
        self.consent_to(host, account, &[], person)
    }

    /// The same window asks for `also`.
    pub fn consent_to(&self, host: &Host, account: &Account, also: &[Value], person: usize) -> Result<Consented> {
        let servers = self.servers()?;
        let redirect = crate::cli::redirect_url(host, Direction::Incoming)?;
        let mut walk = None;
        let result = consent_with(account, also, &redirect, CONSENT_PATIENCE, |url| {
            let parsed: Url =
                url.parse().map_err(|error| Failure::other(format!("The authorize_url cannot be read: {error}.")))?;
            for (name, value) in [("code_challenge_method", "S256"), ("response_type", "code"), ("state", "")] {
                let found = parsed.query_pairs().any(|(n, v)| n == name && (value.is_empty() || v == value));
                ensure(found, || format!("the authorize_url lacks {name} {value}"))?;
            }
            walk = Some(servers.walk(url, person));
            Ok(())
        });
        // When no redirect came, the person knows why.
        if let (Err(Failure::Consent(_)), Some(walk)) = (&result, &walk)
            && let Ok(Err(failure)) = walk.try_recv()
        {
            return Err(failure);
        }
        result
    }

    /// Fetches until `wanted` finds something, and settles what was delivered as imported.
    pub fn await_mail<T>(&self, account: &Account, wanted: impl Fn(&Value, &[u8]) -> Option<T>) -> Result<T> {
        let end = Instant::now() + DELIVERY_PATIENCE;
        loop {
            interrupt::check()?;
            let batch = account.fetch_batch(&crate::round::request())?;
            let found = batch.iter().find_map(|message| wanted(&message.facts(), message.raw));
            let results: Value = batch.iter().map(|message| (message.key.to_owned(), json!("imported"))).collect();
            if !batch.is_empty() {
                account.settle_batch(&json!({ "results": results }))?;
            }
            match found {
                Some(found) => return Ok(found),
                None if Instant::now() >= end => return Err(Failure::other("The message never arrived.")),
                None => interrupt::sleep(Duration::from_millis(300)),
            }
        }
    }

    pub fn open(&self, host: &Host, direction: Direction) -> Result<Arc<Account>> {
        host.open(direction)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.desk = None;
        self.customer = None;
        self.servers = None;
        if self.keep {
            let folder = self.folder.display();
            self.output.say(&format!("kept: {folder}"), &json!({"event": "kept", "folder": folder.to_string()}));
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A step's expectation; the sentence says what was seen instead.
pub fn ensure(truth: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if truth { Ok(()) } else { Err(Failure::other(format!("Expected otherwise: {}.", otherwise()))) }
}

fn missing(what: &str) -> Failure {
    Failure::other(format!("An earlier step left no {what}."))
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// The settings carry the port of the redirect URL (RFC 8252 section 7.3); the provider accepts any on loopback.
fn free_port() -> Result<u16> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|socket| socket.local_addr())
        .map(|address| address.port())
        .map_err(|error| Failure::other(format!("This machine gives no free port: {error}.")))
}
