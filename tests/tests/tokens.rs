//! The life of tokens on a real authorization server: renewed when it is time and not before, saved before they are used,
//! and what happens when somebody takes them away.
//!
//! Time moves by the library's clock; where the mail server must find a token expired, by waiting.

#![allow(clippy::unwrap_used)]

use std::{
    thread,
    time::{Duration, Instant},
};

use oauth_mail_core::{
    Error, Kind,
    hooks::{Handle, Plugin},
    limits,
};
use oauth_mail_tests::{
    Servers,
    fixture::{Fixture, Turn, authenticate, consent},
    idp,
    mailgen::Generator,
    relay::Relay,
};
use serde_json::{Value, json};

const HOUR: i64 = 3_600;
/// Longer than a token of [`idp::SHORT`] lives.
const SHORT_MS: u64 = idp::SHORT_SECONDS * 1_000 + 200;

#[test]
fn a_token_is_used_until_near_its_end() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let settings = servers.incoming_settings("alice");
    let kept = fixture.incoming("alice", |_| ());
    let before = token_requests(&servers);
    for _ in 0..10 {
        kept.fetch_batch("{}").unwrap();
        fetch(&fixture.plugin, &settings).unwrap();
    }
    // Ten minutes before its end it is still good.
    fixture.clock.advance(HOUR - 600);
    fetch(&fixture.plugin_again(), &settings).unwrap();
    assert_eq!(token_requests(&servers), before);
    for lifetime in 1..=3 {
        fixture.clock.advance(HOUR);
        for _ in 0..5 {
            fetch(&fixture.plugin, &settings).unwrap();
        }
        assert_eq!(token_requests(&servers), before + lifetime);
        assert_eq!(status(&kept)["state"], "authorized");
    }
    // An open connection needs no token at all.
    kept.fetch_batch("{}").unwrap();
    assert_eq!(token_requests(&servers), before + 3);
}

#[test]
fn an_expired_token_is_renewed_without_a_person() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("alice", client(idp::SHORT));
    thread::sleep(Duration::from_millis(SHORT_MS));
    end_sessions(&servers, "alice");
    let before = servers.idp.refreshes();
    handle.fetch_batch("{}").unwrap();
    assert_eq!(servers.idp.refreshes(), before + 1);
    assert_eq!(status(&handle)["state"], "authorized");
}

#[test]
fn a_session_outlives_its_token_and_its_connection() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("carol", client(idp::SHORT));
    let generator = Generator::new(7, 2);
    let before = servers.idp.refreshes();
    let mut seen = Vec::new();
    for number in 0..4 {
        servers.deliver("carol", &generator.message(number)).unwrap();
        if number % 2 == 1 {
            thread::sleep(Duration::from_millis(SHORT_MS));
            end_sessions(&servers, "carol");
        }
        let batch = handle.fetch_batch("{}").unwrap();
        let results: Value = batch.messages.iter().map(|message| (message.key.clone(), json!("imported"))).collect();
        seen.extend(batch.messages.into_iter().map(|message| message.key));
        handle.settle_batch(&json!({"results": results}).to_string()).unwrap();
    }
    seen.dedup();
    assert_eq!(seen.len(), 4, "each message once: {seen:?}");
    assert_eq!(servers.idp.refreshes(), before + 2);
}

#[test]
fn a_rotated_token_is_saved_before_the_new_access_token_is_used() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    drop(fixture.incoming("alice", |_| ()));
    let before = servers.idp.refreshes();
    fixture.clock.advance(HOUR);
    // The mail server is never reached: whatever is stored now was stored before it could be used.
    let relay = Relay::start(servers.dovecot.port).unwrap();
    relay.cut_after(0);
    let mut settings = servers.incoming_settings("alice");
    settings["incoming"]["port"] = json!(relay.port());
    let error = fetch(&fixture.plugin, &settings).unwrap_err();
    assert_eq!(error.kind(), Kind::Transient, "{error:?}");
    assert_eq!(servers.idp.refreshes(), before + 1);

    // Another process, or this one after a crash.
    let settings = servers.incoming_settings("alice");
    let again = fixture.plugin_again();
    fetch(&again, &settings).unwrap();
    assert_eq!(servers.idp.refreshes(), before + 1, "the stored access token is the new one");
    for round in 2..=4 {
        fixture.clock.advance(HOUR);
        // The refresh token is rotated each time, by whoever comes: a spent one would end the grant.
        let plugin = if round % 2 == 0 { &again } else { &fixture.plugin };
        fetch(plugin, &settings).unwrap();
        assert_eq!(servers.idp.refreshes(), before + round);
    }
}

