//! What a page may ask for, with the real library against the sandbox provider. `make test` builds the library first.

use std::{env, path::Path, sync::Arc};

use oauth_mail_abi::Kind;
use oauth_mail_sandbox::{
    Config, Sandbox,
    faults::{Face, Fault, What},
};
use serde_json::{Value, json};

use super::{
    log::Log,
    mailboxes::Mailboxes,
    metrics::Metrics,
    queue::Queue,
    seal::Seal,
    storage::{Change, Storage},
};
use crate::{
    database::Database,
    failure::Failure,
    host::{self, Direction},
    output::LogLevel,
};

const ALICE: &str = "alice@example.test";

#[test]
fn the_life_of_a_mailbox_as_its_page_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let (sandbox, desk) = (Sandbox::start(Config::default()).unwrap(), mailboxes(folder.path()));
    let [incoming, outgoing] = forms(&sandbox);

    let mut wrong = incoming.clone();
    wrong["port"] = json!(0);
    wrong["client_id"] = json!("");
    let faults = desk.validate(&json!({ "incoming": wrong })).unwrap_err();
    let mut pointers: Vec<_> = faults.faults().iter().map(|fault| fault.pointer.as_str()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/incoming/client_id", "/incoming/port"]);
    desk.validate(&json!({ "incoming": incoming })).unwrap();

    let change =
        Change { name: "desk".into(), incoming: Some(incoming), outgoing: Some(outgoing), ..Change::default() };
    let id = desk.storage.insert_mailbox("ann", &change).unwrap();
    assert_eq!(desk.overview().unwrap()[0]["state"], "waiting");
    assert_eq!(kind(desk.fetch_now(id)), Some(Kind::ConsentRequired));
    let state = desk.state(id).unwrap();
    assert_eq!((&state["state"], &state["incoming"]["state"]), (&json!("consent_needed"), &json!("consent_required")));

    let answer = desk.authenticate(id, Direction::Incoming, &json!({"action": "start"})).unwrap();
    assert_eq!(answer["state"], "authorized", "{answer}");
    assert_eq!(desk.overview().unwrap()[0]["run"]["health"]["outgoing"]["state"], "ok", "they share the consent");
    assert!(desk.storage.run(id).unwrap().unwrap().next_run <= desk.storage.now().unwrap(), "due at once");
    deliver(&sandbox, "Subject: Printer\r\nMessage-ID: <q1@example.test>\r\n");
    assert_eq!(desk.fetch_now(id).unwrap()["created"], 1);
    let again = desk.fetch_now(id).unwrap();
    assert_eq!((&again["created"], &again["duplicate"]), (&json!(0), &json!(0)));
    let state = desk.state(id).unwrap();
    assert_eq!(state["state"], "ok", "{state}");
    assert_eq!((&state["run"]["totals"]["created"], &state["run"]["failures"]), (&json!(1), &json!(0)));
    assert_eq!(state["run"]["health"]["incoming"]["state"], "ok", "{state}");

    assert_eq!(desk.send_sample(id, "bob@example.test").unwrap()["outcome"], "sent");
    assert_eq!(desk.reply(id, 1, "On my way.", "1").unwrap()["outcome"], "sent");
    let request = desk.storage.helpdesk.request(1).unwrap().unwrap();
    assert_eq!((&request["mailbox"], request["messages"].as_array().unwrap().len()), (&json!(id), 2));

    let report = desk.diagnose(id).unwrap();
    assert!(report["incoming"]["healthy"] == true && report["outgoing"]["healthy"] == true, "{report}");
    assert!(desk.quarantine(id).unwrap().is_empty());
    assert!(desk.quarantine_raw(id, "no such key").is_err() && desk.quarantine_drop(id, "no such key").is_err());
    let transcript = desk.transcript(id).unwrap();
    assert!(transcript.contains("UID FETCH"), "{transcript}");
    for text in [&transcript, &report.to_string(), &state.to_string()] {
        assert!(!text.contains("mail-app-secret"), "{text}");
    }

    // A change of settings holds for the next call; a conflict changes nothing.
    let mut broken = change.clone();
    broken.incoming.as_mut().unwrap()["port"] = json!(1);
    assert_eq!(desk.storage.update_mailbox("bob", id, 1, &broken).unwrap(), Some(2));
    assert_eq!(kind(desk.fetch_now(id)), Some(Kind::Transient));
    assert_eq!(desk.storage.update_mailbox("ann", id, 2, &change).unwrap(), Some(3));
    desk.fetch_now(id).unwrap();
    assert!(desk.storage.remove_mailbox("ann", id).unwrap());
    desk.close(id);
    let gone = desk.fetch_now(id).unwrap_err().sentences().join(" ");
    assert!(gone.contains("no mailbox"), "{gone}");
}

