//! The diagnosis on real servers: each thing that is broken is found at its own step, what hangs on it is skipped, and
//! everything else is still judged.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use oauth_mail_core::{
    hooks::Handle,
    oauth::grant_id,
    settings,
    store::{self, SealingKey, Table},
};
use oauth_mail_tests::{
    Options, Servers, built,
    fixture::{Fixture, STORE_KEY, authenticate, consent},
    idp, janitor, mailbox,
    mailgen::Generator,
    relay::Relay,
};
use serde_json::{Value, json};

const INCOMING: [&str; 9] = ["settings", "dns", "tcp", "tls", "authorization", "token", "scopes", "login", "mailbox"];
const AFTER_TLS: [&str; 3] = ["login", "mailbox", "sample_in"];

#[test]
fn a_healthy_mailbox_passes_every_step_and_is_left_as_it_was() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("alice", |_| ());
    let diagnosis = diagnose(&handle, json!({}));
    assert_eq!(diagnosis["healthy"], true, "{diagnosis:#}");
    assert_eq!(with_status(&diagnosis, "ok").len(), INCOMING.len() + 1, "{diagnosis:#}");
    assert!(saw(&diagnosis, "dns").starts_with("localhost is 127.0.0.1") || saw(&diagnosis, "dns").contains("::1"));
    for part in ["TLS 1.3", "CN=localhost", "CN=oauth-mail tests", "ends in", "trusted by the CA file"] {
        assert!(saw(&diagnosis, "tls").contains(part), "{part}: {diagnosis:#}");
    }
    assert!(saw(&diagnosis, "token").contains("not renewed"), "{diagnosis:#}");
    assert!(saw(&diagnosis, "login").contains("by XOAUTH2"), "{diagnosis:#}");
    assert!(saw(&diagnosis, "sample_in").contains("is empty"), "{diagnosis:#}");

    for number in 0..3 {
        servers.deliver("alice", &Generator::new(7, 2).message(number)).unwrap();
    }
    let newest = b"Subject: The printer on the third floor\r\nFrom: ann@example.test\r\n\r\nsmokes\r\n";
    servers.deliver("alice", newest).unwrap();
    let before = mailbox::flags(&servers, "alice", "INBOX").unwrap();
    let refreshed = servers.idp.refreshes();
    let diagnosis = diagnose(&handle, json!({}));
    assert!(saw(&diagnosis, "mailbox").contains("INBOX: 4 messages"), "{diagnosis:#}");
    assert!(saw(&diagnosis, "sample_in").contains("bytes"), "{diagnosis:#}");
    assert!(!diagnosis.to_string().contains("printer"), "the subject is nobody's business: {diagnosis:#}");
    assert_eq!(servers.idp.refreshes(), refreshed, "nobody asked to renew");
    let diagnosis = diagnose(&handle, json!({"verbose": true, "refresh": true}));
    assert!(saw(&diagnosis, "sample_in").contains("The printer on the third floor"), "{diagnosis:#}");
    assert!(saw(&diagnosis, "token").contains("renewed just now"), "{diagnosis:#}");
    assert_eq!(servers.idp.refreshes(), refreshed + 1);
    assert_eq!(mailbox::flags(&servers, "alice", "INBOX").unwrap(), before);
    // It took nothing away from the ordinary work of the same handle.
    handle.fetch_batch("{}").unwrap();

    // Near its end the token is renewed by the walk as by any other call, and a clock that is wrong is seen.
    fixture.clock.advance(3_590);
    let diagnosis = diagnose(&handle, json!({}));
    assert_eq!((status(&diagnosis, "token"), &diagnosis["healthy"]), ("warning", &json!(true)), "{diagnosis:#}");
    assert!(step(&diagnosis, "token")["means"].as_str().unwrap().contains("Clocks differ"), "{diagnosis:#}");
    assert!(diagnosis["summary"].as_str().unwrap().contains("NTP"), "{diagnosis:#}");
    assert!(saw(&diagnosis, "token").contains("renewed just now"), "{diagnosis:#}");
}