#[test]
fn a_token_that_is_not_rotated_or_left_out_stays() {
    let servers = Turn::wait();
    for client_id in [idp::OMITS_REFRESH, idp::NO_ROTATION] {
        let settings = with(servers.incoming_settings("alice"), client(client_id));
        let fixture = Fixture::new(&servers);
        consent(&servers, &open(&fixture.plugin, &settings), "alice").unwrap();
        let before = servers.idp.refreshes();
        for round in 1..=3 {
            fixture.clock.advance(HOUR);
            fetch(&fixture.plugin_again(), &settings).unwrap();
            assert_eq!(servers.idp.refreshes(), before + round, "{client_id}");
        }
        // The answer is lost on its way: nothing is, with a provider that does not rotate.
        fixture.clock.advance(HOUR);
        servers.idp.fault(json!({"lose": true})).unwrap();
        let error = fetch(&fixture.plugin, &settings).unwrap_err();
        assert_eq!(error.kind(), Kind::Transient, "{client_id}: {error:?}");
        fixture.clock.advance(10);
        fetch(&fixture.plugin, &settings).unwrap();
    }
}

#[test]
fn many_threads_of_many_handles_and_plugins_make_one_refresh() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let settings = servers.incoming_settings("alice");
    drop(fixture.incoming("alice", |_| ()));
    let again = fixture.plugin_again();
    for round in 1..=2 {
        fixture.clock.advance(HOUR);
        let before = token_requests(&servers);
        let handles: Vec<_> =
            (0..10).map(|n| open(if n % 2 == 0 { &fixture.plugin } else { &again }, &settings)).collect();
        thread::scope(|scope| {
            for number in 0..50 {
                let handle = &handles[number % handles.len()];
                scope.spawn(move || handle.fetch_batch("{}").map(drop).unwrap());
            }
        });
        assert_eq!(token_requests(&servers), before + 1, "round {round}");
    }
}

#[test]
fn a_token_that_the_provider_withdrew_is_replaced_once() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let (alice, settings) = (servers.address("alice"), servers.incoming_settings("alice"));
    let handle = fixture.incoming("alice", |_| ());
    let outgoing = open(&fixture.plugin, &servers.outgoing_settings("alice"));
    let before = token_requests(&servers);

    // During a session: the connection ends, and the token no longer opens a new one.
    servers.idp.revoke_access_tokens(&alice).unwrap();
    end_sessions(&servers, "alice");
    handle.fetch_batch("{}").unwrap();
    assert_eq!(token_requests(&servers), before + 1);
    // What one handle found out helps the others.
    fetch(&fixture.plugin, &settings).unwrap();
    assert_eq!(token_requests(&servers), before + 1);

    // Between sessions, and the first to notice sends.
    servers.idp.revoke_access_tokens(&alice).unwrap();
    let request = json!({"to": [servers.address("bob")], "subject": "Withdrawn", "text": "Still here."});
    let sent: Value = serde_json::from_str(&outgoing.send_message(&request.to_string(), b"").unwrap()).unwrap();
    assert_eq!(sent["outcome"], "sent", "{sent}");
    assert_eq!(token_requests(&servers), before + 2);
    fetch(&fixture.plugin_again(), &settings).unwrap();
    assert_eq!(token_requests(&servers), before + 2);
}

#[test]
fn a_login_that_stays_refused_does_not_hammer_the_provider() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    // Consent that Dovecot accepted; from then on the settings name a mailbox that the person may not open.
    drop(fixture.incoming("alice", |_| ()));
    let mut settings = servers.incoming_settings("bob");
    settings["incoming"]["advanced"]["consenting_user"] = json!(servers.address("alice"));
    let handle = open(&fixture.plugin, &settings);
    let before = token_requests(&servers);
    for _ in 0..limits::REFRESH_FORCED_PER_HOUR + 3 {
        let error = handle.fetch_batch("{}").err().unwrap();
        assert_eq!(error.kind(), Kind::Refused, "{error:?}");
        assert!(!error.to_json()["remedy"].is_null(), "{error:?}");
    }
    let asked = token_requests(&servers) - before;
    assert_eq!(asked, limits::REFRESH_FORCED_PER_HOUR, "then the server's refusal stands");
    assert_eq!(status(&handle)["state"], "authorized");
    fetch(&fixture.plugin, &servers.incoming_settings("alice")).unwrap();
}

