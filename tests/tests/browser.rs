//! The helpdesk's page in Debian's Chromium (tests/page/walk.mjs): the whole walk over each protocol of the sandbox, and over
//! Dovecot, Postfix and oidc-provider with its own sign-in pages in the pop-up. Each page that is seen is looked at by axe,
//! wide and narrow. Screenshots: `target/page-screenshots`.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

use oauth_mail_sandbox::{Config, Sandbox};
use oauth_mail_tests::{
    Options, Servers, mailbox,
    sandboxed::{self, Protocol},
    served::Served,
    sources::root,
};
use serde_json::{Map, Value, json};

const PASSWORD: &str = "canary-admin-password";
const REPLY: &str = "Somebody is on the way.";

#[test]
fn imap_from_the_login_to_revoke_by_the_keyboard_alone() {
    set_up(Protocol::Imap, |_, walk| walk["keyboard"] = json!(true));
}

#[test]
fn ews_with_a_consent_and_as_an_application() {
    set_up(Protocol::Ews, |sandbox, walk| {
        // The same mailbox again, by an application that nobody consents to.
        let mut form = sandboxed::settings(sandbox, Protocol::Imap, "bob", "incoming")["incoming"].take();
        form["client_id"] = json!("mail-app");
        form["client_secret"] = json!("mail-app-secret");
        form["scope"] = json!("mail");
        form["advanced"]["grant"] = json!("client_credentials");
        let second = self::walk("application", "application", &form, None, sandbox.base_url());
        walk["then"] = second;
    });
}

#[test]
fn graph_after_every_failure_of_the_consent_and_with_a_quarantine() {
    set_up(Protocol::Graph, |_, walk| {
        walk["connect"] = json!("failures");
        walk["wrongAccount"] = json!("bob@example.test");
        walk["hasty"] = json!(true);
        walk["quarantine"] = json!({
            "subjects": ["The first one", "The other one"],
            "fault": {"face": "graph", "match": "/$value", "times": 1000, "status": 400,
                      "code": "ErrorMimeContentConversionFailed", "only": "It came later."},
        });
    });
}

#[test]
fn real_servers_after_every_failure_and_with_a_device_code() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Servers::start(Options::default()).unwrap();
    let served = Served::start(folder.path(), PASSWORD).unwrap();
    let mut incoming = servers.incoming_settings("alice")["incoming"].take();
    incoming["advanced"]["fetch_since"] = json!("all");
    let outgoing = servers.outgoing_settings_starttls("alice")["outgoing"].take();
    let mut walk = walk("real", "failures", &incoming, Some(&outgoing), &servers.idp.issuer);
    // Nothing tells the library whose token it is; Dovecot takes it for the mailbox, or does not.
    walk["identity"] = json!("the mail server takes the token");
    walk["wrongAccount"] = json!("alice@");
    walk["other"] = json!(servers.address("bob"));
    let raw = mail(walk["subject"].as_str().unwrap());
    mailbox::append(&servers, "alice", "INBOX", "01-Jan-2026 10:00:00 +0000", "", &raw).unwrap();

    let mut by_code = servers.incoming_settings("bob")["incoming"].take();
    by_code["advanced"]["grant"] = json!("device_code");
    by_code["advanced"]["device_authorization_url"] = json!(servers.idp.device_authorization_url());
    let mut device = self::walk("device", "device", &by_code, None, &servers.idp.issuer);
    device["identity"] = walk["identity"].clone();
    let people: Map<String, Value> =
        servers.users.iter().map(|user| (user.address.clone(), json!(user.password))).collect();
    run("real", &served, &[walk, device], &people.into(), folder.path());
}

/// Sets up alice's mailbox over `protocol`, in a helpdesk of its own: a store remembers what a mailbox was fetched with.
fn set_up(protocol: Protocol, change: impl FnOnce(&Sandbox, &mut Value)) {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), PASSWORD).unwrap();
    let sandbox = Sandbox::start(Config::default()).unwrap();
    let [incoming, outgoing] =
        ["incoming", "outgoing"].map(|form| sandboxed::settings(&sandbox, protocol, "alice", form)[form].take());
    let mut walk = walk(protocol.name(), "code", &incoming, Some(&outgoing), sandbox.base_url());
    change(&sandbox, &mut walk);
    let raw = mail(walk["subject"].as_str().unwrap());
    assert!(sandbox.state.mail.deliver("bob@example.test", "alice@example.test", &raw));
    let people = json!({"alice@example.test": "alice-password", "bob@example.test": "bob-password"});
    let then = walk["then"].take();
    let walks: Vec<Value> = [walk, then].into_iter().filter(Value::is_object).collect();
    run(protocol.name(), &served, &walks, &people, folder.path());
    let replies = sandbox.state.mail.with("bob@example.test", |mailbox| {
        let inbox = mailbox.folder("INBOX").unwrap();
        inbox.messages.iter().filter(|message| String::from_utf8_lossy(&message.raw).contains(REPLY)).count()
    });
    assert_eq!(replies, Some(1));
}

/// `connect`: how the mailbox gets its consent, a function of walk.mjs. Without `outgoing` the walk ends there.
fn walk(name: &str, connect: &str, incoming: &Value, outgoing: Option<&Value>, provider: &str) -> Value {
    let mut incoming = incoming.clone();
    incoming["enable_email_debug"] = json!(true);
    let fields = typed(&incoming, &INCOMING);
    let (place, bad) = match fields["connect_url"].is_string() {
        true => ("connect_url", "http://plain.test/"),
        false => ("port", "99x"),
    };
    let outgoing = outgoing.map(|form| {
        let mut form = form.clone();
        form["sender_name"] = json!("Example Helpdesk");
        // The rest stands there already: both forms share it.
        form.as_object_mut().unwrap().remove("advanced");
        typed(&form, &OUTGOING)
    });
    json!({
        "name": name,
        "connect": connect,
        "provider": provider,
        "login": incoming["username"],
        "identity": if connect == "application" { json!("takes the token") } else { incoming["username"].clone() },
        "other": "bob@example.test",
        "fields": fields,
        "wrong": {place: bad, "username": "", "email_addresses": "alice\nbob@"},
        "outgoing": outgoing,
        "subject": format!("The printer burns, {name}"),
        "reply": REPLY,
        "keyboard": false,
    })
}

const INCOMING: [&str; 12] = [
    "connection_protocol",
    "server_name",
    "connect_url",
    "username",
    "email_addresses",
    "port",
    "client_id",
    "client_secret",
    "authorize_url",
    "access_token_url",
    "scope",
    "enable_email_debug",
];
const OUTGOING: [&str; 5] = ["connection_protocol", "server_name", "connect_url", "port", "sender_name"];

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

/// It has HTML and no text.
fn mail(subject: &str) -> Vec<u8> {
    let html = "<p>It <b>burns</b>.<script>document.title='canary'</script><img src=\"https://spy.test/pixel\"></p>";
    format!(
        "From: Bob <bob@example.test>\r\nTo: alice@example.test\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/html\r\n\r\n{html}\r\n"
    )
    .into_bytes()
}

fn run(name: &str, served: &Served, walks: &[Value], people: &Value, folder: &Path) {
    let chromium = Path::new("/usr/bin/chromium");
    assert!(chromium.is_file(), "{} is not there: tests/install.sh installs it.", chromium.display());
    let order = json!({
        "url": served.url.trim_end_matches('/'),
        "password": PASSWORD,
        "chromium": chromium,
        "screenshots": root().join("target/page-screenshots").join(name),
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
