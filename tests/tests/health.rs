//! How a mailbox stands, on real servers: each state, what it says, and that the host is called once per change.
#![allow(clippy::unwrap_used)]

use oauth_mail_core::{Kind, hooks::Handle};
use oauth_mail_tests::fixture::{Fixture, Turn, authenticate, consent};
use serde_json::{Value, json};

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

fn health(handle: &Handle) -> Value {
    authenticate(handle, json!({"action": "status"})).unwrap()["health"].take()
}

fn states(changes: &[Value]) -> Vec<&str> {
    changes.iter().map(|change| change["state"].as_str().unwrap_or_default()).collect()
}

fn fetch(handle: &Handle) -> Option<Kind> {
    handle.fetch_batch("{}").err().map(|error| error.kind())
}

/// Told once, however often it shows; and told that it is over.
fn told(fixture: &Fixture<'_>, expected: &[&str]) -> Vec<Value> {
    let changes = fixture.health().take();
    assert_eq!(states(&changes), expected, "{changes:?}");
    changes
}

#[test]
fn a_consent_that_was_taken_back_calls_its_owner_once_and_a_new_one_ends_it() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("alice", |_| ());
    assert_eq!(fetch(&handle), None);
    assert_eq!(health(&handle)["state"], "ok");
    told(&fixture, &[]);

    servers.idp.revoke(&servers.address("alice")).unwrap();
    fixture.clock.advance(HOUR);
    drop(handle);
    let handle = fixture.plugin.open(&servers.incoming_settings("alice").to_string()).unwrap();
    for _ in 0..3 {
        assert_eq!(fetch(&handle), Some(Kind::ConsentRequired));
        assert_eq!(health(&handle)["state"], "consent_needed");
    }
    let [needed] = &told(&fixture, &["consent_needed"])[..] else { unreachable!() };
    assert_eq!(needed["who"], "mailbox owner", "{needed}");
    assert!(needed["why"].is_string() && needed["remedy"].is_string(), "{needed}");
    assert!(needed["provider_code"].as_str().unwrap().starts_with("invalid_grant"), "{needed}");

    consent(&servers, &handle, "alice").unwrap();
    assert_eq!(fetch(&handle), None);
    told(&fixture, &["ok"]);
    authenticate(&handle, json!({"action": "revoke"})).unwrap();
    told(&fixture, &["consent_needed"]);
}

#[test]
fn a_provider_that_asks_to_wait_is_backed_off_from_until_it_answers() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    drop(fixture.incoming("bob", |_| ()));
    let handle = fixture.plugin.open(&servers.incoming_settings("bob").to_string()).unwrap();
    fixture.clock.advance(HOUR);
    servers.idp.fault(json!({"status": 503, "headers": {"retry-after": "90"}, "times": 50})).unwrap();
    let before = fixture.clock.now();
    for _ in 0..3 {
        assert_eq!(fetch(&handle), Some(Kind::Transient));
    }
    let [waiting] = &told(&fixture, &["back_off"])[..] else { unreachable!() };
    let wait = waiting["when"].as_i64().unwrap() - before;
    assert!((90..=100).contains(&wait), "{waiting}");
    servers.idp.reset_faults().unwrap();
    fixture.clock.advance(101);
    assert_eq!(fetch(&handle), None);
    told(&fixture, &["ok"]);
}

#[test]
fn what_cannot_be_renewed_while_it_is_good_degrades_and_a_wrong_secret_names_its_field() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    drop(fixture.incoming("carol", |_| ()));
    // Each its own connection, and so its own login.
    let open = || fixture.plugin.open(&servers.incoming_settings("carol").to_string()).unwrap();
    let handle = open();
    fixture.clock.advance(HOUR - 60);
    servers.idp.fault(json!({"status": 503, "times": 50})).unwrap();
    assert_eq!(fetch(&handle), None, "the token in hand is good for another minute");
    assert_eq!((&health(&handle)["state"], &health(&handle)["what"]), (&json!("degraded"), &json!("renewal")));
    told(&fixture, &["degraded"]);

    servers.idp.reset_faults().unwrap();
    servers.idp.fault(json!({"status": 401, "body": r#"{"error":"invalid_client"}"#, "times": 50})).unwrap();
    fixture.clock.advance(10 * 60);
    assert_eq!(fetch(&open()), Some(Kind::Settings));
    let [wrong] = &told(&fixture, &["misconfigured"])[..] else { unreachable!() };
    assert_eq!(wrong["field"], json!({"pointer": "/incoming/client_secret", "label": "Client Secret"}), "{wrong}");

    servers.idp.reset_faults().unwrap();
    servers.idp.fault(json!({"status": 400, "body": r#"{"error":"unauthorized_client"}"#, "times": 50})).unwrap();
    fixture.clock.advance(10 * 60);
    assert_eq!(fetch(&open()), Some(Kind::AdminRequired));
    let [admin] = &told(&fixture, &["admin_needed"])[..] else { unreachable!() };
    assert!(admin["remedy"].is_string() && admin["who"] != "nobody", "{admin}");
    servers.idp.reset_faults().unwrap();
}

#[test]
fn a_mail_server_that_is_away_degrades_only_when_it_stays_away() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    drop(fixture.incoming("dave", |_| ()));
    let mut elsewhere = servers.incoming_settings("dave");
    // Nobody listens on the port of the discard service here.
    elsewhere["incoming"]["port"] = json!(9);
    let handle = fixture.plugin.open(&elsewhere.to_string()).unwrap();
    for _ in 0..2 {
        assert_eq!(fetch(&handle), Some(Kind::Transient));
    }
    told(&fixture, &[]);
    for _ in 0..2 {
        assert_eq!(fetch(&handle), Some(Kind::Transient));
    }
    let [away] = &told(&fixture, &["degraded"])[..] else { unreachable!() };
    assert_eq!(away["what"], "connection", "{away}");
}

#[test]
fn the_end_of_secret_and_certificate_is_told_days_ahead() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let day = |days: i64| {
        let moment = time::OffsetDateTime::from_unix_timestamp(fixture.clock.now() + days * DAY).unwrap();
        moment.date().to_string()
    };
    let ends = |days: i64| {
        let date = day(days);
        move |settings: &mut Value| settings["incoming"]["advanced"]["client_secret_expires"] = json!(date)
    };
    drop(fixture.incoming("alice", ends(60)));
    told(&fixture, &[]);
    let handle = fixture.incoming("alice", ends(7));
    let [ending] = &told(&fixture, &["expiring"])[..] else { unreachable!() };
    assert_eq!((&ending["what"], &ending["who"]), (&json!("client_secret"), &json!("helpdesk administrator")));
    let days = (ending["when"].as_i64().unwrap() - fixture.clock.now()).div_euclid(DAY);
    assert!((6..=7).contains(&days), "{ending}");
    assert_eq!(fetch(&handle), None, "mail goes on");
    told(&fixture, &[]);
    let status = authenticate(&handle, json!({"action": "status"})).unwrap();
    assert!(status["warnings"][0].as_str().unwrap().contains("client secret ends in"), "{status}");
}