#[test]
fn a_grant_that_the_person_ended_asks_for_consent_and_leaves_the_provider_alone() {
    let servers = Turn::wait();
    let (alice, settings) = (servers.address("alice"), servers.incoming_settings("alice"));
    for everything in [true, false] {
        let fixture = Fixture::new(&servers);
        let begun_at = fixture.clock.now();
        let handle = fixture.incoming("alice", |_| ());
        if everything {
            servers.idp.revoke(&alice).unwrap();
        } else {
            // An open session goes on until it needs a new access token.
            servers.idp.revoke_refresh_tokens(&alice).unwrap();
            handle.fetch_batch("{}").unwrap();
            fixture.clock.advance(HOUR);
        }
        end_sessions(&servers, "alice");
        let before = token_requests(&servers);
        for round in 0..20 {
            let result = if round % 4 == 0 { fetch(&fixture.plugin_again(), &settings) } else { fetched(&handle) };
            let error = result.unwrap_err();
            assert_eq!(error.kind(), Kind::ConsentRequired, "{error:?}");
            assert!(error.provider_code_text().unwrap().starts_with("invalid_grant"), "{error}");
            fixture.clock.advance(60);
        }
        assert_eq!(token_requests(&servers), before + 1, "asked once, then never again");
        let status = status(&handle);
        assert_eq!(status["state"], "consent_required");
        assert!(status["reason"]["message"].as_str().unwrap().contains("no longer accepts"), "{status}");
        assert!(status["reason"]["remedy"].as_str().unwrap().contains("consent"), "{status}");
        // A person mends it, in the same handle. (An ID token of the real time is read by a clock of the same.)
        fixture.clock.advance(begun_at - fixture.clock.now());
        assert_eq!(consent(&servers, &handle, "alice").unwrap()["state"], "authorized");
        handle.fetch_batch("{}").unwrap();
    }
}

#[test]
fn a_token_endpoint_that_is_unwell_never_costs_the_consent() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let settings = servers.incoming_settings("alice");
    let handle = fixture.incoming("alice", |_| ());
    let html = "<html><title>502 Bad Gateway</title></html>";
    let cases = [
        ("500", json!({"status": 500}), Kind::Transient),
        ("503", json!({"status": 503, "headers": {"retry-after": "30"}}), Kind::Transient),
        ("429", json!({"status": 429, "headers": {"retry-after": "30"}, "body": "{}"}), Kind::Throttled),
        ("HTML", json!({"status": 502, "headers": {"content-type": "text/html"}, "body": html}), Kind::Transient),
        // A portal answers in the provider's place: no token, and no word about the grant.
        (
            "portal",
            json!({"status": 200, "headers": {"content-type": "text/html"}, "body": html}),
            Kind::ServerMisbehaved,
        ),
        ("invalid_grant in a 500", json!({"status": 500, "body": r#"{"error":"invalid_grant"}"#}), Kind::Transient),
        ("408", json!({"status": 408}), Kind::Transient),
        ("dropped", json!({"drop": true}), Kind::Transient),
        ("slow", json!({"status": 503, "delay_ms": 30_000}), Kind::Transient),
    ];
    for (name, mut fault, kind) in cases {
        fixture.clock.advance(HOUR);
        fault["times"] = json!(50);
        servers.idp.fault(fault).unwrap();
        end_sessions(&servers, "alice");
        let begun = Instant::now();
        let deadline_ms = if name == "slow" { 2_000 } else { 20_000 };
        let error = handle.fetch_batch(&json!({"deadline_ms": deadline_ms}).to_string()).err().unwrap();
        assert_eq!(error.kind(), kind, "{name}: {error:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{name}: {:?}", begun.elapsed());
        assert_eq!(status(&handle)["state"], "authorized", "{name}");
        let retry_after = error.to_json()["retry_after_seconds"].as_u64();
        if ["429", "503"].contains(&name) {
            assert_eq!(retry_after, Some(30), "{name}: {error:?}");
        }
        // In the pause, of a second at least, the answer comes at once, and the provider is left alone.
        let (asked, begun) = (servers.idp.requests().len(), Instant::now());
        for _ in 0..10 {
            let error = fetch(&fixture.plugin, &settings).unwrap_err();
            assert_eq!(error.kind(), kind, "{name}: {error:?}");
        }
        let more = servers.idp.requests().len() - asked;
        assert!(more as u64 <= begun.elapsed().as_secs(), "{name}: {more}");

        servers.idp.reset_faults().unwrap();
        let refreshes = servers.idp.refreshes();
        fixture.clock.advance(31);
        handle.fetch_batch("{}").unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(servers.idp.refreshes(), refreshes + 1, "{name}");
        assert_eq!(status(&handle)["warnings"], json!([]), "{name}");
    }
}

#[test]
fn near_its_end_a_token_serves_on_when_it_cannot_be_renewed() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let settings = servers.incoming_settings("alice");
    drop(fixture.incoming("alice", |_| ()));
    fixture.clock.advance(HOUR - 60);
    servers.idp.fault(json!({"status": 503, "times": 50})).unwrap();
    let handle = open(&fixture.plugin, &settings);
    handle.fetch_batch("{}").unwrap();
    let status = status(&handle);
    assert_eq!(status["state"], "authorized");
    assert!(status["warnings"].to_string().contains("renewal failed"), "{status}");
}

#[test]
fn revoking_ends_the_tokens_at_the_provider_and_here() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("dave", |_| ());
    let answer = revoke(&handle);
    assert_eq!((&answer["state"], &answer["at_provider"]), (&json!("revoked"), &json!(true)), "{answer}");
    let last = servers.idp.requests().into_iter().rfind(|request| request.path == "/token/revocation").unwrap();
    assert_eq!(last.status, 200);
    for handle in [&handle, &open(&fixture.plugin_again(), &servers.incoming_settings("dave"))] {
        assert_eq!(status(handle)["state"], "consent_required");
        assert_eq!(fetched(handle).unwrap_err().kind(), Kind::ConsentRequired);
    }
    // A second time there is nothing to do, and no harm.
    assert_eq!(revoke(&handle)["state"], "revoked");
    assert_eq!(consent(&servers, &handle, "dave").unwrap()["state"], "authorized");
    handle.fetch_batch("{}").unwrap();
}

