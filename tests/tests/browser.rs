//! The helpdesk's page in Debian's Chromium (tests/page/walk.mjs): the whole walk over each protocol of the sandbox, and over
//! Dovecot, Postfix and oidc-provider with its own sign-in pages in the pop-up. Screenshots: `target/page-screenshots`.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

use oauth_mail_sandbox::{Config, Sandbox};
use oauth_mail_tests::{
    Options, Servers, mailbox,
    sandboxed::{self, Protocol},
    served::Served,
    sources::root,
};
use serde_json::{Value, json};

const PASSWORD: &str = "canary-admin-password";
const REPLY: &str = "Somebody is on the way.";

fn mail(subject: &str) -> Vec<u8> {
    let html = "<p>It <b>burns</b>.<script>document.title='canary'</script><img src=\"https://spy.test/pixel\"></p>";
    format!(
        "From: Bob <bob@example.test>\r\nTo: alice@example.test\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/html\r\n\r\n{html}\r\n"
    )
    .into_bytes()
}

/// What a person types into a form: the fields of a settings document, with those of `advanced` by `advanced-NAME`.
fn typed(settings: &Value, names: &[&str]) -> Value {
    let text = |value: &Value| match value {
        Value::String(text) => json!(text),
        Value::Array(list) => json!(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")),
        Value::Bool(on) => json!(on),
        Value::Object(map) => {
            let line = |(name, value): (&String, &Value)| format!("{name}={}", value.as_str().unwrap_or_default());
            json!(map.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        other => json!(other.to_string()),
    };
    let mut fields = json!({});
    for (name, value) in settings.as_object().unwrap() {
        if names.contains(&name.as_str()) {
            fields[name] = text(value);
        }
    }
    for (name, value) in settings["advanced"].as_object().into_iter().flatten() {
        fields[format!("advanced-{name}")] = text(value);
    }
    fields
}

const INCOMING: [&str; 11] = [
    "connection_protocol",
    "server_name",
    "connect_url",
    "username",
    "email_addresses",
    "port",
    "client_id",
    "authorize_url",
    "access_token_url",
    "scope",
    "enable_email_debug",
];
const OUTGOING: [&str; 5] = ["connection_protocol", "server_name", "connect_url", "port", "sender_name"];

fn walk(name: &str, incoming: &Value, outgoing: &Value, provider: &str) -> Value {
    let mut incoming = incoming.clone();
    incoming["enable_email_debug"] = json!(true);
    let mut outgoing = outgoing.clone();
    outgoing["sender_name"] = json!("Example Helpdesk");
    let fields = typed(&incoming, &INCOMING);
    let place = if fields["connect_url"].is_string() { "connect_url" } else { "port" };
    let bad = if place == "port" { "99x" } else { "http://plain.test/" };
    let typed_outgoing: serde_json::Map<String, Value> = typed(&outgoing, &OUTGOING)
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| !name.starts_with("advanced-"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    json!({
        "name": name,
        "provider": provider,
        "login": incoming["username"],
        "other": "bob@example.test",
        "fields": fields,
        "wrong": {place: bad, "username": "", "email_addresses": "alice\nbob@"},
        "outgoing": typed_outgoing,
        "subject": format!("The printer burns, {name}"),
        "reply": REPLY,
        "keyboard": false,
        "failures": false,
        "revoke": false,
    })
}

fn run(served: &Served, walks: &[Value], people: &Value, folder: &Path, look: bool) {
    let chromium = Path::new("/usr/bin/chromium");
    assert!(chromium.is_file(), "{} is not there: tests/install.sh installs it.", chromium.display());
    let order = json!({
        "url": served.url.trim_end_matches('/'),
        "password": PASSWORD,
        "chromium": chromium,
        "screenshots": root().join("target/page-screenshots").join(walks[0]["name"].as_str().unwrap()),
        "look": look,
        "people": people,
        "walks": walks,
    });
    let file = folder.join("order.json");
    fs::write(&file, order.to_string()).unwrap();
    let output = Command::new("node").arg(root().join("tests/page/walk.mjs")).arg(&file).output().unwrap();
    let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
    let tail = log.lines().rev().take(8).collect::<Vec<_>>().join("\n");
    assert!(output.status.success(), "{}\n{tail}", String::from_utf8_lossy(&output.stderr));
}

/// Sets up alice's mailbox over `protocol`, in a helpdesk of its own: a store remembers what a mailbox was fetched with.
fn set_up(protocol: Protocol, change: impl FnOnce(&mut Value)) {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), PASSWORD).unwrap();
    let sandbox = Sandbox::start(Config::default()).unwrap();
    let forms =
        ["incoming", "outgoing"].map(|form| sandboxed::settings(&sandbox, protocol, "alice", form)[form].take());
    let mut walk = walk(protocol.name(), &forms[0], &forms[1], sandbox.base_url());
    change(&mut walk);
    let raw = mail(walk["subject"].as_str().unwrap());
    assert!(sandbox.state.mail.deliver("bob@example.test", "alice@example.test", &raw));
    let people = json!({"alice@example.test": "alice-password", "bob@example.test": "bob-password"});
    run(&served, &[walk], &people, folder.path(), false);
    let replies = sandbox.state.mail.with("bob@example.test", |mailbox| {
        let inbox = mailbox.folder("INBOX").unwrap();
        inbox.messages.iter().filter(|message| String::from_utf8_lossy(&message.raw).contains(REPLY)).count()
    });
    assert_eq!(replies, Some(1));
}

#[test]
fn imap_is_set_up_by_the_keyboard_alone() {
    set_up(Protocol::Imap, |walk| walk["keyboard"] = json!(true));
}

#[test]
fn ews_is_set_up_and_revoked() {
    set_up(Protocol::Ews, |walk| walk["revoke"] = json!(true));
}

#[test]
fn graph_is_set_up_after_every_failure_of_the_consent() {
    set_up(Protocol::Graph, |walk| walk["failures"] = json!(true));
}

#[test]
fn real_servers_are_set_up_in_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Servers::start(Options::default()).unwrap();
    let served = Served::start(folder.path(), PASSWORD).unwrap();
    let mut incoming = servers.incoming_settings("alice")["incoming"].take();
    incoming["advanced"]["fetch_since"] = json!("all");
    let outgoing = servers.outgoing_settings_starttls("alice")["outgoing"].take();
    let mut walk = walk("real", &incoming, &outgoing, &servers.idp.issuer);
    // Nothing tells the library whose token it is; Dovecot takes it for the mailbox.
    walk["identity"] = json!("the mail server takes the token");
    let raw = mail(walk["subject"].as_str().unwrap());
    mailbox::append(&servers, "alice", "INBOX", "01-Jan-2026 10:00:00 +0000", "", &raw).unwrap();
    let people: serde_json::Map<String, Value> =
        servers.users.iter().map(|user| (user.address.clone(), json!(user.password))).collect();
    run(&served, &[walk], &people.into(), folder.path(), true);
}