#[test]
fn outgoing_mail_is_sent_only_when_asked_and_refusals_are_told() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("bob", |_| ());
    let diagnosis = diagnose(&handle, json!({}));
    assert_eq!(diagnosis["healthy"], true, "{diagnosis:#}");
    assert_eq!(with_status(&diagnosis, "skipped"), ["sample_out"], "{diagnosis:#}");
    assert!(saw(&diagnosis, "tls").contains("XOAUTH2"), "{diagnosis:#}");
    assert_eq!(servers.count("bob", "INBOX").unwrap(), 0);

    let diagnosis = diagnose(&handle, json!({"send": true}));
    assert_eq!((status(&diagnosis, "sample_out"), &diagnosis["healthy"]), ("ok", &json!(true)), "{diagnosis:#}");
    servers.wait_for("bob", "INBOX", 1).unwrap();
    let diagnosis = diagnose(&handle, json!({"send_to": servers.address("dave")}));
    assert_eq!(diagnosis["healthy"], true, "{diagnosis:#}");
    servers.wait_for("dave", "INBOX", 1).unwrap();

    let diagnosis = diagnose(&handle, json!({"send_to": "nobody@example.test"}));
    only_fails(&diagnosis, "sample_out", &[]);
    assert!(saw(&diagnosis, "sample_out").contains("550 5.1.1"), "the server's words: {diagnosis:#}");
    let diagnosis = diagnose(&handle, json!({"send_to": "not an address"}));
    only_fails(&diagnosis, "sample_out", &[]);

    let starttls = fixture.plugin.open(&servers.outgoing_settings_starttls("bob").to_string()).unwrap();
    let diagnosis = diagnose(&starttls, json!({"send": true}));
    assert_eq!(diagnosis["healthy"], true, "{diagnosis:#}");
    assert!(saw(&diagnosis, "settings").contains("STARTTLS"), "{diagnosis:#}");

    let mut settings = servers.outgoing_settings("bob");
    settings["outgoing"]["alternate_server_name"] = json!("127.0.0.4");
    let diagnosis = diagnose(&fixture.plugin.open(&settings.to_string()).unwrap(), json!({}));
    assert_eq!((status(&diagnosis, "alternate"), &diagnosis["healthy"]), ("warning", &json!(true)), "{diagnosis:#}");

    let request = json!({"action": "status", "send": true});
    assert_eq!(authenticate(&handle, request).unwrap_err().kind(), oauth_mail_core::Kind::Misuse);
}

