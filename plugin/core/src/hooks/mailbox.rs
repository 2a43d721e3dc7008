//! Finds the name of a mailbox: a login name at a server.
//!
//! The store keeps a register for each login and direction: at which places it was met (protocol
//! and server), and under which name. A place keeps its name for ever. A place that is new gets
//!
//! 1. the name of the mailbox that it goes on with over another protocol: the one that Moved From
//!    means, or the only one at the same server or the same authorization server;
//! 2. the login alone, once, when an older version wrote cursors under it that this place can read
//!    (its protocol, or Moved From). Older versions kept no server; the first one that fits has it.
//!    Its message keys stay as they were;
//! 3. login and server: a mailbox that begins anew, and says so beside another one.
//!
//! Outgoing records (idempotency keys, automatic mails counted) cannot be listed, so the first place
//! of a login takes the login alone: what older versions wrote counts on. No key of a host names them.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::{key::Name, swap::until_it_holds};
use crate::{
    error::{Error, Kind, Result},
    log::Logger,
    settings::{Account, Direction, Endpoint, Former, MICROSOFT_HOSTS, Protocol},
    store::{Store, Table},
    transport::Cursor,
};

/// A protocol at a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    protocol: &'static str,
    /// Host, and port unless it is the usual one.
    server: String,
}

impl Place {
    pub fn of(account: &Account) -> Self {
        let (protocol, server) = match &account.protocol {
            Protocol::Imap { server } => (IMAP, host_and_port(server, &[993])),
            // Submission and SMTPS of one host are one server (RFC 8314).
            Protocol::Smtp { server, .. } => ("smtp", host_and_port(server, &[25, 465, 587])),
            Protocol::Ews { url } => (EWS, host_of(url)),
            Protocol::Graph { base_url } => (GRAPH, host_of(base_url)),
            Protocol::Gmail { base_url } => ("gmail", host_of(base_url)),
        };
        Self { protocol, server }
    }

    pub fn server(&self) -> &str {
        &self.server
    }
}

const IMAP: &str = "imap";
const EWS: &str = "ews";
const GRAPH: &str = "graph";

/// What one handle knows of its mailbox. The store is asked once.
pub struct Mailbox {
    pub place: Place,
    found: OnceLock<Found>,
}

struct Found {
    name: Name,
    /// Tells that this mailbox began anew beside another one.
    news: Option<String>,
}

impl Mailbox {
    pub fn new(account: &Account) -> Self {
        Self { place: Place::of(account), found: OnceLock::new() }
    }

    /// # Errors
    /// Those of the store; `Settings` when Moved From fits several mailboxes.
    pub fn name(&self, store: &dyn Store, account: &Account, log: &Logger) -> Result<&Name> {
        if let Some(found) = self.found.get() {
            return Ok(&found.name);
        }
        let found = find(store, account, &self.place)?;
        if let Some(news) = &found.news {
            log.warn(format_args!("{news}"));
        }
        Ok(&self.found.get_or_init(|| found).name)
    }

    /// What the store said; `None`: it was not asked yet.
    pub fn known_name(&self) -> Option<&Name> {
        self.found.get().map(|found| &found.name)
    }

    /// For the batch that comes first.
    pub fn news(&self) -> Option<&str> {
        self.found.get()?.news.as_deref()
    }
}

/// The register of one login and direction.
#[derive(Default, Serialize, Deserialize)]
struct Register {
    met: Vec<Met>,
}

#[derive(Serialize, Deserialize)]
struct Met {
    protocol: String,
    server: String,
    /// Who issues its tokens: two protocols of one account share it.
    authority: String,
    /// The server in its name; `None`: the login alone.
    name: Option<String>,
}

fn find(store: &dyn Store, account: &Account, place: &Place) -> Result<Found> {
    let login = account.username.to_lowercase();
    let id = format!("{}/{login}", account.direction.pointer().trim_start_matches('/'));
    let busy = || {
        Error::new(Kind::Transient, "Other processes keep changing the register of this login name.")
            .remedy("The same call can be repeated.")
    };
    until_it_holds(busy, || {
        let record = store.read(Table::Mailbox, &id)?;
        let mut register = match &record {
            Some(record) => serde_json::from_slice(&record.bytes).map_err(|error| {
                Error::new(Kind::Internal, format!("The register of {login} is damaged.")).source_error(error)
            })?,
            None => Register::default(),
        };
        let named = |server: Option<String>| Name { login: login.clone(), server };
        if let Some(known) = register.met.iter().find(|met| met.is_at(place)) {
            return Ok(Some(Found { name: named(known.name.clone()), news: None }));
        }
        let (name, news) = match register.goes_on(account, place)? {
            Some(name) => (name, None),
            None => match register.inherits(store, account, &login)? {
                Inherits::Yes => (None, None),
                // Fetching says what the old cursor belongs to.
                Inherits::OtherProtocol => return Ok(Some(Found { name: named(None), news: None })),
                Inherits::No => (Some(place.server.clone()), register.news(account, place)),
            },
        };
        register.met.push(Met {
            protocol: place.protocol.to_owned(),
            server: place.server.clone(),
            authority: authority(account),
            name: name.clone(),
        });
        let bytes = serde_json::to_vec(&register).map_err(|error| {
            Error::new(Kind::Internal, "The register of a login name could not be written.").source_error(error)
        })?;
        let written = store.write(Table::Mailbox, &id, record.map(|record| record.version), &bytes)?;
        Ok(written.map(|_| Found { name: named(name), news }))
    })
}

