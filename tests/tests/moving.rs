//! Moving house: a mailbox that was fetched half over one protocol goes on over another. What was settled never comes again,
//! what was not comes, whenever the process dies.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicI64, Ordering},
};

use oauth_mail_core::{
    Kind,
    hooks::{Handle, Plugin},
    log::Logger,
};
use oauth_mail_sandbox::{Config, Sandbox, mailbox::Mailbox};
use oauth_mail_tests::{
    fixture::{STORE_KEY, authenticate, complete},
    mailbox::{batch, round, settle},
    sandboxed::{self, Protocol},
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

const NAME: &str = "alice";

struct House {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    after_import: &'static str,
    delivered: AtomicI64,
}

impl House {
    fn new(after_import: &'static str) -> Self {
        let (sandbox, folder) = (Sandbox::start(Config::default()).unwrap(), tempfile::tempdir().unwrap());
        Self { sandbox, folder, after_import, delivered: AtomicI64::new(0) }
    }

    fn deliver(&self, subject: &str, message_id: Option<&str>) {
        let id = message_id.map_or_else(String::new, |id| format!("Message-ID: <{id}@outside.test>\r\n"));
        let raw = format!(
            "From: Ada <ada@outside.test>\r\nTo: alice@example.test\r\nDate: Fri, 27 Nov 2026 08:00:00 +0100\r\n\
             {id}Subject: {subject}\r\n\r\nAbout {subject}.\r\n"
        );
        // One a minute: servers tell when a message came to the second.
        let at = OffsetDateTime::now_utc() - Duration::minutes(60 - self.delivered.fetch_add(1, Ordering::Relaxed));
        let append = |mailbox: &mut Mailbox| mailbox.append("INBOX", raw.into_bytes(), BTreeSet::new(), at);
        assert!(self.sandbox.state.mail.with(&sandboxed::address(NAME), append).is_some());
    }

    /// A process of its own, over the same store.
    fn process(&self, protocol: Protocol, moved_from: Option<&str>) -> (Plugin, Handle) {
        let store = self.folder.path().join("store.db");
        let config = json!({"store": format!("sqlite:{}", store.display()), "key": {"value": STORE_KEY},
            "private_networks": "allow"});
        let plugin = Plugin::new(&config.to_string(), Logger::silent()).unwrap();
        let mut settings = sandboxed::settings(&self.sandbox, protocol, NAME, "incoming");
        settings["incoming"]["advanced"]["after_import"] = json!(self.after_import);
        if self.after_import == "move" {
            settings["incoming"]["advanced"]["processed_folder"] = json!("Done");
        }
        if let Some(former) = moved_from {
            settings["incoming"]["advanced"]["moved_from"] = json!(former);
        }
        let handle = plugin.open(&settings.to_string()).unwrap();
        (plugin, handle)
    }

    fn consent(&self, handle: &Handle) {
        let started = authenticate(handle, json!({"action": "start"})).unwrap();
        let redirect = sandboxed::consent(&self.sandbox, started["authorize_url"].as_str().unwrap(), NAME).unwrap();
        complete(handle, redirect.as_str()).unwrap();
    }
}

fn half(from: Protocol, to: Protocol, after_import: &'static str) {
    let house = House::new(after_import);
    for number in 0..6 {
        house.deliver(&format!("note {number}"), Some(&format!("note-{number}")));
    }
    // One mail of a list, in two copies; and two that nobody gave a Message-ID.
    for copy in ["first copy", "second copy"] {
        house.deliver(copy, Some("list"));
    }
    house.deliver("bare and settled", None);
    house.deliver("bare and open", None);
    let former = from.name();

    let settled = ["note 0", "note 1", "note 2", "first copy", "bare and settled"];
    let open = ["bare and open", "note 3", "note 4", "note 5", "second copy"];
    let (plugin, handle) = house.process(from, None);
    house.consent(&handle);
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!(mail.messages.len(), 10);
    let keys = |subjects: &[&str]| -> Vec<String> {
        let wanted = mail.messages.iter().filter(|m| subjects.contains(&m.facts["subject"].as_str().unwrap()));
        wanted.map(|message| message.key.clone()).collect()
    };

    let here = keys(&settled[..3]);
    settle(&handle, here.iter().map(String::as_str), "imported").unwrap();
    drop((handle, plugin));
    // It died in between: another process settles what it never handed out itself, and one of them twice.
    let (plugin, handle) = house.process(from, None);
    let there = keys(&settled[2..]);
    settle(&handle, there.iter().map(String::as_str), "imported").unwrap();
    drop((handle, plugin));

    let (plugin, handle) = house.process(to, None);
    house.consent(&handle);
    let error = round(&handle, &json!({})).err().unwrap();
    assert_eq!(error.kind(), Kind::Settings);
    assert!(error.to_string().contains("Moved From"), "{error}");
    drop((handle, plugin));

    // It dies after the first batch, before anything is settled.
    let (plugin, handle) = house.process(to, Some(former));
    let first = batch(&handle, &json!({"max_messages": 2})).unwrap();
    assert_eq!(first.messages.len(), 2);
    assert!(first.resets.iter().any(|reset| reset.contains("goes on over")), "{:?}", first.resets);
    drop((handle, plugin));

    house.deliver("new", Some("new"));
    let (_plugin, handle) = house.process(to, Some(former));
    let rest = round(&handle, &json!({})).unwrap();
    let mut subjects = rest.subjects();
    subjects.sort_unstable();
    let mut expected = open.to_vec();
    expected.insert(1, "new");
    assert_eq!(subjects, expected);
    assert_eq!(rest.resets, Vec::<String>::new(), "it is told once");
    settle(&handle, rest.keys(), "imported").unwrap();
    assert_eq!(round(&handle, &json!({})).unwrap().subjects(), Vec::<&str>::new());
    house.deliver("newer", None);
    assert_eq!(round(&handle, &json!({})).unwrap().subjects(), ["newer"]);
}

#[test]
fn from_imap_to_ews() {
    for after_import in ["leave", "mark_seen", "move"] {
        half(Protocol::Imap, Protocol::Ews, after_import);
    }
}

#[test]
fn from_imap_to_graph() {
    for after_import in ["leave", "mark_seen", "move"] {
        half(Protocol::Imap, Protocol::Graph, after_import);
    }
}

#[test]
fn from_ews_to_graph() {
    for after_import in ["leave", "mark_seen", "move"] {
        half(Protocol::Ews, Protocol::Graph, after_import);
    }
}