#[test]
fn revoking_with_the_provider_down_still_removes_what_is_here_and_says_what_is_left() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let faults = [json!({"drop": true}), json!({"status": 503}), json!({"status": 400, "body": "no"})];
    for mut fault in faults {
        let handle = fixture.incoming("dave", |_| ());
        fault["path"] = json!("/token/revocation");
        fault["times"] = json!(50);
        servers.idp.fault(fault.clone()).unwrap();
        let answer = revoke(&handle);
        servers.idp.reset_faults().unwrap();
        assert_eq!((&answer["state"], &answer["at_provider"]), (&json!("revoked"), &json!(false)), "{fault}: {answer}");
        assert!(answer["note"].as_str().is_some_and(|note| note.len() > 20), "{fault}: {answer}");
        assert_eq!(status(&handle)["state"], "consent_required");
        assert_eq!(fetched(&handle).unwrap_err().kind(), Kind::ConsentRequired);
    }
}

fn client(client_id: &'static str) -> impl FnOnce(&mut Value) {
    move |settings| settings["incoming"]["client_id"] = json!(client_id)
}

fn with(mut settings: Value, change: impl FnOnce(&mut Value)) -> Value {
    change(&mut settings);
    settings
}

fn open(plugin: &Plugin, settings: &Value) -> Handle {
    plugin.open(&settings.to_string()).unwrap()
}

/// One fetch over a connection of its own: what needs a token.
fn fetch(plugin: &Plugin, settings: &Value) -> Result<(), Error> {
    fetched(&open(plugin, settings))
}

fn fetched(handle: &Handle) -> Result<(), Error> {
    handle.fetch_batch("{}").map(drop)
}

fn status(handle: &Handle) -> Value {
    authenticate(handle, json!({"action": "status"})).unwrap()
}

fn revoke(handle: &Handle) -> Value {
    authenticate(handle, json!({"action": "revoke"})).unwrap()
}

/// As an administrator does: every IMAP connection of somebody ends, and is over when this returns.
fn end_sessions(servers: &Servers, name: &str) {
    let address = servers.address(name);
    let end = Instant::now() + Duration::from_secs(60);
    // Dovecot answers before the connection has ended, and with an error when there is none.
    while servers.doveadm(&["who", "-1", &address]).is_ok_and(|who| who.lines().any(|line| line.contains(&address))) {
        assert!(Instant::now() < end, "the connections of {address} do not end");
        let _ = servers.doveadm(&["kick", &address]);
        thread::sleep(Duration::from_millis(20));
    }
}

/// Requests for a renewal, whatever became of them.
fn token_requests(servers: &Servers) -> usize {
    let is_refresh = |request: &&idp::Request| request.grant_type.as_deref() == Some("refresh_token");
    servers.idp.requests().iter().filter(is_refresh).count()
}
