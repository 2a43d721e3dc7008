//! A mailbox is a login name at a server: nothing of "alice" at one server meets "alice" at another.
//! Stores of older versions, which knew the login alone, go on.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, path::Path};

use oauth_mail_core::{
    hooks::{Handle, Plugin},
    log::Logger,
};
use oauth_mail_sandbox::{Config, Sandbox};
use oauth_mail_tests::{
    fixture::{Log, STORE_KEY, authenticate, complete, parse},
    mailbox::{note, round, settle},
    sandboxed::{self, Protocol},
};
use serde_json::{Value, json};
use time::OffsetDateTime;

const NAME: &str = "alice";
/// Written by the build of commit a8c0464 (before mailboxes had a server in their name): see
/// [`write_the_store_of_an_older_version`].
const OLD_STORE: &[u8] = include_bytes!("fixtures/store-1.0.0.db");
const OLD_KEY: &str = "alice@example.test/INBOX/1.";

fn old_key(uid: usize) -> String {
    format!("{OLD_KEY}{uid}")
}

/// A server whose folders have the UIDVALIDITY that restored and cloned servers share.
fn server() -> Sandbox {
    let sandbox = Sandbox::start(Config::default()).unwrap();
    let inbox = sandbox.state.mail.with(&sandboxed::address(NAME), |mailbox| {
        mailbox.folder("INBOX").unwrap().uid_validity = 1;
    });
    inbox.unwrap();
    sandbox
}

fn deliver(sandbox: &Sandbox, number: usize) {
    let raw = note(number);
    let append = |mailbox: &mut oauth_mail_sandbox::mailbox::Mailbox| {
        mailbox.append("INBOX", raw, BTreeSet::new(), OffsetDateTime::now_utc())
    };
    sandbox.state.mail.with(&sandboxed::address(NAME), append).unwrap().unwrap();
}

fn plugin(folder: &Path, log: Logger) -> Plugin {
    let config = json!({"store": format!("sqlite:{}/store.db", folder.display()), "key": {"value": STORE_KEY},
        "private_networks": "allow"});
    Plugin::new(&config.to_string(), log).unwrap()
}

fn consented(plugin: &Plugin, sandbox: &Sandbox, protocol: Protocol, form: &str, label: Option<&str>) -> Handle {
    let mut settings = sandboxed::settings(sandbox, protocol, NAME, form);
    if let Some(label) = label {
        settings["label"] = json!(label);
    }
    let handle = plugin.open(&settings.to_string()).unwrap();
    let started = authenticate(&handle, json!({"action": "start"})).unwrap();
    let redirect = sandboxed::consent(sandbox, started["authorize_url"].as_str().unwrap(), NAME).unwrap();
    complete(&handle, redirect.as_str()).unwrap();
    handle
}

fn incoming(plugin: &Plugin, sandbox: &Sandbox) -> Handle {
    consented(plugin, sandbox, Protocol::Imap, "incoming", None)
}

fn send(handle: &Handle, key: &str, subject: &str) -> Value {
    let request = json!({"to": ["bob@example.test"], "subject": subject, "text": "x", "idempotency_key": key});
    parse(&handle.send_message(&request.to_string(), &[]).unwrap())
}

/// Run at commit a8c0464 with STORE_TO=FILE: three messages are settled, one is put aside, two were
/// handed out and not settled, and one was sent under an idempotency key.
#[test]
#[ignore = "makes fixtures/store-1.0.0.db, at the commit of that version"]
fn write_the_store_of_an_older_version() {
    let (sandbox, folder) = (server(), tempfile::tempdir().unwrap());
    (1..=6).for_each(|number| deliver(&sandbox, number));
    let plugin = plugin(folder.path(), Logger::silent());
    let handle = incoming(&plugin, &sandbox);
    assert_eq!(round(&handle, &json!({})).unwrap().messages.len(), 6);
    settle(&handle, [1, 2, 3].map(old_key).iter().map(String::as_str), "imported").unwrap();
    for _ in 0..3 {
        settle(&handle, [&*old_key(4)], "failed").unwrap();
        round(&handle, &json!({})).unwrap();
    }
    let out = consented(&plugin, &sandbox, Protocol::Imap, "outgoing", None);
    assert_eq!(send(&out, "once", "the first")["outcome"], "sent");
    // The last one to close the database writes its journal back into the file.
    drop((handle, out, plugin));
    std::fs::copy(folder.path().join("store.db"), std::env::var("STORE_TO").unwrap()).unwrap();
}

