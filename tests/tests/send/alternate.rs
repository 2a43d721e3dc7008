//! The alternate server: used while nothing was accepted, not when the first one said no.

use std::net::TcpListener;

use oauth_mail_core::hooks::Handle;
use oauth_mail_tests::{fixture::Fixture, relay::Relay};
use serde_json::{Value, json};

use super::{send, servers, text_to};

const SINK: &str = "sink@example.test";

#[test]
fn it_is_used_when_the_first_is_down_hangs_or_breaks() {
    let servers = servers();
    let first = Relay::start(servers.postfix.smtps_port).unwrap();
    let second = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", settings(first.port(), second.port()));
    assert_eq!(sent(&handle)["server"], "localhost");
    assert_eq!((first.connections(), second.connections()), (1, 0));

    first.cut_after(0);
    first.break_all();
    assert_eq!(sent(&handle)["server"], "127.0.0.1", "the first breaks before its greeting");
    // The session that stands is used; only a new one asks the first server again.
    first.heal();
    let tried = first.connections();
    sent(&handle);
    assert_eq!((first.connections(), second.connections()), (tried, 1));
    second.break_all();
    assert_eq!(sent(&handle)["server"], "localhost");

    first.break_all();
    drop(first);
    assert_eq!(sent(&handle)["server"], "127.0.0.1", "nobody listens at the first");
    second.break_all();
    second.cut_after(0);
    let both = send(&handle, &text_to(SINK, "both are down"));
    assert_eq!((&both["outcome"], &both["error"]["kind"]), (&json!("retry"), &json!("transient")), "{both}");
}

#[test]
fn a_first_server_that_says_nothing_leaves_time_for_the_second() {
    let servers = servers();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let fixture = Fixture::new(&servers);
    // Consent through the alternate too: no server but the second ever answers.
    let handle = {
        let mut all = servers.outgoing_settings("alice");
        settings(silent.local_addr().unwrap().port(), servers.postfix.smtps_port)(&mut all);
        fixture.plugin.open(&all.to_string()).unwrap()
    };
    let redirect = oauth_mail_tests::fixture::redirect(&servers, &handle, "alice").unwrap();
    let request = json!({"action": "complete", "redirect": redirect.as_str(), "deadline_ms": 16_000});
    let proven = oauth_mail_tests::fixture::authenticate(&handle, request).unwrap();
    assert_eq!(proven["proof"]["port"], servers.postfix.smtps_port, "{proven}");
    assert_eq!(sent(&handle)["server"], "127.0.0.1");
}

#[test]
fn it_is_not_asked_when_the_first_refused_the_login() {
    let servers = servers();
    let first = Relay::start(servers.postfix.smtps_port).unwrap();
    let second = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", settings(first.port(), second.port()));
    servers.idp.revoke(&servers.address("alice")).unwrap();
    first.break_all();
    let error = handle.send_message(&text_to(SINK, "x").to_string(), &[]).unwrap_err();
    assert_eq!(error.kind().name(), "consent_required", "{error}");
    assert_eq!(second.connections(), 0);
}

fn settings(first_port: u16, second_port: u16) -> impl FnOnce(&mut Value) {
    move |settings| {
        let form = &mut settings["outgoing"];
        form["port"] = json!(first_port);
        form["alternate_server_name"] = json!("127.0.0.1");
        form["advanced"]["alternate_port"] = json!(second_port);
    }
}

fn sent(handle: &Handle) -> Value {
    let answer = send(handle, &text_to(SINK, "x"));
    assert_eq!(answer["outcome"], "sent", "{answer}");
    answer
}
