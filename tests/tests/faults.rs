//! What goes wrong while mail is fetched from a real Dovecot: said in time, and nothing lost or doubled.
#![allow(clippy::unwrap_used)]

use std::{
    net::TcpListener,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use oauth_mail_core::{
    Kind,
    hooks::{Handle, Plugin},
    log::Logger,
};
use oauth_mail_tests::{
    Options, Servers,
    fixture::{self, Fixture},
    idp,
    mailbox::{Mail, Shared, batch, filled, round, settle, since_all},
    relay::Relay,
};
use serde_json::{Value, json};

static SHARED: Shared = Shared::new();

/// Each scenario has a mailbox of its own.
const PEOPLE: [&str; 4] = ["short", "down", "crowd", "stall"];
/// As many as the server allows each person.
const CONNECTIONS: usize = 6;
/// 250 ms after the deadline are promised; the rest is for whoever shares the machine. Without a deadline it would be 20 s.
const IN_TIME: Duration = Duration::from_secs(14);

fn servers() -> Arc<Servers> {
    SHARED.servers(|| Options {
        users: PEOPLE.map(str::to_owned).to_vec(),
        max_connections_per_user: CONNECTIONS,
        ..Options::default()
    })
}

#[test]
fn a_token_that_ends_during_a_round_is_renewed_and_the_round_goes_on() {
    let servers = servers();
    servers.fill("short", 600, 20).unwrap();
    let relay = Relay::start(servers.dovecot.port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("short", |settings| {
        since_all(settings);
        settings["incoming"]["client_id"] = json!(idp::SHORT);
        settings["incoming"]["port"] = json!(relay.port());
    });
    let mut mail = batch(&handle, &json!({"max_messages": 10, "max_bytes": 100_000})).unwrap();
    let refreshes = servers.idp.refreshes();
    // The token ends; the connection that it opened lives on, until it breaks.
    thread::sleep(Duration::from_millis(idp::SHORT_SECONDS * 1_000 + 200));
    relay.cut_after(0);
    while mail.more {
        match batch(&handle, &json!({})) {
            Ok(next) => mail.extend(next),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Transient, "{error}");
                relay.heal();
            }
        }
    }
    assert!(mail.hashes() == filled(600, 20) && mail.has_no_key_twice() && relay.connections() > 1);
    assert!(servers.idp.refreshes() > refreshes);
    // A token that the server no longer takes, although it looks young, is replaced once.
    servers.idp.revoke_access_tokens(&servers.address("short")).unwrap();
    drop(handle);
    relay.heal();
    let mut settings = servers.incoming_settings("short");
    since_all(&mut settings);
    settings["incoming"]["client_id"] = json!(idp::SHORT);
    // The same server, and so the same mailbox.
    settings["incoming"]["port"] = json!(relay.port());
    let handle = fixture.plugin.open(&settings.to_string()).unwrap();
    assert_eq!(batch(&handle, &json!({"max_messages": 60})).unwrap().messages.len(), 60);
}

#[test]
fn a_server_that_is_down_or_not_trusted_gives_one_sentence_in_time() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    drop(fixture.incoming("down", since_all));
    let open = |change: &dyn Fn(&mut Value)| {
        let mut settings = servers.incoming_settings("down");
        change(&mut settings["incoming"]);
        fixture.plugin.open(&settings.to_string()).unwrap()
    };
    // Bound, and nobody listens.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = failed_in_time(&open(&|form| form["port"] = json!(closed)), 3_000);
    assert_eq!(error.kind(), Kind::Transient, "{error}");
    assert!(error.message().contains(&format!("localhost:{closed}")), "{error}");

    // Accepts, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let error = failed_in_time(&open(&|form| form["port"] = json!(port)), 700);
    assert_eq!(error.kind(), Kind::Transient, "{error}");

    let without = |form: &mut Value| drop(form["advanced"].as_object_mut().unwrap().remove("ca_file"));
    let error = failed_in_time(&open(&without), 3_000);
    assert_eq!(error.kind(), Kind::AdminRequired, "{error}");
    assert!(error.message().contains("certificate of localhost"), "{error}");
    assert!(error.to_json()["remedy"].as_str().unwrap().contains("CA file"), "{error}");

    let missing = fixture.store_dir().join("no-such-ca.pem");
    let mut settings = servers.incoming_settings("down");
    settings["incoming"]["advanced"]["ca_file"] = json!(missing);
    let error = fixture.plugin.open(&settings.to_string()).err().unwrap();
    assert_eq!((error.kind(), error.message().contains("no-such-ca.pem")), (Kind::Settings, true), "{error}");
}