#[test]
fn a_mailbox_that_is_being_fetched_is_not_fetched_twice_and_comes_back_when_the_provider_does() {
    let folder = tempfile::tempdir().unwrap();
    let (sandbox, desk) = (Sandbox::start(Config::default()).unwrap(), Arc::new(mailboxes(folder.path())));
    let [incoming, _] = forms(&sandbox);
    let change = Change { name: "desk".into(), incoming: Some(incoming), ..Change::default() };
    let id = desk.storage.insert_mailbox("ann", &change).unwrap();
    desk.authenticate(id, Direction::Incoming, &json!({"action": "start"})).unwrap();
    deliver(&sandbox, "Subject: Printer\r\nMessage-ID: <q1@example.test>\r\n");

    let slow = What { slow_ms: Some(6_000), ..What::default() };
    sandbox.state.faults.order(Fault { face: Face::Imap, matches: "UID FETCH".into(), skip: 0, times: 1, what: slow });
    let other = desk.clone();
    let running = std::thread::spawn(move || other.fetch_now(id));
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while desk.queue.running().is_empty() {
        assert!(std::time::Instant::now() < end, "the round never began");
        std::thread::yield_now();
    }
    let refused = desk.fetch_now(id).unwrap_err().sentences().join(" ");
    assert!(refused.contains("being fetched right now"), "{refused}");
    assert_eq!(running.join().unwrap().unwrap()["created"], 1);
    assert!(desk.queue.running().is_empty());

    sandbox.state.oauth.revoke_user(ALICE);
    drop(sandbox);
    desk.close(id);
    assert!(desk.fetch_now(id).is_err());
    let run = desk.storage.run(id).unwrap().unwrap();
    assert_eq!((run.failures, run.running_on), (0, None), "what somebody asks for makes nothing wait longer");
    assert!(run.error.unwrap()["message"].as_str().is_some_and(|sentence| sentence.ends_with('.')));
}

fn mailboxes(folder: &Path) -> Mailboxes {
    let key = folder.join("serve.key");
    let seal = Seal::from_file(&key).unwrap();
    let storage = Storage::open(Database::sqlite(&folder.join("helpdesk.db")).unwrap(), seal).unwrap();
    // …/target/debug/, from …/target/debug/deps/host_sample-….
    let built = env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let library =
        host::load(Some(&built.join(format!("{}oauth_mail{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX))));
    let config = json!({"store": format!("sqlite:{}", folder.join("store.db").display()), "key": {"file": key}});
    let queue = Queue::new(storage.clone(), "one".into(), 2);
    let log = Log::new(LogLevel::Off);
    Mailboxes::start(library.unwrap(), &config, storage, queue, Arc::new(Metrics::default()), log).unwrap()
}

/// Both forms of an application that needs nobody's consent, with email debug.
fn forms(sandbox: &Sandbox) -> [Value; 2] {
    let facts = sandbox.facts();
    let common = json!({
        "authentication_type": "OAuth",
        "server_name": "localhost",
        "username": ALICE,
        "client_id": "mail-app",
        "client_secret": "mail-app-secret",
        "authorize_url": facts["authorize_url"],
        "access_token_url": facts["token_url"],
        "scope": "mail",
        "redirect_url": "http://127.0.0.1:1/callback",
        "advanced": {"grant": "client_credentials", "ca_file": sandbox.ca_file, "issuer": facts["issuer"]},
    });
    let (mut incoming, mut outgoing) = (common.clone(), common);
    for (name, value) in [
        ("connection_protocol", json!("POP/IMAP/POPS/IMAPS")),
        ("email_addresses", json!([ALICE])),
        ("protocol", json!("IMAPS")),
        ("port", json!(sandbox.imaps_port)),
        ("fetch_interval_minutes", json!(5)),
        ("enable_email_debug", json!(true)),
    ] {
        incoming[name] = value;
    }
    incoming["advanced"]["fetch_since"] = json!("all");
    for (name, value) in [
        ("connection_protocol", json!("SMTP/SMTPS")),
        ("sender_name", json!("Helpdesk")),
        ("reply_to", json!(ALICE)),
        ("protocol", json!("SMTP")),
        ("enable_tls", json!(true)),
        ("port", json!(sandbox.submission_port)),
    ] {
        outgoing[name] = value;
    }
    [incoming, outgoing]
}

fn deliver(sandbox: &Sandbox, headers: &str) {
    let raw = format!("From: bob@example.test\r\nTo: {ALICE}\r\n{headers}\r\nHello\r\n");
    assert!(sandbox.state.mail.deliver("bob@example.test", ALICE, raw.as_bytes()));
}

fn kind(result: crate::failure::Result<Value>) -> Option<Kind> {
    match result {
        Err(Failure::Hook(error)) => Some(error.kind()),
        _ => None,
    }
}