#[test]
fn what_keeps_a_connection_from_being_made_is_found_at_its_step() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    fixture.incoming("alice", |_| ());
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut settings = servers.incoming_settings("alice");
        change(&mut settings["incoming"]);
        diagnose(&fixture.plugin.open(&settings.to_string()).unwrap(), json!({}))
    };

    let diagnosis = changed(&|form| form["server_name"] = json!("no-such-host.invalid"));
    only_fails(&diagnosis, "dns", &["tcp", "tls", "login", "mailbox", "sample_in"]);
    assert!(saw(&diagnosis, "mailbox").contains("because dns failed"), "the root is named: {diagnosis:#}");
    assert!(diagnosis["summary"].as_str().unwrap().contains("server name"), "{diagnosis:#}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let diagnosis = changed(&|form| form["port"] = json!(closed));
    only_fails(&diagnosis, "tcp", &["tls", "login", "mailbox", "sample_in"]);
    assert!(saw(&diagnosis, "tcp").contains(&format!(":{closed}: Connection refused")), "{diagnosis:#}");

    let diagnosis = changed(&|form| form["port"] = json!(servers.postfix.submission_port));
    only_fails(&diagnosis, "tls", &AFTER_TLS);

    // The authorization server has a certificate of the same authority.
    let diagnosis = changed(&|form| drop(form["advanced"].as_object_mut().unwrap().remove("ca_file")));
    assert_eq!(with_status(&diagnosis, "failed"), ["tls", "authorization"], "{diagnosis:#}");
    assert_eq!(with_status(&diagnosis, "skipped"), AFTER_TLS, "{diagnosis:#}");
    assert!(saw(&diagnosis, "tls").contains("CN=oauth-mail tests"), "who issued it: {diagnosis:#}");
    assert!(saw(&diagnosis, "tls").contains("not trusted here"), "{diagnosis:#}");
    assert!(step(&diagnosis, "tls")["remedy"].as_str().unwrap().contains("CA file"), "{diagnosis:#}");

    let relay = Relay::start_at("127.0.0.4:0".parse().unwrap(), servers.dovecot.port).unwrap();
    let diagnosis = changed(&|form| {
        form["server_name"] = json!("127.0.0.4");
        form["port"] = json!(relay.port());
    });
    only_fails(&diagnosis, "tls", &AFTER_TLS);
    assert!(saw(&diagnosis, "tls").contains("for localhost, 127.0.0.1"), "the names it has: {diagnosis:#}");
    assert!(step(&diagnosis, "tls")["means"].as_str().unwrap().contains("127.0.0.4"), "{diagnosis:#}");

    let issuer = format!("https://127.0.0.1:{}", servers.idp.port);
    let diagnosis = changed(&|form| form["advanced"]["issuer"] = json!(issuer));
    assert_eq!(status(&diagnosis, "authorization"), "failed", "{diagnosis:#}");
    assert!(step(&diagnosis, "authorization")["means"].as_str().unwrap().contains("another issuer"), "{diagnosis:#}");
    let diagnosis = changed(&|form| form["advanced"]["issuer"] = json!(format!("{}/other", servers.idp.issuer)));
    assert_eq!(status(&diagnosis, "authorization"), "warning", "{diagnosis:#}");
    let diagnosis = changed(&|form| form["authorize_url"] = json!(format!("{}/elsewhere", servers.idp.issuer)));
    assert_eq!(status(&diagnosis, "authorization"), "warning", "{diagnosis:#}");
    assert!(step(&diagnosis, "authorization")["means"].as_str().unwrap().starts_with("Authorize URL"), "{diagnosis:#}");
}

#[test]
fn a_server_that_says_nothing_costs_its_share_of_the_time_and_no_more() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    fixture.incoming("alice", |_| ());
    let relay = Relay::start(servers.dovecot.port).unwrap();
    relay.stall_after(0);
    let mut settings = servers.incoming_settings("alice");
    settings["incoming"]["port"] = json!(relay.port());
    let handle = fixture.plugin.open(&settings.to_string()).unwrap();
    let begun = Instant::now();
    let diagnosis = diagnose(&handle, json!({"deadline_ms": 12_000}));
    assert!(begun.elapsed() < Duration::from_secs(16), "{:?}", begun.elapsed());
    only_fails(&diagnosis, "tls", &AFTER_TLS);
    for judged in ["authorization", "token", "scopes"] {
        assert_eq!(status(&diagnosis, judged), "ok", "{diagnosis:#}");
    }
}