enum Inherits {
    Yes,
    OtherProtocol,
    No,
}

impl Register {
    /// The name of the mailbox that goes on here over another protocol.
    fn goes_on(&self, account: &Account, place: &Place) -> Result<Option<Option<String>>> {
        let moved_from = account.fetching.as_ref().and_then(|fetching| fetching.moved_from).map(former_protocol);
        let authority = authority(account);
        // A name that has a server of this protocol belongs to that server.
        let is_free =
            |name: &Option<String>| !self.met.iter().any(|met| met.name == *name && met.protocol == place.protocol);
        let others = self.met.iter().filter(|met| is_free(&met.name));
        let others: Vec<&Met> =
            others.filter(|met| moved_from.is_none_or(|protocol| met.protocol == protocol)).collect();
        let near = others.iter().filter(|met| met.server == place.server || met.authority == authority);
        let near = names(near.copied());
        let all = names(others.iter().copied());
        match (near.as_slice(), all.as_slice(), moved_from) {
            ([one], _, _) | (_, [one], Some(_)) => Ok(Some((*one).clone())),
            (_, [_, _, ..], Some(protocol)) => {
                let servers: Vec<&str> = others.iter().map(|met| met.server.as_str()).collect();
                let message = format!(
                    "Moved From says {protocol}, and {} was fetched that way from several servers: {}.",
                    account.username,
                    servers.join(", ")
                );
                Err(Error::new(Kind::Settings, message).remedy(
                    "Use the same authorization server as the former mailbox; or leave Moved From empty, and the \
                     mailbox begins at Fetch Since.",
                ))
            }
            _ => Ok(None),
        }
    }

    /// Is the login alone still free, and its records fit for this account?
    fn inherits(&self, store: &dyn Store, account: &Account, login: &str) -> Result<Inherits> {
        if self.met.iter().any(|met| met.name.is_none()) {
            return Ok(Inherits::No);
        }
        let Some(fetching) = &account.fetching else { return Ok(Inherits::Yes) };
        let old = Name { login: login.to_owned(), server: None };
        let inbox = "INBOX".to_owned();
        for folder in fetching.folders.iter().chain([&inbox]) {
            let Some(record) = store.read(Table::Cursor, &old.folder_id(folder))? else { continue };
            let cursor: Cursor = serde_json::from_slice(&record.bytes).map_err(|error| {
                Error::new(Kind::Internal, format!("The cursor of {folder} is damaged.")).source_error(error)
            })?;
            let (protocol, former) = match cursor {
                Cursor::Imap(_) => (IMAP, Some(Former::Imap)),
                Cursor::Ews(_) => (EWS, Some(Former::Ews)),
                Cursor::Graph(_) => (GRAPH, None),
            };
            let fits = Place::of(account).protocol == protocol || former.is_some() && former == fetching.moved_from;
            return Ok(if fits { Inherits::Yes } else { Inherits::OtherProtocol });
        }
        Ok(Inherits::No)
    }

    fn news(&self, account: &Account, place: &Place) -> Option<String> {
        let other = self.met.iter().rfind(|met| met.server != place.server)?;
        let (login, server) = (&account.username, &place.server);
        (account.direction == Direction::Incoming).then(|| {
            format!(
                "{login} at {server} is another mailbox than {login} at {}: it begins anew, at Fetch Since, and \
                 its messages have keys of their own.",
                other.server
            )
        })
    }
}

impl Met {
    fn is_at(&self, place: &Place) -> bool {
        self.protocol == place.protocol && self.server == place.server
    }
}

/// Each once.
fn names<'a>(met: impl Iterator<Item = &'a Met>) -> Vec<&'a Option<String>> {
    let mut names: Vec<_> = met.map(|met| &met.name).collect();
    names.sort();
    names.dedup();
    names
}

fn former_protocol(former: Former) -> &'static str {
    match former {
        Former::Imap => IMAP,
        Former::Ews => EWS,
    }
}

/// One tenant of Microsoft has several token URLs: by its id, its domain, and `common`.
fn authority(account: &Account) -> String {
    let url = &account.client.token_url;
    match url.host_str() {
        Some(host) if MICROSOFT_HOSTS.contains(&host) => host.to_owned(),
        _ => url.as_str().trim_end_matches('/').to_owned(),
    }
}

fn host_and_port(server: &Endpoint, usual: &[u16]) -> String {
    let host = server.host.trim_end_matches('.').to_lowercase();
    if usual.contains(&server.port) { host } else { format!("{host}:{}", server.port) }
}