#[test]
fn a_store_of_an_older_version_goes_on_and_nothing_comes_twice() {
    let (a, b, folder) = (server(), server(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("store.db"), OLD_STORE).unwrap();
    for number in 1..=8 {
        deliver(&a, number);
        deliver(&b, 100 + number);
    }
    let plugin = plugin(folder.path(), Logger::silent());
    let first = incoming(&plugin, &a);
    let mail = round(&first, &json!({})).unwrap();
    assert_eq!(mail.keys(), [5, 6, 7, 8].map(old_key), "what was settled stays settled");
    assert!(mail.resets.is_empty(), "{:?}", mail.resets);
    let aside = parse(&first.fetch_batch(r#"{"quarantine": "list"}"#).unwrap().header);
    assert_eq!(aside["quarantine"][0]["key"], old_key(4));
    // What an older version handed out is settled under its key.
    assert_eq!(settle(&first, [&*old_key(5)], "imported").unwrap()[&old_key(5)], "left");
    assert_eq!(settle(&first, [&*old_key(4)], "drop").unwrap()[&old_key(4)], "dropped");

    let second = incoming(&plugin, &b);
    let mail = round(&second, &json!({})).unwrap();
    assert_eq!(mail.subjects(), (101..=108).map(|number| format!("note {number}")).collect::<Vec<_>>());
    assert!(mail.resets.iter().any(|reset| reset.contains("another mailbox")), "{:?}", mail.resets);
    assert!(mail.keys().iter().all(|key| !key.starts_with(OLD_KEY)), "{:?}", mail.keys());
    assert!(settle(&second, [&*old_key(6)], "imported").is_err(), "a key of the other mailbox");

    let out = [&a, &b].map(|sandbox| consented(&plugin, sandbox, Protocol::Imap, "outgoing", None));
    let arrived = |sandbox: &Sandbox| {
        sandbox.state.mail.with("bob@example.test", |bob| bob.folder("INBOX").unwrap().messages.len()).unwrap()
    };
    assert_eq!((send(&out[0], "once", "again")["outcome"].clone(), arrived(&a)), (json!("sent"), 0), "sent before");
    assert_eq!((send(&out[1], "once", "other")["outcome"].clone(), arrived(&b)), (json!("sent"), 1));

    // After a restart each goes on where it stood.
    drop((first, second, out));
    let plugin = self::plugin(folder.path(), Logger::silent());
    let [first, second] = [&a, &b].map(|sandbox| incoming(&plugin, sandbox));
    assert_eq!(round(&first, &json!({})).unwrap().keys(), [6, 7, 8].map(old_key));
    let again = round(&second, &json!({})).unwrap();
    assert_eq!((again.messages.len(), again.resets.len()), (8, 0));
}

#[test]
fn one_login_at_two_servers_loses_and_doubles_nothing() {
    let (servers, folder) = ([server(), server()], tempfile::tempdir().unwrap());
    let log = Log::default();
    let plugin = plugin(folder.path(), log.logger());
    let open = |at: usize| consented(&plugin, &servers[at], Protocol::Imap, "incoming", Some(["A", "B"][at]));
    let handles = [open(0), open(1)];
    let mut seen = BTreeSet::new();
    for turn in 1..=4 {
        for (at, handle) in handles.iter().enumerate() {
            let number = 100 * (at + 1) + turn;
            deliver(&servers[at], number);
            let mail = round(handle, &json!({})).unwrap();
            assert_eq!(mail.subjects(), [format!("note {number}")], "server {at}, turn {turn}");
            assert!(seen.insert(mail.messages[0].key.clone()), "{} came twice", mail.messages[0].key);
            settle(handle, mail.keys(), "imported").unwrap();
            let resets = mail.resets.iter().filter(|reset| !reset.contains("another mailbox")).count();
            assert_eq!(resets, 0, "{:?}", mail.resets);
        }
    }
    // Each line says whose it is.
    let lines = log.lines();
    for (_, label, line) in lines.iter().filter(|(_, label, _)| !label.is_empty()) {
        assert!(["A", "B"].contains(&label.as_str()), "{label}: {line}");
    }
    assert!(["A", "B"].iter().all(|name| lines.iter().any(|(_, label, _)| label == name)));
}

#[test]
fn the_health_of_one_server_is_not_the_health_of_the_other() {
    let (a, b, folder) = (server(), server(), tempfile::tempdir().unwrap());
    let plugin = plugin(folder.path(), Logger::silent());
    let handles = [&a, &b].map(|sandbox| incoming(&plugin, sandbox));
    drop(b);
    for _ in 0..3 {
        round(&handles[0], &json!({})).unwrap();
        assert!(round(&handles[1], &json!({})).is_err());
    }
    let health = |handle: &Handle| authenticate(handle, json!({"action": "status"})).unwrap()["health"].clone();
    assert_eq!(health(&handles[0])["state"], "ok");
    assert_ne!(health(&handles[1])["state"], "ok");
    assert_ne!(health(&handles[0])["server"], health(&handles[1])["server"]);
}