#[test]
fn what_only_a_person_can_allow_is_asked_of_that_person() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let alice = servers.address("alice");
    let handle = fixture.plugin.open(&servers.incoming_settings("alice").to_string()).unwrap();
    let diagnosis = diagnose(&handle, json!({}));
    only_fails(&diagnosis, "token", &["scopes", "login", "mailbox", "sample_in"]);
    assert_eq!((saw(&diagnosis, "token"), who(&diagnosis, "token")), ("no consent", alice.as_str()), "{diagnosis:#}");

    // The grant of bob serves a mailbox that he may not read.
    fixture.incoming("bob", |_| ());
    let mut settings = servers.incoming_settings("alice");
    settings["incoming"]["advanced"]["consenting_user"] = json!(servers.address("bob"));
    let diagnosis = diagnose(&fixture.plugin.open(&settings.to_string()).unwrap(), json!({}));
    only_fails(&diagnosis, "login", &["mailbox", "sample_in"]);
    assert!(who(&diagnosis, "login").contains(&alice), "whose mailbox it is: {diagnosis:#}");
    assert!(saw(&diagnosis, "login").contains("NO "), "the server's words: {diagnosis:#}");

    // One folder that is not there does not hide the other.
    let handle = fixture.incoming("carol", |settings| {
        settings["incoming"]["advanced"]["folders"] = json!(["INBOX", "No such folder"]);
    });
    let diagnosis = diagnose(&handle, json!({}));
    only_fails(&diagnosis, "mailbox", &[]);
    assert!(saw(&diagnosis, "mailbox").contains("No such folder: not there"), "{diagnosis:#}");
    let handle = fixture.incoming("carol", |settings| {
        settings["incoming"]["advanced"]["after_import"] = json!("move");
        settings["incoming"]["advanced"]["processed_folder"] = json!("Done with");
    });
    let diagnosis = diagnose(&handle, json!({}));
    assert_eq!((status(&diagnosis, "mailbox"), &diagnosis["healthy"]), ("warning", &json!(true)), "{diagnosis:#}");
    let list = servers.doveadm(&["mailbox", "list", "-u", &servers.address("carol")]).unwrap();
    assert!(!list.contains("Done with"), "nothing was created: {list}");

    // Withdrawn at the provider: the stored token looks good until somebody tries it.
    let handle = fixture.incoming("alice", |_| ());
    servers.idp.revoke(&alice).unwrap();
    let diagnosis = diagnose(&handle, json!({}));
    only_fails(&diagnosis, "login", &["mailbox", "sample_in"]);
    assert_eq!(who(&diagnosis, "login"), alice, "{diagnosis:#}");
    assert!(saw(&diagnosis, "login").contains("invalid_grant"), "{diagnosis:#}");
    let diagnosis = diagnose(&handle, json!({}));
    only_fails(&diagnosis, "token", &["scopes", "login", "mailbox", "sample_in"]);
    assert!(saw(&diagnosis, "token").contains("gives no token any more"), "{diagnosis:#}");
}

#[test]
fn a_server_that_is_down_is_found_and_the_others_are_judged() {
    let mut servers = servers();
    let dir = tempfile::tempdir().unwrap();
    let plugin = plugin(dir.path());
    let incoming = plugin.open(&servers.incoming_settings("alice").to_string()).unwrap();
    let outgoing = plugin.open(&servers.outgoing_settings("alice").to_string()).unwrap();
    consent(&servers, &incoming, "alice").unwrap();

    servers.postfix.stop();
    only_fails(&diagnose(&outgoing, json!({"send": true})), "tcp", &["tls", "login", "sample_out"]);
    assert_eq!(diagnose(&incoming, json!({}))["healthy"], true);
    servers.postfix.restart().unwrap();

    servers.dovecot.stop();
    let diagnosis = diagnose(&incoming, json!({}));
    only_fails(&diagnosis, "tcp", &["tls", "login", "mailbox", "sample_in"]);
    servers.dovecot.restart().unwrap();
    assert_eq!(diagnose(&incoming, json!({}))["healthy"], true);

    servers.idp.stop();
    let diagnosis = diagnose(&incoming, json!({}));
    // Dovecot asks it, too, whether the token is good.
    assert_eq!(with_status(&diagnosis, "failed")[0], "authorization", "{diagnosis:#}");
    for judged in ["dns", "tcp", "tls", "token", "scopes"] {
        assert_eq!(status(&diagnosis, judged), "ok", "{diagnosis:#}");
    }
    let diagnosis = diagnose(&incoming, json!({"refresh": true}));
    assert_eq!(with_status(&diagnosis, "failed"), ["authorization", "token"], "{diagnosis:#}");
    assert!(!diagnosis.to_string().contains("consent again"), "an outage is no reason to sign in: {diagnosis:#}");
    servers.idp.restart().unwrap();
}