#[test]
fn too_many_connections_are_throttling_and_not_a_bad_token() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let mut handles = vec![fixture.incoming("crowd", since_all)];
    let settings = servers.incoming_settings("crowd").to_string();
    while handles.len() < CONNECTIONS {
        let handle = fixture.plugin.open(&settings).unwrap();
        batch(&handle, &json!({})).unwrap();
        handles.push(handle);
    }
    let one_more = fixture.plugin.open(&settings).unwrap();
    let error = batch(&one_more, &json!({})).err().unwrap();
    assert_eq!(error.kind(), Kind::Throttled, "{error}");
    assert!(error.provider_code_text().unwrap().contains("[LIMIT]"), "{:?}", error.provider_code_text());
    handles.pop().unwrap().close();
    let end = Instant::now() + Duration::from_secs(60);
    while batch(&one_more, &json!({})).is_err() {
        assert!(Instant::now() < end, "the place that became free is not taken");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_connection_that_stands_still_costs_the_deadline_and_no_more() {
    let servers = servers();
    servers.fill("stall", 400, 20).unwrap();
    let relay = Relay::start(servers.dovecot.port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("stall", |settings| {
        since_all(settings);
        settings["incoming"]["port"] = json!(relay.port());
    });
    // While it lists; then in the middle of a message.
    for bytes in [0, 300, 1_000_000] {
        relay.stall_after(bytes);
        let mut mail = Mail { more: true, ..Mail::default() };
        let error = loop {
            let begun = Instant::now();
            match batch(&handle, &json!({"deadline_ms": 1_500, "max_bytes": 300_000})) {
                Ok(next) => mail.extend(next),
                Err(error) => {
                    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
                    break error;
                }
            }
        };
        assert_eq!(error.kind(), Kind::Transient, "{error}");
        relay.heal();
        mail.more = true;
        while mail.more {
            match batch(&handle, &json!({})) {
                Ok(next) => mail.extend(next),
                Err(error) => assert_eq!(error.kind(), Kind::Transient, "{error}"),
            }
        }
        assert_eq!(mail.hashes(), filled(400, 20), "{bytes}");
    }

    // Whoever closes the handle does not wait for the deadline of what runs, nor does what runs.
    relay.stall_after(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| sender.send(batch(&handle, &json!({"deadline_ms": 300_000})).map(drop)));
        thread::sleep(Duration::from_millis(500));
        handle.close();
        let error = receiver.recv_timeout(Duration::from_secs(60)).unwrap().unwrap_err();
        assert!(matches!(error.kind(), Kind::Transient | Kind::Closed), "{error}");
    });
    assert_eq!(batch(&handle, &json!({})).err().unwrap().kind(), Kind::Closed);
}

#[test]
fn a_server_that_dies_and_lines_that_break_lose_nothing_and_double_nothing() {
    let mut servers = Servers::start(Options { users: vec!["alice".into()], ..Options::default() }).unwrap();
    // More than is asked for ahead: otherwise all of it may be under way before anything breaks.
    servers.fill("alice", 400, 40).unwrap();
    let expected = filled(400, 40);
    let relay = Relay::start(servers.dovecot.port).unwrap();
    {
        let fixture = Fixture::new(&servers);
        let handle = fixture.incoming("alice", |settings| {
            since_all(settings);
            settings["incoming"]["port"] = json!(relay.port());
        });
        for cut in [0, 1, 500, 4_000, 40_000, 400_000, 1_500_000] {
            let request = json!({"max_messages": 50, "max_bytes": 1_000_000});
            let mut mail = batch(&handle, &request).unwrap();
            relay.cut_after(cut);
            let mut failures = 0;
            while mail.more {
                match batch(&handle, &request) {
                    Ok(next) => mail.extend(next),
                    Err(error) => {
                        assert_eq!(error.kind(), Kind::Transient, "{error}");
                        failures += 1;
                        relay.heal();
                    }
                }
            }
            relay.heal();
            assert!(mail.hashes() == expected && mail.has_no_key_twice(), "{cut}: {} messages", mail.messages.len());
            assert_eq!(failures, 1, "{cut}");
        }
    }
    // The server itself, while a host reads.
    let store = tempfile::tempdir().unwrap();
    let config = json!({
        "store": format!("sqlite:{}", store.path().join("store.db").display()),
        "key": {"value": fixture::STORE_KEY},
    });
    let plugin = Plugin::new(&config.to_string(), Logger::silent()).unwrap();
    let mut settings = servers.incoming_settings("alice");
    since_all(&mut settings);
    let handle = plugin.open(&settings.to_string()).unwrap();
    fixture::consent(&servers, &handle, "alice").unwrap();
    let mut mail = Mail { more: true, ..Mail::default() };
    let mut failures = 0;
    while mail.more {
        if mail.batches == 2 && failures == 0 {
            servers.dovecot.kill();
        }
        match batch(&handle, &json!({"max_messages": 50, "max_bytes": 1_000_000})) {
            Ok(next) => {
                settle(&handle, next.keys(), "imported").unwrap();
                mail.extend(next);
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Transient, "{error}");
                failures += 1;
                servers.dovecot.restart().unwrap();
            }
        }
    }
    assert_eq!(failures, 1);
    assert!(mail.hashes() == expected && mail.has_no_key_twice());
    assert!(round(&handle, &json!({})).unwrap().messages.is_empty());
}

/// The error of a fetch, which must come by the deadline.
fn failed_in_time(handle: &Handle, deadline_ms: u64) -> oauth_mail_core::Error {
    let begun = Instant::now();
    let error = batch(handle, &json!({"deadline_ms": deadline_ms})).err().expect("the fetch fails");
    assert!(begun.elapsed() < IN_TIME, "{:?}, {error}", begun.elapsed());
    error
}