/// The port only where it is not the usual one of the scheme.
fn host_of(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_lowercase();
    url.port().map_or(host.clone(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        settings::parse,
        store::{SealingKey, SqliteStore},
        transport::imap,
    };

    fn store() -> SqliteStore {
        let key = SealingKey::from_config(&json!({"value": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}));
        SqliteStore::in_memory(key.unwrap()).unwrap()
    }

    fn account(protocol: &str, server: &str, idp: &str, moved_from: Option<&str>) -> Account {
        let mut form = json!({
            "connection_protocol": protocol, "authentication_type": "OAuth", "username": "Support",
            "email_addresses": ["support@a.test"], "client_id": "c", "scope": "mail",
            "authorize_url": format!("https://{idp}/authorize"), "access_token_url": format!("https://{idp}/token"),
            "redirect_url": "http://127.0.0.1:8765/callback", "advanced": {},
        });
        match protocol {
            "EWS" => form["connect_url"] = json!(format!("https://{server}/EWS/Exchange.asmx")),
            _ => {
                let (host, port) = server.split_once(':').unwrap_or((server, "993"));
                form["server_name"] = json!(host);
                form["port"] = json!(port.parse::<u16>().unwrap());
            }
        }
        if let Some(former) = moved_from {
            form["advanced"]["moved_from"] = json!(former);
        }
        parse(&json!({ "incoming": form }).to_string()).unwrap()
    }

    fn found(store: &SqliteStore, account: &Account) -> (Option<String>, bool) {
        let found = find(store, account, &Place::of(account)).unwrap();
        (found.name.server, found.news.is_some())
    }

    const IMAP_FORM: &str = "POP/IMAP/POPS/IMAPS";

    fn old_cursor(store: &SqliteStore) {
        let cursor = Cursor::Imap(imap::Cursor::new(1, 5, 0));
        let bytes = serde_json::to_vec(&cursor).unwrap();
        store.write(Table::Cursor, "support/INBOX", None, &bytes).unwrap().unwrap();
    }

    #[test]
    fn one_login_at_two_servers_is_two_mailboxes_and_the_second_says_so() {
        let store = store();
        let at = |server: &str| (Some(server.to_owned()), false);
        let [a, b] = ["mail.a.test", "Mail.B.Test:24993"].map(|server| account(IMAP_FORM, server, "idp.test", None));
        assert_eq!(found(&store, &a), at("mail.a.test"));
        assert_eq!(found(&store, &b), (Some("mail.b.test:24993".into()), true));
        assert_eq!(found(&store, &a), at("mail.a.test"));
        assert_eq!(found(&store, &b), at("mail.b.test:24993"), "told once");
    }

    #[test]
    fn records_of_an_older_version_are_taken_over_once_by_the_first_that_fits() {
        let store = store();
        old_cursor(&store);
        // Another protocol finds what it found before, and takes nothing.
        assert_eq!(found(&store, &account("EWS", "a.test", "idp.test", None)), (None, false));
        assert_eq!(found(&store, &account(IMAP_FORM, "a.test", "idp.test", None)), (None, false));
        assert_eq!(found(&store, &account(IMAP_FORM, "b.test", "idp.test", None)), (Some("b.test".into()), true));
        assert_eq!(found(&store, &account(IMAP_FORM, "a.test", "idp.test", None)), (None, false));
    }

    #[test]
    fn moving_house_keeps_the_name_whatever_the_new_server_is() {
        let store = store();
        found(&store, &account(IMAP_FORM, "a.test", "idp.test", None));
        let moved = account("EWS", "cloud.test", "other.test", Some("imap"));
        assert_eq!(found(&store, &moved), (Some("a.test".into()), false));
        // The same from an older version's records.
        let store = self::store();
        old_cursor(&store);
        assert_eq!(found(&store, &moved), (None, false));
        // Over one authorization server it is one account, and fetching asks for Moved From.
        let store = self::store();
        found(&store, &account(IMAP_FORM, "a.test", "idp.test", None));
        assert_eq!(found(&store, &account("EWS", "cloud.test", "idp.test", None)).0.as_deref(), Some("a.test"));
        // The name is taken now: a third server is a mailbox of its own.
        assert_eq!(found(&store, &account(IMAP_FORM, "c.test", "idp.test", None)).0.as_deref(), Some("c.test"));
        assert_eq!(found(&store, &account("EWS", "far.test", "far.test", None)).0.as_deref(), Some("far.test"));
    }

    #[test]
    fn moved_from_that_fits_two_servers_is_asked_about() {
        let store = store();
        for server in ["a.test", "b.test"] {
            found(&store, &account(IMAP_FORM, server, server, None));
        }
        let far = account("EWS", "cloud.test", "idp.test", Some("imap"));
        let error = find(&store, &far, &Place::of(&far)).err().unwrap();
        assert_eq!(error.kind(), Kind::Settings);
        assert!(error.message().contains("a.test, b.test"), "{error}");
        let near = account("EWS", "cloud.test", "b.test", Some("imap"));
        assert_eq!(found(&store, &near).0.as_deref(), Some("b.test"));
    }
}