#[test]
fn a_transcript_can_be_pasted_into_a_ticket() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let (client, secret) = idp::POST;
    let mut settings = servers.incoming_settings("alice");
    settings["incoming"]["client_id"] = json!(client);
    settings["incoming"]["client_secret"] = json!(secret);
    let handle = fixture.plugin.open(&settings.to_string()).unwrap();
    consent(&servers, &handle, "alice").unwrap();
    let store = store::open(
        &format!("sqlite:{}", fixture.store_file().display()),
        SealingKey::from_config(&json!({"value": STORE_KEY})).unwrap(),
    )
    .unwrap();
    let id = grant_id(&settings::parse(&settings.to_string()).unwrap());
    let tokens = || -> Vec<String> {
        let grant: Value = serde_json::from_slice(&store.read(Table::Grant, &id).unwrap().unwrap().bytes).unwrap();
        ["access_token", "refresh_token"].map(|name| grant[name].as_str().unwrap().to_owned()).to_vec()
    };
    let mut canaries = vec![secret.to_owned()];
    canaries.extend(tokens());
    let mut seen = diagnose(&handle, json!({"verbose": true, "refresh": true})).to_string();
    canaries.extend(tokens());
    // A provider and a mail server that repeat what they were told.
    let echo = canaries.iter().map(|canary| format!("'{canary}'")).collect::<Vec<_>>().join(" and ");
    let body = json!({"error": "invalid_client", "error_description": format!("not {echo}")}).to_string();
    servers.idp.fault(json!({"path": "/token", "times": 2, "status": 401, "body": body})).unwrap();
    seen += &diagnose(&handle, json!({"refresh": true})).to_string();
    servers.idp.reset_faults().unwrap();
    servers.idp.revoke(&servers.address("alice")).unwrap();
    seen += &diagnose(&handle, json!({})).to_string();
    assert!(seen.contains("invalid_client"), "the provider's words are there: {seen}");
    assert!(seen.contains("Correct Client Secret"), "{seen}");
    for canary in &canaries {
        assert!(canary.len() >= 12 && !seen.contains(canary.as_str()), "{seen}");
        let encoded = BASE64_STANDARD_NO_PAD.encode(&canary.as_bytes()[..canary.len() / 3 * 3]);
        assert!(!seen.contains(&encoded), "{seen}");
    }
}

#[test]
fn the_command_shows_a_mark_for_each_step_and_ends_with_the_sentence_to_act_on() {
    let servers = servers();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("desk.json");
    let mut settings = servers.incoming_settings("carol");
    settings["outgoing"] = servers.outgoing_settings("carol")["outgoing"].clone();
    settings["plugin"] = config(folder.path());
    fs::write(&file, settings.to_string()).unwrap();
    let doctor = |arguments: &[&str]| {
        let program = built::program("host-sample");
        let output = Command::new(program).args(arguments).arg("doctor").arg(&file).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };

    let (code, stdout, stderr) = doctor(&[]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    for line in ["  ✓ tls ", "  ✗ token ", "  – login "] {
        assert!(stdout.contains(line), "{line}: {stdout}");
    }
    assert!(stdout.trim_end().lines().last().unwrap().contains("Open the consent window"), "{stdout}");
    assert_eq!(stderr.lines().count(), 2, "one sentence for each form: {stderr}");

    let plugin = plugin(folder.path());
    let handle = plugin.open(&json!({"incoming": settings["incoming"]}).to_string()).unwrap();
    consent(&servers, &handle, "carol").unwrap();
    let (code, stdout, stderr) = doctor(&[]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert_eq!(stdout.matches("Everything works").count(), 2, "{stdout}");
    let (code, stdout, _) = doctor(&["--json"]);
    let documents: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, documents.len()), (Some(0), 2), "{stdout}");
    assert_eq!(documents[1]["diagnosis"]["healthy"], true, "{stdout}");

    settings["incoming"]["port"] = json!(0);
    fs::write(&file, settings.to_string()).unwrap();
    let (code, stdout, _) = doctor(&[]);
    assert!(code == Some(1) && stdout.contains("  ✗ settings") && stdout.contains("Port"), "{stdout}");
    assert!(stdout.contains("outgoing mail carol@example.test\n  ✓ settings"), "the other form is judged: {stdout}");
}

fn diagnose(handle: &Handle, mut options: Value) -> Value {
    options["action"] = json!("diagnose");
    if options["deadline_ms"].is_null() {
        options["deadline_ms"] = json!(45_000);
    }
    let diagnosis = authenticate(handle, options).unwrap();
    for step in diagnosis["steps"].as_array().unwrap() {
        // Whatever a step found, it says so, and who acts on it.
        let acts = matches!(step["status"].as_str().unwrap(), "warning" | "failed");
        assert!(!step["saw"].as_str().unwrap().is_empty(), "{step}");
        assert_eq!((step["who"].is_string(), step["remedy"].is_string()), (acts, acts), "{step}");
        assert!(step["means"].is_string() && step["took_ms"].is_u64(), "{step}");
    }
    diagnosis
}

/// `name` is the only step that failed, and exactly `skipped` were not done because of it.
fn only_fails(diagnosis: &Value, name: &str, skipped: &[&str]) {
    assert_eq!(diagnosis["healthy"], false, "{diagnosis:#}");
    assert_eq!(with_status(diagnosis, "failed"), [name], "{diagnosis:#}");
    assert_eq!(with_status(diagnosis, "skipped"), skipped, "{diagnosis:#}");
    for step in skipped {
        assert_eq!(saw(diagnosis, step), format!("skipped because {name} failed"), "{diagnosis:#}");
    }
}

fn with_status<'a>(diagnosis: &'a Value, status: &str) -> Vec<&'a str> {
    let steps = diagnosis["steps"].as_array().unwrap().iter();
    steps.filter(|step| step["status"] == status).map(|step| step["step"].as_str().unwrap()).collect()
}

fn step<'a>(diagnosis: &'a Value, name: &str) -> &'a Value {
    let mut steps = diagnosis["steps"].as_array().unwrap().iter();
    steps.find(|step| step["step"] == name).unwrap_or_else(|| panic!("no step {name}: {diagnosis:#}"))
}

fn status<'a>(diagnosis: &'a Value, name: &str) -> &'a str {
    step(diagnosis, name)["status"].as_str().unwrap()
}

fn saw<'a>(diagnosis: &'a Value, name: &str) -> &'a str {
    step(diagnosis, name)["saw"].as_str().unwrap()
}

fn who<'a>(diagnosis: &'a Value, name: &str) -> &'a str {
    step(diagnosis, name)["who"].as_str().unwrap()
}

fn config(folder: &Path) -> Value {
    json!({
        "store": format!("sqlite:{}", folder.join("store.db").display()),
        "key": {"value": STORE_KEY},
        "private_networks": "allow",
    })
}

fn plugin(folder: &Path) -> oauth_mail_core::hooks::Plugin {
    oauth_mail_core::hooks::Plugin::new(&config(folder).to_string(), oauth_mail_core::log::Logger::silent()).unwrap()
}

/// One set for all scenarios of this file, one at a time: some of them stop a server.
fn servers() -> MutexGuard<'static, Servers> {
    static SERVERS: LazyLock<Mutex<Servers>> = LazyLock::new(|| {
        let users = ["alice", "bob", "carol", "dave"].map(str::to_owned).to_vec();
        let servers = Servers::start(Options { users, ..Options::default() }).unwrap();
        janitor::remove_after_us(&servers).unwrap();
        Mutex::new(servers)
    });
    let servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    servers.idp.reset_faults().unwrap();
    servers
}
